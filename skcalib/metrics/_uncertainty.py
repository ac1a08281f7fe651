"""Does a stated uncertainty equal the error that is observed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from sklearn.utils.validation import check_array, check_consistent_length

from skcalib._validation import (
    check_weight,
    check_whole,
    column_on_host,
    is_dask,
    refuse_dates,
    refuse_outside,
)
from skcalib.metrics._bins import (
    BinStats,
    Floats,
    bin_stats,
    check_level,
    check_strategy,
    equal_mass_stats,
    rank_scores,
)


def uncertainty_calibration_error(
    error: ArrayLike,
    uncertainty: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "quantile",
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the uncertainty calibration error (UCE).

    Samples are binned by their uncertainty; in each bin the mean error should be the
    mean uncertainty [1]_:

    .. math:: \mathrm{UCE} = \sum_b \frac{n_b}{n}
        |\mathrm{error}_b - \mathrm{uncertainty}_b|

    Parameters
    ----------
    error : array-like of shape (n_samples,)
        Observed error of each sample, in the unit of the uncertainty: squared errors
        for variances, ``-log(p)`` of the true class for entropies in nats.

    uncertainty : array-like of shape (n_samples,)
        Predicted uncertainty of each sample, not negative.

    n_bins : int, default=15
        Number of bins.

    strategy : {"uniform", "quantile"}, default="quantile"
        Bins of equal mass, or of equal width between 0 and the largest uncertainty.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        0 or more, in the unit of the uncertainty.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or the lengths differ.

    See Also
    --------
    expected_normalized_calibration_error : The relative form, for regression.

    Notes
    -----
    Equal mass is the default, unlike in [1]_: one large variance would leave most bins
    of equal width empty. The value depends on the scale of the error; compare it
    between methods, not between problems.

    References
    ----------
    .. [1] Laves, Ihler, Fast, Kahrs & Ortmaier. "Well-Calibrated Regression Uncertainty
       in Medical Imaging with Deep Learning", MIDL 2020.
       https://proceedings.mlr.press/v121/laves20a.html

    Examples
    --------
    >>> import numpy as np
    >>> from skcalib.metrics import uncertainty_calibration_error
    >>> y_true, y_pred = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    >>> uncertainty_calibration_error((y_true - y_pred) ** 2, [1.0, 1.0, 2.0], n_bins=1)
    0.333...
    """
    n_bins = check_whole("n_bins", n_bins)
    observed = check_vector(error, "error", least=0)
    stated = check_vector(uncertainty, "uncertainty", least=0)
    check_consistent_length(observed, stated)
    weight = check_weight(sample_weight, observed)
    if check_strategy(strategy) == "quantile":
        return _mass_stats(stated, observed, weight, n_bins).mean_gap
    edges = stated[weight > 0].max() * np.arange(1, n_bins) / n_bins
    return bin_stats(stated, observed, weight, edges).mean_gap


