"""Which source reads what a user passes."""

from typing import Any

import numpy as np

from skcalib._blocks._sources import ArraySource, MemmapSource, Source, is_mapped_file
from skcalib._blocks._stored import StoredSource, is_stored


def open_source(array: Any) -> Source:
    """Choose the source for `array`: (n, K) logits, or (n,) and (n, 1) log-odds."""
    if isinstance(array, Source):
        return array
    if array.ndim == 1 or array.shape[1] == 1:
        log_odds = np.asarray(array).reshape(-1)
        columns = np.zeros((log_odds.shape[0], 2), dtype=log_odds.dtype)
        columns[:, 1] = log_odds
        return ArraySource(columns)
    if is_mapped_file(array):
        return MemmapSource(array)
    if is_stored(array):
        return StoredSource(array)
    return ArraySource(np.asarray(array))
