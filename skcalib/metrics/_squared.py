r"""The squared calibration error with an interval by formula, without resampling.

With U = hit - confidence, the estimate is the mean product of the U of two different
rows of a bin: a U-statistic, whose expectation is the mean squared gap of the bins. Its
variance has two parts [Sun, Chaudhari, Barnett & Dobriban, A Confidence Interval for
the Expected Calibration Error, arXiv:2408.08998]. With m and v the mean and variance of
U in a bin of n_b of the n rows,

- the first order, sigma^2 / n with sigma^2 = sum (n_b / n) (4 m^2 E[U^2] - 3 m^4) -
  (sum (n_b / n) m^2)^2, rules where the classifier is not calibrated;
- the second, sum 2 v^2 n_b / (n_b - 1) / n^2, is what is left where it is.

Deviation: the paper takes sigma^2 alone for the ends of the interval and the second
part for the question whether 0 belongs to it. Here both are added, so that classifiers
between the two cases are covered, too. The plug-in value of the first contains twice
the second, as m^2 is too large by v / n_b on average: it is subtracted.

Where few rows are errors, a value that chance made small has a small variance, too. The
upper end therefore takes the variance that an error of its own size would have: the
first order grows in proportion to the error, as their plug-in values stand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from skcalib._validation import check_top_label, check_whole
from skcalib.metrics._bins import Floats, check_level, rank_scores
from skcalib.metrics._estimates import MetricEstimate
from skcalib.metrics._hypothesis import repeat_rows
from skcalib.metrics._resampling import residual_sums, unbiased_squared_gap


def squared_calibration_interval(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    confidence_level: float = 0.95,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> MetricEstimate:
    """Compute the squared calibration error of the predicted class and its interval.

    The mean squared gap of bins of equal mass, less what chance adds to it, with a
    confidence interval by formula [1]_, without resampling.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins.

    confidence_level : float, default=0.95
        Level of the interval, between 0 and 1.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Numbers of repetitions of each row: an interval has to know how many samples
        there are, so other weights are refused.

    Returns
    -------
    estimate : MetricEstimate
        A tuple (value, low, high). The value is unbiased and may be negative, which the
        ends are not: it then lies below its interval, which is that of a value of 0.
        Their roots are the interval of the root mean squared error.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also if there are fewer than two rows a bin.

    See Also
    --------
    root_mean_squared_calibration_error : With ``debiased=True``, nearly its root.
    calibration_test : Whether the error is 0; ``metric="squared_ce"`` is this value.

    Notes
    -----
    The interval holds for many samples a bin. It is that of the error of the bins,
    which the mean squared distance of each confidence to its accuracy exceeds by the
    variance within the bins. Of a calibrated classifier it contains 0 more often than
    `confidence_level` says; of another, one of 95 % from 1,000 rows holds the error in
    94 to 97 of 100 draws, and with a few errors among 100 rows in 90.

    References
    ----------
    .. [1] Sun, Chaudhari, Barnett & Dobriban. "A Confidence Interval for the Expected
       Calibration Error", 2024. https://arxiv.org/abs/2408.08998

    Examples
    --------
    >>> from scipy.special import softmax
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.metrics import squared_calibration_interval
    >>> logits, y, truth = make_logits(return_proba=True, random_state=0)
    >>> value, low, high = squared_calibration_interval(y, softmax(logits, axis=1))
    >>> 0 < low < value < high
    True
    >>> squared_calibration_interval(y, truth).low
    0.0
    """
    n_bins = check_whole("n_bins", n_bins)
    check_level(confidence_level)
    rows = check_top_label(y_true, y_proba, labels, sample_weight, pos_label)
    confidence, hit = repeat_rows(rows[2], *rows[:2])
    n_rows = confidence.shape[0]
    if n_rows < 2 * n_bins:
        raise ValueError(
            f"{n_rows} rows over {n_bins} bins leave fewer than two a bin, from which "
            "no spread can be told. Use fewer bins."
        )
    ranked, weight = rank_scores(confidence, hit), np.ones(n_rows)
    value = unbiased_squared_gap(ranked, weight, n_bins)
    variance, growth = _variance(*residual_sums(ranked, weight, n_bins))
    quantile = float(-ndtri((1 - confidence_level) / 2))
    centre, reach = max(value, 0.0), quantile * np.sqrt(variance)
    # Of reach^2 = quantile^2 (variance + growth reach), the root.
    half = quantile**2 * growth / 2
    high = centre + half + np.hypot(half, reach)
    return MetricEstimate(value, float(max(centre - reach, 0.0)), float(high))


def _variance(rows: Floats, gaps: Floats, squares: Floats) -> tuple[float, float]:
    """Variance of the estimate, and by how much it grows with the error.

    It follows from the sums of the residuals in each bin.
    """
    several = rows > 1
    rows, gaps, squares = rows[several], gaps[several], squares[several]
    total = rows.sum()
    mean, others = gaps / rows, rows - 1
    spread = (squares - gaps * mean) / others
    by_bin = 4 * mean**2 * squares / rows - 3 * mean**4
    error = rows @ mean**2 / total
    first = (rows @ by_bin / total - error**2) / total
    second = 2 * np.sum(spread**2 * rows / others) / total**2
    excess = max(first - 2 * second, 0.0)
    return float(second + excess), float(excess / error) if excess > 0 else 0.0
