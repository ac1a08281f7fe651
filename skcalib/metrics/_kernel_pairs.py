"""Sums over pairs of rows of the calibration kernel, tile by tile."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import map_blocks, sum_blocks
from skcalib.metrics._bins import Floats

T = TypeVar("T")

# A tile is a square of so many rows; it and its temporaries fit into a core's cache.
TILE = 256
# Mean square of the distance to the centre up to which rows are equal.
ROUNDING = 1e-28


@dataclass(frozen=True, eq=False)
class KernelPairs:
    """The function h of two rows whose mean is the squared kernel calibration error.

    ``h_ij = k(p_i, p_j) (e_yi - p_i) . (e_yj - p_j)``, with k the Laplace or Gauss
    kernel of the Euclidean distance in units of `bandwidth`.
    """

    centred: Floats
    residual: Floats
    kernel: str
    bandwidth: float

    @classmethod
    def of_rows(
        cls,
        codes: NDArray[np.intp],
        proba: NDArray[Any],
        weight: Floats,
        kernel: str,
        bandwidth: float | None,
    ) -> "KernelPairs":
        """Prepare the rows; the default bandwidth is their typical distance."""
        proba = proba.astype(np.float64)
        residual = -proba
        residual[np.arange(codes.shape[0]), codes] += 1
        # Distances are differences of products: near their mean these lose nothing.
        share = weight / weight.sum()
        proba -= share @ proba
        if bandwidth is None:
            bandwidth = _typical_distance(proba, share)
        return cls(proba, residual, kernel, float(bandwidth))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.centred.shape[0]

    @property
    def diagonal(self) -> Floats:
        """Value of h for each row with itself."""
        return np.einsum("ij,ij->i", self.residual, self.residual)

    def between(self, first: slice, second: slice) -> Floats:
        """Values of h for all pairs of two slices of rows."""
        value = self.kernel_between(first, second)
        value *= self.residual[first] @ self.residual[second].T
        return value

    def kernel_between(self, first: slice, second: slice) -> Floats:
        """Values of the kernel for all pairs of two slices of rows."""
        p, q = self.centred[first], self.centred[second]
        squares = np.einsum("ij,ij->i", p, p)[:, np.newaxis] - 2 * (p @ q.T)
        squares += np.einsum("ij,ij->i", q, q)
        np.maximum(squares, 0, out=squares)
        if first == second:
            np.fill_diagonal(squares, 0)
        return self.of_squares(squares)

    def of_squares(self, squares: Floats) -> Floats:
        """Kernel of squared distances, which are overwritten."""
        if self.kernel == "laplacian":
            np.sqrt(squares, out=squares)
            squares /= -self.bandwidth
        else:
            squares /= -2 * self.bandwidth**2
        return np.exp(squares, out=squares)

    @property
    def _parts(self) -> list[slice]:
        starts = range(0, self.n_rows, TILE)
        return [slice(i, min(i + TILE, self.n_rows)) for i in starts]

    def residual_nearby(self) -> Floats:
        """Sum of ``k_ij (e_yj - p_j)`` over all j, itself left out, of each row i."""
        parts = self._parts

        def of_part(first: slice) -> Floats:
            near = -self.residual[first]
            for second in parts:
                near += self.kernel_between(first, second) @ self.residual[second]
            return near

        return np.concatenate(list(map_blocks(of_part, parts, heavy=True)))

    def sum(self, function: Callable[[slice, slice, Floats], T]) -> T:
        """Sum ``function(first, second, h)`` over tiles; each pair of rows comes once.

        On the diagonal tiles, where both slices are equal, every pair comes twice and
        each row with itself.
        """
        parts = self._parts
        pairs = [(a, b) for i, a in enumerate(parts) for b in parts[i:]]

        def of_pair(pair: tuple[slice, slice]) -> T:
            return function(*pair, self.between(*pair))

        total: T = sum_blocks(of_pair, pairs, heavy=True)
        return total

    def weighted_sum(self, weight: Floats) -> float:
        """Sum of ``w_i w_j h_ij`` over all i and j."""

        def of_tile(first: slice, second: slice, h: Floats) -> float:
            twice = 1 if first == second else 2
            return twice * float(weight[first] @ h @ weight[second])

        return self.sum(of_tile)


def _typical_distance(centred: Floats, share: Floats) -> float:
    """Root of the mean squared distance of two rows; 1 where all rows are equal."""
    spread = np.einsum("i,ij,ij->", share, centred, centred)
    return float(np.sqrt(2 * spread)) if spread > ROUNDING else 1.0
