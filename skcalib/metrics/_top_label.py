"""Binned calibration errors of the predicted class: ECE, AECE, MCE and RMSCE."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from skcalib._validation import check_top_label, check_whole, is_dask
from skcalib.metrics._bins import (
    BinStats,
    rank_scores,
    top_label_stats,
    whole_run_stats,
)
from skcalib.metrics._chunks import bins_of_chunks


def expected_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the expected calibration error (ECE) of the predicted class.

    Rows are grouped by confidence, the largest probability of the row, into bins of
    equal width [1]_ [2]_:

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`. By default columns of a data frame that are
        named after labels are theirs; else integers inside ``range(n_classes)`` are
        column numbers, and other labels must be as many as the columns, in sorted
        order. Names that are these classes in another order are refused.

    pos_label : int, float, bool or str, default=None
        Class that a single column of `y_proba` is the probability of. By default 1
        where the labels are 0 and 1, -1 and 1 or bool; others have no default.
        "event" beside a `y_true` of numbers says that the column is the probability of
        what `y_true` counts and is never turned round, see Notes.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1.

    Raises
    ------
    ValueError
        If a row of `y_proba` is not a probability distribution, or the classes of
        its columns are not known; the message says which row, or which labels.

    Warns
    -----
    OneColumnWarning
        If a single column may hold confidences, see Notes.

    See Also
    --------
    adaptive_expected_calibration_error : Bins of equal mass.
    smooth_calibration_error : No bins.
    static_calibration_error : Every column, not only that of the predicted class.

    Notes
    -----
    Bins are closed on the right, :math:`(lo, hi]`; the first also holds 0 and the last
    holds a confidence of exactly 1. Empty bins add nothing. Where columns tie, the
    first is the predicted class, as in `numpy.argmax`. With two classes the
    confidence is that of the predicted class too, so it is never below 0.5.

    A single column holds the probability of one of two classes, not confidences in
    the predicted one of several: those below 0.5 would count as predictions of the
    other class. Confidences beside whether each was right (0 or 1) are passed with
    ``pos_label="event"``, and so is the probability of class 1 for its own error,
    :math:`|\mathrm{frequency}_b - \bar p_b|` in bins from 0 to 1. A warning points
    there where errors of one sign below and above 0.5 cancel; an explicit `pos_label`
    says that there is no mistake. What depends on all classes is then that of two, the
    event and its absence.

    References
    ----------
    .. [1] Naeini, Cooper & Hauskrecht. "Obtaining Well Calibrated Probabilities Using
       Bayesian Binning", AAAI 2015.
    .. [2] Guo, Pleiss, Sun & Weinberger. "On Calibration of Modern Neural Networks",
       ICML 2017. https://arxiv.org/abs/1706.04599

    Examples
    --------
    >>> from skcalib.metrics import expected_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(expected_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.35

    Confidences, and whether the predicted class was right:

    >>> correct, confidence = [1, 0, 0], [0.9, 0.3, 0.2]
    >>> error = expected_calibration_error(correct, confidence, pos_label="event")
    >>> round(error, 3)
    0.2
    """
    stats = checked_stats(
        y_true, y_proba, n_bins, "uniform", labels, sample_weight, pos_label
    )
    return stats.mean_gap


