"""Columns of .csv and .parquet files as arrays."""

import csv
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import free_memory
from skcalib._optional import import_optional
from skcalib._validation import names_twice
from skcalib.cli._errors import DataError

# Above it not every whole number is a float64.
LARGEST_WHOLE = 2**53


class Table(Protocol):
    """Named columns, some of which may be known to be an index of the rows."""

    names: list[str]
    has_header: bool
    index: Collection[str]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of labels."""

    def matrix(self, names: list[str]) -> NDArray[Any]:
        """Return columns of numbers side by side."""


class CsvTable:
    """A file of comma-separated values; without a header the names are 0, 1, ...

    The first line is a header unless it holds numbers only. The numbers 0, 1, 2, ...
    in order, which pandas writes above columns without names, are a header too.
    """

    index: Collection[str] = ()

    def __init__(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            first = next(reader, None)
            n_lines = reader.line_num
        if not first:
            raise DataError(f"{path} is empty, or begins with an empty line.")
        _check_separator(path, first)
        self._path = path
        numbered = [str(k) for k in range(len(first))]
        is_numbered = len(first) > 1 and first == numbered
        self.has_header = is_numbered or not all(map(_is_number, first))
        self._n_header_lines = n_lines if self.has_header else 0
        self.names = [name.strip() for name in first] if self.has_header else numbered
        if "" in self.names:
            raise DataError(
                f"Column {self.names.index('') + 1} of {path} has no name. If it is an "
                "index saved by pandas, write the file with index=False."
            )
        check_names(path, self.names)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column: integers where all values are whole numbers, else text."""
        text = np.char.strip(self._load([name], str)[:, 0])
        try:
            return text.astype(np.int64)
        except (ValueError, OverflowError):
            pass
        try:
            numbers = whole_numbers(text.astype(np.float64))
        except ValueError:
            return text
        return numbers if numbers.dtype.kind == "i" else text

    def matrix(self, names: list[str]) -> NDArray[Any]:
        """Return columns of numbers side by side."""
        return self._load(names, float)

    def _load(self, names: list[str], dtype: type) -> NDArray[Any]:
        position = {name: k for k, name in enumerate(self.names)}
        columns = [position[name] for name in names]
        with (
            self._path.open(newline="", encoding="utf-8-sig") as lines,
            warnings.catch_warnings(),
        ):
            # Told as an error below.
            warnings.filterwarnings("ignore", message=".*contained no data")
            loaded: NDArray[Any] = np.loadtxt(
                lines,
                dtype=dtype,
                delimiter=",",
                comments=None,
                quotechar='"',
                skiprows=self._n_header_lines,
                usecols=columns,
                ndmin=2,
            )
        if loaded.shape[0] == 0:
            raise DataError(f"{self._path} has a header but no rows.")
        return loaded


class ParquetTable:
    """A Parquet file; a column of lists counts as so many columns of numbers."""

    has_header = True

    def __init__(self, path: Path) -> None:
        parquet = import_optional("pyarrow.parquet", "Reading .parquet files")
        self._path = path
        # Not `read_table`, which makes columns of folders called name=value.
        with parquet.ParquetFile(path) as file:
            self.names = list(file.schema_arrow.names)
            check_names(path, self.names)
            by_pandas = file.schema_arrow.pandas_metadata or {}
            index = by_pandas.get("index_columns", [])
            self.index: Collection[str] = [k for k in index if isinstance(k, str)]
            n_rows = file.metadata.num_rows
            if 8 * n_rows * len(self.names) > free_memory():
                raise DataError(
                    f"{path} holds {n_rows:,} rows of {len(self.names)} columns, too "
                    "many to read. Save large arrays as .npy, which are not read at "
                    "once."
                )
            self._table = file.read()

    def column(self, name: str) -> NDArray[Any]:
        """Return one column."""
        column = self._complete(name)
        return column.astype(str) if column.dtype.kind == "O" else column

    def matrix(self, names: list[str]) -> NDArray[Any]:
        """Return columns of numbers side by side."""
        columns = [self._complete(name) for name in names]
        blocks = [
            np.stack(list(column)) if column.dtype.kind == "O" else column
            for column in columns
        ]
        return np.column_stack(blocks)

    def _complete(self, name: str) -> NDArray[Any]:
        column = self._table[name]
        if column.null_count:
            raise DataError(
                f"Column {name!r} of {self._path} misses {column.null_count} values; "
                "remove such rows."
            )
        return np.asarray(column.to_numpy())


def check_names(path: Path, names: list[str]) -> None:
    """Refuse two columns, or arrays, of one name: which is meant cannot be known."""
    twice = names_twice(names)
    if twice:
        raise DataError(
            f"{path} uses a name more than once: {', '.join(twice[:6])}. Rename the "
            "columns, so that each has a name of its own."
        )


def whole_numbers(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return floats as integers if all are whole numbers; pandas writes 3 as 3.0."""
    is_whole = np.abs(numbers) < LARGEST_WHOLE  # False for NaN
    if not (is_whole & (np.trunc(numbers) == numbers)).all():
        return numbers
    return numbers.astype(np.int64)


def _check_separator(path: Path, first: list[str]) -> None:
    """Tell of separators that other programs write."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        alone = len(first) == 1 and separator in first[0]
        between = any(re.search(rf"\d{separator}-?\d", field) for field in first)
        if alone or between:
            raise DataError(
                f"The columns of {path} look as if {name} stood between them. Commas "
                "are needed there, and points in numbers."
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
