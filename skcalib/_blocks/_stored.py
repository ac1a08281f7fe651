"""Rows in the files of other libraries: HDF5 datasets, Zarr arrays, Parquet files.

Such files are cut into chunks, each of which is read, and unpacked, as a whole. So they
are read in pieces of whole chunks, a few of which are kept to cut blocks from.
"""

import sys
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks._sources import PiecesSource, Source

# A piece has about so many numbers; a chunk that is larger is a piece by itself.
PIECE_ELEMENTS = 1 << 20
# Threads that share the blocks may be at work on so many pieces.
PIECES_KEPT = 3

_STORED = (("h5py", "Dataset"), ("zarr", "Array"), ("pyarrow.parquet", "ParquetFile"))


def is_stored(X: Any) -> bool:
    """Whether the rows of `X` are in a file that is read in pieces, or of a source."""
    if X is None or isinstance(X, np.ndarray):
        return False
    if isinstance(X, (ParquetRows, Source)):
        return True
    kinds = (getattr(sys.modules.get(module), kind, ()) for module, kind in _STORED)
    return any(isinstance(X, kind) for kind in kinds)


class ParquetRows:
    """Columns of numbers in a Parquet file, as an array whose rows can be sliced.

    A column of lists counts as so many columns. All columns are float32, or else
    float64.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
        The open file.

    names : list of str, default=None
        Which columns, all by default.
    """

    ndim = 2

    def __init__(self, file: Any, names: list[str] | None = None) -> None:
        self._file = file
        self._names = list(file.schema_arrow.names) if names is None else names
        metadata = file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.intp)])
        self.dtype = np.dtype(np.float64)
        first = self._matrix(next(file.iter_batches(1, columns=self._names), None))
        self.dtype = first.dtype
        self.shape = (int(self.edges[-1]), first.shape[1])

    @property
    def columns(self) -> list[str] | None:
        """The names of the columns, unless one of them is a column of lists."""
        return self._names if len(self._names) == self.shape[1] else None

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        if stop <= start:
            return np.empty((0, self.shape[1]), self.dtype)
        first = int(np.searchsorted(self.edges, start, "right")) - 1
        last = int(np.searchsorted(self.edges, stop, "left"))
        groups = list(range(first, last))
        matrix = self._matrix(self._file.read_row_groups(groups, columns=self._names))
        return matrix[start - self.edges[first] : stop - self.edges[first]]

    def _matrix(self, table: Any) -> NDArray[Any]:
        if table is None:
            return np.empty((0, len(self._names)))
        columns = [_numbers(table, name) for name in self._names]
        matrix: NDArray[Any] = np.column_stack(columns)
        return matrix if matrix.dtype == np.float32 else matrix.astype(np.float64)


def _numbers(table: Any, name: str) -> NDArray[Any]:
    column = table[name]
    if column.null_count:
        raise ValueError(
            f"Column {name!r} misses {column.null_count} values; remove such rows."
        )
    values: NDArray[Any] = np.asarray(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind == "O":
        values = np.stack(list(values))
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"Column {name!r} holds values of type {column.type}; numbers are needed."
        )
    return values


class StoredSource(PiecesSource):
    """Rows of an HDF5 dataset, a Zarr array or a Parquet file."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.shape = tuple(rows.shape)
        self.dtype = np.dtype(np.float32 if rows.dtype == np.float32 else np.float64)
        self._edges = _piece_edges(rows)
        self._pieces: OrderedDict[int, NDArray[Any]] = OrderedDict()
        # Files are read by one thread at a time.
        self._lock = Lock()

    def _part(self, i: int, rows: Any) -> NDArray[Any]:
        """Return some rows of a piece; they may share memory with it."""
        return self._piece(i)[rows]

    def _piece(self, i: int) -> NDArray[Any]:
        with self._lock:
            if i not in self._pieces:
                while len(self._pieces) >= PIECES_KEPT:
                    self._pieces.popitem(last=False)
                read = self._rows[slice(int(self._edges[i]), int(self._edges[i + 1]))]
                self._pieces[i] = np.asarray(read, dtype=self.dtype)
            self._pieces.move_to_end(i)
            return self._pieces[i]


class RowsView(Source):
    """Some rows of another source, which are not copied."""

    def __init__(self, source: Source, rows: NDArray[np.intp]) -> None:
        self._source, self._rows = source, rows
        self.shape = (rows.shape[0], source.shape[1])
        self.dtype = source.dtype

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, copied."""
        return self._source.take(self._rows[rows])

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        return self._source.take(self._rows[rows])


def _piece_edges(rows: Any) -> NDArray[np.intp]:
    """Return where pieces begin, and the end."""
    if isinstance(rows, ParquetRows):
        return rows.edges[np.append(np.diff(rows.edges) > 0, True)]
    n_rows, n_columns = rows.shape
    chunk = (getattr(rows, "shards", None) or rows.chunks or (1,))[0]
    step = chunk * max(1, PIECE_ELEMENTS // (chunk * n_columns))
    return np.append(np.arange(0, n_rows, step), n_rows)
