"""Is a classifier calibrated, or is what looks like an error the work of chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skcalib._numerics import is_whole
from skcalib._validation import check_proba, check_whole, is_event
from skcalib.metrics._bins import Floats, check_option, repetitions
from skcalib.metrics._classwise import class_stats
from skcalib.metrics._kernel_pairs import KernelPairs
from skcalib.metrics._registry import METRICS, RANKED
from skcalib.metrics._resampling import Replicate, RowStatistics

# Errors that can be drawn anew: functions of the hits, of all labels, or of pairs of
# rows.
TEST_METRICS = [
    *(name for name in RANKED if METRICS[name].better == "lower"),
    "sce",
    "skce",
]

# With fewer expected errors than this, signs of residuals make p-values too small: at a
# level of 1 % there are 3 to 4 % of 12 expected errors, and 1.5 % of 50.
FEW_ERRORS = 200.0


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationTestResult:
    """What `calibration_test` found.

    Attributes
    ----------
    metric : str
        Name of the calibration error.

    statistic : float
        Its value.

    pvalue : float
        Probability of a value at least as large if the classifier were calibrated.

    null_distribution : ndarray of shape (n_resamples,)
        Values under calibration that were drawn.
    """

    metric: str
    statistic: float
    pvalue: float
    null_distribution: Floats

    def __repr__(self) -> str:
        return (
            f"CalibrationTestResult(metric={self.metric!r}, "
            f"statistic={self.statistic:.4g}, pvalue={self.pvalue:.4g})"
        )


def calibration_test(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    metric: str = "ks",
    n_bins: int = 15,
    n_resamples: int = 999,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> CalibrationTestResult:
    r"""Test whether a classifier is calibrated.

    No calibration error is 0 on a finite sample. The test draws the outcome of every
    row anew with the probabilities that the classifier states, and asks how often the
    error is then as large as the one observed (consistency resampling) [1]_ [2]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    metric : str, default="ks"
        The error by which to judge. Of the predicted class: "ece", "aece", "mce",
        "rmsce", "ks", "kuiper", "smooth_ece", "sweep_ece", "overconfidence",
        "underconfidence" or "squared_ce", the squared gap over bins of equal mass less
        what chance adds. Of every class: "sce". Of the whole probability
        vector: "skce", see `squared_kernel_calibration_error`. The guide to the metrics
        lists all by name.

    n_bins : int, default=15
        Number of bins of the binned errors. "squared_ce" has half as many bins as rows
        where that is fewer.

    n_resamples : int, default=999
        Number of draws; no p-value is below 1 / (n_resamples + 1). 0 takes the limit
        for many samples in place of draws, known of "ks" and "kuiper", see Notes.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Numbers of repetitions of each row: a test has to know how many samples there
        are, so other weights are refused.

    random_state : int, RandomState instance or None, default=0
        Seed of the draws; None draws anew each time.

    Returns
    -------
    result : CalibrationTestResult
        With the attributes `metric`, `statistic`, `pvalue` and `null_distribution`.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also for the name of an unknown metric, for
        weights that are not whole numbers, and for a single row, of which "squared_ce"
        and "skce" know nothing.

    See Also
    --------
    compare_calibration : Is one classifier better calibrated than another.

    Notes
    -----
    "ks" is the default because it finds temperatures that are wrong on fewer samples
    than the others do. A test answers what its metric asks: all but "sce" and "skce"
    look at the confidence of the predicted class only. A small p-value says that the
    classifier is not calibrated, not that the error matters: with many samples any
    error is found.

    With ``n_resamples=0`` the p-values of "ks" and "kuiper" are those of the largest
    distance from 0, and of the range, of a Brownian motion, in units of the standard
    deviation of the mean residual, :math:`\frac1n (\sum_i p_i (1 - p_i))^{1/2}` [4]_.
    They take no time and have no least value. Of some hundred samples, or where many
    confidences are equal, they are rather too large than too small. They need a
    :math:`\sum_i p_i (1 - p_i)` of some tens: with fewer expected errors, small ones
    are too small. With one, a p-value is at most 0.01 in 2 % of draws, and at most
    0.001 in 0.4 %; draw then.

    For "skce" labels are drawn where the classifier expects fewer than 200 errors: only
    pairs with one of these are summed anew. Else this would take the time of all pairs
    for each class, and the signs of the residuals are turned at random instead [3]_,
    which is right for many errors (wild bootstrap). The time grows with the square of
    the number of samples either way.

    References
    ----------
    .. [1] Bröcker & Smith. "Increasing the Reliability of Reliability Diagrams",
       Weather and Forecasting 22, 2007.
    .. [2] Vaicenavicius, Widmann, Andersson, Lindsten, Roll & Schön. "Evaluating model
       calibration in classification", AISTATS 2019. https://arxiv.org/abs/1902.06977
    .. [3] Widmann, Lindsten & Zachariah. "Calibration tests in multi-class
       classification: A unifying framework", NeurIPS 2019.
       https://arxiv.org/abs/1910.11385
    .. [4] Arrieta-Ibarra, Gujral, Tannen, Tygert & Xu. "Metrics of Calibration for
       Probabilistic Predictions", JMLR 23, 2022. https://arxiv.org/abs/2205.09680

    Examples
    --------
    >>> from scipy.special import softmax
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.metrics import calibration_test
    >>> logits, y, truth = make_logits(return_proba=True, random_state=0)
    >>> calibration_test(y, softmax(logits, axis=1), random_state=0).pvalue
    0.001
    >>> bool(calibration_test(y, truth, random_state=0).pvalue > 0.05)
    True
    """
    check_option("metric", metric, TEST_METRICS)
    n_resamples = check_whole("n_resamples", n_resamples, 0)
    tail = METRICS[metric].tail
    if n_resamples == 0 and tail is None:
        known = [name for name in TEST_METRICS if METRICS[name].tail is not None]
        raise ValueError(
            f"n_resamples=0 asks for a p-value without draws, which is known of "
            f"{known} but not of {metric!r}. Take one of these or draw, such as "
            "n_resamples=999."
        )
    check_whole("n_bins", n_bins)
    codes, proba, weight = check_proba(
        y_true,
        y_proba,
        labels,
        sample_weight,
        pos_label,
        top_label=metric in RANKED,
    )
    codes, proba = repeat_rows(weight, codes, proba)
    random = check_random_state(random_state)
    if metric == "skce":
        value, null = _test_skce(codes, proba, n_resamples, random)
    else:
        rows = RowStatistics(proba, codes, n_bins, is_event(y_true, pos_label))
        values = _redrawn(metric, rows, random)
        value = next(values)
        if tail is not None and n_resamples == 0:
            pvalue = tail(_deviations(value, rows.ranked.confidence))
            return CalibrationTestResult(metric, value, pvalue, np.empty(0))
        null = np.array([next(values) for _ in range(n_resamples)])
    # Draws that differ from the value by rounding only are as large as it.
    as_large = np.count_nonzero(null >= value - 1e-12 * abs(value))
    pvalue = (1 + as_large) / (1 + n_resamples)
    return CalibrationTestResult(metric, float(value), float(pvalue), null)


def repeat_rows(weight: Floats, *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Repeat rows as often as their weights say; other weights are refused."""
    if not is_whole(weight):
        row = int((weight != np.rint(weight)).argmax())
        raise ValueError(
            f"sample_weight holds {weight[row]} in row {row}. How many samples there "
            "are has to be known: weights have to be numbers of repetitions here."
        )
    if (weight == 1).all():
        return arrays
    rows = repetitions(weight, sum(a.nbytes // a.shape[0] for a in arrays))
    return tuple(array[rows] for array in arrays)


def _deviations(mean: float, confidence: Floats) -> float:
    """Express a mean residual in its standard deviation under calibration."""
    n_rows = confidence.shape[0]
    variance = float(confidence @ (1 - confidence))
    if variance > 0:
        return mean * n_rows / np.sqrt(variance)
    # Certainties, of which one is wrong or none.
    return np.inf if mean > 1e-12 else 0.0


def _redrawn(
    metric: str, rows: RowStatistics, random: np.random.RandomState
) -> Iterator[float]:
    """Yield the metric of the true outcomes, and then of one draw after the other."""
    codes, proba, n_bins = rows.codes, np.asarray(rows.proba), rows.n_bins
    n_rows = codes.shape[0]
    if metric == "sce":
        weight = np.full(n_rows, 1 / n_rows)
        for labels in chain([codes], _drawn_labels(proba, random)):
            yield class_stats(proba, labels, weight, n_bins).mean_gap
    ranked = rows.ranked
    function, weight = RANKED[metric], np.ones(n_rows)
    known = None
    while True:
        replicate = Replicate(ranked, weight, n_bins, known)
        yield function(replicate)
        known = known or replicate.cumulated
        hit = random.random_sample(n_rows) < ranked.confidence
        ranked = replace(ranked, hit=hit.astype(np.float64))


def _test_skce(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    n_resamples: int,
    random: np.random.RandomState,
) -> tuple[float, Floats]:
    """Return the unbiased estimate, and its values with random signs of the rows."""
    n_rows = codes.shape[0]
    if n_rows < 2:
        raise ValueError('metric="skce" needs at least two rows.')
    if float((1 - proba.max(axis=1).astype(np.float64)).sum()) < FEW_ERRORS:
        return _redraw_skce(codes, proba, n_resamples, random)
    pairs = KernelPairs.of_rows(codes, proba, np.ones(n_rows), "laplacian", None)
    signs = random.randint(0, 2, (n_resamples + 1, n_rows)).astype(np.int8) * 2 - 1
    signs[0] = 1  # The first draw is the estimate itself.

    def of_tile(first: slice, second: slice, h: Floats) -> Floats:
        twice = 1 if first == second else 2
        left = signs[:, first].astype(np.float64) @ h
        return twice * np.einsum("ri,ri->r", left, signs[:, second], dtype=np.float64)

    sums = pairs.sum(of_tile) - pairs.diagonal.sum()
    values = sums / (n_rows * (n_rows - 1))
    return float(values[0]), values[1:]


def _redraw_skce(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    n_resamples: int,
    random: np.random.RandomState,
) -> tuple[float, Floats]:
    """Return the unbiased estimate, and its values for labels that are drawn anew.

    Few of these are not the predicted class, and the sum over pairs follows from that
    of the predicted classes: of each pair, only what these few change is added.
    """
    n_rows, top = codes.shape[0], proba.argmax(axis=1)
    pairs = KernelPairs.of_rows(top, proba, np.ones(n_rows), "laplacian", None)
    nearby = pairs.residual_nearby()
    of_predicted = np.vdot(nearby, pairs.residual)

    def value(labels: NDArray[np.intp]) -> float:
        rows = np.flatnonzero(labels != top)
        one = np.arange(rows.shape[0])
        change = np.zeros((rows.shape[0], proba.shape[1]))
        change[one, labels[rows]], change[one, top[rows]] = 1, -1
        among = replace(pairs, centred=pairs.centred[rows], residual=change)
        total = of_predicted + 2 * np.vdot(nearby[rows], change)
        if rows.size:
            total += among.weighted_sum(np.ones(rows.size)) - among.diagonal.sum()
        return float(total / (n_rows * (n_rows - 1)))

    draws = _drawn_labels(proba, random)
    null = np.array([value(next(draws)) for _ in range(n_resamples)])
    return value(codes), null


def _drawn_labels(
    proba: NDArray[Any], random: np.random.RandomState
) -> Iterator[NDArray[np.intp]]:
    """Yield labels drawn with the stated probabilities, again and again."""
    cumulated = np.cumsum(proba, axis=1, dtype=np.float64)
    while True:
        drawn = random.random_sample((proba.shape[0], 1)) * cumulated[:, -1:]
        yield (cumulated[:, :-1] <= drawn).sum(axis=1)
