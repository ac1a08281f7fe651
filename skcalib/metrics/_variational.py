r"""Calibration error from below: what a recalibrator proves on rows it has not seen.

With p the prediction, y the outcome and c(p) = E[y | p], the error E|c - p| is the
largest E[s (y - p)] over all functions s(p) with values in [-1, 1], taken by s = sign(c
- p). In place of c, which is not known, a recalibrator g fitted on other rows gives s =
sign(g - p). Whatever g, the mean over the held-out rows does not exceed the error, but
for chance. Of whole vectors and the norm |.| of order 1 or 2, s is the gradient of the
norm at g - p, whose dual norm is at most 1. [A Variational Estimator for L_p
Calibration Errors, arXiv:2602.24230, where the mean is that of a proper loss, minus
the first-order expansion of the norm at g - p.]

Deviation: too much confidence is g < p for the predicted class at any p, also below
one half, where the paper's binary form would count it as too little.
"""

from __future__ import annotations

from typing import Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from skcalib._numerics import PROBA_FLOOR, is_whole
from skcalib._validation import check_proba, check_whole, is_event
from skcalib.metrics._bins import Floats, check_option, repetitions
from skcalib.metrics._corp import isotonic_rates
from skcalib.metrics._proper import of_recalibrated

KINDS, DIRECTIONS = ("top_label", "canonical"), ("both", "over", "under")


def variational_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    kind: Literal["top_label", "canonical"] = "top_label",
    direction: Literal["both", "over", "under"] = "both",
    norm: Literal[1, 2] = 1,
    calibrator: Any = None,
    n_splits: int = 5,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute how large a calibration error a cross-fitted recalibrator proves.

    A recalibrator, fitted on the other parts of the rows, says of each row whether its
    probability is too high or too low; the error is the mean residual in the direction
    it says [1]_:

    .. math:: \frac1n \sum_i \operatorname{sign}(g_i - \mathrm{conf}_i)
        (\mathrm{hit}_i - \mathrm{conf}_i)

    Its expectation never exceeds the true error, the mean distance of the confidence to
    how often rows of this confidence are right, and reaches it if every direction is
    right. The ECE averages absolute gaps and overstates it.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    kind : {"top_label", "canonical"}, default="top_label"
        The error of the confidence in the predicted class, or of the whole vector of
        probabilities.

    direction : {"both", "over", "under"}, default="both"
        Only the part of rows that the recalibrator calls over-confident, or
        under-confident; both parts sum to the whole. Of "top_label" only.

    norm : {1, 2}, default=1
        Norm of the distance between vectors. Of "canonical" only.

    calibrator : calibrator, default=None
        The recalibrator, given the logarithms of the probabilities and column numbers
        as labels. By default isotonic regression of the hits on the confidence for
        "top_label", and one temperature for "canonical".

    n_splits : int, default=5
        Number of parts of the rows; each is judged by a fit on the others.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Around 0 for a calibrated classifier, so that it may be negative.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also if there are fewer than two rows, or an
        option does not go with `kind`.

    See Also
    --------
    calibration_loss : The same of the log-loss or Brier score.
    overconfidence_error, underconfidence_error : Parts of the ECE.

    Notes
    -----
    A recalibrator that misses the shape of the error makes it too small, not too large:
    of several, the largest value is the best, if they are few. Isotonic regression
    finds any error that keeps the order of the confidences.

    Rows are dealt out to the parts in turn, in the order of confidence, and by lot
    where confidences are equal. The same rows, in any order, have the same lot: the
    expectation is one over lots, too. If all confidences are equal, how many hits there
    are is all that tells lots apart, so that the means over simulated sets of 20
    calibrated rows are off by about 0.02, of 100 rows by about 0.006.

    References
    ----------
    .. [1] "A Variational Estimator for Lp Calibration Errors", 2026.
       https://arxiv.org/abs/2602.24230

    Examples
    --------
    >>> from scipy.special import softmax
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.metrics import variational_calibration_error
    >>> logits, y, truth = make_logits(return_proba=True, random_state=0)
    >>> round(variational_calibration_error(y, softmax(logits, axis=1)), 2)
    0.07
    >>> abs(variational_calibration_error(y, truth)) < 0.01
    True
    """
    _check_options(kind, direction, norm)
    n_splits = check_whole("n_splits", n_splits, 2)
    codes, proba, weight = check_proba(
        y_true, y_proba, labels, sample_weight, pos_label, top_label=kind == KINDS[0]
    )
    if is_whole(weight):  # Repeated rows may be in several parts.
        rows = repetitions(weight, proba.nbytes // proba.shape[0])
        codes, proba, weight = codes[rows], proba[rows], np.ones(rows.shape[0])
    used = weight > 0
    codes, proba, weight = codes[used], np.asarray(proba)[used], weight[used]
    if codes.shape[0] < 2:
        raise ValueError(
            "A recalibrator is judged on other rows than it is fitted on: "
            "at least two rows with a weight are needed, but there is one."
        )
    given = codes, proba, weight
    if kind == "canonical":
        values = _of_vectors(*given, norm, calibrator, n_splits)
    else:
        event = is_event(y_true, pos_label)
        values = _of_top_label(*given, direction, calibrator, n_splits, event)
    return float(np.average(values, weights=weight))


def _check_options(kind: str, direction: str, norm: int) -> None:
    check_option("kind", kind, KINDS)
    check_option("direction", direction, DIRECTIONS)
    check_option("norm", norm, (1, 2))
    if kind == "canonical" and direction != "both":
        raise ValueError(
            f"direction={direction!r} is known of the predicted class only; leave it "
            'out, or take kind="top_label".'
        )
    if kind == "top_label" and norm != 1:
        raise ValueError(
            f"norm={norm!r} makes no difference to one probability; leave it out, or "
            'take kind="canonical".'
        )


def _of_top_label(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    weight: Floats,
    direction: str,
    calibrator: Any,
    n_splits: int,
    event: bool,
) -> Floats:
    """Return the residual of each row, signed by the direction of recalibration."""
    every = np.arange(codes.shape[0])
    top = np.ones_like(codes) if event else proba.argmax(axis=1)
    confidence = proba[every, top].astype(np.float64)
    hit = (top == codes).astype(np.float64)
    if calibrator is None:
        fold = _deal(n_splits, weight, hit, confidence)
        better = np.empty_like(confidence)
        for k in np.unique(fold):
            fitted, judged = fold != k, fold == k
            knots = confidence[fitted], hit[fitted], weight[fitted]
            better[judged] = np.interp(confidence[judged], *isotonic_rates(*knots))
    else:
        recalibrated = _cross_fit(codes, proba, weight, calibrator, n_splits)
        better = recalibrated[every, top]
    sign = np.sign(better - confidence)
    if direction != "both":
        sign[sign == (1 if direction == "over" else -1)] = 0
    return sign * (hit - confidence)


def _of_vectors(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    weight: Floats,
    norm: int,
    calibrator: Any,
    n_splits: int,
) -> Floats:
    """Return the product of each row's residual and the direction of recalibration."""

    def product(rows: NDArray[np.intp], recalibrated: NDArray[Any]) -> Floats:
        away = recalibrated.astype(np.float64) - proba[rows]
        if norm == 1:
            slope = np.sign(away)
        else:
            length = np.sqrt(np.einsum("ij,ij->i", away, away))[:, np.newaxis]
            slope = np.divide(away, length, out=np.zeros_like(away), where=length > 0)
        own = slope[np.arange(rows.shape[0]), codes[rows]]
        return own - np.einsum("ij,ij->i", slope, proba[rows])

    if calibrator is None:
        return of_recalibrated(product, codes, proba, weight, n_splits)
    recalibrated = _cross_fit(codes, proba, weight, calibrator, n_splits)
    return product(np.arange(codes.shape[0]), recalibrated)


