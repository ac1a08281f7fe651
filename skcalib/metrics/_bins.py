"""Per-bin sums: the only place where confidences meet bin edges."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import free_memory
from skcalib._numerics import is_whole
from skcalib._validation import check_whole

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BinStats:
    """Sums of the weights, of the confidences and of the hits in every bin.

    The sums of two sets of rows add up to those of both sets together.
    """

    weight: Floats
    confidence: Floats
    hit: Floats

    def __add__(self, other: "BinStats") -> "BinStats":
        return BinStats(
            self.weight + other.weight,
            self.confidence + other.confidence,
            self.hit + other.hit,
        )

    def each(self, function: Callable[[Floats], Floats]) -> "BinStats":
        """Return what a function makes of each of the sums."""
        return BinStats(*map(function, (self.weight, self.confidence, self.hit)))

    @property
    def share(self) -> Floats:
        """Share of the total weight that lies in each bin."""
        return self.weight / self.weight.sum()

    @property
    def gap(self) -> Floats:
        """Mean confidence minus accuracy of each bin; 0 where a bin is empty."""
        return self.mean_confidence - self.accuracy

    @property
    def mean_confidence(self) -> Floats:
        """Mean confidence of each bin; 0 where a bin is empty."""
        return _ratio(self.confidence, self.weight)

    @property
    def accuracy(self) -> Floats:
        """Mean hit of each bin; 0 where a bin is empty."""
        return _ratio(self.hit, self.weight)

    @property
    def mean_gap(self) -> float:
        """Mean over the rows of the absolute gap of their bin."""
        gaps = np.abs(self.confidence - self.hit).sum()
        return float(gaps / self.weight.sum())


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    out = np.zeros_like(numerator)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def check_option(name: str, value: object, known: Collection[Any]) -> None:
    """Refuse what is none of the known values of a parameter."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is not known; use one of {[*known]}.")


def check_bandwidth(bandwidth: float | None) -> None:
    """Refuse the width of a kernel that is given and not a number above 0."""
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth={bandwidth!r} is not a number above 0.")


def check_strategy(strategy: str) -> str:
    """Refuse a binning that does not exist."""
    if strategy not in ("uniform", "quantile"):
        raise ValueError(
            f"strategy={strategy!r} is not known; use 'uniform' for bins of equal "
            "width or 'quantile' for bins of equal mass."
        )
    return strategy


def check_bootstrap(n_bootstrap: int, confidence_level: float) -> None:
    """Refuse a number of replicates below 0, and a level outside (0, 1)."""
    check_whole("n_bootstrap", n_bootstrap, 0)
    check_level(confidence_level)


def check_level(confidence_level: float) -> None:
    """Refuse a level of an interval outside (0, 1)."""
    if not 0 < confidence_level < 1:
        raise ValueError(
            f"confidence_level={confidence_level!r} is not between 0 and 1; "
            "95 % is 0.95."
        )


def uniform_edges(n_bins: int) -> Floats:
    """Return the inner edges of `n_bins` bins of equal width on [0, 1]."""
    return np.arange(1, n_bins) / n_bins


def bin_stats(
    confidence: NDArray[Any], hit: NDArray[Any], weight: Floats, edges: Floats
) -> BinStats:
    """Sum weights, confidences and hits per bin; bins are closed on the right."""
    index = np.searchsorted(edges, confidence, side="left")
    n_bins = edges.shape[0] + 1
    return BinStats(
        sum_by_index(index, weight, n_bins),
        sum_by_index(index, weight * confidence, n_bins),
        sum_by_index(index, weight * hit, n_bins),
    )


def sum_by_index(index: NDArray[np.intp], values: NDArray[Any], size: int) -> Floats:
    """Sum the values of equal index; `size` sums."""
    return np.bincount(index, values, size).astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class RankedScores:
    """Scores in ascending order, their hits, and where runs of equal scores end."""

    order: NDArray[np.intp]
    confidence: Floats
    hit: NDArray[Any]
    ends: NDArray[np.intp]


def rank_scores(confidence: NDArray[Any], hit: NDArray[Any]) -> RankedScores:
    """Sort scores and hits by score."""
    order = np.argsort(confidence)
    ranked = confidence[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.shape[0] - 1)
    return RankedScores(order, ranked, hit[order], ends)


def cumulate(
    ranked: RankedScores, weight: Floats, known: BinStats | None = None
) -> BinStats:
    """Cumulate the sums, from zero on, at the end of each run of equal scores.

    `weight` is in the order of the scores. Rows of equal score count together, so
    the order in which they came has no influence. Of the `known` sums of other hits,
    those of the weights and the confidences are taken over.
    """
    tied = ranked.ends.shape[0] < weight.shape[0]

    def cumulated(values: NDArray[Any]) -> Floats:
        sums = np.zeros(ranked.ends.shape[0] + 1)
        total = np.cumsum(values)
        sums[1:] = total[ranked.ends] if tied else total
        return sums

    hit = cumulated(weight * ranked.hit)
    if known is not None:
        return BinStats(known.weight, known.confidence, hit)
    return BinStats(cumulated(weight), cumulated(weight * ranked.confidence), hit)


