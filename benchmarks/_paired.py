"""Metrics over splits, and the interval of what one method has over another.

The test halves of the splits overlap, so their results are not independent. The
bootstrap therefore draws images of the whole data set, the same ones for all splits and
both methods: a replicate is the mean over the splits of the difference that the drawn
images give. Fitted calibrators stay as they are. Percentiles of calibration errors are
moved by the mean excess of the replicates over the value, as in `calibration_report`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_array
from sklearn.metrics import accuracy_score, log_loss

from skcalib.metrics import (
    adaptive_expected_calibration_error,
    expected_calibration_error,
    predictive_entropy,
    static_calibration_error,
)

N_BINS = 15


@dataclass(eq=False)
class Result:
    """Test probabilities of one method on one split, and the rows they are for."""

    rows: np.ndarray
    y: np.ndarray
    proba: np.ndarray


def metrics(result):
    """Return the columns of a calibration paper's table."""
    y, proba = result.y, result.proba
    labels = np.arange(proba.shape[1])
    return {
        "accuracy": accuracy_score(y, proba.argmax(axis=1)),
        "entropy": predictive_entropy(y, proba),
        "ECE": expected_calibration_error(y, proba, labels=labels),
        "AECE": adaptive_expected_calibration_error(y, proba, labels=labels),
        "SCE": static_calibration_error(y, proba, labels=labels),
        "NLL": log_loss(y, proba.astype(np.float64), labels=labels),
        "Brier": float(np.mean(((proba - np.eye(len(labels))[y]) ** 2).sum(axis=1))),
    }


def differences(results, references, n_samples, n_bootstrap=2000):
    """Return ``{metric: (value, low, high)}`` of accuracy, ECE and NLL, 95 %."""
    weights = _draws(n_samples, n_bootstrap)
    found = {}
    for name, statistic in _STATISTICS.items():
        mean = 0
        for result, reference in zip(results, references, strict=True):
            part = weights[:, result.rows]
            mean = mean + (statistic(result, part) - statistic(reference, part))
        value, *draws = mean / len(results)
        low, high = np.quantile(draws, [0.025, 0.975])
        if name == "ECE":
            low, high = np.array([low, high]) - (np.mean(draws) - value)
        found[name] = (float(value), float(low), float(high))
    return found


@cache
def _draws(n_samples, n_bootstrap):
    """How often each image counts: once in the first row, then as it is drawn."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n_samples, np.full(n_samples, 1 / n_samples), n_bootstrap)
    return np.vstack([np.ones(n_samples, int), drawn]).astype(np.float64)


def _accuracy(result, weights):
    hit = result.proba.argmax(axis=1) == result.y
    return weights @ hit / weights.sum(axis=1)


def _log_loss(result, weights):
    own = result.proba[np.arange(len(result.y)), result.y].astype(np.float64)
    losses = -np.log(np.maximum(own, np.finfo(np.float64).eps))
    return weights @ losses / weights.sum(axis=1)


def _calibration_error(result, weights):
    confidence = result.proba.max(axis=1).astype(np.float64)
    gap = confidence - (result.proba.argmax(axis=1) == result.y)
    edges = np.linspace(0, 1, N_BINS + 1)[1:-1]
    cells = (np.arange(len(gap)), np.searchsorted(edges, confidence, side="left"))
    sums = weights @ csr_array((gap, cells), shape=(len(gap), N_BINS))
    return np.abs(sums).sum(axis=1) / weights.sum(axis=1)


_STATISTICS = {"accuracy": _accuracy, "ECE": _calibration_error, "NLL": _log_loss}
