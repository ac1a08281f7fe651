"""Where blocks come from: an array in memory, or a file mapped into memory."""

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Touching a byte may pull in the whole large page of the system's cache it lies in.
LARGE_PAGE = 1 << 21
# Scattered rows may pull in a large page each; they are given back this often.
TAKEN_ROWS = 16

BlockFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class ArraySource:
    """Rows of an array that lies in memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, float32 or float64; it may share memory with the array."""
        return self._array[rows].astype(self.dtype, copy=False)

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        return self._array[rows].astype(self.dtype, copy=False)


class MemmapSource(ArraySource):
    """Rows of a memory-mapped file, which may be larger than memory.

    Pages that a block has touched are given back to the system once the block has
    been copied out, so that the process never holds more than a few blocks.
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        super().__init__(array)
        self._mapping: mmap.mmap = array._mmap  # type: ignore[attr-defined]
        # Copy-on-write pages hold changes that giving them back would lose.
        self._may_release = array.mode != "c" and hasattr(mmap, "MADV_DONTNEED")
        whole = np.frombuffer(self._mapping, dtype=np.uint8)
        self._origin = whole.__array_interface__["data"][0]

    def read(self, rows: slice) -> NDArray[Any]:
        """Return a copy of the block."""
        view = self._array[rows]
        block = np.array(view, dtype=self.dtype, order="C")
        if self._may_release and view.flags.c_contiguous:
            self._release(view)
        return block

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        out = np.empty((rows.shape[0], *self.shape[1:]), dtype=self.dtype)
        for start in range(0, rows.shape[0], TAKEN_ROWS):
            part = slice(start, start + TAKEN_ROWS)
            out[part] = self._array[rows[part]]
            if self._may_release:
                self._mapping.madvise(mmap.MADV_DONTNEED)
        return out

    def _release(self, view: NDArray[Any]) -> None:
        """Give back the pages of `view`, and its neighbours that came along."""
        start = view.__array_interface__["data"][0] - self._origin
        first = max(0, start - LARGE_PAGE) // mmap.PAGESIZE * mmap.PAGESIZE
        last = start + view.nbytes + LARGE_PAGE
        self._mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


class MappedSource(ArraySource):
    """Rows of another source, put through a function each time they are read."""

    def __init__(
        self, source: ArraySource, function: BlockFunction, n_columns: int | None = None
    ) -> None:
        self._source = source
        self._function = function
        self.shape = (source.shape[0], n_columns or source.shape[1])
        self.dtype = np.dtype(np.float64)

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, as float64."""
        return self._function(np.array(self._source.read(rows), dtype=np.float64))

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices."""
        return self._function(np.array(self._source.take(rows), dtype=np.float64))


def open_source(array: NDArray[Any]) -> ArraySource:
    """Choose the source for `array`: (n, K) logits, or (n,) and (n, 1) log-odds."""
    if array.ndim == 1 or array.shape[1] == 1:
        log_odds = np.asarray(array).reshape(-1)
        columns = np.zeros((log_odds.shape[0], 2), dtype=log_odds.dtype)
        columns[:, 1] = log_odds
        return ArraySource(columns)
    if isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None:
        return MemmapSource(array)
    return ArraySource(np.asarray(array))