def expected_normalized_calibration_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    y_std: ArrayLike,
    *,
    n_bins: int = 15,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the expected normalised calibration error (ENCE) of a regression.

    Samples are binned by their predicted standard deviation, equally many a bin. In
    each bin the root mean squared error should be the root mean predicted variance
    (RMV) [1]_:

    .. math:: \mathrm{ENCE} = \sum_b \frac{n_b}{n}
        \frac{|\mathrm{RMSE}_b - \mathrm{RMV}_b|}{\mathrm{RMV}_b}

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True values.

    y_pred : array-like of shape (n_samples,)
        Predicted means.

    y_std : array-like of shape (n_samples,)
        Predicted standard deviations, not negative.

    n_bins : int, default=15
        Number of bins.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        0 or more, without a unit: 0.1 means that errors and standard deviations differ
        by a tenth.

    Raises
    ------
    ValueError
        If a value is not finite, a standard deviation is negative or all of a bin are
        0, or the lengths differ.

    See Also
    --------
    uncertainty_calibration_error : In the unit of the variance.

    References
    ----------
    .. [1] Levi, Gispan, Giladi & Fetaya. "Evaluating and Calibrating Uncertainty
       Prediction in Regression Tasks", Sensors 2022. https://arxiv.org/abs/1905.11659

    Examples
    --------
    >>> from skcalib.metrics import expected_normalized_calibration_error
    >>> y_true, y_pred = [1.0, 2.0, 4.0, 3.0], [1.0, 3.0, 2.0, 3.0]
    >>> error = expected_normalized_calibration_error(
    ...     y_true, y_pred, [1.0, 1.0, 2.0, 2.0], n_bins=2
    ... )
    >>> round(error, 3)
    0.293
    """
    n_bins = check_whole("n_bins", n_bins)
    residual, std, weight = check_spread(y_true, y_pred, y_std, sample_weight)
    unit = std.max(initial=0) or 1.0  # Of which squares neither over- nor underflow.
    stats = _mass_stats((std / unit) ** 2, (residual / unit) ** 2, weight, n_bins)
    predicted, observed = np.sqrt(stats.mean_confidence), np.sqrt(stats.accuracy)
    filled = stats.weight > 0
    if (predicted[filled] == 0).any():
        raise ValueError(
            "All standard deviations of a bin are 0, which nothing can be divided by. "
            "The ENCE needs y_std above 0."
        )
    gaps = np.abs(observed - predicted)[filled] / predicted[filled]
    return float(gaps @ stats.share[filled])


def interval_coverage(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    y_std: ArrayLike,
    *,
    confidence_level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the share of true values inside their normal prediction interval.

    The interval of a sample is its mean plus or minus :math:`z` standard deviations,
    :math:`z = \Phi^{-1}((1 + \text{level}) / 2)`. The share is also known as prediction
    interval coverage probability (PICP).

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True values.

    y_pred : array-like of shape (n_samples,)
        Predicted means.

    y_std : array-like of shape (n_samples,)
        Predicted standard deviations, not negative.

    confidence_level : float, default=0.95
        Level of the intervals, between 0 and 1.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    coverage : float
        Between 0 and 1; `confidence_level` if the uncertainty is right.

    Raises
    ------
    ValueError
        If a value is not finite, a standard deviation is negative, the level is outside
        (0, 1) or the lengths differ.

    See Also
    --------
    interval_sharpness : The width of the same intervals.

    Examples
    --------
    >>> from skcalib.metrics import interval_coverage
    >>> interval_coverage([0.0, 1.0, 2.0, 9.0], [0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0])
    0.75
    """
    factor = _normal_factor(confidence_level)
    residual, std, weight = check_spread(y_true, y_pred, y_std, sample_weight)
    return float(np.average(np.abs(residual) <= factor * std, weights=weight))


def interval_sharpness(
    y_std: ArrayLike,
    *,
    confidence_level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the mean width of normal prediction intervals.

    Of two predictions with the right coverage the sharper one, with the smaller width,
    says more. Also known as mean prediction interval width (MPIW).

    Parameters
    ----------
    y_std : array-like of shape (n_samples,)
        Predicted standard deviations, not negative.

    confidence_level : float, default=0.95
        Level of the intervals, between 0 and 1.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    width : float
        In the unit of `y_std`.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or the level is outside (0, 1).

    See Also
    --------
    interval_coverage : Whether the intervals are right.

    Examples
    --------
    >>> from skcalib.metrics import interval_sharpness
    >>> round(interval_sharpness([1.0, 2.0]), 3)
    5.88
    """
    factor = _normal_factor(confidence_level)
    std = check_vector(y_std, "y_std", least=0)
    weight = check_weight(sample_weight, std)
    return float(2 * factor * np.average(std, weights=weight))


def check_vector(
    values: ArrayLike, name: str, least: float | None = None
) -> NDArray[np.float64]:
    """Return finite float64 values of one axis, none of them below `least`."""
    if is_dask(values):  # One number a sample of a file is small, and is read.
        refuse_outside(values, name)
    refuse_dates(values, name)
    column = column_on_host(values)
    array = check_array(
        column,
        dtype=np.float64,
        ensure_2d=False,
        ensure_all_finite=False,
        input_name=name,
    )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; it needs one number a sample."
        )
    if not np.isfinite(array).all():
        row = int((~np.isfinite(array)).argmax())
        raise ValueError(
            f"{name} holds {array[row]} in row {row}; it needs finite numbers."
        )
    if least is not None and array.min() < least:
        row = int(array.argmin())
        raise ValueError(
            f"{name} holds {array[row]} in row {row}; it has to be {least} or more."
        )
    return np.asarray(array)


def check_spread(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    y_std: ArrayLike,
    sample_weight: ArrayLike | None,
) -> tuple[Floats, Floats, Floats]:
    """Return residuals, standard deviations and weights of a regression."""
    true = check_vector(y_true, "y_true")
    mean = check_vector(y_pred, "y_pred")
    std = check_vector(y_std, "y_std", least=0)
    check_consistent_length(true, mean, std)
    return true - mean, std, check_weight(sample_weight, true)


def _mass_stats(
    stated: Floats, observed: NDArray[Any], weight: Floats, n_bins: int
) -> BinStats:
    ranked = rank_scores(stated, observed)
    return equal_mass_stats(ranked, weight[ranked.order], n_bins)


def _normal_factor(confidence_level: float) -> float:
    check_level(confidence_level)
    return float(-ndtri((1 - confidence_level) / 2))
