"""Cross-validation where the rows lie: candidates judged by sums over the rows.

What is kept of the scores of a fold, the log-probability of the true class of each row,
are the weighted sums that means and standard errors of differences are made of: of the
scores of the first candidate, of the differences to it, and of their products. So
scores are never gathered, and those of all candidates are found in one pass.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from skcalib._base import fit_checked
from skcalib._maps import evaluate_block
from skcalib._numerics import cut_logits, true_log_proba


class Scores(NamedTuple):
    """Mean log-probabilities of the candidates, beside their differences."""

    # Mean score of each candidate.
    mean: NDArray[np.float64]
    # Mean of the products of the scores' differences to those of the first, less that
    # of the products of the means.
    covariance: NDArray[np.float64]
    # Weight of all rows.
    total: float
    # Mean seconds of a fit.
    seconds: NDArray[np.float64]

    def against_best(self):
        """Return how far each mean is above the best, and the error of that."""
        best = self.mean.argmax()
        variance = np.diag(self.covariance) - 2 * self.covariance[best]
        variance += self.covariance[best, best]
        error = np.sqrt(np.maximum(variance, 0) / max(self.total - 1, 1))
        return self.mean - self.mean[best], error


def cross_validate(candidates, folds):
    """Return the `Scores` of calibrators for rows that they were not fitted on.

    The folds are pairs of `CalibrationData`, to fit on and to judge by: views of one
    set, whose weights each sum to 1.
    """
    total, seconds = 0.0, []
    sums: Any = 0.0
    for train, test in folds:
        maps, spent = zip(*(_fit(part, train) for part in candidates), strict=True)
        total += test.total_weight
        sums = sums + test.total_weight * test.sum(partial(_moments, maps))
        seconds.append(spent)
    (first, *others), *products = sums / total
    difference = np.array([0.0, *others])
    covariance = products - np.outer(difference, difference)
    return Scores(first + difference, covariance, total, np.mean(seconds, axis=0))


def _fit(candidate, rows):
    """Return the map of a calibrator and the seconds of its fit."""
    started = time.perf_counter()
    fitted = fit_checked(clone(candidate), rows)
    return fitted.calibration_map(), time.perf_counter() - started


def _moments(maps, logits, codes, weight):
    """Sum scores and products of a block: the first row is sums, the rest products.

    But for the first score of all, they are those of differences to it.
    """
    scores = np.array(
        [
            true_log_proba(evaluate_block(part, cut_logits(logits)), codes)
            for part in maps
        ]
    )
    scores[1:] -= scores[0]
    products = (scores * weight) @ scores.T
    products[0] = products[:, 0] = 0
    return np.vstack([scores @ weight, products])
