"""Kolmogorov-Smirnov calibration error: cumulated gaps, no bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from skcalib._validation import check_top_label
from skcalib.metrics._bins import BinStats, cumulate, rank_scores


def ks_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the Kolmogorov-Smirnov calibration error of the predicted class.

    The largest distance between the cumulated confidences and the cumulated hits of
    the rows sorted by confidence [1]_:

    .. math:: \max_i \Big|\frac1n \sum_{j \le i} (\mathrm{conf}_j - \mathrm{hit}_j)\Big|

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

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

    Notes
    -----
    Rows of equal confidence enter the sum together, so that the order of the rows has
    no influence.

    References
    ----------
    .. [1] Gupta, Rahimi, Ajanthan, Mensink, Sminchisescu & Hartley. "Calibration of
       Neural Networks using Splines", ICLR 2021. https://arxiv.org/abs/2006.12800

    Examples
    --------
    >>> from skcalib.metrics import ks_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(ks_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.15
    """
    confidence, hit, weight = check_top_label(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    ranked = rank_scores(confidence, hit)
    return largest_cumulated_gap(cumulate(ranked, weight[ranked.order]))


def largest_cumulated_gap(sums: BinStats) -> float:
    """Return the largest cumulated gap of sums that `cumulate` gave."""
    return float(np.abs(sums.confidence - sums.hit).max() / sums.weight[-1])