def _cross_fit(
    codes: NDArray[np.intp],
    proba: NDArray[Any],
    weight: Floats,
    calibrator: Any,
    n_splits: int,
) -> Floats:
    """Return the probabilities of each row by a calibrator fitted without its part."""
    own = proba[np.arange(codes.shape[0]), codes]
    squares = np.einsum("ij,ij->i", proba, proba)
    fold = _deal(n_splits, weight, squares, own, proba.max(axis=1))
    logits = np.log(np.maximum(proba, PROBA_FLOOR))
    plain = bool((weight == 1).all())
    result = np.empty(proba.shape)
    for k in np.unique(fold):
        fitted, judged = fold != k, fold == k
        options = {} if plain else {"sample_weight": weight[fitted]}
        fit = clone(calibrator).fit(logits[fitted], codes[fitted], **options)
        found = np.asarray(fit.predict_proba(logits[judged]))
        if found.shape != result[judged].shape:
            raise ValueError(
                f"{type(calibrator).__name__} gives {found.shape[1]} columns for "
                f"{proba.shape[1]} classes; calibrator needs to give one for each."
            )
        result[judged] = found
    return result


def _deal(n_splits: int, *keys: Floats) -> NDArray[np.intp]:
    """Deal rows out in turn, in the order of the last key, ties by lot.

    In the order of the other keys, which know the outcomes, every part would have the
    same share of hits, and the others would tell of its own. The lot is drawn from how
    many rows are alike, so that neither their order nor a seed decides.
    """
    order = np.lexsort(keys)
    differs = [key[order][1:] != key[order][:-1] for key in keys[-2:]]
    seed = crc32(np.packbits(differs).tobytes())
    lot = np.random.default_rng(seed).random(order.size)
    level = np.append(0, np.cumsum(differs[-1]))
    fold = np.empty(order.shape[0], dtype=np.intp)
    fold[order[np.lexsort((lot, level))]] = np.arange(order.shape[0]) % n_splits
    return fold