def adaptive_expected_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the expected calibration error over bins of equal mass (AECE).

    The same sum as `expected_calibration_error`, over bins that hold equally many
    rows [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins.

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
    The sorted rows are split by rank into `n_bins` parts whose sizes differ by one row
    at most, the larger parts first. Rows of equal confidence that an edge separates
    share their hits evenly, so the order of the rows has no influence.

    Published code often interpolates bin edges between the sorted confidences
    instead. Bins that are open on the left then drop the smallest sample, and where
    many confidences are equal (1.0 in float32, say) edges coincide and a bin stays
    empty. On real networks such values differ from this one by up to 3e-4.

    Weights that are not whole numbers have no ranks: they are cut into parts of
    exactly equal mass, a row on an edge counting partly on either side.

    References
    ----------
    .. [1] Nixon, Dusenberry, Jerfel, Nguyen, Liu, Zhang & Tran. "Measuring Calibration
       in Deep Learning", CVPR Workshops 2019. https://arxiv.org/abs/1904.01685

    Examples
    --------
    >>> from skcalib.metrics import adaptive_expected_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> error = adaptive_expected_calibration_error([0, 1, 1, 1], y_proba, n_bins=2)
    >>> round(error, 3)
    0.35
    """
    stats = checked_stats(
        y_true, y_proba, n_bins, "quantile", labels, sample_weight, pos_label
    )
    return stats.mean_gap


def maximum_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the maximum calibration error (MCE), the largest gap of any bin.

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
        Between 0 (calibrated) and 1.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    Notes
    -----
    With equal widths a bin of one or two rows can set the value [1]_; bins of equal
    mass do not have this weakness.

    References
    ----------
    .. [1] Naeini, Cooper & Hauskrecht. "Obtaining Well Calibrated Probabilities Using
       Bayesian Binning", AAAI 2015.

    Examples
    --------
    >>> from skcalib.metrics import maximum_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(maximum_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.4
    """
    return largest_gap(
        checked_stats(
            y_true, y_proba, n_bins, strategy, labels, sample_weight, pos_label
        )
    )


def root_mean_squared_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] | None = None,
    debiased: bool = False,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the root of the mean squared gap of the bins (RMSCE).

    .. math:: \Big(\sum_b \frac{n_b}{n} (\mathrm{conf}_b - \mathrm{acc}_b)^2\Big)^{1/2}

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins.

    strategy : {"uniform", "quantile"}, default=None
        Bins of equal width or of equal mass. By default of equal mass if `debiased`,
        else of equal width.

    debiased : bool, default=False
        Subtract from each squared gap the part that chance adds,
        :math:`\mathrm{acc}_b (1 - \mathrm{acc}_b) / (n_b - 1)` [1]_; a negative sum
        gives 0.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows. `debiased` takes
        the weights of a bin as its number of rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also if `debiased` is asked for but the
        total weight leaves no more than one row a bin.

    Notes
    -----
    Without the correction, finite samples make a calibrated classifier look worse
    the more bins there are. Bins of at most one row have no variance estimate; their
    squared gap counts as it is. For the correction, rows of equal confidence are never
    separated: of equal mass, all are in the bin that holds the middle of them.

    References
    ----------
    .. [1] Kumar, Liang & Ma. "Verified Uncertainty Calibration", NeurIPS 2019.
       https://arxiv.org/abs/1909.10155

    Examples
    --------
    >>> from skcalib.metrics import root_mean_squared_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(root_mean_squared_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.361
    """
    if strategy is None:
        strategy = "quantile" if debiased else "uniform"
    if not debiased:
        given = y_true, y_proba, n_bins, strategy, labels, sample_weight, pos_label
        return root_mean_squared_gap(checked_stats(*given))
    n_bins = check_whole("n_bins", n_bins)
    rows = check_top_label(y_true, y_proba, labels, sample_weight, pos_label)
    n_rows = float(rows[2].sum())
    if n_rows <= n_bins:
        raise ValueError(
            f"A total weight of {n_rows:g} over {n_bins} bins leaves no more than one "
            "row a bin, and debiased=True needs two. Use fewer bins; weights count as "
            "numbers of rows here."
        )
    if strategy == "quantile":
        ranked = rank_scores(*rows[:2])
        stats = whole_run_stats(ranked, rows[2][ranked.order], n_bins)
    else:
        stats = top_label_stats(*rows, n_bins=n_bins, strategy=strategy)
    return root_mean_squared_gap(stats, debiased=True)


def checked_stats(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    n_bins: int,
    strategy: str,
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
    pos_label: object,
) -> BinStats:
    """Return the sums over the bins of the predicted class, after a look at it all."""
    n_bins = check_whole("n_bins", n_bins)
    given = y_true, y_proba, labels, sample_weight, pos_label
    if is_dask(y_proba) and strategy == "uniform":
        return bins_of_chunks(*given, n_bins)
    rows = check_top_label(*given)
    return top_label_stats(*rows, n_bins=n_bins, strategy=strategy)


def largest_gap(stats: BinStats) -> float:
    """Return the largest absolute gap of any bin."""
    return float(np.abs(stats.gap).max())


def root_mean_squared_gap(stats: BinStats, *, debiased: bool = False) -> float:
    """Return the root of the mean squared gap, less what chance adds."""
    squared = stats.gap**2
    if debiased:
        accuracy = stats.accuracy
        spread = np.maximum(accuracy * (1 - accuracy), 0)
        others = stats.weight - 1
        several = others > 0
        squared[several] -= spread[several] / others[several]
    return float(np.sqrt(max(np.sum(stats.share * squared), 0.0)))
