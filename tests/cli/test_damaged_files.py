"""Files with any content are read, or refused with their name: never a traceback."""

import io
import struct
import zipfile

import numpy as np
import pytest

from skcalib.cli._csv import CsvTable
from skcalib.cli._errors import UNUSABLE, DataError
from skcalib.cli._readers import read_rows
from skcalib.cli._rows import Request

N_FILES = 2000
ROWS = 12


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def header(text, n_bytes=0):
    """An .npy file whose header says `text`, with so many bytes behind it."""
    text = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(n_bytes)


def described(shape, dtype="<f8"):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


def good_files():
    """Small files of each kind, by ending."""
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(ROWS, 3)), np.arange(ROWS) % 3
    names = np.array(["cat", "dog", "owl"])[y]
    lines = [
        f"{','.join(map(str, row))},{name}"
        for row, name in zip(logits, names, strict=True)
    ]
    table = "\n".join(["cat,owl,dog,label", *lines])
    files = [
        (".npy", npy(logits)),
        (".npz", npz(logits=logits, y=y)),
        (".npz", archive({"logits.npy": npy(logits), "y.npy": npy(names)})),
        (".csv", table.encode()),
        (".csv", b'"a ""1""",b,y\r\n1.5,2e3,0\r\n-1,0.25,1.0\r\n'),
    ]
    try:
        from pyarrow import BufferOutputStream, parquet
        from pyarrow import table as arrow_table
    except ImportError:
        return files
    stream = BufferOutputStream()
    columns = dict(zip("abc", logits.T, strict=True))
    parquet.write_table(arrow_table({**columns, "y": y}), stream)
    return [*files, (".parquet", stream.getvalue().to_pybytes())]


