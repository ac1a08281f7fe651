"""Inductive Venn-Abers predictors: the bounds of all scores at once, in n log n.

A predictor adds the new sample to the calibration set, once as a hit and once as a
miss, and fits an isotonic regression each time. Its two values change only at scores of
the calibration set, so they are computed there, all from a single regression, as by
Vovk, Petej & Fedorova, Large-scale probabilistic predictors with and without guarantees
of validity, NeurIPS 2015, who also put the predictors of folds together; pairs of
classes are from Manokhin, Multi-class probabilistic classification using inductive and
cross Venn-Abers predictors, COPA 2017. Deviation: they walk along the points one after
the other; here binary searches find all corners at once.

Let P_i be the points (cumulated weight, cumulated hits) of the distinct scores, in
ascending order. The isotonic regression is the slope of their greatest convex minorant.
A hit added at score i moves P_0 ... P_i-1 by (-1, -1), and the new slope there is

    max over a < i of the min over b >= i of the slope from P_a - (1, 1) to P_b.

Among the b only corners of the minorant count, and of the a only those since the corner
before i; so the inner minimum is the tangent from a point to a convex chain that does
not depend on i, which a binary search finds, and the outer one a running maximum. A
miss is a hit of the mirrored problem.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from skcalib._blocks import CalibrationData, map_blocks
from skcalib._blocks._scores import (
    TIE,
    Floats,
    all_scores,
    one_vs_rest,
    pool_ties,
    second_class,
)
from skcalib._numerics import cut_logits


class Bounds(NamedTuple):
    """Two step functions of a score, with values i between knots i-1 and i.

    Pieces are closed on the right; there is one more of them than there are knots.
    """

    knots: Floats
    lower: Floats
    upper: Floats


class VennAbersCurve(NamedTuple):
    """The probability that a predictor gives, and its bounds, as step functions."""

    knots: Floats
    values: Floats
    lower: Floats
    upper: Floats


def fit_one_vs_rest(folds: Sequence[CalibrationData]) -> list[VennAbersCurve]:
    """Fit every class against the rest, on the log-odds, and pool the folds."""
    mirror = folds[0].n_classes == 2
    scores = second_class if mirror else one_vs_rest
    columns = [all_scores(fold, scores) for fold in folds]
    n_curves = columns[0][0].shape[0]

    def of_class(k: int) -> VennAbersCurve:
        return _pool(
            [
                fit_bounds(score[k], hit[k], fold.sample_weight)
                for fold, (score, hit) in zip(folds, columns, strict=True)
            ]
        )

    curves = list(map_blocks(of_class, range(n_curves)))
    return [_mirrored(curves[0]), *curves] if mirror else curves


def fit_one_vs_one(folds: Sequence[CalibrationData]) -> list[VennAbersCurve]:
    """Fit the second class of every pair against the first, on the samples of both.

    The score is the difference of the two logits; for the order of the pairs see
    `class_pairs`.
    """
    bounds = [list(_pairwise_bounds(fold)) for fold in folds]
    return [_pool(pair) for pair in zip(*bounds, strict=True)]


def class_pairs(n_classes: int) -> list[tuple[int, int]]:
    """All pairs of classes: (0, 1), (0, 2), ..., (1, 2), ..."""
    return [(i, j) for i in range(n_classes) for j in range(i + 1, n_classes)]


def _pairwise_bounds(data: CalibrationData) -> Iterator[Bounds]:
    logits = cut_logits(data.logits)
    weight = data.sample_weight
    members = [np.flatnonzero(data.codes == k) for k in range(data.n_classes)]
    for i, j in class_pairs(data.n_classes):
        rows = np.concatenate([members[i], members[j]])
        score = logits[rows, j] - logits[rows, i]
        yield fit_bounds(score, data.codes[rows] == j, weight[rows])


def fit_bounds(score: Floats, hit: NDArray[np.bool_], weight: Floats) -> Bounds:
    """Compute both isotonic regressions at every score that a new sample can have."""
    lowest, highest, index = pool_ties(score)
    if not lowest.size:
        return Bounds(lowest, np.zeros(1), np.ones(1))
    n_groups = lowest.shape[0]
    total = np.bincount(index, weight, n_groups).astype(np.float64)
    hits = np.bincount(index[hit], weight[hit], n_groups).astype(np.float64)
    hits = np.minimum(hits, total)
    with_hit = _added_hit(total, hits)
    with_miss = 1 - _added_hit(total[::-1], (total - hits)[::-1])[::-1]
    # Between two scores a miss counts as at the lower one and a hit as at the upper.
    lower = np.concatenate([[0.0], np.repeat(with_miss, 2)])
    upper = np.concatenate([np.repeat(with_hit, 2), [1.0]])
    knots = np.empty(2 * n_groups)
    knots[0::2] = np.nextafter(lowest - TIE / 2 * np.abs(lowest), -np.inf)
    knots[1::2] = highest + TIE / 2 * np.abs(highest)
    steps = (np.diff(lower) != 0) | (np.diff(upper) != 0)
    first = np.concatenate([[True], steps])
    return Bounds(knots[steps], lower[first], upper[first])


def _added_hit(total: Floats, hits: Floats) -> Floats:
    """Isotonic regression at each group after one hit more in this group alone."""
    solution: Any = isotonic_regression(hits / total, weights=total)
    corners = solution.blocks[1:]
    x = np.concatenate([[0.0], np.cumsum(total)])
    y = np.concatenate([[0.0], np.cumsum(hits)])
    corner_x, corner_y = x[corners], y[corners]
    step_x, step_y = np.diff(corner_x), np.diff(corner_y)
    from_x, from_y = x[:-1] - 1, y[:-1] - 1
    # The tangent touches the first corner after which the chain is steeper than it.
    low = np.repeat(np.arange(corners.shape[0]), np.diff(solution.blocks))
    high = np.full_like(low, corners.shape[0] - 1)
    while (unsettled := low < high).any():
        middle = np.where(unsettled, (low + high) // 2, 0)
        along_x, along_y = corner_x[middle] - from_x, corner_y[middle] - from_y
        flatter = unsettled & (step_y[middle] * along_x < along_y * step_x[middle])
        low = np.where(flatter, middle + 1, low)
        high = np.where(unsettled & ~flatter, middle, high)
    # Beside huge weights one sample more, or a whole group, may weigh nothing.
    rise, run = corner_y[low] - from_y, corner_x[low] - from_x
    slope = np.divide(rise, run, out=np.zeros_like(run), where=run > 0)
    return np.minimum(np.maximum.accumulate(slope), 1)


def _pool(folds: Sequence[Bounds]) -> VennAbersCurve:
    """Put the predictors of all folds together by normalised geometric means."""
    if len(folds) == 1:
        knots, lower, upper = folds[0]
        return VennAbersCurve(knots, upper / (1 - lower + upper), lower, upper)
    knots = np.unique(np.concatenate([fold.knots for fold in folds]))
    ends = np.append(knots, np.inf)
    means = np.zeros((3, ends.shape[0]))
    for fold in folds:
        piece = fold.knots.searchsorted(ends, side="left")
        lower, upper = fold.lower[piece], fold.upper[piece]
        means += [np.log(upper) - np.log1p(-lower), logit(lower), logit(upper)]
    return VennAbersCurve(knots, *expit(means / len(folds)))


def _mirrored(curve: VennAbersCurve) -> VennAbersCurve:
    """Give the curve of the other class, at minus the score."""
    # Pieces closed on the right become closed on the left: the knot itself moves up.
    knots = np.nextafter(-curve.knots[::-1], -np.inf)
    return VennAbersCurve(
        knots, 1 - curve.values[::-1], 1 - curve.upper[::-1], 1 - curve.lower[::-1]
    )
