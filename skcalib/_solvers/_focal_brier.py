r"""Focal and Brier losses of rows of logits: values, gradients and curvature.

With p the softmax of the scores and q = p_y the probability of the true class y,

- the focal loss is ``(1 - q)^gamma * -ln q`` [Lin, Goyal, Girshick, He & Dollar, Focal
  Loss for Dense Object Detection, ICCV 2017, equation (4)]; gamma = 0 is the log-loss;
- the Brier loss is ``|p - e_y|^2 = |p|^2 - 2 q + 1`` [Brier 1950], e_y being one-hot.

Derivatives. Let S be the change of the scores less its mean under p, so that p changes
by p S and ln q by S_y. The focal loss depends on ln q alone: with the slope by -ln q,

    a = (1 - q)^gamma * (1 + gamma q * -ln q / (1 - q)),

its gradient by the scores is a (p - e_y). That of the Brier loss is 2 p (d - p'd) with
d = p - e_y.

The second order taken is Gauss and Newton's, positive where the losses need not be
convex: a S' diag(p) S for the focal loss, which leaves out the change of a, and
2 |p S|^2 for the Brier loss, which leaves out the change of p in S.
"""

import numpy as np
from numpy.typing import NDArray

from skcalib._numerics import SMALLEST_PROBA, TINY, log_softmax_
from skcalib._solvers._temperature import scaled_logits

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def focal_loss(log_own: Array, gamma: float) -> Array:
    """Focal loss of rows whose true classes have these log-probabilities."""
    loss: Array = (-np.expm1(log_own)) ** gamma * -log_own
    return loss


def focal_slope(log_own: Array, gamma: float) -> Array:
    """Slope of the focal loss by minus the log-probability."""
    miss = -np.expm1(log_own)
    # The ratio tends to 1 as the probability does.
    ratio = np.where(miss > 0, -log_own / np.maximum(miss, TINY), 1.0)
    slope: Array = miss**gamma * (1 + gamma * np.exp(log_own) * ratio)
    return slope


def row_losses(
    scores: Array, codes: Codes, loss: str, gamma: float
) -> tuple[Array, Array, Array, Array]:
    """Return the loss of each row and what its derivatives need.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
        Logits divided by the temperature, float64; overwritten.

    codes : ndarray of shape (n_samples,)
        Column of each row's class.

    loss : {"focal", "brier"}
        Which loss.

    gamma : float
        Exponent of the focal loss.

    Returns
    -------
    losses : ndarray of shape (n_samples,)
        The losses.

    residual : ndarray of shape (n_samples, n_classes)
        Gradients by the scores.

    proba : ndarray of shape (n_samples, n_classes)
        The softmax.

    root : ndarray of shape (n_samples, n_classes)
        With D the change of a row's scores and S = D - sum(proba * D), the square of
        ``root * S``, summed, is the Gauss-Newton form of the loss's second order.
    """
    rows = np.arange(scores.shape[0])
    log_proba = log_softmax_(scores)
    log_own = log_proba[rows, codes]
    proba = np.exp(log_proba)
    away = proba.copy()
    away[rows, codes] -= 1
    if loss == "brier":
        mean = np.einsum("ij,ij->i", away, proba)
        losses = mean - proba[rows, codes] + 1
        residual = 2 * proba * (away - mean[:, np.newaxis])
        return losses, residual, proba, np.sqrt(2) * proba
    slope = focal_slope(log_own, gamma)[:, np.newaxis]
    return focal_loss(log_own, gamma), away * slope, proba, np.sqrt(slope * proba)


def mean_loss(
    logits: NDArray,
    codes: Codes,
    weight: Array,
    temperature: float,
    loss: str,
    gamma: float,
) -> float:
    """Return the weighted mean loss of logits at a temperature."""
    scores = np.array(logits, dtype=np.float64)
    scores /= temperature
    losses = row_losses(scores, codes, loss, gamma)[0]
    return float(losses @ weight / weight.sum())


def log_losses(logits: NDArray, codes: Codes, temperature: float | Array) -> Array:
    """Return the negative log-likelihood of each row, at most that of 2.2e-16."""
    scores = np.array(logits, dtype=np.float64)
    scores /= np.asarray(temperature, dtype=np.float64).reshape(-1, 1)
    own = log_softmax_(scores)[np.arange(scores.shape[0]), codes]
    losses: Array = -np.maximum(own, np.log(SMALLEST_PROBA))
    return losses


def summed_losses(
    loss: str, gamma: float, beta: float, logits: NDArray, codes: Codes, weight: Array
) -> float:
    """Sum the weighted losses of one block of logits at the temperature 1/beta."""
    t, t_label = scaled_logits(logits, codes, beta)
    exp_t = np.exp(t)
    total = exp_t.sum(axis=1, dtype=np.float64)
    if loss == "focal":
        return float(focal_loss(t_label - np.log(total), gamma) @ weight)
    square = np.einsum("ij,ij->i", exp_t, exp_t) / total**2
    own = np.exp(t_label) / total
    return float((square - 2 * own + 1) @ weight)


def summed_slopes(
    loss: str, gamma: float, beta: float, logits: NDArray, codes: Codes, weight: Array
) -> float:
    """Sum the derivatives of the weighted losses by log beta.

    That of p_k is p_k (t_k - mean), with t the scaled logits and their mean under p.
    """
    t, t_label = scaled_logits(logits, codes, beta)
    proba = np.exp(t).astype(np.float64)
    total = proba.sum(axis=1)
    proba /= total[:, np.newaxis]
    mean = np.einsum("ij,ij->i", proba, t)
    by_log_own = t_label - mean
    if loss == "focal":
        slope = -focal_slope(t_label - np.log(total), gamma) * by_log_own
    else:
        own = np.exp(t_label) / total
        square = np.einsum("ij,ij->i", proba, proba)
        moment = np.einsum("ij,ij,ij->i", proba, proba, t)
        slope = 2 * (moment - mean * square - own * by_log_own)
    return float(slope @ weight)
