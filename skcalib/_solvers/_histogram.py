"""Histograms: the mean of the hits, or of a probability, in bins of the score.

Nothing is minimised: the value of a bin is its share of hits [histogram binning,
Zadrozny & Elkan, Obtaining calibrated probability estimates from decision trees and
naive Bayesian classifiers, ICML 2001]. With smoothing it is the m-estimate [Cestnik,
Estimating probabilities, ECAI 1990], whose prior is the middle of the bin. With means
of probabilities it is the second step of scaling-binning [Kumar, Liang & Ma, Verified
Uncertainty Calibration, NeurIPS 2019].

Deviations: bins are cut by the log-odds, which order the samples as probabilities do;
equal scores are never parted, so that bins of equal mass may differ, or be fewer.
"""

from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from skcalib._blocks import CalibrationData
from skcalib._blocks._scores import (
    BLOCK_ELEMENTS,
    Floats,
    Scores,
    all_scores,
    one_vs_rest,
    pool_cells,
    pool_ties,
    second_class,
)

# Slack in comparing sums of weights with a share of their total: rounding must not say
# which of two neighbours a quantile is.
ROUNDING = 1e-9


class Histogram(NamedTuple):
    """A step function: value i between edge i-1, not included, and edge i."""

    edges: Floats
    values: Floats


def fit_histogram(
    data: CalibrationData,
    scores: Scores,
    *,
    n_bins: int,
    strategy: Literal["uniform", "quantile"],
    smoothing: float = 0.0,
    mean_of: Literal["hits", "probabilities"] = "hits",
) -> list[Histogram]:
    """Fit one histogram to each column of scores.

    The value of a bin is its share of hits after `smoothing` samples are added that
    hit as often as the middle of the bin says; without any sample it is that middle.
    With ``mean_of="probabilities"`` every sample hits as often as its score says.
    """
    mirror = scores is one_vs_rest and data.n_classes == 2
    if mirror:
        scores = second_class
    edges = (
        _uniform_edges(data, scores, n_bins)
        if strategy == "uniform"
        else _quantile_edges(data, scores, n_bins)
    )
    total, hits = _counts(data, scores, edges, n_bins, mean_of)
    histograms = [
        Histogram(edge, _values(edge, t, h, smoothing))
        for edge, t, h in zip(edges, total, hits, strict=True)
    ]
    return [mirrored(histograms[0]), *histograms] if mirror else histograms


def _uniform_edges(data: CalibrationData, scores: Scores, n_bins: int) -> list[Floats]:
    first = data.head(1)
    score, _ = scores(first, np.zeros(first.shape[0], dtype=np.intp))
    edges = logit(np.arange(1, n_bins) / n_bins)
    return [edges] * score.shape[1]


def _quantile_edges(data: CalibrationData, scores: Scores, n_bins: int) -> list[Floats]:
    """Cut the sorted samples of each column into parts of equal weight."""
    if data.source.is_remote:
        cells = pool_cells(data, scores)
        return [_cut(c.low, c.high, np.cumsum(c.total), n_bins) for c in cells]
    edges = []
    for column in all_scores(data, scores)[0]:
        lowest, highest, index = pool_ties(column)
        mass = np.cumsum(np.bincount(index, data.weight, lowest.shape[0]))
        edges.append(_cut(lowest, highest, mass, n_bins))
    return edges


def _cut(lowest: Floats, highest: Floats, mass: NDArray, n_bins: int) -> Floats:
    """Edges halfway between distinct scores; equal scores are never parted.

    `mass` is the weight up to each of them.
    """
    n_levels = lowest.shape[0]
    share = np.arange(1, n_bins) / n_bins * mass[-1]
    last = np.unique(mass.searchsorted(share - ROUNDING, side="left"))
    last = last[last < n_levels - 1]
    below, above = highest[last], lowest[last + 1]
    return below + (above - below) / 2


def _counts(
    data: CalibrationData,
    scores: Scores,
    edges: list[Floats],
    n_bins: int,
    mean_of: str,
) -> NDArray[np.float64]:
    """Count samples and hits in each bin of each column, (2, n_columns, n_bins)."""
    statistic = partial(_counts_of_block, scores, edges, n_bins, mean_of)
    counts: NDArray[np.float64] = data.sum(statistic, block_elements=BLOCK_ELEMENTS)
    return counts * data.total_weight


def _counts_of_block(
    scores: Scores,
    edges: list[Floats],
    n_bins: int,
    mean_of: str,
    logits: NDArray,
    codes: NDArray,
    weight: NDArray,
) -> NDArray[np.float64]:
    score, hit = scores(logits, codes)
    counts = np.empty((2, len(edges), n_bins), like=score)
    for k, edge in enumerate(edges):
        index = np.searchsorted(edge, score[:, k], side="left")
        counts[0, k] = np.bincount(index, weight, n_bins)
        if mean_of == "hits":
            own = hit[:, k]
            counts[1, k] = np.bincount(index[own], weight[own], n_bins)
        else:
            proba = expit(score[:, k])
            counts[1, k] = np.bincount(index, weight * proba, n_bins)
    return counts


def _values(edges: Floats, total: Floats, hits: Floats, smoothing: float) -> Floats:
    n_bins = edges.shape[0] + 1
    bounds = np.concatenate([[0], expit(edges), [1]])
    middle = (bounds[:-1] + bounds[1:]) / 2
    total, hits = total[:n_bins] + smoothing, hits[:n_bins] + smoothing * middle
    share = np.divide(hits, total, out=middle, where=total > 0)
    return np.minimum(share, 1)


def mirrored(histogram: Histogram) -> Histogram:
    """Give 1 - q at minus the score."""
    # Bins closed on the right become closed on the left: the edge itself moves up.
    edges = np.nextafter(-histogram.edges[::-1], -np.inf)
    return Histogram(edges, 1 - histogram.values[::-1])
