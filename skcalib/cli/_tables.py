"""Columns of .csv and .parquet files as arrays."""

import csv
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skcalib._optional import import_optional
from skcalib.cli._errors import DataError


class Table(Protocol):
    """Named columns."""

    names: list[str]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of labels."""

    def matrix(self, names: list[str]) -> NDArray[Any]:
        """Return columns of numbers side by side."""


class CsvTable:
    """A file of comma-separated values; without a header the names are 0, 1, ...

    The first line is a header unless it holds numbers only. The numbers 0, 1, 2, ...
    in order, which pandas writes above columns without names, are a header too.
    """

    def __init__(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            first = next(csv.reader(lines), None)
        if first is None:
            raise DataError(f"{path} is empty.")
        self._path = path
        numbered = [str(k) for k in range(len(first))]
        is_numbered = len(first) > 1 and first == numbered
        has_header = is_numbered or not all(map(_is_number, first))
        self._n_header_lines = int(has_header)
        self.names = [name.strip() for name in first] if has_header else numbered
        if "" in self.names:
            raise DataError(
                f"Column {self.names.index('') + 1} of {path} has no name. If it is an "
                "index saved by pandas, write the file with index=False."
            )

    def column(self, name: str) -> NDArray[Any]:
        """Return one column: integers where all values are, else text."""
        text = self._load([name], str)[:, 0]
        try:
            return text.astype(np.int64)
        except ValueError:
            return text

    def matrix(self, names: list[str]) -> NDArray[Any]:
        """Return columns of numbers side by side."""
        return self._load(names, float)

    def _load(self, names: list[str], dtype: type) -> NDArray[Any]:
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
                usecols=[self.names.index(name) for name in names],
                ndmin=2,
            )
        if loaded.shape[0] == 0:
            raise DataError(f"{self._path} has a header but no rows.")
        return loaded


class ParquetTable:
    """A Parquet file; a column of lists counts as so many columns of numbers."""

    def __init__(self, path: Path) -> None:
        parquet = import_optional("pyarrow.parquet", "Reading .parquet files")
        self._table = parquet.read_table(path)
        self.names = list(self._table.column_names)

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
                f"Column {name!r} misses {column.null_count} values; remove such rows."
            )
        return np.asarray(column.to_numpy())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
