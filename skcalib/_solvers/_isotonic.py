"""Isotonic regression of hits on scores, in memory of the size of the hits.

Minimised over non-decreasing functions is the weighted sum of squared distances from
the hits, by pooling adjacent violators, which also gives the greatest likelihood [for
calibration: Zadrozny & Elkan, Transforming Classifier Scores into Accurate Multiclass
Probability Estimates, KDD 2002; of all classes together: Zhang, Kailkhura & Han,
Mix-n-Match, ICML 2020].

Between the scores of two neighbouring hits lie only misses. The solution is constant
over such a run, since levelling a rise within it at the lowest value keeps the order
and brings every miss nearer to 0. So a run is pooled into its weight and its ends, and
the regression is solved on at most two groups a hit and one more, however many the
misses.

Deviation: the curve is a straight line between the flat pieces, not a step.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from skcalib._blocks import CalibrationData, map_blocks, row_slices
from skcalib._blocks._scores import (
    BLOCK_ELEMENTS,
    TIE,
    Block,
    Floats,
    Hits,
    Scores,
    pool_cells,
    pool_ties,
)
from skcalib._numerics import cut_logits


class Curve(NamedTuple):
    """A non-decreasing function: straight lines between knots, constant beyond."""

    knots: Floats
    values: Floats


class _Pool(NamedTuple):
    """Weight, lowest and highest score of the groups that a block has samples in."""

    group: NDArray[np.intp]
    total: Floats
    low: Floats
    high: Floats


def fit_isotonic(
    data: CalibrationData, scores: Scores, *, factor: float = 1.0, shared: bool = False
) -> list[Curve]:
    """Fit one curve to each column of scores of ``factor * logits``.

    With `shared`, fit one curve to the scores of all columns together.
    """
    if data.source.is_remote:
        cells = pool_cells(data, scores, factor=factor, shared=shared)
        return [_pool_violators(c.total, c.hits, c.low, c.high) for c in cells]
    slices = row_slices(data.n_samples, data.n_classes, BLOCK_ELEMENTS)

    def read(rows: slice) -> tuple[Block, Hits, Floats]:
        logits = cut_logits(data.source.read(rows))
        score, hit = scores(logits * factor, data.codes[rows])
        weight = data.weight[rows]
        if shared:
            weight = np.repeat(weight, score.shape[1])
            score, hit = score.reshape(-1, 1), hit.reshape(-1, 1)
        return np.ascontiguousarray(score.T), np.ascontiguousarray(hit.T), weight

    def hits_of(rows: slice) -> list[tuple[Floats, Floats]]:
        score, hit, weight = read(rows)
        return [(s[h], weight[h]) for s, h in zip(score, hit, strict=True)]

    groups = [_Groups(*parts) for parts in _gather(map_blocks(hits_of, slices))]

    def pools_of(rows: slice) -> list[_Pool]:
        score, _, weight = read(rows)
        return [g.pool(s, weight) for g, s in zip(groups, score, strict=True)]

    for pools in map_blocks(pools_of, slices):
        for group, pool in zip(groups, pools, strict=True):
            group.add(pool)
    return [group.solve() for group in groups]


def _gather(
    blocks: Iterator[Sequence[tuple[Floats, Floats]]],
) -> Iterator[tuple[Floats, Floats]]:
    """Join the hits of all blocks, curve by curve."""
    for parts in zip(*blocks, strict=True):
        scores, weights = zip(*parts, strict=True)
        yield np.concatenate(scores), np.concatenate(weights)


class _Groups:
    """The samples of one curve, pooled at and between the scores of its hits.

    Group 2j+1 lies at the j-th distinct score of a hit, give or take rounding; group
    2j between it and the one before.
    """

    def __init__(self, hit_score: Floats, hit_weight: Floats) -> None:
        lowest, highest, index = pool_ties(hit_score)
        n_levels = lowest.shape[0]
        self.lower = lowest - TIE / 2 * np.abs(lowest)
        self.upper = highest + TIE / 2 * np.abs(highest)
        self.hits = np.zeros(2 * n_levels + 1)
        self.hits[1::2] = np.bincount(index, hit_weight, n_levels)
        self.total = np.zeros_like(self.hits)
        self.low = np.full_like(self.hits, np.inf)
        self.high = np.full_like(self.hits, -np.inf)

    def pool(self, score: Floats, weight: Floats) -> _Pool:
        """Pool the samples of one block."""
        order = np.argsort(score)
        score = score[order]
        bounds = np.empty(self.total.shape[0] + 1, dtype=np.intp)
        bounds[0], bounds[-1] = 0, score.shape[0]
        bounds[1:-1:2] = score.searchsorted(self.lower, side="left")
        bounds[2:-1:2] = score.searchsorted(self.upper, side="right")
        group = np.flatnonzero(bounds[:-1] < bounds[1:])
        start, stop = bounds[group], bounds[group + 1]
        total = np.add.reduceat(weight[order], start)
        return _Pool(group, total, score[start], score[stop - 1])

    def add(self, pool: _Pool) -> None:
        """Add the samples of one block."""
        group = pool.group
        self.total[group] += pool.total
        self.low[group] = np.minimum(self.low[group], pool.low)
        self.high[group] = np.maximum(self.high[group], pool.high)

    def solve(self) -> Curve:
        """Fit the curve to the groups that have samples."""
        used = self.total > 0
        groups = (self.total, self.hits, self.low, self.high)
        return _pool_violators(*(part[used] for part in groups))


def _pool_violators(total: Floats, hits: Floats, low: Floats, high: Floats) -> Curve:
    """Pool adjacent violators; knots are the ends of flat pieces."""
    mean = np.minimum(hits / total, 1)
    solution: Any = isotonic_regression(mean, weights=total)
    first, last = solution.blocks[:-1], solution.blocks[1:] - 1
    ends = np.column_stack([low[first], high[last]])
    values = np.repeat(np.clip(solution.x[first], 0, 1), 2)
    knots, distinct = np.unique(ends, return_index=True)
    return Curve(knots, values[distinct])
