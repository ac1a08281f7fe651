"""Bayesian binning into quantiles: histograms averaged by their marginal likelihood.

Nothing is minimised: the marginal likelihood of a beta-binomial model of each bin
weights the histogram [Naeini, Cooper & Hauskrecht, Obtaining Well Calibrated
Probabilities Using Bayesian Binning, AAAI 2015]. A bin of n samples and m hits adds to
its logarithm

    ln G(s) - ln G(n + s) + ln G(m + a) - ln G(a) + ln G(n - m + b) - ln G(b)

with the gamma function G, s the prior's strength over the number of bins, a = s c and
b = s (1 - c), c being the middle of the bin.

Deviations: equal scores are never parted, and weights count as numbers of samples.

All numbers of bins are computed side by side: one flat array holds the bins of all
models, model after model, each cut from the same cumulated sums.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln, logsumexp

from skcalib._blocks import CalibrationData, map_blocks
from skcalib._blocks._scores import (
    Floats,
    Scores,
    all_scores,
    one_vs_rest,
    pool_ties,
    second_class,
)
from skcalib._solvers._histogram import ROUNDING, Histogram, mirrored

# Models that weigh less beside the others change no digit.
NEGLIGIBLE = np.finfo(np.float64).eps
# Keeps the middle of a bin, and with it the prior, off 0 and 1.
SMALLEST_MIDDLE = 1e-12
# More samples of one score than this, on average over the scores, do not count for the
# number of bins: with weights they may be any number, and the cost grows with it. A
# round number, not a searched one.
SAMPLES_OF_A_SCORE = 100


class AveragedHistogram(NamedTuple):
    """The average over all numbers of bins, and the weight of each of them."""

    histogram: Histogram
    weights: Floats


def fit_bayesian_binning(
    data: CalibrationData,
    scores: Scores,
    *,
    numbers: Callable[[float], NDArray[np.intp]],
    strength: float,
) -> tuple[NDArray[np.intp], list[AveragedHistogram]]:
    """Average, for each column of scores, quantile histograms of some numbers of bins.

    `numbers` gives these for a number of samples. `strength` is the equivalent sample
    size of the prior of a whole histogram. Returns the numbers of bins too.
    """
    mirror = scores is one_vs_rest and data.n_classes == 2
    columns = all_scores(data, second_class if mirror else scores)
    weight = data.sample_weight
    n_bins = numbers(_telling_samples(columns[0], data.total_weight))

    def of_column(column: tuple[Floats, NDArray[np.bool_]]) -> AveragedHistogram:
        return _fit(*column, weight, n_bins, strength)

    averages = list(map_blocks(of_column, list(zip(*columns, strict=True))))
    if mirror:
        histogram, weights = averages[0]
        averages.insert(0, AveragedHistogram(mirrored(histogram), weights))
    return n_bins, averages


def _telling_samples(columns: Floats, n_samples: float) -> float:
    """Return the number of samples, less what says nothing about the number of bins.

    Of so many samples with the same score a histogram cannot learn where to cut.
    """
    most = 0
    for score in columns:
        most = max(most, SAMPLES_OF_A_SCORE * pool_ties(score)[0].shape[0])
        if most >= n_samples:
            return n_samples
    return float(most)


def _fit(
    score: Floats,
    hit: NDArray[np.bool_],
    weight: Floats,
    n_bins: NDArray[np.intp],
    strength: float,
) -> AveragedHistogram:
    lowest, highest, index = pool_ties(score)
    n_groups = lowest.shape[0]
    mass = np.cumsum(np.bincount(index, weight, n_groups))
    hits = np.cumsum(np.bincount(index[hit], weight[hit], n_groups))
    # The edge after each group of equal scores; the last one is the end of the line.
    edges = np.append(highest[:-1] + (lowest[1:] - highest[:-1]) / 2, np.inf)
    first, last = _cut(mass, n_bins)
    sizes = np.diff(np.append(first, last.shape[0]))
    total = _differences(mass[last], first)
    values, evidence = _posterior(
        first,
        total=total,
        hits=np.clip(_differences(hits[last], first), 0, total),
        right=expit(edges[last]),
        prior=np.repeat(strength / sizes, sizes),
    )
    weights = np.exp(evidence - logsumexp(evidence))
    weights[weights < NEGLIGIBLE] = 0
    weights /= weights.sum()
    ends, average = _average(weights, values, first, last)
    return AveragedHistogram(Histogram(edges[ends[:-1]], average), weights)


def _average(
    weights: Floats, values: Floats, first: NDArray[np.intp], last: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Floats]:
    """Last group and value of every piece of the weighted sum of all models."""
    sizes = np.diff(np.append(first, last.shape[0]))
    is_end = np.zeros(last.max() + 1, dtype=bool)
    is_end[last[np.repeat(weights > 0, sizes)]] = True
    ends = np.flatnonzero(is_end)
    # How many pieces of the sum each bin covers.
    width = _differences(np.cumsum(is_end)[last], first)
    average = np.zeros(ends.shape[0])
    for m in np.flatnonzero(weights):
        bins = slice(first[m], first[m] + sizes[m])
        average += np.repeat(weights[m] * values[bins], width[bins])
    # Rounding may lead beyond 1, where the other class would get less than nothing.
    return ends, np.minimum(average, 1)


def _cut(
    mass: NDArray[Any], n_bins: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cut the groups into bins of equal mass, for each number of bins.

    Returns the position of the first bin of each model and the last group of every bin.
    """
    end = np.cumsum(n_bins)
    model = np.repeat(np.arange(n_bins.shape[0]), n_bins)
    rank = np.arange(1, end[-1] + 1) - np.repeat(end - n_bins, n_bins)
    share = rank / n_bins[model]
    last = (mass / mass[-1]).searchsorted(share - ROUNDING, side="left")
    last[end - 1] = mass.shape[0] - 1
    # Equal scores are never parted, so of the bins that end alike one is left.
    kept = np.append((np.diff(last) != 0) | (np.diff(model) != 0), True)
    model, last = model[kept], last[kept]
    return model.searchsorted(np.arange(n_bins.shape[0])), last


def _differences(cumulated: NDArray[Any], first: NDArray[np.intp]) -> NDArray[Any]:
    """From cumulated sums at the end of each bin to the sums of the bins."""
    before = np.append(0, cumulated[:-1])
    before[first] = 0
    return cumulated - before


def _posterior(
    first: NDArray[np.intp],
    *,
    total: Floats,
    hits: Floats,
    right: Floats,
    prior: Floats,
) -> tuple[Floats, Floats]:
    """Posterior mean of every bin, and the log marginal likelihood of every model."""
    left = np.append(0.0, right[:-1])
    left[first] = 0
    middle = np.clip((left + right) / 2, SMALLEST_MIDDLE, 1 - SMALLEST_MIDDLE)
    alpha, beta = prior * middle, prior * (1 - middle)
    misses = total - hits
    evidence = gammaln(prior) - gammaln(total + prior)
    evidence += gammaln(hits + alpha) - gammaln(alpha)
    evidence += gammaln(misses + beta) - gammaln(beta)
    return (hits + alpha) / (total + prior), np.add.reduceat(evidence, first)
