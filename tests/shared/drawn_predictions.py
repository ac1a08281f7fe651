"""Labels and probabilities of a classifier that is too sure of itself."""

import numpy as np
from scipy.special import softmax


def draw_predictions(seed=0, n=200, n_classes=4, decimals=None):
    """Labels and over-confident probabilities; few decimals give many ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, n_classes))
    proba = softmax(logits, axis=1)
    if decimals is not None:
        proba = np.round(proba, decimals)
        proba[:, 0] += 1 - proba.sum(axis=1)
        proba = np.abs(proba) / np.abs(proba).sum(axis=1, keepdims=True)
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, proba


def draw_with_truth(n=1500, n_classes=3, seed=0):
    """Labels, over-confident probabilities and true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1), softmax(logits / 2, axis=1)
