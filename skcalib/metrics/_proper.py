"""Proper losses in two parts: what recalibration removes, and what remains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._numerics import PROBA_FLOOR, is_whole, softmax_
from skcalib._solvers._result import NO_INFORMATION
from skcalib._solvers._temperature import fit_temperature
from skcalib._validation import (
    as_repetitions,
    check_proba,
    check_whole,
    rows_of_shares,
)
from skcalib.metrics._bins import Floats, check_option
from skcalib.metrics._resampling import RowStatistics

# Of more rows that are alike each fold has an equal share, but for rounding.
MOST_TIED = 1e15


def calibration_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    loss: Literal["log_loss", "brier"] = "log_loss",
    n_splits: int = 5,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the part of the log-loss or Brier score that recalibration removes.

    A proper loss is the sum of a calibration part and a refinement part. This is the
    first: how much lower the loss becomes once the probabilities are recalibrated by
    temperature scaling, fitted by cross-validation on the same rows [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
        True classes, or shares of all classes in each row.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    loss : {"log_loss", "brier"}, default="log_loss"
        Log-loss in nats, or Brier score (summed over the classes, halved for two).

    n_splits : int, default=5
        Number of parts of the rows; each is recalibrated by a fit on the others.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    loss : float
        Near 0 if there is nothing to gain. Slightly negative if the temperature of
        the other rows makes the loss worse.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    See Also
    --------
    refinement_loss : The other part; both sum to the loss.

    Notes
    -----
    What one temperature cannot mend counts as refinement: the true calibration part is
    at least as large as this one, but for chance. Recalibrated probabilities are mixed
    with 1/(n + 1) of the uniform distribution, n the number of rows fitted on, so that
    no certain miss costs infinitely much.

    Rows are dealt out to the parts in the order of confidence, equal rows to the same
    part, and by lot where only the confidence is equal. The same rows, in any order,
    have the same lot. If all are equal they are left as they are.

    References
    ----------
    .. [1] Berta, Holzmüller, Jordan & Bach. "Rethinking Early Stopping: Refine, Then
       Calibrate", 2025. https://arxiv.org/abs/2501.19195

    Examples
    --------
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.metrics import calibration_loss
    >>> from scipy.special import softmax
    >>> logits, y, truth = make_logits(return_proba=True, random_state=0)
    >>> round(calibration_loss(y, softmax(logits, axis=1)), 2)
    0.1
    >>> round(calibration_loss(y, truth), 2)
    -0.0
    """
    total, refined = _losses(
        y_true, y_proba, loss, n_splits, labels, sample_weight, pos_label
    )
    return total - refined


