"""The two halves of the ECE: too much and too little confidence."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from skcalib.metrics._bins import BinStats
from skcalib.metrics._top_label import checked_stats


def overconfidence_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the part of the ECE in which confidence exceeds accuracy.

    .. math:: \sum_b \frac{n_b}{n} \max(\mathrm{conf}_b - \mathrm{acc}_b, 0)

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, as in `expected_calibration_error`, or of equal mass, as
        in `adaptive_expected_calibration_error`.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    underconfidence_error : The other part; both sum to the ECE.

    Examples
    --------
    >>> from skcalib.metrics import overconfidence_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(overconfidence_error([0, 1, 1, 1], y_proba), 3)
    0.2
    """
    return overconfidence(
        checked_stats(
            y_true, y_proba, n_bins, strategy, labels, sample_weight, pos_label
        )
    )


def underconfidence_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the part of the ECE in which accuracy exceeds confidence.

    .. math:: \sum_b \frac{n_b}{n} \max(\mathrm{acc}_b - \mathrm{conf}_b, 0)

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width or of equal mass; see `overconfidence_error`.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    overconfidence_error : The other part; both sum to the ECE.

    Examples
    --------
    >>> from skcalib.metrics import underconfidence_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(underconfidence_error([0, 1, 1, 1], y_proba), 3)
    0.15
    """
    return underconfidence(
        checked_stats(
            y_true, y_proba, n_bins, strategy, labels, sample_weight, pos_label
        )
    )


def overconfidence(stats: BinStats) -> float:
    """Mean over the rows of how far confidence exceeds accuracy in their bin."""
    excess = np.maximum(stats.confidence - stats.hit, 0).sum()
    return float(excess / stats.weight.sum())


def underconfidence(stats: BinStats) -> float:
    """Mean over the rows of how far accuracy exceeds confidence in their bin."""
    excess = np.maximum(stats.hit - stats.confidence, 0).sum()
    return float(excess / stats.weight.sum())
