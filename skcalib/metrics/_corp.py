"""The isotonic (CORP) rates of hits, and a score in three parts by them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from skcalib._numerics import SMALLEST_PROBA
from skcalib._validation import check_top_label
from skcalib.metrics._bins import Floats, check_option, cumulate, rank_scores


class ScoreDecomposition(NamedTuple):
    """A score in three parts: ``miscalibration - discrimination + uncertainty``."""

    miscalibration: float
    discrimination: float
    uncertainty: float


def score_decomposition(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    loss: Literal["brier", "log_loss"] = "brier",
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> ScoreDecomposition:
    r"""Split the score of the predicted class by isotonic recalibration (CORP).

    With :math:`S` the mean score of the confidences as probabilities of a hit,
    :math:`S_\mathrm{iso}` that of the isotonic regression of the hits on them and
    :math:`S_0` that of the overall rate of hits, the parts are [1]_

    .. math:: \mathrm{MCB} = S - S_\mathrm{iso}, \quad
        \mathrm{DSC} = S_0 - S_\mathrm{iso}, \quad \mathrm{UNC} = S_0 .

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    loss : {"brier", "log_loss"}, default="brier"
        The squared distance of confidence and hit, or the log-loss in nats.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    parts : ScoreDecomposition
        A tuple (miscalibration, discrimination, uncertainty), none of them negative.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also for an unknown loss.

    See Also
    --------
    calibration_loss : Of all classes, by temperature scaling of other rows.
    skcalib.plotting.SmoothReliabilityDisplay : With ``method="isotonic"``, the curve.

    Notes
    -----
    The regression is fitted on the rows that it judges, so that chance raises both the
    miscalibration and the discrimination, the more the fewer rows: compare at equal
    sizes. ``pos_label="event"`` gives the parts for the probability of a class.

    Probabilities count as 2.2e-16 at least in the log-loss.

    References
    ----------
    .. [1] Dimitriadis, Gneiting & Jordan. "Stable Reliability Diagrams for
       Probabilistic Classifiers", PNAS 118, 2021. https://arxiv.org/abs/2008.03033

    Examples
    --------
    >>> from skcalib.metrics import score_decomposition
    >>> correct, confidence = [1, 0, 1, 1], [0.6, 0.6, 0.9, 0.9]
    >>> parts = score_decomposition(correct, confidence, pos_label="event")
    >>> [round(part, 4) for part in parts]
    [0.01, 0.0625, 0.1875]
    """
    check_option("loss", loss, ("brier", "log_loss"))
    rows = check_top_label(y_true, y_proba, labels, sample_weight, pos_label)
    return score_parts(*rows, loss)


def score_parts(
    confidence: Floats, hit: Any, weight: Floats, loss: str
) -> ScoreDecomposition:
    """Return the parts of the score of confidences."""
    score = _score(confidence, hit, weight, loss)
    knots, rates = isotonic_rates(confidence, hit, weight)
    recalibrated = _score(np.interp(confidence, knots, rates), hit, weight, loss)
    rate = np.full_like(confidence, np.average(hit, weights=weight))
    uncertainty = _score(rate, hit, weight, loss)
    # Rounding may leave -1e-17.
    return ScoreDecomposition(
        max(score - recalibrated, 0.0),
        max(uncertainty - recalibrated, 0.0),
        uncertainty,
    )


def _score(proba: Floats, hit: Any, weight: Floats, loss: str) -> float:
    if loss == "brier":
        values = (proba - hit) ** 2
    else:
        own = np.where(hit, proba, 1 - proba)
        values = -np.log(np.maximum(own, SMALLEST_PROBA))
    return float(np.average(values, weights=weight))


def isotonic_rates(
    confidence: Floats, hit: Any, weight: Floats
) -> tuple[Floats, Floats]:
    """Return distinct confidences that have weight, and their isotonic rates."""
    ranked = rank_scores(confidence, hit)
    sums = cumulate(ranked, weight[ranked.order])
    total, hits = np.diff(sums.weight), np.diff(sums.hit)
    used = total > 0
    rates: Any = isotonic_regression(hits[used] / total[used], weights=total[used])
    # Sums of weights that are rounded may exceed 1 by that.
    return ranked.confidence[ranked.ends][used], np.clip(rates.x, 0, 1)
