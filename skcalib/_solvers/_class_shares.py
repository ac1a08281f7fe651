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

Intervals are percentiles of replicates in which every row has a random weight from the
exponential distribution (the Bayesian bootstrap of Rubin, 1981) and the shares are as
free as the rows: the prior above is left out, since an estimate that was drawn to f
varies less than it is wrong. Few rows say too little of themselves: of a single one all
replicates are the same. So there are two sets of replicates, and the interval reaches
from the smaller lower to the larger upper end. In one, rows come in addition of which
the class is certain, half of one for every class on average, with weights from the
gamma distribution of that mean (the posterior bootstrap of Fong, Lyddon & Holmes,
2019); in the other there are none. Where every row tells its class, the first has the
posterior of the counts under Jeffreys' prior, and the second that under Haldane's,
which many classes do not draw together. Then the interval is widened to the estimate.

For the mixture each replicate takes one Newton step with its own gradient from the
maximum under mean weights, since the maximum moves by O(n^-1/2) and what a second step
would add is O(1/n); where every row tells its class, nothing is left to add.
"""

from typing import NamedTuple

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
# Rows of a certain class that a replicate has in addition, for each class, on average.
_MORE_ROWS = 0.5


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


class Weights(NamedTuple):
    """Of each replicate, the weights of the rows and of more rows, one a class."""

    rows: Array
    more: Array

    @property
    def sets(self) -> tuple["Weights", "Weights"]:
        """Return the weights with the rows that come in addition, and without."""
        return self, Weights(self.rows, np.zeros_like(self.more))


def draw_weights(
    n_replicates: int, shape: tuple[int, ...], random: np.random.RandomState
) -> Weights:
    """Return random weights for rows and classes of this shape."""
    n_rows, n_classes = shape
    return Weights(
        random.standard_exponential((n_replicates, n_rows)),
        random.standard_gamma(_MORE_ROWS, (n_replicates, n_classes)),
    )


def interval_of(sets: list[Array], shares: Array, level: float) -> Array:
    """Return both ends by sets of replicates, in which the shares have to lie."""
    tail = (1 - level) / 2
    ends = np.array([np.quantile(drawn, [tail, 1 - tail], axis=0) for drawn in sets])
    low = np.minimum(ends[:, 0].min(axis=0), shares)
    return np.array([low, np.maximum(ends[:, 1].max(axis=0), shares)])


def replicates_of_likelihood(log_proba: Array, old: Array, weights: Weights) -> Array:
    """Return the shares of the largest likelihood of each replicate."""
    rows, more = weights
    log_ratio = log_proba - np.log(old)
    prior = np.full(old.size, _MORE_ROWS if more.any() else 0.0)
    ones = np.ones(log_proba.shape[0])
    shares = fit_mixture(log_ratio, ones, prior=prior, tol=_TOL, max_iter=_MAX_ITER).x
    ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
    ratio /= (ratio @ shares)[:, np.newaxis]
    # Without a prior a share may be zero, and takes no part in it.
    divisor = np.where(prior > 0, shares, 1)
    hessian = ratio.T @ ratio + np.diag(prior / divisor**2)
    gains = rows @ ratio + more / divisor
    # In units of the weight that the Hessian has.
    total = ones.size + prior.sum()
    gains *= (total / (rows.sum(axis=1) + more.sum(axis=1)))[:, np.newaxis]
    found = np.empty_like(gains)
    for b, gain in enumerate(gains):
        new = np.maximum(shares + bounded_step(total - gain, hessian, -shares), 0)
        found[b] = new / new.sum()
    return found


def replicates_of_moments(proba: Array, class_means: Array, weights: Weights) -> Array:
    """Return the shares that explain the mean of each replicate."""
    rows, more = weights
    # A row of a certain class counts as the mean of that class.
    sums = rows @ proba + more @ class_means.T
    means = sums / sums.sum(axis=1, keepdims=True)
    return np.array([by_moments(mean, class_means) for mean in means])


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