def ranked_bin_stats(ranked: RankedScores, weight: Floats, edges: Floats) -> BinStats:
    """Sum per bin as `bin_stats` does: bins of sorted scores are slices."""
    n_rows = ranked.confidence.shape[0]
    ends = np.append(np.searchsorted(ranked.confidence, edges, side="right"), n_rows)
    starts = np.append(0, ends[:-1])
    filled = np.flatnonzero(ends > starts)
    sums = np.zeros((3, ends.shape[0]))
    values = weight, weight * ranked.confidence, weight * ranked.hit
    for row, value in zip(sums, values, strict=True):
        row[filled] = np.add.reduceat(value, starts[filled])
    return BinStats(*sums)


def equal_mass_stats(ranked: RankedScores, weight: Floats, n_bins: int) -> BinStats:
    """Sum over `n_bins` bins of equal mass, split by rank.

    A run of equal scores that an edge cuts gives every bin its share of the run's
    hits, in proportion to the mass.
    """
    return split_by_mass(cumulate(ranked, weight), weight, n_bins)


def split_by_mass(sums: BinStats, weight: Floats, n_bins: int) -> BinStats:
    """Do what `equal_mass_stats` does with sums that are cumulated already."""
    edges = mass_edges(weight.sum(), n_bins, np.arange(n_bins + 1), is_whole(weight))
    return sums.each(lambda values: np.diff(np.interp(edges, sums.weight, values)))


def whole_run_stats(ranked: RankedScores, weight: Floats, n_bins: int) -> BinStats:
    """Sum over bins of equal mass, each run of equal scores whole in one of them.

    What chance adds to a bin can be told from its accuracy only where its hits are not
    shared with another.
    """
    sums = cumulate(ranked, weight)
    index = bins_of_runs(sums, n_bins)
    return sums.each(lambda values: sum_by_index(index, np.diff(values), n_bins))


def bins_of_runs(sums: BinStats, n_bins: int) -> NDArray[np.intp]:
    """Bin of equal mass that holds the middle of each run, of cumulated sums."""
    middle = (sums.weight[1:] + sums.weight[:-1]) / 2
    place = middle / sums.weight[-1] * n_bins
    return np.minimum(place, n_bins - 1).astype(np.intp)


def repetitions(weight: Floats, row_bytes: int = 0) -> NDArray[np.intp]:
    """Row numbers, each as often as its whole weight says.

    More rows of `row_bytes` each than there is memory for are refused.
    """
    n_rows = float(weight.sum())
    if n_rows * (np.dtype(np.intp).itemsize + row_bytes) > free_memory() / 2:
        raise ValueError(
            f"sample_weight adds up to {n_rows:.4g} rows, more than the memory holds, "
            "and they have to be repeated here. Divide the weights by a common factor."
        )
    return np.repeat(np.arange(weight.shape[0]), weight.astype(np.intp))


def mass_edges(
    total: float, n_bins: int | NDArray[np.intp], parts: NDArray[np.intp], whole: bool
) -> Floats:
    """Cumulated weights at which each of `parts`, numbers of bins, begins.

    Whole weights are repetitions: the parts of n rows differ by one row at most, the
    larger ones first. Other weights are cut into parts of exactly equal mass.
    """
    if whole:
        size, larger = divmod(total, n_bins)
        edges: Floats = parts * size + np.minimum(parts, larger)
        return edges
    return np.asarray(parts * (total / n_bins))


def mass_quantiles(values: Floats, weight: Floats, n_bins: int) -> Floats:
    """Inner edges of `n_bins` bins of equal mass, closed on the right."""
    order = np.argsort(values)
    cumulated = np.cumsum(weight[order])
    shares = np.arange(1, n_bins) / n_bins * cumulated[-1]
    # Shares that rounding carries just above a sum are that sum.
    last = np.searchsorted(cumulated, shares * (1 - 1e-12))
    return values[order][last]


def top_label_stats(
    confidence: Floats,
    hit: NDArray[Any],
    weight: Floats,
    *,
    n_bins: int,
    strategy: str,
) -> BinStats:
    """Sum per bin, by either binning."""
    if check_strategy(strategy) == "uniform":
        return bin_stats(confidence, hit, weight, uniform_edges(n_bins))
    ranked = rank_scores(confidence, hit)
    return equal_mass_stats(ranked, weight[ranked.order], n_bins)
