"""Confidence and proximity to the chance of a hit: densities, or shifts of bins."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import map_blocks, row_slices
from skcalib.metrics._bins import mass_quantiles

Floats = NDArray[np.float64]

# So many kernel values are in memory at once.
CHUNK_ELEMENTS = 1 << 17
# Standard deviations below this are rounding.
NO_SPREAD = 1e-12


@dataclass(frozen=True, eq=False)
class Density:
    """Weighted sum of Gaussian kernels at points of confidence and proximity."""

    points: Floats
    weight: Floats
    bandwidth: Floats

    @classmethod
    def of(cls, points: Floats, weight: Floats, every: Floats, factor: float) -> Any:
        """Take the widths of the normal reference rule, times `factor`.

        `every` are the spreads to fall back to where the points have none.
        """
        total = weight.sum()
        if total == 0:
            return cls(points, weight, np.ones(2))
        share = weight / total
        spread = np.sqrt(share @ (points - share @ points) ** 2)
        spread = np.where(spread > NO_SPREAD, spread, every)
        return cls(points, weight, factor * 1.06 * spread * total ** (-1 / 6))

    def at(self, queries: Floats) -> Floats:
        """Return the density at each query, which integrates to the sum of weights."""
        scaled = (self.points / self.bandwidth).T
        constant = 2 * np.pi * self.bandwidth.prod()

        def of_rows(rows: slice) -> Floats:
            x, d = (queries[rows] / self.bandwidth).T[:, :, np.newaxis]
            power = (x - scaled[0]) ** 2 + (d - scaled[1]) ** 2
            # What underflows is nothing, and slow to compute.
            np.minimum(power, 1000, out=power)
            power *= -0.5
            return np.asarray(np.exp(power, out=power) @ self.weight / constant)

        n_points = max(1, self.points.shape[0])
        slices = row_slices(queries.shape[0], n_points, CHUNK_ELEMENTS)
        return np.concatenate(list(map_blocks(of_rows, slices, heavy=True)))


@dataclass(frozen=True, eq=False)
class DensityRatio:
    """Chance of a hit as the ratio of the densities of hits and of all samples."""

    right: Density
    wrong: Density
    prior: float

    @classmethod
    def fit(
        cls,
        points: Floats,
        hit: NDArray[np.bool_],
        weight: Floats,
        *,
        factor: float,
        prior: float,
    ) -> "DensityRatio":
        """Estimate both densities from points of confidence and proximity."""
        share = weight / weight.sum()
        every = np.sqrt(share @ (points - share @ points) ** 2)
        every = np.where(every > NO_SPREAD, every, 1.0)
        right, wrong = (
            Density.of(points[rows], weight[rows], every, factor)
            for rows in (hit, ~hit)
        )
        return cls(right, wrong, prior)

    def chance(self, points: Floats) -> Floats:
        """Return the chance of a hit at each point.

        `prior` samples, spread evenly over the unit square, hit as often as the
        confidence says: far from all samples it remains as it is.
        """
        confidence = points[:, 0]
        right = self.right.at(points) + self.prior * confidence
        total = right + self.wrong.at(points) + self.prior * (1 - confidence)
        return np.divide(right, total, out=confidence.copy(), where=total > 0)


@dataclass(frozen=True, eq=False)
class BinShift:
    """Confidence plus the mean gap of its bin of confidence and proximity."""

    confidence_edges: Floats
    proximity_edges: Floats
    shift: Floats

    @classmethod
    def fit(
        cls,
        points: Floats,
        hit: NDArray[np.bool_],
        weight: Floats,
        *,
        n_bins: int,
        prior: float,
    ) -> "BinShift":
        """Sum the gaps over bins of equal mass in either direction.

        `prior` samples without a gap belong to every bin.
        """
        edges = [np.unique(mass_quantiles(c, weight, n_bins)) for c in points.T]
        cell = _cells(points, edges[0], edges[1])
        size = (edges[0].shape[0] + 1) * (edges[1].shape[0] + 1)
        gap = np.bincount(cell, weight * (hit - points[:, 0]), size)
        mass = np.bincount(cell, weight, size) + prior
        shift = np.divide(gap, mass, out=np.zeros(size), where=mass > 0)
        return cls(edges[0], edges[1], shift)

    def chance(self, points: Floats) -> Floats:
        """Return the chance of a hit at each point."""
        cell = _cells(points, self.confidence_edges, self.proximity_edges)
        return np.clip(points[:, 0] + self.shift[cell], 0, 1)


def _cells(points: Floats, first: Floats, second: Floats) -> NDArray[np.intp]:
    row = np.searchsorted(first, points[:, 0])
    return row * (second.shape[0] + 1) + np.searchsorted(second, points[:, 1])
