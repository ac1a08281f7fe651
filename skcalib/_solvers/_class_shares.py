"""Shares of the classes in unlabelled rows, from probabilities that fit other shares.

Where only the shares of the classes move, from f to pi, and not how a class looks
(label shift), a calibrated probability q_k = P(y = k | x) of the old shares says all of
x that matters, and the rows have the likelihood

    prod_i sum_k pi_k q_ik / f_k ,

a mixture with known parts and unknown weights, which is concave in its logarithm. The
EM steps of Saerens, Latinne & Decaestecker (2002) climb it; `fit_mixture` finds the
same maximum by Newton steps. A Dirichlet prior, as if PRIOR_ROWS rows more had come
with the shares f, keeps few rows from moving them far, and leaves no share at zero.

Or by moments [Lipton, Wang & Smola, "Detecting and Correcting for Label Shift with
Black Box Predictors", 2018], BBSE with soft predictions: of the mean probability m of
the new rows and M with the mean probabilities of each class as columns, pi solves
M pi = m, here by least squares under pi >= 0 and sum(pi) = 1. It needs no calibration.

Intervals are percentiles over resampled rows. For the mixture each replicate takes one
Newton step from the maximum with its own gradient, since the maximum moves by
O(n^-1/2) and what a second step would add is O(1/n).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import f as f_distribution

from skcalib._solvers._bounded_newton import bounded_step
from skcalib._solvers._mixture import fit_mixture

Array = NDArray[np.float64]

PRIOR_ROWS = 10.0
_TOL, _MAX_ITER = 1e-9, 200
# Weight of the equation sum(pi) = 1 beside those of the moments.
_SUM_WEIGHT = 1e4


def by_likelihood(log_proba: Array, old: Array) -> Array:
    """Return the shares of the largest posterior density."""
    weight = np.ones(log_proba.shape[0])
    result = fit_mixture(
        log_proba - np.log(old),
        weight,
        prior=PRIOR_ROWS * old,
        tol=_TOL,
        max_iter=_MAX_ITER,
    )
    shares: Array = result.x
    return shares


def replicates_of_likelihood(
    log_proba: Array, old: Array, shares: Array, counts: NDArray[np.intp]
) -> Array:
    """Return the shares of resampled rows; `counts` is (n_replicates, n_rows)."""
    log_ratio = log_proba - np.log(old)
    ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
    ratio /= (ratio @ shares)[:, np.newaxis]
    total = log_proba.shape[0] + PRIOR_ROWS
    pull = PRIOR_ROWS * old / shares
    hessian = (ratio.T @ ratio + np.diag(pull / shares)) / total
    found = np.empty((counts.shape[0], old.size))
    for b, gain in enumerate((counts @ ratio + pull) / total):
        new = np.maximum(shares + bounded_step(1 - gain, hessian, -shares), 0)
        found[b] = new / new.sum()
    return found


def by_moments(mean: Array, class_means: Array) -> Array:
    """Return the shares that explain a mean; `class_means` has a column a class."""
    n_classes = mean.size
    rows = np.vstack([class_means, np.full(n_classes, _SUM_WEIGHT)])
    shares: Array = nnls(rows, np.append(mean, _SUM_WEIGHT))[0]
    return shares / shares.sum()


def p_value_of_means(
    mean: Array, covariance: Array, n_rows: float, proba: Array
) -> float:
    """Test whether rows have the mean probabilities of others: Hotelling's T squared.

    Under label shift the mean moves if the shares do; the reverse holds as well unless
    the probabilities cannot tell the classes apart.
    """
    n_new = proba.shape[0]
    gap = proba.mean(axis=0) - mean
    own = np.cov(proba.T, bias=True) / n_new + covariance / n_rows
    # Rows sum to 1: one dimension less, or fewer where classes are never told.
    values, vectors = np.linalg.eigh(own)
    used = values > 1e-10 * values[-1]
    statistic = float((((gap @ vectors)[used]) ** 2 / values[used]).sum())
    rank, freedom = int(used.sum()), n_rows + n_new - 2
    if freedom - rank + 1 < 1:
        return float("nan")
    scaled = statistic * (freedom - rank + 1) / (rank * freedom)
    return float(f_distribution.sf(scaled, rank, freedom - rank + 1))
