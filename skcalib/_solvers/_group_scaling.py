"""Scaling the logits of one group, shrunk towards those of all rows.

Of the log-probabilities L that hold for all rows, a group gets softmax(v L + b), where
with the n rows (the sum of the weights) of the group

    mean log-loss + (strength / n) |(v, b) - (1, 0)|^2

is least: a hierarchical ridge, the maximum a posteriori estimate where groups vary
about the whole by a normal distribution of variance 1 / (2 strength). With few rows the
penalty rules, with many the data. For "vector" there is a v and b for each class, and
the strength is multiplied by the number of classes K, as in structured vector scaling;
for "temperature" v is one number and b is 0. That problem is convex in one unknown:
with m and s^2 the mean and variance of L under softmax(v L), its derivative is
mean(m - L_y) + 2 (strength / n) (v - 1), its second mean(s^2) + 2 strength / n, and
Newton's steps, halved while the loss does not fall, end in a few rounds.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from skcalib._blocks import CalibrationData
from skcalib._numerics import softmax_
from skcalib._solvers._vector import fit_vector

Array = NDArray[np.float64]

_TOL, _MAX_ITER = 1e-9, 50


def fit_group(
    data: CalibrationData, strength: float, structure: str
) -> tuple[Array, Array]:
    """Return v and b of a group, each of shape (K,)."""
    n_classes = data.n_classes
    if np.isinf(strength):
        return np.ones(n_classes), np.zeros(n_classes)
    if structure == "temperature":
        v = _fit_power(data, strength / data.total_weight)
        return np.full(n_classes, v), np.zeros(n_classes)
    start = np.repeat([[1.0], [0.0]], n_classes, axis=1)
    penalty = np.full((2, n_classes), strength * n_classes / data.total_weight)
    found = fit_vector(data, start, penalty=penalty, tol=_TOL, max_iter=_MAX_ITER)
    return found.x[0], found.x[1]


def _fit_power(data: CalibrationData, penalty: float) -> float:
    logits = np.asarray(data.logits, dtype=np.float64)
    own = logits[np.arange(data.n_samples), data.codes]

    def loss(v: float) -> float:
        rows = logsumexp(v * logits, axis=1) - v * own
        return float(rows @ data.weight) + penalty * (v - 1) ** 2

    v, least = 1.0, loss(1.0)
    for _ in range(_MAX_ITER):
        proba = softmax_(v * logits)
        mean = np.vecdot(proba, logits)
        variance = np.vecdot(proba, (logits - mean[:, np.newaxis]) ** 2)
        slope = float((mean - own) @ data.weight) + 2 * penalty * (v - 1)
        step = -slope / (float(variance @ data.weight) + 2 * penalty)
        while (new := loss(v + step)) > least and abs(step) > _TOL:
            step /= 2
        if new > least or abs(step) <= _TOL:
            break
        v, least = v + step, new
    return v