def damage(content, rng):
    """Flip, overwrite, cut out, repeat or insert bytes, once or a few times."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(content) + 1))
        n = int(rng.geometric(0.2))
        kind = rng.integers(6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at : at + n] = rng.bytes(len(content[at : at + n]))
        elif kind == 2:
            del content[at : at + n]
        elif kind == 3:
            content[at:at] = content[at : at + n]
        elif kind == 4:
            content[at:at] = rng.choice([b"\0", b"\xff", b"9", b"-", b'"', b"\n"]) * n
        else:
            del content[at:]
    return bytes(content)


def read_or_refuse(path):
    """Read a file in both of its roles; return whether the first was read."""
    was_read = []
    for role in ("logits", "labels"):
        try:
            rows = read_rows(path, Request(role))
        except DataError as error:
            assert path.name in str(error)  # noqa: PT017
            was_read.append(False)
        else:
            assert np.asarray(rows.values).shape[:1] == rows.values.shape[:1]
            was_read.append(True)
    return was_read[0]


def test_damaged_files_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    files = good_files()
    n_read = 0
    for i in range(N_FILES):
        ending, content = files[i % len(files)]
        path = tmp_path / f"file{i}{ending}"
        path.write_bytes(damage(content, rng))
        n_read += read_or_refuse(path)
        path.unlink()
    # The test bites: damage is mostly noticed, and does not stop all reading.
    assert 0.05 * N_FILES < n_read < 0.6 * N_FILES


def test_good_files_are_read(tmp_path):
    for i, (ending, content) in enumerate(good_files()):
        path = tmp_path / f"file{i}{ending}"
        path.write_bytes(content)
        assert read_or_refuse(path)


def encrypted():
    content = bytearray(archive({"logits.npy": npy(np.eye(3))}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    return bytes(content)


def compressed_by(method):
    content = bytearray(archive({"logits.npy": npy(np.eye(3))}))
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = content.index(signature) + place
        content[start : start + 2] = struct.pack("<H", method)
    return bytes(content)


def flipped():
    content = bytearray(npz(logits=np.random.default_rng(0).normal(size=(50, 3))))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


CLAIM = header(described((10**6, 10**6)))


@pytest.mark.parametrize(
    ("ending", "content", "reason"),
    [
        (".npz", flipped(), "cannot be read: (Error|Bad CRC)"),
        (".npz", encrypted(), "encrypted"),
        (".npz", compressed_by(99), "compression"),
        (".npz", archive({"logits.npy": b"no array"}), "not a NumPy file"),
        (".npz", archive({"logits.npy": CLAIM}), "claims an array of float64"),
        (".npz", archive({"notes.txt": b"text"}), "no array .* holds none"),
        (".npy", CLAIM, r"claims an array of float64, shape \(1000000, 1000000\)"),
        (".npy", header(described((-1, 3)), 99), "claims an array"),
        (".npy", header(described((10**30, 3)), 99), "claims an array"),
        (".npy", header("{'descr': ("), "cannot be read"),
        (".npy", header("(" * 3000), "cannot be read"),
        (".npy", header(described((3,), "|O"), 99), "never unpickled"),
        (".npz", npz(logits=np.eye(2), y=np.array([b"a", b"\xff"])), "utf-8"),
        (".csv", b"a" * 200_000 + b",b\n1,2\n", "field larger than field limit"),
        (".csv", b"\x93\xff,b\n1,2\n", "utf-8"),
        (".csv", "a,b\n1,2\n".encode("utf-16"), "has to be saved"),
        (".csv", b"a,b\n1,\n", "misses 1 values of 'b', the first in row 0, counted"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, ending, content, reason):
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"file\{ending}.*{reason}"):
        read_rows(path, Request("logits"))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_labels_that_are_python_objects_are_no_damage(tmp_path, ending):
    path = tmp_path / f"file{ending}"
    save = np.savez if ending == ".npz" else np.save
    save(path, np.array(["cat", "dog"] * 500, dtype=object))
    with pytest.raises(DataError, match=r"never unpickled.*labels\.astype\(str\)"):
        read_rows(path, Request("labels"))


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = tmp_path / "file.npz"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("logits.npy", npy(np.eye(3)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("logits.npy", npy(-np.eye(3)))
    with pytest.raises(DataError, match="uses a name more than once: logits"):
        read_rows(path, Request("logits"))


def test_arrays_larger_than_memory_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    path.write_bytes(npz(logits=np.ones((1000, 10))))
    monkeypatch.setattr("skcalib.cli._readers.free_memory", lambda: 100)
    with pytest.raises(DataError, match=r"too\s+many to read\. Save .* as \.npy"):
        read_rows(path, Request("logits"))


def test_labels_larger_than_memory_are_refused_unread(tmp_path, monkeypatch):
    content = dict(good_files()).get(".parquet")
    if content is None:
        pytest.skip("needs pyarrow")
    path = tmp_path / "file.parquet"
    path.write_bytes(content)
    monkeypatch.setattr("skcalib.cli._readers.free_memory", lambda: 10)
    with pytest.raises(DataError, match="too many to read labels of"):
        read_rows(path, Request("logits"))


def test_a_file_that_unpacks_without_end_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    path.write_bytes(npz(logits=np.zeros((100_000, 10))))
    assert read_rows(path, Request("logits")).values.shape == (100_000, 10)
    monkeypatch.setattr("skcalib.cli._readers.LARGE", 1000)
    with pytest.raises(DataError, match=r"unpacks from .* bytes, too many"):
        read_rows(path, Request("logits"))


@pytest.mark.parametrize(
    ("header", "row", "n_cells"),
    [
        ('"a","b","label"', '"1",0.5,1.5,"a"', 4),  # write.table of R
        ("a,b,label", "0,5,1,5,a", 5),
        ("a,b,label", "0.5,1.5,a, or b", 4),
    ],
)
def test_a_line_of_more_cells_than_columns_is_refused(
    refused, tmp_path, header, row, n_cells
):
    (tmp_path / "t.csv").write_text(f"{header}\n0.1,0.2,a\n{row}\n")
    message = refused(UNUSABLE, "evaluate", "--logits", "t.csv")
    assert f"Line 3 of t.csv has {n_cells} cells, and the first line 3" in message


def test_commas_between_quotes_are_no_cells_of_their_own(tmp_path):
    text = 'a,"b\n,,,",label\n0.1,0.2,"x,\ny,,,,z"\n\n0.3,0.4,b\n'
    (tmp_path / "t.csv").write_text(text)
    rows = CsvTable(tmp_path / "t.csv", Request("logits", None, None)).matrix(["a"])
    assert rows.tolist() == [[0.1], [0.3]]
