"""What a bootstrap replicate needs: statistics of each row, computed once.

A replicate is a vector of weights (how often each row was drawn). Every metric is a
function of these weights and of statistics that do not change, so that nothing is
sorted, normalised or taken the logarithm of again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skcalib._blocks import map_blocks, on_host, slices_of, sum_blocks
from skcalib._numerics import SMALLEST_PROBA
from skcalib._validation import Rows
from skcalib.metrics._bins import (
    BinStats,
    Floats,
    RankedScores,
    bins_of_runs,
    cumulate,
    rank_scores,
    ranked_bin_stats,
    split_by_mass,
    sum_by_index,
    uniform_edges,
)
from skcalib.metrics._classwise import class_stats, exact_edges, upper_entries
from skcalib.metrics._entropy import entropy_of_rows

# Weights of as many replicates as fit into this many numbers are drawn at once.
CHUNK_ELEMENTS = 1 << 21


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """Statistics of each row; those of `ranked` are in the order of confidence.

    That of an `event` is the probability of the second class, wherever it lies.
    """

    proba: Rows
    codes: NDArray[np.intp]
    n_bins: int
    event: bool = False

    @cached_property
    def _top_and_own(self) -> tuple[Floats, Floats, Floats]:
        """Confidence, hit and probability of the true class, read in one pass."""
        confidence, hit, own = np.empty((3, self.codes.shape[0]))

        def fill(rows: slice) -> None:
            block, codes = self.proba[rows], self.codes[rows]
            every, top = np.arange(codes.shape[0], like=block), block.argmax(axis=1)
            if self.event:
                top = np.ones_like(top)
            confidence[rows] = on_host(block[every, top])
            hit[rows] = on_host(top) == codes
            own[rows] = on_host(block[every, codes])

        for _ in map_blocks(fill, slices_of(self.proba)):
            pass
        return confidence, hit, own

    @cached_property
    def ranked(self) -> RankedScores:
        """Confidences and hits, sorted."""
        confidence, hit, _ = self._top_and_own
        return rank_scores(confidence, hit)

    @property
    def own(self) -> Floats:
        """Probability of the true class."""
        return self._top_and_own[2]

    @cached_property
    def log_loss(self) -> Floats:
        """Log-loss, cut off where scikit-learn does in float64."""
        return -np.log(np.maximum(self.own, SMALLEST_PROBA))

    @cached_property
    def brier(self) -> Floats:
        """Squared distance to the true class; half of it for two classes."""
        squares = np.empty(self.codes.shape[0])

        def fill(rows: slice) -> None:
            block = self.proba[rows]
            square = np.einsum("ij,ij->i", block, block, dtype=np.float64)
            squares[rows] = on_host(square)

        for _ in map_blocks(fill, slices_of(self.proba)):
            pass
        distance = squares - 2 * self.own + 1
        return distance / 2 if self.proba.shape[1] == 2 else distance

    @cached_property
    def entropy(self) -> Floats:
        """Entropy in nats."""
        return entropy_of_rows(self.proba)

    @cached_property
    def class_residuals(self) -> tuple[csr_array, NDArray[np.intp]]:
        """Hit minus probability by row and class-bin cell, first bins left short.

        To a cell of a first bin the row's whole probability has still to be counted:
        it is zero almost everywhere else, and a dense product does it faster. There are
        the cells that hold something, and those of the first bins: their places, by
        class, come with it.
        """
        n_rows, n_classes = self.proba.shape
        edges = exact_edges(self.n_bins, self.proba.dtype)
        rows, cells, values = [], [], []
        for part in slices_of(self.proba):
            found = upper_entries(self.proba[part], edges)
            row, column, value, index = on_host(found)
            rows += [row + part.start] * 2
            cells += [column * self.n_bins + index, column * self.n_bins]
            values += [-value, value]
        rows.append(np.arange(n_rows))
        own_bin = np.searchsorted(edges, self.own)
        cells.append(self.codes * self.n_bins + own_bin)
        values.append(np.ones(n_rows))
        first = np.arange(n_classes) * self.n_bins
        kept, place = np.unique(np.concatenate([first, *cells]), return_inverse=True)
        entries = place[n_classes:], np.concatenate(rows)
        data = np.concatenate(values), entries
        return csr_array(data, shape=(kept.size, n_rows)), place[:n_classes]

    def static_errors(self, weights: Floats) -> Floats:
        """Return the static calibration error for each row of `weights`."""
        n_classes = self.proba.shape[1]
        weights = weights / weights.sum(axis=1, keepdims=True)
        if weights.shape[0] == 1:  # One pass takes less time and memory than residuals.
            bins = class_stats(self.proba, self.codes, weights[0], self.n_bins)
            return np.array([bins.mean_gap])
        by_cell, first = self.class_residuals
        residuals = by_cell @ weights.T
        residuals[first] -= self._class_totals(weights).T
        return np.abs(residuals).sum(axis=0) / n_classes

    def _class_totals(self, weights: Floats) -> NDArray[Any]:
        weights = weights.astype(self.proba.dtype)
        if isinstance(self.proba, np.ndarray):
            return weights @ self.proba
        rows = self.proba
        total: NDArray[Any] = sum_blocks(
            lambda r: on_host(weights[:, r] @ rows[r]), slices_of(rows)
        )
        return total


@dataclass(frozen=True, eq=False)
class Replicate:
    """Rows in the order of confidence, counted with these weights.

    They may have the `known` cumulated sums of the same rows with other hits.
    """

    ranked: RankedScores
    weight: Floats
    n_bins: int
    known: BinStats | None = None

    @cached_property
    def bins(self) -> BinStats:
        """Sums over bins of equal width."""
        edges = uniform_edges(self.n_bins)
        return ranked_bin_stats(self.ranked, self.weight, edges)

    @cached_property
    def cumulated(self) -> BinStats:
        """Sums from the lowest confidence on."""
        return cumulate(self.ranked, self.weight, self.known)

    @cached_property
    def mass_bins(self) -> BinStats:
        """Sums over bins of equal mass."""
        return split_by_mass(self.cumulated, self.weight, self.n_bins)


def unbiased_squared_gap(ranked: RankedScores, weight: Floats, n_bins: int) -> float:
    """Mean product of the residuals of two different rows of a bin of equal mass.

    Its expectation is the mean squared gap of the bins, whatever the number of rows: a
    calibrated classifier scatters around 0. There are as many bins as have two rows
    each, `n_bins` at most; rows that are alone in theirs do not count. Weights count as
    numbers of rows. Rows of equal confidence are all in the bin that holds the middle
    of them.

    Equal mass suits the comparison of two classifiers: an increasing map leaves every
    row in its bin, so that the chance both share cancels. Bins of equal width have the
    same size, and less power.
    """
    n_rows = int(weight.sum())
    if n_rows < 2:
        raise ValueError('"squared_ce" needs at least two rows.')
    sums = residual_sums(ranked, weight, min(n_bins, n_rows // 2))
    rows, gaps, squares = (values[sums[0] > 1] for values in sums)
    return float(((gaps**2 - squares) / (rows - 1)).sum() / rows.sum())


def residual_sums(
    ranked: RankedScores, weight: Floats, n_bins: int
) -> tuple[Floats, Floats, Floats]:
    """Sum rows, residuals and squared residuals over bins of equal mass.

    Rows of equal confidence are all in the bin that holds the middle of them.
    """
    sums = cumulate(ranked, weight)
    index = bins_of_runs(sums, n_bins)
    confidence = ranked.confidence[ranked.ends]
    n_rows, n_hits = np.diff(sums.weight), np.diff(sums.hit)
    squares = n_hits * (1 - 2 * confidence) + n_rows * confidence**2
    rows, gaps, own = (
        sum_by_index(index, values, n_bins)
        for values in (n_rows, n_hits - n_rows * confidence, squares)
    )
    return rows, gaps, own


def row_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of a number of each row, for every row of `weights`, in one product."""
    return weights @ values / weights.sum(axis=1)


def bootstrap_weights(
    weight: Floats,
    n_bootstrap: int,
    random: np.random.RandomState,
    unit: NDArray[np.intp] | None = None,
) -> Iterator[Floats]:
    """Yield weights of rows drawn with replacement, one replicate a row, in chunks.

    Rows of one `unit`, a number from 0 on, are drawn together.
    """
    n_rows = weight.shape[0]
    n_units = n_rows if unit is None else unit.max() + 1
    chunk = max(1, CHUNK_ELEMENTS // n_rows)
    for start in range(0, n_bootstrap, chunk):
        weights = np.empty((min(chunk, n_bootstrap - start), n_rows))
        for row in weights:
            drawn = random.randint(0, n_units, n_units)
            times = np.bincount(drawn, minlength=n_units)
            row[:] = (times if unit is None else times[unit]) * weight
        yield weights
