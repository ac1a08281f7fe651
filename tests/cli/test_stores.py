"""HDF5, Zarr and Parquet files: read like others, or where they are if large."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.special import log_softmax, softmax

from skcalib.cli._errors import DataError
from skcalib.cli._readers import read_labels, read_rows
from skcalib.cli._rows import Request
from skcalib.datasets import make_logits


def as_hdf5(path, arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            text = array.dtype.kind == "U"
            file[name] = array.astype(object) if text else array


def as_zarr(path, arrays):
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(path)
    for name, array in arrays.items():
        group.create_array(name, data=array)


def as_parquet(path, arrays):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame()
    for name, array in arrays.items():
        if array.ndim == 1:
            frame[name] = array
        else:
            for k, column in enumerate(array.T):
                frame[f"{name}{k}"] = column
    frame.to_parquet(path, row_group_size=70)


WRITERS = {"a.h5": as_hdf5, "a.zarr": as_zarr, "a.parquet": as_parquet}


@pytest.fixture(params=WRITERS)
def stored(request, tmp_path):
    """Write arrays into a file of each kind and return its path."""

    def write(**arrays):
        WRITERS[request.param](tmp_path / request.param, arrays)
        return tmp_path / request.param

    return write


@pytest.fixture
def no_memory(monkeypatch):
    """So little memory that all is large."""
    pytest.importorskip("typer")
    monkeypatch.setattr("skcalib.cli._rows.free_memory", lambda: 4000)


def draw(n_rows=400):
    return make_logits(n_rows, 3, random_state=0, dtype=np.float32)


def test_values_and_labels_are_found(stored):
    logits, y = draw()
    rows = read_rows(stored(logits=logits, y=y), Request("logits"))
    assert_array_equal(rows.values, logits)
    assert_array_equal(rows.labels, y)
    assert isinstance(rows.values, np.ndarray)


@pytest.mark.filterwarnings("ignore:The data type:FutureWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_labels_may_be_names(stored):
    logits, y = draw()
    names = np.array(["ant", "bee", "cat"])[y]
    rows = read_rows(stored(logits=logits, label=names), Request("logits"))
    assert_array_equal(rows.labels, names)
    assert rows.labels.dtype.kind == "U"


@pytest.mark.filterwarnings("ignore:The data type:FutureWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_labels_that_are_whole_numbers_in_text_are_integers(stored):
    logits, y = draw()
    path = stored(logits=logits, label=(y + 9).astype(str))
    assert_array_equal(read_rows(path, Request("logits")).labels, y + 9)


def test_both_endings_of_hdf5_are_known(tmp_path):
    logits, y = draw()
    as_hdf5(tmp_path / "a.hdf5", {"logits": logits, "y": y})
    assert_array_equal(read_rows(tmp_path / "a.hdf5", Request("logits")).labels, y)


def test_a_key_goes_before_usual_names(tmp_path):
    logits, y = draw()
    as_hdf5(tmp_path / "a.h5", {"logits": logits, "val/other": -logits, "y": y})
    rows = read_rows(tmp_path / "a.h5", Request("logits", "val/other"))
    assert_array_equal(rows.values, -logits)
    with pytest.raises(DataError, match=r"no 'other' for .* logits, val/other, y"):
        read_rows(tmp_path / "a.h5", Request("logits", "other"))


def test_what_is_there_is_listed(tmp_path):
    logits, _ = draw()
    as_hdf5(tmp_path / "a.h5", {"one": logits, "two": logits})
    with pytest.raises(DataError, match=r"one \(float32, shape \(400, 3\)\), two"):
        read_rows(tmp_path / "a.h5", Request("logits"))


def test_a_single_zarr_array_needs_no_name(tmp_path):
    zarr = pytest.importorskip("zarr")
    logits, y = draw()
    zarr.create_array(tmp_path / "z.zarr", data=logits)
    zarr.create_array(tmp_path / "y.zarr", data=y)
    assert_array_equal(read_rows(tmp_path / "z.zarr", Request("logits")).values, logits)
    assert_array_equal(read_labels(tmp_path / "y.zarr", None), y)


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_broken_and_missing_files_are_named(tmp_path, name):
    pytest.importorskip("zarr" if name.endswith("zarr") else "h5py")
    with pytest.raises(DataError, match=f"There is no file .*{name}"):
        read_rows(tmp_path / name, Request("logits"))
    if name == "a.zarr":
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text("no json")
    else:
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 90)
    with pytest.raises(DataError, match=name):
        read_rows(tmp_path / name, Request("logits"))


class Payload:
    def __reduce__(self):
        return print, ("code from the file has run",)


@pytest.mark.parametrize("part", ["compressor", "filters"])
def test_pickled_chunks_of_zarr_are_refused_unread(tmp_path, capsys, part):
    pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    path.mkdir()
    pickled = {"id": "pickle", "protocol": 2}
    about = {
        "zarr_format": 2,
        "shape": [2, 2],
        "chunks": [2, 2],
        "dtype": "<f8",
        "fill_value": 0,
        "order": "C",
        "compressor": pickled if part == "compressor" else None,
        "filters": [{"id": "zlib", "level": 1}, pickled] if part == "filters" else None,
    }
    (path / ".zarray").write_text(json.dumps(about))
    (path / "0.0").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match=r"pickle"):
        read_rows(path, Request("logits"))
    assert capsys.readouterr().out == ""


def test_large_files_are_evaluated_where_they_are(skcalib, stored, no_memory, refused):
    logits, y = draw()
    path = stored(logits=logits, y=y)
    np.savez("small.npz", logits=logits, y=y)
    again = ("--n-bootstrap", 0, "--json")
    result = skcalib("evaluate", "--logits", path, *again).json["metrics"]
    expected = skcalib("evaluate", "--logits", "small.npz", *again).json["metrics"]
    for name, estimate in expected.items():
        assert result[name]["value"] == pytest.approx(estimate["value"], abs=1e-6), name
    message = refused(2, "evaluate", "--logits", path)
    assert "more than the memory holds" in message
    assert "--n-bootstrap 0" in message


def test_large_probabilities_are_evaluated_where_they_are(skcalib, stored, no_memory):
    logits, y = draw()
    path = stored(proba=softmax(logits, axis=1), y=y)
    again = ("--n-bootstrap", 0, "--json")
    key = (
        []
        if path.suffix != ".parquet"
        else ["--probabilities-key", "proba0,proba1,proba2"]
    )
    result = skcalib("evaluate", "--probabilities", path, *key, *again).json["metrics"]
    np.savez("small.npz", logits=logits, y=y)
    expected = skcalib("evaluate", "--logits", "small.npz", *again).json["metrics"]
    assert result["ece"]["value"] == pytest.approx(expected["ece"]["value"], abs=1e-6)


def check_large(skcalib, refused, logits, *source):
    """Fit, apply and evaluate rows that stay in their file."""
    calibrate = ("calibrate", *source, "-m", "temperature", "--save", "t.json")
    assert "--test-fraction 0.05" in refused(2, *calibrate)
    held_out = (*calibrate, "--n-bootstrap", 0, "--json", "--test-fraction")
    assert "Hold out fewer" in refused(2, *held_out, 0.5)
    fitted = skcalib(*held_out, 0.01)
    assert fitted.code == 0, fitted.err
    assert fitted.json["judged_on"] == "40 samples held out"
    for name in ("p.npy", "p.csv"):
        values = source[:2]
        applied = skcalib("apply", "--calibrator", "t.json", *values, "-o", name)
        assert applied.code == 0, applied.err
    proba = np.load("p.npy")
    assert proba.dtype == np.float32
    learned = json.loads(Path("t.json").read_text())["calibrator"]["learned"]
    expected = log_softmax(logits / learned["temperature_"], axis=1)
    np.testing.assert_allclose(np.log(proba), expected, atol=1e-5)
    table = np.loadtxt("p.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, proba, rtol=1e-6)
    evaluate = ("evaluate", *source, "--calibrator", "t.json", "--n-bootstrap", 0)
    assert skcalib(*evaluate, "--json").json["metrics"]["ece"]["value"] < 0.05


def test_a_calibrator_is_fitted_and_applied_where_rows_are(
    skcalib, stored, no_memory, refused
):
    logits, y = draw(4000)
    check_large(skcalib, refused, logits, "--logits", stored(logits=logits, y=y))


def test_so_it_is_where_they_are_in_a_mapped_file(skcalib, no_memory, refused):
    logits, y = draw(4000)
    np.save("logits.npy", logits)
    np.save("y.npy", y)
    source = ("--logits", "logits.npy", "--labels", "y.npy")
    check_large(skcalib, refused, logits, *source)


@pytest.mark.parametrize("method", ["auto", "venn-abers", "spline", "dirichlet"])
def test_a_method_that_would_read_all_rows_is_refused(
    skcalib, stored, no_memory, refused, method
):
    logits, y = draw()
    path = stored(logits=logits, y=y)
    option = () if method == "auto" else ("--method", method)
    fit = ("calibrate", "--logits", path, "--save", "c.json", "--test-fraction", 0.1)
    message = refused(2, *fit, *option)
    assert f"and the method {method} needs all of them there" in message
    assert "where they are: temperature, temperature-focal, " in message
    assert not {method, "matrix"} & set(message.split(": ")[-1].strip(".").split(", "))


def test_methods_are_not_compared_on_large_files(skcalib, stored, no_memory, refused):
    logits, y = draw()
    message = refused(2, "compare", "--logits", stored(logits=logits, y=y))
    assert "compared on copies" in message


def as_feather(path, table):
    pytest.importorskip("pyarrow.feather").write_feather(table, path)


def as_dataset(path, table):
    """What `save_to_disk` writes: a state, and streams of record batches."""
    pyarrow = pytest.importorskip("pyarrow")
    path.mkdir()
    names = [f"data-0000{k}-of-00002.arrow" for k in range(2)]
    half = len(table) // 2
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        with pyarrow.ipc.new_stream(path / name, table.schema) as stream:
            stream.write_table(part)
    files = [{"filename": name} for name in names]
    (path / "state.json").write_text(json.dumps({"_data_files": files}))


@pytest.mark.parametrize(
    ("name", "write"), [("a.feather", as_feather), ("saved", as_dataset)]
)
def test_tables_of_arrow_are_read_like_parquet(name, write, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    X, y = make_logits(50, 3, random_state=0, dtype=np.float32)
    columns = {"logits": X.tolist(), "label": [f"class {k}" for k in y]}
    kinds = {"logits": pyarrow.list_(pyarrow.float32()), "label": pyarrow.string()}
    write(tmp_path / name, pyarrow.table(columns, pyarrow.schema(kinds)))
    rows = read_rows(tmp_path / name, Request("logits"))
    assert_array_equal(rows.values, X)
    assert_array_equal(rows.labels, columns["label"])


def test_a_data_set_names_no_file_of_another_folder(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    as_dataset(tmp_path / "other", pyarrow.table({"logits": [1.0, 2.0]}))
    (tmp_path / "saved").mkdir()
    files = [{"filename": "../other/data-00000-of-00002.arrow"}]
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": files}))
    with pytest.raises(DataError, match="saved cannot be read"):
        read_rows(tmp_path / "saved", Request("logits"))
