"""Sums over rows of which metrics are functions; those of parts of the rows add up.

The predicted class is summed per cell of confidence. Cells are finer than bins of equal
width and end where these end, so that the sums of the bins stay what they are. What
sorts confidences sees those of a cell as equal to their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skcalib._blocks import row_slices, sum_blocks
from skcalib._validation import Batch, check_batch
from skcalib.metrics._bins import (
    BinStats,
    Floats,
    RankedScores,
    bin_stats,
    sum_by_index,
    uniform_edges,
)
from skcalib.metrics._classwise import block_size, class_stats
from skcalib.metrics._registry import METRICS, PER_ROW, RANKED
from skcalib.metrics._resampling import Replicate, RowStatistics

# About so many cells of equal width, ...
CELLS = 4096
# ... and where these get too wide, for each halving of what a confidence lacks to 1:
# networks are often surer than that of most rows.
CELLS_PER_HALVING = 16
# Digits of a float64 below 1.
HALVINGS = 53
# Large blocks, as each has sums for all cells.
BLOCK_ELEMENTS = 1 << 19
_BIN_SUMS = ("weight", "confidence", "hit")


@dataclass(frozen=True, eq=False)
class RowSums:
    """Sums over some rows.

    Attributes
    ----------
    n_rows : int
        Number of rows of positive weight.

    cells : BinStats
        Sums for the predicted class in each cell of confidence.

    class_bins : BinStats
        Sums for each class and bin of its probability; without classes if no metric
        asks for them.

    totals : ndarray
        Weighted sums of what metrics are means of.
    """

    n_rows: int
    cells: BinStats
    class_bins: BinStats
    totals: Floats

    def __add__(self, other: RowSums) -> RowSums:
        return RowSums(
            self.n_rows + other.n_rows,
            self.cells + other.cells,
            self.class_bins + other.class_bins,
            self.totals + other.totals,
        )


@lru_cache(maxsize=16)
def cell_edges(n_bins: int) -> Floats:
    """Return the inner edges of the cells, among them those of `n_bins` bins."""
    even = uniform_edges(n_bins * -(-CELLS // n_bins))
    halvings = np.arange(1, HALVINGS, 1 / CELLS_PER_HALVING)
    near_one = 1 - 2.0**-halvings
    edges = np.append(even, np.unique(near_one[near_one > even[-1]]))
    edges.flags.writeable = False
    return edges


def no_rows(n_bins: int, n_classes: int, names: list[str]) -> RowSums:
    """Return the sums over no rows."""
    shape = (n_classes if _by_class(names) else 0, n_bins)
    return RowSums(
        0,
        BinStats(*np.zeros((3, cell_edges(n_bins).shape[0] + 1))),
        BinStats(*np.zeros((3, *shape))),
        np.zeros(len(mean_names(names))),
    )


def mean_names(names: list[str]) -> list[str]:
    """Return the metrics that are means of a number of each row."""
    return [name for name in names if name in PER_ROW]


def _by_class(names: list[str]) -> bool:
    return any(METRICS[name].of_class_bins is not None for name in names)


def row_sums(batch: Batch, n_bins: int, names: list[str]) -> RowSums:
    """Sum over checked rows what the metrics of these names are functions of."""

    def of_block(rows: slice) -> RowSums:
        return block_sums(batch.part(rows), n_bins, names)

    n_rows, n_classes = batch.proba.shape
    size = BLOCK_ELEMENTS
    if _by_class(names):
        size = block_size(size, n_classes, n_bins)
    slices = row_slices(n_rows, n_classes, size)
    total: RowSums = sum_blocks(of_block, slices)
    return total


def block_sums(batch: Batch, n_bins: int, names: list[str]) -> RowSums:
    """Sum over a block of rows in memory, all at once."""
    codes, proba, weight, confidence, hit = batch
    rows = RowStatistics(proba, codes, n_bins)
    class_bins = BinStats(*np.zeros((3, 0, n_bins)))
    if _by_class(names):
        # Not in single precision, whose error would depend on the blocks.
        exact = np.asarray(proba, dtype=np.float64)
        class_bins = class_stats(exact, codes, weight, n_bins)
    means = [weight @ PER_ROW[name](rows) for name in mean_names(names)]
    return RowSums(
        int(np.count_nonzero(weight)),
        bin_stats(confidence, hit, weight, cell_edges(n_bins)),
        class_bins,
        np.array(means, dtype=np.float64),
    )


def chunk_sums(
    y: Any,
    proba: Any,
    sample_weight: Any,
    labels: ArrayLike | None,
    pos_label: object,
    n_bins: int,
    names: list[str],
) -> tuple[RowSums | None, list[Any]]:
    """Return the sums over all chunks, None if they have no rows, and the classes."""
    from skcalib._blocks._dask import aligned, as_array, as_column, reduce_chunks
    from skcalib._validation._dask import classes_of_chunks

    columns = [as_column(y, "y")]
    if sample_weight is not None:
        columns.append(as_column(sample_weight, "sample_weight"))
    arrays = aligned(as_array(proba, "proba"), columns)
    n_columns = 1 if arrays[0].ndim == 1 else arrays[0].shape[1]
    labels, pos_label = classes_of_chunks(
        proba, arrays[1], n_columns == 1, labels, pos_label
    )
    n_columns = max(n_columns, 2)
    named = np.arange(n_columns) if labels is None else np.asarray(labels)
    of_chunk = partial(_sums_of_chunk, labels, pos_label, n_bins, names)
    return reduce_chunks(of_chunk, arrays), named.tolist()


def _sums_of_chunk(
    labels: ArrayLike | None,
    pos_label: object,
    n_bins: int,
    names: list[str],
    number: int,
    proba: Any,
    y: Any,
    weight: Any = None,
) -> RowSums | None:
    if not proba.shape[0]:
        return None
    weight = None if weight is None else np.asarray(weight)
    given = np.asarray(y), np.asarray(proba), labels, weight, pos_label
    try:
        batch, _ = check_batch(*given)
    except ValueError as error:
        raise ValueError(f"Chunk {number}: {error}") from error
    return row_sums(batch, n_bins, names)


def cells_as_rows(cells: BinStats, n_bins: int) -> Replicate:
    """Return a row for each cell that is not empty: mean confidence, mean hit, weight.

    A mean may be rounded out of its cell, and then belongs to the nearest value in it.
    """
    filled = np.flatnonzero(cells.weight > 0)
    edges = cell_edges(n_bins)
    low = np.nextafter(np.append(0, edges), 2)[filled]
    high = np.append(edges, np.inf)[filled]
    confidence = np.clip(cells.mean_confidence[filled], low, high)
    every = np.arange(filled.shape[0])
    ranked = RankedScores(every, confidence, cells.accuracy[filled], every)
    return Replicate(ranked, cells.weight[filled], n_bins)


def metric_values(sums: RowSums, n_bins: int, names: list[str]) -> dict[str, float]:
    """Compute metrics from sums over their rows."""
    replicate = cells_as_rows(sums.cells, n_bins)
    means = sums.totals / sums.cells.weight.sum()
    of_rows = dict(zip(mean_names(names), means.tolist(), strict=True))

    def value(name: str) -> float:
        metric = METRICS[name]
        if metric.of_class_bins is not None:
            return metric.of_class_bins(sums.class_bins)
        return RANKED[name](replicate)

    return {name: of_rows[name] if name in of_rows else value(name) for name in names}


def write_bins(stats: BinStats) -> dict[str, list[Any]]:
    """Return where sums are not zero, and the sums."""
    sums = [np.ravel(getattr(stats, name)) for name in _BIN_SUMS]
    filled = np.flatnonzero(np.any(sums, axis=0))
    parts = zip(_BIN_SUMS, (part[filled].tolist() for part in sums), strict=True)
    return {"index": filled.tolist(), **dict(parts)}


def read_bins(content: Mapping[str, Any], like: BinStats) -> BinStats:
    """Return the sums that `write_bins` has written, in the shape of others."""
    index = np.array(content["index"], dtype=np.intp)
    sums = (sum_by_index(index, content[name], like.weight.size) for name in _BIN_SUMS)
    return BinStats(*(part.reshape(like.weight.shape) for part in sums))
