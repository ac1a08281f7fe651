"""Shares of the classes in unlabelled rows, from probabilities that fit other shares.

Where only the shares of the classes move, from f to pi, and not how a class looks
(label shift), a calibrated probability q_k = P(y = k | x) of the old shares says all of
x that matters, and the rows have the likelihood

    prod_i sum_k pi_k q_ik / f_k ,

a mixture with known parts and unknown weights, which is concave in its logarithm. The
EM steps of Saerens, Latinne & Decaestecker (2002) climb it; `fit_mixture` finds the
same maximum by Newton steps. A Dirichlet prior, as if so many rows more had come with
the shares f, keeps few rows of many classes from moving them by noise, and leaves no
share at zero. How many is chosen by the likelihood of rows held out in turn, from ten,
for shares that are as free as the rows, to infinity, for shares that did not move.

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
from scipy.special import logsumexp
from scipy.stats import f as f_distribution

from skcalib._numerics import choose
from skcalib._solvers._bounded_newton import bounded_step
from skcalib._solvers._mixture import fit_mixture

Array = NDArray[np.float64]

# Rows of the prior, the strongest first.
PRIORS = (np.inf, 10_000.0, 3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0)
N_FOLDS = 5
_TOL, _MAX_ITER = 1e-9, 200
# Weight of the equation sum(pi) = 1 beside those of the moments.
_SUM_WEIGHT = 1e4


def by_likelihood(log_proba: Array, old: Array, prior: float) -> Array:
    """Return the shares of the largest posterior density, by rows of the prior."""
    if np.isinf(prior):
        return old
    result = fit_mixture(
        log_proba - np.log(old),
        np.ones(log_proba.shape[0]),
        prior=prior * old,
        tol=_TOL,
        max_iter=_MAX_ITER,
    )
    shares: Array = result.x
    return shares


def choose_prior(log_proba: Array, old: Array, random: np.random.RandomState) -> float:
    """Return the rows of the prior under which held-out rows are likeliest."""
    n_rows = log_proba.shape[0]
    fold = random.permutation(n_rows) % N_FOLDS
    gains = np.zeros((len(PRIORS), n_rows))
    log_ratio = log_proba - np.log(old)
    for k in range(min(N_FOLDS, n_rows)):
        test = fold == k
        for i, prior in enumerate(PRIORS):
            shares = by_likelihood(log_proba[~test], old, prior)
            with np.errstate(divide="ignore"):
                gains[i, test] = logsumexp(log_ratio[test] + np.log(shares), axis=1)
    return PRIORS[choose(gains, np.ones(n_rows), one_standard_error=False)]


def replicates_of_likelihood(
    log_proba: Array,
    old: Array,
    shares: Array,
    prior: float,
    counts: NDArray[np.intp],
) -> Array:
    """Return the shares of resampled rows; `counts` is (n_replicates, n_rows)."""
    # Where nothing seems to have moved, the strongest finite prior says how surely.
    prior = min(prior, PRIORS[1])
    log_ratio = log_proba - np.log(old)
    ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
    ratio /= (ratio @ shares)[:, np.newaxis]
    total = log_proba.shape[0] + prior
    pull = prior * old / shares
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
    # Pooled: of a few rows alone no covariance is known.
    pooled = n_new * np.cov(proba.T, bias=True) + n_rows * covariance
    own = pooled / (n_new + n_rows) * (1 / n_new + 1 / n_rows)
    # Rows sum to 1: one dimension less, or fewer where classes are never told.
    values, vectors = np.linalg.eigh(own)
    used = values > 1e-10 * values[-1]
    statistic = float((((gap @ vectors)[used]) ** 2 / values[used]).sum())
    rank, freedom = int(used.sum()), n_rows + n_new - 2
    if freedom - rank + 1 < 1:
        return float("nan")
    scaled = statistic * (freedom - rank + 1) / (rank * freedom)
    return float(f_distribution.sf(scaled, rank, freedom - rank + 1))
