"""Rows of classes along an axis: the pixels of images, the tokens of sequences.

Nothing is copied but the block that is read. An entry of the first axis, such as an
image, is a unit; its rows lie together, and some of them may be left out.
"""

from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks._sources import MemmapSource, PiecesSource, is_mapped_file


class DenseRows(PiecesSource):
    """One row for each place of an array that has the classes along an axis.

    Parameters
    ----------
    array : array of shape (n_units, ...)
        Scores, float32 or float64, in memory or in a file.

    axis : int
        The axis of the classes, counted from the front and not the first.

    kept : ndarray of bool of shape (n_units, n_places), default=None
        Which places have a row, all by default.
    """

    def __init__(
        self, array: Any, axis: int, kept: NDArray[np.bool_] | None = None
    ) -> None:
        self._array, self._axis, self._kept = array, axis, kept
        n_units, n_columns = array.shape[0], array.shape[axis]
        self._n_places = prod(array.shape[1:]) // n_columns
        sizes = np.full(n_units, self._n_places)
        if kept is not None:
            sizes = np.count_nonzero(kept, axis=1)
        self._edges = np.concatenate([[0], np.cumsum(sizes)])
        self.shape = (int(self._edges[-1]), n_columns)
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        self._pages = MemmapSource(array) if is_mapped_file(array) else None
        # A file is unpacked a unit at a time, by one thread at a time.
        self._lock = Lock()
        self._unpacked: tuple[int, Any] = (-1, None)

    def row_groups(self) -> NDArray[np.intp] | None:
        """Return the unit of each row, None if there is but one."""
        sizes = np.diff(self._edges)
        if np.count_nonzero(sizes) < 2:
            return None
        return np.repeat(np.arange(sizes.shape[0]), sizes)

    def _part(self, i: int, rows: Any) -> NDArray[Any]:
        """Return some of the rows of a unit, copied."""
        unit = self._unit(i)
        places = np.moveaxis(unit, self._axis - 1, -1).reshape(self._n_places, -1)
        if self._kept is not None:
            rows = np.flatnonzero(self._kept[i])[rows]
        found: NDArray[Any] = np.array(places[rows], dtype=self.dtype)
        if self._pages is not None:
            self._pages.release(unit)
        return found

    def _unit(self, i: int) -> NDArray[Any]:
        if isinstance(self._array, np.ndarray):
            unit: NDArray[Any] = self._array[i]
            return unit
        with self._lock:
            if self._unpacked[0] != i:
                self._unpacked = i, np.asarray(self._array[i])
            return self._unpacked[1]
