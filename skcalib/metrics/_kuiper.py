"""Kuiper calibration error: the range of the cumulated gaps, no bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from skcalib._validation import check_top_label
from skcalib.metrics._bins import BinStats, cumulate, rank_scores


def kuiper_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the Kuiper calibration error of the predicted class (ECCE-R).

    The distance between the highest and the lowest point of the cumulated gaps of the
    rows sorted by confidence [1]_:

    .. math:: \max_{0 \le i \le n} C_i - \min_{0 \le i \le n} C_i, \quad
        C_i = \frac1n \sum_{j \le i} (\mathrm{conf}_j - \mathrm{hit}_j), \; C_0 = 0

    It is the largest error that a range of confidences adds up to.

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

    See Also
    --------
    ks_calibration_error : The farthest point from 0 (ECCE-MAD), at least half of this.
    calibration_test : Its p-value, by draws or, with ``n_resamples=0``, by a formula.

    Notes
    -----
    Rows of equal confidence enter the sum together, so that the order of the rows has
    no influence.

    References
    ----------
    .. [1] Arrieta-Ibarra, Gujral, Tannen, Tygert & Xu. "Metrics of Calibration for
       Probabilistic Predictions", JMLR 23, 2022. https://arxiv.org/abs/2205.09680

    Examples
    --------
    >>> from skcalib.metrics import kuiper_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(kuiper_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.2
    """
    confidence, hit, weight = check_top_label(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    ranked = rank_scores(confidence, hit)
    return range_of_cumulated_gaps(cumulate(ranked, weight[ranked.order]))


def range_of_cumulated_gaps(sums: BinStats) -> float:
    """Return the range of cumulated gaps of sums that `cumulate` gave."""
    return float(np.ptp(sums.confidence - sums.hit) / sums.weight[-1])
