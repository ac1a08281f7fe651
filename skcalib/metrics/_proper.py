"""Proper losses in two parts: what recalibration removes, and what remains."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._numerics import PROBA_FLOOR, softmax_
from skcalib._solvers._result import NO_INFORMATION
from skcalib._solvers._temperature import fit_temperature
from skcalib._validation import check_proba, check_whole, rows_of_shares
from skcalib.metrics._bins import Floats
from skcalib.metrics._resampling import RowStatistics


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

    No randomness: rows are dealt out to the parts in the order of confidence, equal
    rows to the same part. If all are equal they are left as they are.

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
    if loss not in ("log_loss", "brier"):
        raise ValueError(f"loss={loss!r} is not known; use 'log_loss' or 'brier'.")
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
    recalibrated = recalibrate(
        codes, proba, weight, int(n_splits), together=row is not None
    )
    total, refined = (
        float(np.average(_loss_of_rows(p, codes, loss), weights=weight))
        for p in (proba, recalibrated)
    )
    return total, refined


def _loss_of_rows(proba: NDArray[Any], codes: NDArray[np.intp], loss: str) -> Floats:
    rows = RowStatistics(proba, codes, n_bins=1)
    return rows.log_loss if loss == "log_loss" else rows.brier


def recalibrate(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    weight: Floats,
    n_splits: int,
    *,
    together: bool = False,
) -> NDArray[Any]:
    """Return cross-fitted probabilities: temperature scaling, slightly smoothed.

    Rows of different classes are dealt out as one where they stand `together`.
    """
    fold, tied = _deal(codes, proba, n_splits, together)
    logits = np.log(np.maximum(proba, PROBA_FLOOR))
    n_folds = n_splits if tied.any() else fold.max() + 1
    if n_folds == 1:  # All rows are alike: there are no others to learn from.
        return proba
    held_out = np.where(tied, 1 / n_folds, 1.0)
    left = weight * np.where(tied, 1 - 1 / n_folds, 1.0)
    result = np.zeros_like(proba)
    for k in range(n_folds):
        fitted = np.flatnonzero(tied | (fold != k))
        judged = np.flatnonzero(tied | (fold == k))
        data = CalibrationData(ArraySource(logits[fitted]), codes[fitted], left[fitted])
        found = fit_temperature(data)
        # Where the optimum is infinite, how near the fit comes depends on the rows.
        temperature = np.inf if found.message == NO_INFORMATION else found.x[0]
        uniform = 1 / (data.total_weight + 1)
        part = softmax_(logits[judged] / proba.dtype.type(temperature))
        part = (1 - uniform) * part + uniform / proba.shape[1]
        result[judged] += part * held_out[judged, np.newaxis]
    return result


def _deal(
    codes: NDArray[np.intp], proba: NDArray[Any], n_splits: int, together: bool
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Deal rows out to folds in turn, those of equal probabilities together.

    Equal are the probability of the predicted and that of the true class, unless rows
    of different classes stand together. Tied are rows of which only the former is
    equal, as where there are few scores: an equal share of each is in every fold.
    """
    confidence, own = proba.max(axis=1), proba[np.arange(codes.shape[0]), codes]
    if together:
        own = np.zeros_like(own)
    order = np.lexsort((own, confidence))
    keys = np.column_stack([confidence, own])[order]
    differs = keys[1:] != keys[:-1]
    group = np.append(0, np.cumsum(differs.any(axis=1)))
    level = np.append(0, np.cumsum(differs[:, 0]))
    n_groups = np.bincount(level[np.unique(group, return_index=True)[1]])
    shared = n_groups[level] > 1
    number = np.unique(group[~shared], return_inverse=True)[1]
    fold, tied = np.full(codes.shape[0], -1), np.empty(codes.shape[0], dtype=bool)
    fold[order[~shared]] = number % n_splits
    tied[order] = shared
    return fold, tied
