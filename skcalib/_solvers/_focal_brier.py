"""Losses of cached logits: focal and Brier, their gradients, their best temperature."""

import numpy as np

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._numerics import log_softmax_
from skcalib._solvers._temperature import fit_temperature
from skcalib._solvers._temperature_search import search_temperature

TINY = np.finfo(np.float64).tiny

# Single precision holds the inverse square of a logit of this size, with room for sums.
SMALLEST_SINGLE = 1e-15


def row_losses(scores, codes, loss, gamma):
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
    own = log_proba[rows, codes]
    proba = np.exp(log_proba)
    if loss == "brier":
        distance = proba.copy()
        distance[rows, codes] -= 1
        losses = np.einsum("ij,ij->i", distance, proba) - proba[rows, codes] + 1
        mean = np.einsum("ij,ij->i", distance, proba)
        residual = 2 * proba * (distance - mean[:, np.newaxis])
        return losses, residual, proba, np.sqrt(2) * proba
    miss = -np.expm1(own)
    # The slope by -log p; the last ratio tends to 1 as p does.
    ratio = np.where(miss > 0, -own / np.maximum(miss, TINY), 1.0)
    power = miss**gamma
    slope = power * (1 + gamma * np.exp(own) * ratio)
    residual = proba.copy()
    residual[rows, codes] -= 1
    residual *= slope[:, np.newaxis]
    return power * -own, residual, proba, np.sqrt(slope[:, np.newaxis] * proba)


def mean_loss(logits, codes, weight, temperature, loss, gamma):
    """Return the weighted mean loss of logits at a temperature."""
    scores = np.array(logits, dtype=np.float64)
    scores /= temperature
    losses = row_losses(scores, codes, loss, gamma)[0]
    return float(losses @ weight / weight.sum())


def log_losses(logits, codes, temperature):
    """Return the negative log-likelihood of each row, at most that of 2.2e-16."""
    scores = np.array(logits, dtype=np.float64)
    scores /= np.asarray(temperature, dtype=np.float64).reshape(-1, 1)
    own = log_softmax_(scores)[np.arange(scores.shape[0]), codes]
    return -np.maximum(own, np.log(np.finfo(np.float64).eps))


def best_temperature(logits, codes, weight, loss="focal", gamma=0.0):
    """Return the solver's result for the temperature that minimises the mean loss."""
    used = np.flatnonzero(weight > 0)
    if used.shape[0] < weight.shape[0]:
        logits, codes, weight = logits[used], codes[used], weight[used]
    if are_tiny(logits):
        logits = logits.astype(np.float64)
    data = CalibrationData(ArraySource(logits), codes, weight)
    if loss == "focal" and gamma == 0:
        return fit_temperature(data)
    return search_temperature(data, loss, gamma, tol=1e-10, max_iter=100)


def are_tiny(logits):
    """Whether logits are so small that single precision lacks what divides by them."""
    if logits.dtype != np.float32 or not logits.size:
        return False
    return max(logits.max(), -logits.min()) < SMALLEST_SINGLE
