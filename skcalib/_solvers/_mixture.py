"""Weights of a mixture of predictions, on the simplex, by penalised log-loss."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Samples that each part seems to have seen already; no part ends with weight 0.
PRIOR = 0.5
MAX_STEPS = 1000
TOL = 1e-6


def fit_mixture_weights(log_proba: Array, weight: Array) -> Array:
    """Find the weights of parts whose true classes have these log-probabilities.

    `log_proba` is (n, n_parts), `weight` counts the samples. Expectation-maximisation,
    with a Dirichlet prior that shares the weight evenly where the data do not speak.
    """
    n_parts = log_proba.shape[1]
    share = np.exp(log_proba - log_proba.max(axis=1, keepdims=True))
    total = weight.sum() + PRIOR * n_parts
    w = np.full(n_parts, 1 / n_parts)
    for _ in range(MAX_STEPS):
        # Of how many samples each part is the source, were these the weights.
        counts = w * (share.T @ (weight / (share @ w)))
        new = (counts + PRIOR) / total
        moved = np.abs(new - w).max()
        w = new
        if moved <= TOL:
            break
    return w
