"""Calibration error over as many bins as keep the accuracies in order."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._numerics import is_whole
from skcalib._validation import check_top_label
from skcalib.metrics._bins import (
    BinStats,
    Floats,
    RankedScores,
    check_option,
    cumulate,
    equal_mass_stats,
    mass_edges,
    rank_scores,
)
from skcalib.metrics._top_label import root_mean_squared_gap

# Accuracies closer than this are equal: sums of many rows round.
ROUNDING = 1e-10
# So many edges are looked at at once.
BATCH_ELEMENTS = 1 << 14


def sweep_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    norm: Literal[1, 2] = 1,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the calibration error whose number of bins the data choose (ECE sweep).

    Accuracy should grow with confidence. The rows are split into 1, 2, 3, ... bins of
    equal mass until, for the first time, the accuracies do not; the number of bins
    before that is used [1]_. There is no parameter to choose.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    norm : {1, 2}, default=1
        Mean absolute gap of the bins, or root of the mean squared gap.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    adaptive_expected_calibration_error : Bins of equal mass, as many as you say.

    Notes
    -----
    Bins are those of `adaptive_expected_calibration_error`: rows of equal confidence
    share their hits evenly. There are never more bins than different confidences.

    References
    ----------
    .. [1] Roelofs, Cain, Shlens & Mozer. "Mitigating Bias in Calibration Error
       Estimation", AISTATS 2022. https://arxiv.org/abs/2012.08668

    Examples
    --------
    >>> from skcalib.metrics import sweep_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(sweep_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.05
    """
    check_option("norm", norm, (1, 2))
    confidence, hit, weight = check_top_label(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    ranked = rank_scores(confidence, hit)
    return sweep_error(ranked, weight[ranked.order], norm=norm)


def sweep_error(ranked: RankedScores, weight: Floats, *, norm: int = 1) -> float:
    """Return the gap over the bins of the sweep; `weight` is in order of the scores."""
    stats = equal_mass_stats(ranked, weight, sweep_n_bins(ranked, weight))
    return stats.mean_gap if norm == 1 else root_mean_squared_gap(stats)


def sweep_n_bins(ranked: RankedScores, weight: Floats) -> int:
    """Count up to the last number of bins before the accuracies lose their order.

    Below the first hit accuracies are 0, above the last miss they are 1: only bins
    between can break the order, and only these are looked at.
    """
    sums = cumulate(ranked, weight)
    whole = is_whole(weight)
    total = sums.weight[-1]
    most = int(np.count_nonzero(np.diff(sums.weight)))
    misses = sums.weight - sums.hit
    first_hit = sums.weight[np.searchsorted(sums.hit, 0, side="right") - 1]
    last_miss = sums.weight[np.searchsorted(misses, misses[-1] * (1 - ROUNDING))]
    if first_hit >= last_miss:
        return max(most, 1)
    first = 2
    while first <= most:
        width = int((last_miss - first_hit) / total * 2 * first) + 5
        count = min(max(BATCH_ELEMENTS // width, 1), first)
        numbers = np.arange(first, min(first + count, most + 1))[:, np.newaxis]
        begin = (first_hit / total * numbers).astype(np.intp) - 1
        parts = np.minimum(begin + np.arange(width + 1), numbers)
        edges = mass_edges(total, numbers, parts, whole)
        broken = ~_are_in_order(sums, edges)
        if broken.any():
            return int(numbers[broken.argmax(), 0]) - 1
        first += count
    return most


def _are_in_order(sums: BinStats, edges: Floats) -> NDArray[np.bool_]:
    """Whether accuracies between the edges never fall, for each row of edges."""
    hits = np.interp(edges, sums.weight, sums.hit)
    # Edges that lie beyond the first and the last row leave bins of no width.
    accuracy = (edges[:, :-1] > 0).astype(np.float64)
    masses = np.diff(edges)
    np.divide(np.diff(hits), masses, out=accuracy, where=masses > 0)
    return np.asarray((np.diff(accuracy) >= -ROUNDING).all(axis=1))
