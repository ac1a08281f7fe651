"""Arrays and labels out of files of arrays and of tables.

Reading never runs code from a file: NumPy files that hold Python objects are refused.
"""

import codecs
import io
import json
import math
import sys
import warnings
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import ParquetRows, free_memory, open_source
from skcalib._networks._named import NamedRows
from skcalib._optional import import_optional
from skcalib.cli._csv import CsvTable
from skcalib.cli._errors import DataError
from skcalib.cli._rows import (
    OF_A_ROW,
    STANDARD_INPUT,
    Reader,
    Request,
    Role,
    Rows,
    check_names,
    find_name,
    in_memory,
    integers,
    is_dataset,
    refuse_missing,
    stays_in_file,
    take,
    whole_numbers,
)
from skcalib.cli._stores import (
    read_hdf5,
    read_safetensors,
    read_torch,
    read_zarr,
)

# An array in a file this much smaller holds nothing but one value.
LARGEST_RATIO = 500
LARGE = 1 << 30
NOT_NUMPY = (
    "it is not a NumPy file of numbers or text. Python objects are never unpickled, as "
    "that could run code."
)


def read_rows(path: Path, request: Request) -> Rows:
    """Read inputs, logits or probabilities, with labels where the same file has them.

    In an .npz file an array is found by its key, else by a usual name of its role,
    else because it is the only one. In a table the label column is found likewise;
    the values are the columns named in the key, separated by commas, else all others.
    The path - is a table on standard input.
    """
    if path == STANDARD_INPUT:
        return _read_standard_input(request)
    reader = _read_dataset if is_dataset(path) else _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} has the ending {path.suffix!r}; files that can be read end in "
            f"{', '.join(_READERS)}; a folder of a Hugging Face data set holds a "
            "state.json."
        )
    is_folder = reader in (read_zarr, _read_dataset)
    if not (path.is_dir() if is_folder else path.is_file()):
        raise DataError(f"There is no file {path}.")
    return _run(reader, path, request)


def _read_standard_input(request: Request) -> Rows:
    """Read a table from standard input: JSON lines, or comma-separated values."""
    content = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8)
    ending = ".jsonl" if content.lstrip()[:1] == b"{" else ".csv"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"standard-input{ending}"
        path.write_bytes(content)
        try:
            return read_rows(path, request)
        except DataError as error:
            text = str(error).replace(str(path), "standard input")
            raise DataError(text) from error


def _run(reader: Reader, path: Path, request: Request) -> Rows:
    """Read a file; whatever goes wrong becomes an error that names it."""
    try:
        with warnings.catch_warnings():
            # A damaged header is no program, whatever the parser thinks of it.
            warnings.simplefilter("ignore", SyntaxWarning)
            return _checked(path, reader(path, request), request)
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except ImportError:
        raise
    except Exception as error:  # damage can make a reader raise anything
        raise DataError(f"{path} cannot be read: {_reason(error)}") from error


def _checked(path: Path, rows: Rows, request: Request) -> Rows:
    """Refuse what is no rows of numbers; bring labels and groups into usual types."""
    named = isinstance(rows.values, NamedRows)
    parts = [*rows.values.values()] if named else [rows.values]
    for array in (*parts, rows.labels, rows.groups):
        if array is not None and array.ndim == 0:
            raise DataError(f"{path} holds a single value where rows are needed.")
    names = {*(rows.names or ()), *request.columns, *request.classes}
    if request.role in OF_A_ROW:
        return Rows(_as_labels(path, rows.values, request.key, names, request.role))
    for array in parts:
        if array.dtype.kind not in "fiu":
            raise DataError(
                f"{path} holds {request.role} of type {array.dtype}; they must be "
                "numbers."
            )
    if rows.labels is not None:
        labels = _as_labels(path, rows.labels, request.labels_key, names)
        rows = rows._replace(labels=labels)
    if request.groups_key is None:
        return rows
    if rows.groups is None:
        raise DataError(
            f"{path} holds one array without a name, and no {request.groups_key!r}. "
            "Pass a file of arrays by name, or a table."
        )
    groups = _as_labels(path, rows.groups, request.groups_key, names, "groups")
    return rows._replace(groups=groups)


