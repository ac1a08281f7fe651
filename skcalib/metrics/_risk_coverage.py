"""What a classifier gains by abstaining where it is least confident."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from skcalib._validation import check_top_label
from skcalib.metrics._bins import Floats, sum_by_index


def risk_coverage_curve(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Compute the error rate of a classifier that abstains below a confidence.

    Rows whose confidence, their largest probability, is at least the threshold are
    accepted. Coverage is their share, risk the share of errors among them [1]_.

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
    coverage : ndarray of shape (n_thresholds,)
        Share of the rows accepted, increasing, the last one 1.

    risk : ndarray of shape (n_thresholds,)
        Share of errors among the rows accepted.

    thresholds : ndarray of shape (n_thresholds,)
        The confidences that occur, decreasing.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    area_under_risk_coverage_curve : The curve in one number.

    References
    ----------
    .. [1] El-Yaniv & Wiener. "On the Foundations of Noise-free Selective
       Classification", JMLR 2010. https://jmlr.org/papers/v11/el-yaniv10a.html

    Examples
    --------
    >>> from skcalib.metrics import risk_coverage_curve
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> coverage, risk, thresholds = risk_coverage_curve([0, 0, 1, 0], y_proba)
    >>> coverage, risk, thresholds
    (array([0.5 , 0.75, 1.  ]), array([0.  , 0.  , 0.25]), array([0.9, 0.8, 0.6]))
    """
    rows, errors, thresholds = _groups(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    accepted, wrong = np.cumsum(rows), np.cumsum(errors)
    return accepted / accepted[-1], wrong / accepted, thresholds


def area_under_risk_coverage_curve(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the area under the risk-coverage curve (AURC).

    The mean error rate of a classifier that abstains, over all shares it may accept
    [1]_:

    .. math:: \mathrm{AURC} = \int_0^1 \mathrm{risk}(c) \, dc

    It judges accuracy and the ranking by confidence together, and not the calibration:
    any increasing map of the confidences leaves it as it is.

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
    area : float
        0 if no row is wrong; the error rate if the confidence says nothing.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    risk_coverage_curve : The curve itself.

    Notes
    -----
    Rows of equal confidence share their errors evenly, so that the order of the rows
    has no influence, and the integral is exact. Authors who take the mean of the risk
    at 1, ..., n accepted rows get a number that differs by the order of 1/n.

    References
    ----------
    .. [1] Geifman, Uziel & El-Yaniv. "Bias-Reduced Uncertainty Estimation for Deep
       Neural Classifiers", ICLR 2019. https://arxiv.org/abs/1805.08206

    Examples
    --------
    >>> from skcalib.metrics import area_under_risk_coverage_curve
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(area_under_risk_coverage_curve([0, 0, 1, 0], y_proba), 3)
    0.034
    """
    rows, errors, _ = _groups(y_true, y_proba, labels, sample_weight, pos_label)
    accepted, wrong = np.cumsum(rows), np.cumsum(errors)
    low, wrong_before = accepted[:-1], wrong[:-1]
    # Within a group of ties the errors grow with a constant rate, so that the risk is
    # rate + (wrong_before - rate * low) / accepted between its ends. A group may be
    # too light to be seen in the sums.
    rate = errors / rows
    beyond = (wrong_before - rate[1:] * low) @ np.diff(np.log(accepted))
    return float((errors.sum() + beyond) / accepted[-1])


def _groups(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
    pos_label: object,
) -> tuple[Floats, Floats, Floats]:
    """Return the weights of rows and errors of each confidence, and these, falling."""
    confidence, hit, weight = check_top_label(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    used = weight > 0
    confidence, hit, weight = confidence[used], hit[used], weight[used]
    thresholds, group = np.unique(confidence, return_inverse=True)
    n = thresholds.shape[0]
    rows = sum_by_index(group, weight, n)[::-1]
    errors = sum_by_index(group, weight * ~hit, n)[::-1]
    return rows, errors, thresholds[::-1]
