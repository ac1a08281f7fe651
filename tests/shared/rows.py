"""Rows of probabilities and of logits."""

import numpy as np
from numpy.testing import assert_allclose
from scipy.special import logsumexp


def normalise(rows):
    """Divide each row by its sum."""
    return rows / rows.sum(axis=1, keepdims=True)


def mean_log_loss(y, proba):
    """Without the check of scikit-learn that float32 rows sum to 1 within 1e-8."""
    return -np.log(proba[np.arange(len(y)), y].astype(float)).mean()


def rest_log_odds(logits):
    """Compute from the formula, with a sum of its own for every class."""
    columns = range(logits.shape[1])
    rest = [logsumexp(np.delete(logits, k, axis=1), axis=1) for k in columns]
    return logits - np.stack(rest, axis=1)


def require_top(result, proba, confidence, atol=1e-12):
    """Require `confidence` of the top class, and the proportions of the others."""
    rows, top = np.arange(len(proba)), proba.argmax(axis=1)
    rest = proba.copy()
    rest[rows, top] = 0
    expected = (1 - confidence)[:, np.newaxis] * normalise(rest)
    expected[rows, top] = confidence
    assert_allclose(result, expected, atol=atol)