def _as_labels(
    path: Path,
    labels: NDArray[Any],
    key: str | None,
    names: Collection[str],
    role: Role = "labels",
) -> NDArray[Any]:
    """Return labels as integers where all are whole numbers, else as they are.

    Groups in text stay text: they have no order, and 01 may be another one than 1.
    """
    if labels.dtype.kind not in "biufUS":
        raise DataError(
            f"{path} holds {role} of type {labels.dtype}; they must be numbers or text."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind == "U":
        of = f"the {role}" if key is None else repr(key)
        text = np.char.strip(labels)
        refuse_missing(path, of, text == "")
        numbers = integers(text, names) if role == "labels" else text
        return labels if numbers.dtype.kind == "U" else numbers
    return labels if labels.dtype.kind != "f" else whole_numbers(labels)


def read_labels(
    path: Path,
    key: str | None,
    columns: Sequence[str] | None = None,
    role: Role = "labels",
    classes: Sequence[str] = (),
) -> NDArray[Any]:
    """Read a file of labels, or groups: an array, or one column of a table.

    `columns` are the names of those that the scores have in another file, `classes`
    names that labels are known to have otherwise.
    """
    request = Request(role, key, columns=columns or (), classes=classes)
    labels = read_rows(path, request).values
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path} holds an array of shape {labels.shape}; {role} are one number or "
            "name for each row. Rows that mark their class by a one become labels by "
            "argmax(axis=1)."
        )
    return labels


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"its text is not in utf-8, in which it has to be saved ({error})."
    text = str(error) or type(error).__name__
    objects = ("allow_pickle", "Python objects", "magic string")
    return NOT_NUMPY if any(word in text for word in objects) else text


def _read_npy(path: Path, request: Request) -> Rows:
    with path.open("rb") as file:
        _check_claim(path, _read_header(file), path.stat().st_size - file.tell())
    # Mapped, not read: logits may be larger than memory.
    array: Any = np.lib.format.open_memmap(path, mode="r")
    if request.key is not None:
        raise DataError(
            f"{path} holds one array without a name; leave out {request.key_option}."
        )
    is_scores = request.role in ("logits", "probabilities")
    if is_scores and array.dtype.kind in "fiu" and stays_in_file(array):
        return Rows(open_source(array))
    return Rows(array)


class _Header(NamedTuple):
    """The form of an array that a file says it holds."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}, shape {self.shape}"


def _read_header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return _Header(shape, dtype)


def _check_claim(path: Path, header: _Header, n_bytes: int) -> None:
    """Refuse objects, and an array that cannot be in the file, before it is read."""
    if header.dtype.hasobject:
        raise DataError(f"{path}: {NOT_NUMPY} Save text so: labels.astype(str).")
    if min(header.shape, default=0) < 0 or header.n_bytes > n_bytes:
        raise DataError(
            f"{path} is damaged: it claims an array of {header}, which the {n_bytes:,} "
            "bytes that it has for it do not hold."
        )


def _read_npz(path: Path, request: Request) -> Rows:
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise DataError(f"{path} is a single array; let its name end in .npy.")
        file.seek(0)
        if file.read(2) != b"PK":
            raise DataError(f"{path} cannot be read: {NOT_NUMPY}")
        with zipfile.ZipFile(file) as archive:
            return _read_archive(path, archive, request)


def _read_archive(path: Path, archive: zipfile.ZipFile, request: Request) -> Rows:
    members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    names = [info.filename.removesuffix(".npy") for info in members]
    check_names(path, names)
    arrays = dict(zip(names, members, strict=True))
    held = {name: str(_header(archive, info)) for name, info in arrays.items()}

    def read(name: str) -> NDArray[Any]:
        return _read_member(path, archive, arrays[name])

    return take(path, held, request, read, read)


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    with archive.open(info) as member:
        return _read_header(member)


def _read_member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> NDArray[Any]:
    header = _header(archive, info)
    _check_claim(path, header, info.file_size)
    is_blown_up = info.file_size > max(LARGE, LARGEST_RATIO * info.compress_size)
    if is_blown_up or header.n_bytes > free_memory():
        raise DataError(
            f"{info.filename} of {path} unpacks from {info.compress_size:,} to "
            f"{info.file_size:,} bytes, too many to read. Save large arrays as .npy, "
            "which are not read at once."
        )
    with archive.open(info) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


class _Table(Protocol):
    """Named columns, some of which may be an index of the rows, or hold lists."""

    names: list[str]
    has_header: bool
    index: Collection[str]
    lists: Collection[str]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of labels."""

    def matrix(self, names: list[str]) -> Any:
        """Return columns of numbers side by side."""


