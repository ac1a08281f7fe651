"""Per-bin sums of every class: each column of probabilities against its own label."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import on_host, slices_of, sum_blocks
from skcalib._validation import Rows
from skcalib.metrics._bins import (
    BinStats,
    Floats,
    equal_mass_stats,
    rank_scores,
    sum_by_index,
    uniform_edges,
)

# Block size that keeps a block and the few entries picked from it in cache.
BLOCK_ELEMENTS = 1 << 17
# Rows of a block for each bin, so that its tables take less time than its numbers.
ROWS_PER_BIN = 4


def class_stats(
    proba: Rows, codes: NDArray[np.intp], weight: Floats, n_bins: int
) -> BinStats:
    """Sum per class and equal-width bin; every sum is (n_classes, n_bins).

    Few probabilities exceed the first edge. Only these are binned one by one; the
    first bin holds what then remains of each column's total.
    """
    edges = exact_edges(n_bins, proba.dtype)

    def of_block(rows: slice) -> BinStats:
        stats = _block_stats(proba[rows], codes[rows], weight[rows], edges)
        total: BinStats = on_host(stats)
        return total

    size = block_size(BLOCK_ELEMENTS, proba.shape[1], n_bins)
    total: BinStats = sum_blocks(of_block, slices_of(proba, size))
    mass = weight.sum()
    total.weight[:, 0] = np.maximum(mass - total.weight[:, 1:].sum(axis=1), 0)
    return total


def block_size(least: int, n_classes: int, n_bins: int) -> int:
    """Return the numbers of a block that are many beside its sums by class and bin."""
    return max(least, ROWS_PER_BIN * n_bins * n_classes)


@lru_cache(maxsize=16)
def exact_edges(n_bins: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Inner edges in `dtype`, rounded down.

    ``p > edge`` then has the same answer in float32 as between exact numbers.
    """
    exact = uniform_edges(n_bins)
    edges = exact.astype(dtype)
    above = edges > exact
    edges[above] = np.nextafter(edges[above], dtype.type(0))
    edges.flags.writeable = False
    return edges


def _block_stats(
    block: NDArray[Any],
    codes: NDArray[np.intp],
    weight: Floats,
    edges: NDArray[Any],
) -> BinStats:
    """Sum over one block; the weight of the first bin is left at zero."""
    n_rows, n_classes = block.shape
    shape = (n_classes, edges.shape[0] + 1)
    codes, weight = np.asarray(codes, like=block), np.asarray(weight, like=block)
    row, column, value, index = upper_entries(block, edges)
    cell = column * shape[1] + index
    own = np.searchsorted(edges, block[np.arange(n_rows, like=codes), codes])
    sums = BinStats(
        _sum_cells(cell, weight[row], shape),
        _sum_cells(cell, weight[row] * value, shape),
        _sum_cells(codes * shape[1] + own, weight, shape),
    )
    totals = np.einsum("i,ij->j", weight.astype(block.dtype), block)
    sums.confidence[:, 0] = totals - sums.confidence[:, 1:].sum(axis=1)
    return sums


def upper_entries(
    block: NDArray[Any], edges: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, NDArray[np.intp]]:
    """Find row, column, value and bin of the entries above the first bin."""
    if edges.shape[0] == 0:
        empty = np.empty(0, dtype=np.intp)
        return empty, empty, np.empty(0), empty
    flat = np.flatnonzero(block > edges[0])
    value = block.reshape(-1)[flat]
    row, column = np.divmod(flat, block.shape[1])
    return row, column, value.astype(np.float64), np.searchsorted(edges, value)


def _sum_cells(
    cell: NDArray[np.intp], values: Floats, shape: tuple[int, int]
) -> Floats:
    return sum_by_index(cell, values, shape[0] * shape[1]).reshape(shape)


def class_mass_stats(
    proba: NDArray[Any], codes: NDArray[np.intp], weight: Floats, n_bins: int
) -> BinStats:
    """Sum per class and equal-mass bin; every sum is (n_classes, n_bins)."""
    columns = []
    for k in range(proba.shape[1]):
        ranked = rank_scores(proba[:, k].astype(np.float64), codes == k)
        columns.append(equal_mass_stats(ranked, weight[ranked.order], n_bins))
    return BinStats(
        np.stack([stats.weight for stats in columns]),
        np.stack([stats.confidence for stats in columns]),
        np.stack([stats.hit for stats in columns]),
    )
