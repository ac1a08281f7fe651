"""Which source reads what a user passes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks._sources import (
    ArraySource,
    MemmapSource,
    Source,
    StandardSource,
    is_mapped_file,
)
from skcalib._blocks._stored import StoredSource, is_stored


def open_source(array: Any, like: Any = None) -> Source:
    """Choose the source for `array`: (n, K) logits, or (n,) and (n, 1) log-odds.

    `like` is the array of another library that NumPy reads as `array`, if it is one.
    """
    if isinstance(array, Source):
        return LogOddsSource(array) if array.shape[1] == 1 else array
    if array.ndim == 1 or array.shape[1] == 1:
        array = _both_columns(np.asarray(array).reshape(-1, 1))
    if like is not None:
        return StandardSource(array, like)
    if is_mapped_file(array):
        return MemmapSource(array)
    if is_stored(array):
        return StoredSource(array)
    return ArraySource(np.asarray(array))


class LogOddsSource(Source):
    """Rows (0, z) of another source, which has the one column z."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shape = (source.shape[0], 2)
        self.dtype = source.dtype

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, copied."""
        return _both_columns(self._source.read(rows))

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        return _both_columns(self._source.take(rows))

    def row_groups(self) -> NDArray[np.intp] | None:
        """Return the group of each row, None if the source knows none."""
        return self._source.row_groups()


def _both_columns(log_odds: NDArray[Any]) -> NDArray[Any]:
    both = np.zeros((log_odds.shape[0], 2), dtype=log_odds.dtype)
    both[:, 1:] = log_odds
    return both
