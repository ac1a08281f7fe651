"""Static calibration error: every class and every sample."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from skcalib._validation import check_proba, check_whole, is_dask
from skcalib.metrics._bins import check_strategy
from skcalib.metrics._chunks import accumulate
from skcalib.metrics._classwise import class_mass_stats, class_stats


def static_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the static calibration error (SCE), the class-wise form of the ECE.

    Every column of probabilities is binned by itself and compared with how often its
    class occurs [1]_:

    .. math:: \mathrm{SCE} = \frac1K \sum_k \sum_b \frac{n_{bk}}{n}
        |\mathrm{freq}_{bk} - \mathrm{conf}_{bk}|

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins for each class.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or bins of equal mass in each column.

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
    :math:`K` is the number of columns, also when some classes never occur in `y_true`.
    Every sample counts in every column, probabilities of exactly 0 included, and the
    columns are averaged, not summed. Bins are closed on the right; the first also
    holds 0. Memory does not grow with the number of samples for equal widths.

    References
    ----------
    .. [1] Nixon, Dusenberry, Jerfel, Nguyen, Liu, Zhang & Tran. "Measuring Calibration
       in Deep Learning", CVPR Workshops 2019. https://arxiv.org/abs/1904.01685

    Examples
    --------
    >>> from skcalib.metrics import static_calibration_error
    >>> y_proba = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
    >>> round(static_calibration_error([0, 1, 2], y_proba), 3)
    0.244
    """
    n_bins = check_whole("n_bins", n_bins)
    given = y_true, y_proba, labels, sample_weight, pos_label
    if is_dask(y_proba) and strategy == "uniform":
        return accumulate("sce", *given, n_bins).compute()["sce"]
    if check_strategy(strategy) == "uniform":
        codes, rows, weight = check_proba(*given, blocks=True)
        # Weights that sum to 1 stay in the range of float32.
        stats = class_stats(rows, codes, weight / weight.sum(), n_bins)
    else:
        codes, proba, weight = check_proba(*given)
        stats = class_mass_stats(proba, codes, weight, n_bins)
    return stats.mean_gap