class _ParquetTable:
    """A Parquet file; a column of lists counts as so many columns of numbers."""

    has_header = True

    def __init__(self, path: Path, content: Any = None) -> None:
        parquet = import_optional("pyarrow.parquet", "Reading .parquet files")
        self._path = path
        # Not `read_table`, which makes columns of folders called name=value.
        self._file = parquet.ParquetFile(path if content is None else content)
        schema = self._file.schema_arrow
        self.names = list(schema.names)
        check_names(path, self.names)
        lists = [of.name for of in schema if hasattr(of.type, "value_field")]
        self.lists: Collection[str] = lists
        by_pandas = schema.pandas_metadata or {}
        index = by_pandas.get("index_columns", [])
        self.index: Collection[str] = [k for k in index if isinstance(k, str)]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column."""
        n_rows = self._file.metadata.num_rows
        if 8 * n_rows > free_memory():
            raise DataError(
                f"{self._path} holds {n_rows:,} rows, too many to read labels of."
            )
        column = self._file.read(columns=[name])[name]
        refuse_missing(self._path, repr(name), np.asarray(column.is_null()))
        values = np.asarray(column.to_numpy())
        return values.astype(str) if values.dtype.kind == "O" else values

    def matrix(self, names: list[str]) -> Any:
        """Return columns of numbers side by side."""
        return in_memory(ParquetRows(self._file, names))


def _read_feather(path: Path, request: Request) -> Rows:
    feather = import_optional("pyarrow.feather", "Reading .feather files")
    return _read_arrow(path, feather.read_table(path), request)


def _read_json_lines(path: Path, request: Request) -> Rows:
    """Read a JSON object a line, whose fields are columns, or lists of them."""
    arrow = import_optional("pyarrow.json", f"Reading {path.suffix} files")
    table = arrow.read_json(path)
    dates = [of.name for of in table.schema if str(of.type).startswith("timestamp")]
    if dates:  # JSON has none: it is text that looks like some.
        schema = import_optional("pyarrow", "Reading tables").schema
        as_text = schema([(name, "string") for name in dates])
        options = arrow.ParseOptions(explicit_schema=as_text)
        table = arrow.read_json(path, parse_options=options)
    return _read_arrow(path, table, request)


def _read_dataset(path: Path, request: Request) -> Rows:
    """Read a folder that `save_to_disk` of Hugging Face's datasets has written."""
    arrow = import_optional("pyarrow", "Reading folders of data sets")
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tables = []
    for entry in state["_data_files"]:
        # Its last part alone, so that no other folder is read.
        with arrow.memory_map(str(path / Path(entry["filename"]).name)) as file:
            tables.append(arrow.ipc.open_stream(file).read_all())
    return _read_arrow(path, arrow.concat_tables(tables), request)


def _read_arrow(path: Path, table: Any, request: Request) -> Rows:
    """Read a table in memory, as the Parquet file that it would be."""
    parquet = import_optional("pyarrow.parquet", "Reading tables")
    content = io.BytesIO()
    parquet.write_table(table, content)
    return _read_table(path, _ParquetTable(path, content), request)


def _read_table(path: Path, table: _Table, request: Request) -> Rows:
    names = table.names
    if request.role in OF_A_ROW:
        name = find_name(names, request.role, request.key)
        if name is None and len(names) > 1:
            raise DataError(
                f"The columns are {', '.join(names)}; none has a usual name of "
                f"{request.role}. Name one with {request.key_option}."
            )
        return Rows(table.column(name or names[0]), names=names)
    label_name = find_name(names, "labels", request.labels_key)
    if request.key is None:
        others = (label_name, request.groups_key, *table.index)
        chosen = [name for name in names if name not in others]
        chosen = _apart_from_lists(table, chosen, request)
    else:
        chosen = request.keys
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            find_name(names, request.role, unknown[0])
    if not chosen:
        raise DataError(f"{path} has no columns beside those of labels and index.")
    is_unread = label_name is None or not request.wants_labels
    labels = None if is_unread else table.column(str(label_name))
    groups = None
    if request.groups_key is not None:
        groups = table.column(str(find_name(names, "groups", request.groups_key)))
    if request.by_name:
        values: Any = NamedRows({name: table.matrix([name]) for name in chosen})
        return Rows(values, labels, groups=groups)
    values = table.matrix(chosen)
    is_named = table.has_header and values.shape[1] == len(chosen)
    return Rows(values, labels, chosen if is_named else None, groups)


def _apart_from_lists(table: _Table, names: list[str], request: Request) -> list[str]:
    """Return the column of lists by its usual name, or all where there are no lists."""
    lists = [name for name in names if name in table.lists]
    if not lists or len(names) == 1:
        return names
    usual = find_name(lists, request.role, None)
    if usual is None:
        others = [name for name in names if name != lists[0]]
        raise DataError(
            f"Column {lists[0]!r} holds lists, which are rows of {request.role} by "
            f"themselves, and there are {', '.join(others)} beside it. Name the one "
            f"to take: {request.key_option} {lists[0]}"
        )
    return [usual]


_READERS: dict[str, Reader] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": lambda path, request: _read_table(path, CsvTable(path, request), request),
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".zarr": read_zarr,
    ".feather": _read_feather,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".pt": read_torch,
    ".pth": read_torch,
    ".safetensors": read_safetensors,
    ".parquet": lambda path, request: _read_table(path, _ParquetTable(path), request),
}
