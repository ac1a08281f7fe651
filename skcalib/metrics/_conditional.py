"""Top-label calibration error: the ECE within each predicted class."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._validation import check_proba, check_whole, is_event
from skcalib.metrics._bins import (
    Floats,
    check_strategy,
    equal_mass_stats,
    rank_scores,
    sum_by_index,
    uniform_edges,
)


def top_label_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the mean ECE over the predicted classes.

    A classifier that is too sure of cats and not sure enough of dogs may have no gap on
    average. Here the rows are first divided by the predicted class [1]_:

    .. math:: \sum_k \sum_b \frac{n_{kb}}{n} |\mathrm{acc}_{kb} - \mathrm{conf}_{kb}|

    with :math:`n_{kb}` rows that are predicted as class k with a confidence in bin b.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins for each predicted class.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal mass among the rows of a predicted class.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1; never below `expected_calibration_error` with
        the same bins of equal width.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    static_calibration_error : Every column, not only that of the predicted class.

    Notes
    -----
    There are `n_bins` times the number of classes bins: with few rows in each, chance
    alone makes the error large.

    References
    ----------
    .. [1] Gupta & Ramdas. "Top-label calibration and multiclass-to-binary reductions",
       ICLR 2022. https://arxiv.org/abs/2107.08353

    Examples
    --------
    >>> from skcalib.metrics import top_label_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    >>> round(top_label_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.25
    """
    n_bins = check_whole("n_bins", n_bins)
    check_strategy(strategy)
    codes, proba, weight = check_proba(
        y_true, y_proba, labels, sample_weight, pos_label, top_label=True
    )
    top = proba.argmax(axis=1)
    if is_event(y_true, pos_label):
        top = np.ones_like(top)
    confidence = proba[np.arange(top.shape[0]), top].astype(np.float64)
    hit = top == codes
    if strategy == "uniform":
        index = top * n_bins + np.searchsorted(uniform_edges(n_bins), confidence)
        size = proba.shape[1] * n_bins
        residual = sum_by_index(index, weight * (hit - confidence), size)
        return float(np.abs(residual).sum() / weight.sum())
    return _mass_gap(top, confidence, hit, weight, n_bins)


def _mass_gap(
    top: NDArray[np.intp],
    confidence: Floats,
    hit: NDArray[Any],
    weight: Floats,
    n_bins: int,
) -> float:
    """Mean gap over bins of equal mass within each predicted class."""
    gap = 0.0
    for k in np.unique(top[weight > 0]):
        rows = np.flatnonzero(top == k)
        ranked = rank_scores(confidence[rows], hit[rows])
        stats = equal_mass_stats(ranked, weight[rows][ranked.order], n_bins)
        gap += np.abs(stats.confidence - stats.hit).sum()
    return float(gap / weight.sum())
