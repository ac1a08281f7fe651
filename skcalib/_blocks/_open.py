"""Which source reads what a user passes."""

from typing import Any

import numpy as np

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
        return array
    if array.ndim == 1 or array.shape[1] == 1:
        log_odds = np.asarray(array).reshape(-1)
        array = np.zeros((log_odds.shape[0], 2), dtype=log_odds.dtype)
        array[:, 1] = log_odds
    if like is not None:
        return StandardSource(array, like)
    if is_mapped_file(array):
        return MemmapSource(array)
    if is_stored(array):
        return StoredSource(array)
    return ArraySource(np.asarray(array))