def refinement_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    loss: Literal["log_loss", "brier"] = "log_loss",
    n_splits: int = 5,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the log-loss or Brier score that is left after recalibration.

    How well a classifier tells the classes apart, whatever the scale of its
    probabilities: the figure to watch while training a network that will be calibrated
    afterwards [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
        True classes, or shares of all classes in each row.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    loss : {"log_loss", "brier"}, default="log_loss"
        Log-loss in nats, or Brier score (summed over the classes, halved for two).

    n_splits : int, default=5
        Number of parts of the rows; each is recalibrated by a fit on the others.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    loss : float
        Not negative; lower is better.

    Raises
    ------
    ValueError
        See `calibration_loss`.

    See Also
    --------
    calibration_loss : The other part, with all details.

    References
    ----------
    .. [1] Berta, Holzmüller, Jordan & Bach. "Rethinking Early Stopping: Refine, Then
       Calibrate", 2025. https://arxiv.org/abs/2501.19195

    Examples
    --------
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.metrics import refinement_loss
    >>> from scipy.special import softmax
    >>> logits, y = make_logits(random_state=0)
    >>> sharp, soft = softmax(logits, axis=1), softmax(logits / 3, axis=1)
    >>> bool(abs(refinement_loss(y, sharp) - refinement_loss(y, soft)) < 0.01)
    True
    """
    return _losses(y_true, y_proba, loss, n_splits, labels, sample_weight, pos_label)[1]


def _losses(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    loss: str,
    n_splits: int,
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
    pos_label: object,
) -> tuple[float, float]:
    """Return the mean loss of the probabilities and that of the recalibrated ones."""
    check_option("loss", loss, ("log_loss", "brier"))
    check_whole("n_splits", n_splits, 2)
    y_true, y_proba, labels, sample_weight, row = rows_of_shares(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    codes, proba, weight = check_proba(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    used = weight > 0
    if not used.all():
        codes, proba, weight = codes[used], proba[used], weight[used]

    def loss_of(rows: NDArray[np.intp], found: NDArray[Any]) -> Floats:
        statistics = RowStatistics(found, codes[rows], n_bins=1)
        return statistics.log_loss if loss == "log_loss" else statistics.brier

    values = (
        loss_of(np.arange(codes.shape[0]), proba),
        of_recalibrated(
            loss_of, codes, proba, weight, int(n_splits), together=row is not None
        ),
    )
    total, refined = (float(np.average(v, weights=weight)) for v in values)
    return total, refined


def of_recalibrated(
    function: Callable[[NDArray[np.intp], NDArray[Any]], Floats],
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    weight: Floats,
    n_splits: int,
    *,
    together: bool = False,
) -> Floats:
    """Return ``function(rows, recalibrated)``, a number for each row.

    Probabilities are cross-fitted: temperature scaling, slightly smoothed. Rows of
    different classes are dealt out as one where they stand `together`.
    """
    share = _deal(codes, proba, weight, n_splits, together)
    weight = as_repetitions(weight)
    if share.shape[1] == 1:  # All rows are alike: there are no others to learn from.
        return function(np.arange(codes.shape[0]), proba)
    logits = np.log(np.maximum(proba, PROBA_FLOOR))
    result = np.zeros(codes.shape[0])
    for held_out in share.T:
        fitted, judged = np.flatnonzero(held_out < 1), np.flatnonzero(held_out > 0)
        left = weight[fitted] * (1 - held_out[fitted])
        data = CalibrationData(ArraySource(logits[fitted]), codes[fitted], left)
        found = fit_temperature(data)
        # Where the optimum is infinite, how near the fit comes depends on the rows.
        temperature = np.inf if found.message == NO_INFORMATION else found.x[0]
        uniform = 1 / (data.total_weight + 1)
        part = softmax_(logits[judged] / proba.dtype.type(temperature))
        part = (1 - uniform) * part + uniform / proba.shape[1]
        result[judged] += held_out[judged] * function(judged, part)
    return result


def _deal(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    weight: Floats,
    n_splits: int,
    together: bool,
) -> Floats:
    """Deal rows out to folds in turn, those of equal probabilities together.

    Equal are the probability of the predicted and that of the true class, unless rows
    of different classes stand together. Of rows of which only the former is equal, as
    where there are few scores, each fold has a share by lot, as if they were dealt out
    one by one: equal shares would tell a fold of its own outcomes. The lot is drawn
    from how many rows are alike, so that neither their order nor a seed decides.

    Returns the share of each row that is in each fold.
    """
    confidence, own = proba.max(axis=1), proba[np.arange(codes.shape[0]), codes]
    if together:
        own = np.zeros_like(own)
    order = np.lexsort((own, confidence))
    keys = np.column_stack([confidence, own])[order]
    differs = keys[1:] != keys[:-1]
    group = np.append(0, np.cumsum(differs.any(axis=1)))
    level = np.append(0, np.cumsum(differs[:, 0]))
    first = np.unique(group, return_index=True)[1]
    shared = np.bincount(level[first])[level[first]] > 1
    count = np.bincount(group, weight[order] if is_whole(weight) else None)
    share = np.zeros((first.shape[0], n_splits))
    number = np.arange(np.count_nonzero(~shared))
    share[np.flatnonzero(~shared), number % n_splits] = 1
    tied = np.minimum(count[shared], MOST_TIED).astype(np.int64)
    random = np.random.default_rng(crc32(tied.tobytes()))
    share[shared] = random.multinomial(tied, np.full(n_splits, 1 / n_splits))
    share /= share.sum(axis=1, keepdims=True)
    result = np.empty((codes.shape[0], n_splits))
    result[order] = share[group]
    return result[:, result.any(axis=0)]
