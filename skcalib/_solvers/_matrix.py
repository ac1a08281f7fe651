"""Matrix scaling: softmax(W x + b) with ridge penalties towards the identity map.

The parameters are one (K, K + 1) array, W with b as its last column, and x carries a
constant 1. The Hessian, of size K (K + 1), is never formed. Its approximate inverse has
two parts: for the off-diagonal entries the Kronecker product of the mean of
diag(p) - p p' and the second moments of x, inverted through the eigenvectors of both;
for the diagonal of W and b, which carry other penalties, their exact Hessian.

Matrix products are all that counts once there are a thousand classes. Then they run in
single precision, those of the scores for the small W - I only, so that scores stay
exact; and where the ridge outweighs the curvature by the off-diagonal entries, the
diagonal of the Hessian, which takes no products, is inverse enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData, Statistic, sum_blocks
from skcalib._numerics import softmax_
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._result import Result
from skcalib._solvers._softmax import (
    Exponentials,
    curvature_product,
    steering_precision,
)
from skcalib._solvers._vector import inverse, inverse_blocks

Array = NDArray[np.float64]

# From this many logits on, matrix products run in single precision.
LARGE = 1 << 24
# Up to this many logits, the features and probabilities that Hessian products use stay
# in memory, in float32; beyond, each product computes them anew.
MAX_KEPT_ELEMENTS = 1 << 25


@dataclass(frozen=True)
class Ridge:
    """Factors of the squared off-diagonal and diagonal entries of W - I, and of b."""

    off_diagonal: float = 0.0
    diagonal: float = 0.0
    intercept: float = 0.0

    def table(self, n_classes: int) -> Array:
        """Return the factor of every parameter."""
        factors = np.full((n_classes, n_classes + 1), self.off_diagonal)
        k = np.arange(n_classes)
        factors[k, k] = self.diagonal
        factors[:, -1] = self.intercept
        return factors


def identity_map(n_classes: int, factor: float = 1.0) -> Array:
    """Return the parameters of x -> factor * x."""
    return factor * np.eye(n_classes, n_classes + 1)


def fit_matrix(
    data: CalibrationData,
    start: Array,
    *,
    ridge: Ridge,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise log-loss + penalty from `start`."""
    problem = _Problem(data, ridge)
    return minimize(problem.expand, problem.loss, start, tol=tol, max_iter=max_iter)


def log_loss(data: CalibrationData, x: Array) -> float:
    """Mean log-loss of the (K, K + 1) parameters `x`, without penalty."""

    def of_block(features: NDArray, codes: NDArray, weight: Array) -> float:
        e = Exponentials.of_scores(_scores(x, features), codes)
        return float(e.loss @ weight)

    return float(data.sum(of_block, heavy=True))


def is_large(data: CalibrationData) -> bool:
    """Whether the fit computes in single precision, apart from sums over rows."""
    return data.n_samples * data.n_classes > LARGE


def _scores(x: NDArray, z: NDArray) -> NDArray:
    scores = z @ x[:, :-1].T
    scores += x[:, -1]
    return scores


def _scores_by_change(x: Array, z: NDArray, rounded: NDArray) -> Array:
    """Compute z + (W - I) z + b, the product with `rounded`, which is z in float32."""
    scores = z.astype(np.float64)
    change = x[:, :-1] - np.eye(x.shape[0])
    if change.any():
        scores += rounded @ change.T.astype(rounded.dtype)
    scores += x[:, -1]
    return scores


class _Problem:
    def __init__(self, data: CalibrationData, ridge: Ridge) -> None:
        self._data = data
        self._penalty = ridge.table(data.n_classes)
        self._off_diagonal = ridge.off_diagonal
        self._target = identity_map(data.n_classes)
        # At least a few rows per class, or the products of a block are too thin; and no
        # fewer rows than classes, or adding them up costs more than the products.
        n_rows = max(128, data.n_classes)
        self._block_elements = max(1 << 16, n_rows * data.n_classes)
        self._keep = data.n_samples * data.n_classes <= MAX_KEPT_ELEMENTS
        self._large = is_large(data)

    def loss(self, x: Array) -> float:
        """Penalised loss at `x`."""
        penalty = float((self._penalty * (x - self._target) ** 2).sum())
        return log_loss(self._data, x) + penalty

    def expand(self, x: Array, curvature: Expansion | None) -> Expansion:
        """Loss, gradient and Hessian products about `x`.

        The approximate inverse of `curvature`, if given, is kept.
        """
        kept: list[_Steering] = []

        def statistic(
            features: NDArray, codes: NDArray, weight: Array
        ) -> tuple[Any, ...]:
            if self._large:
                z = steering_precision(features)
                scores = _scores_by_change(x, features, z)
            else:
                z = features.astype(np.float64, copy=False)
                scores = _scores(x, z)
            e = Exponentials.of_scores(scores, codes)
            steering = _Steering.of_block(z, e, weight)
            residual = e.turn_into_residuals()
            residual *= (weight / e.total)[:, np.newaxis]
            # Lists add up to one that holds all blocks.
            kept = [steering] * self._keep
            gradient = _outer_sums(residual.astype(z.dtype, copy=False), z)
            sums = float(e.loss @ weight), gradient, kept
            if curvature is not None:
                return sums
            return *sums, steering.diagonal() if self._large else steering.moments()

        def over_blocks(of_steering: Callable[["_Steering"], Any]) -> Any:
            if kept:
                return sum_blocks(of_steering, kept, heavy=True)

            def of_block(features: NDArray, codes: NDArray, weight: Array) -> Any:
                z = steering_precision(features)
                proba = softmax_(_scores(x.astype(z.dtype), z))
                return of_steering(_Steering(z, proba, weight.astype(z.dtype)))

            return self._sum(of_block)

        def hessian_product(direction: Array) -> Array:
            product: Array = over_blocks(lambda block: block.product(direction))
            return product + 2 * self._penalty * direction

        loss, gradient, kept, *moments = self._sum(statistic)
        away = x - self._target
        loss += float((self._penalty * away**2).sum())
        gradient += 2 * self._penalty * away
        if curvature is not None:
            precondition = curvature.precondition
        else:
            precondition = self._inverse(moments[0], over_blocks)
        return Expansion(loss, gradient, hessian_product, precondition)

    def _sum(self, statistic: Statistic) -> Any:
        return self._data.sum(
            statistic, block_elements=self._block_elements, heavy=True
        )

    def _inverse(
        self, sums: Any, over_blocks: Callable[[Callable[["_Steering"], Any]], Any]
    ) -> Callable[[Array], Array]:
        """Choose the approximate inverse; `sums` are moments, or a large diagonal."""
        if not self._large:
            return self._approximate_inverse(sums)
        curvature = float(sums[2].max() * sums[3].max())
        if curvature <= 2 * self._off_diagonal:
            return self._diagonal_inverse(sums)
        return self._approximate_inverse(over_blocks(lambda block: block.moments()))

    def _diagonal_inverse(self, diagonal: Array) -> Callable[[Array], Array]:
        """Invert the Hessian's diagonal, and its blocks by w_kk and b_k."""
        k = np.arange(self._data.n_classes)
        spectrum = np.outer(diagonal[2], diagonal[3]) + 2 * self._off_diagonal
        penalty = np.stack([self._penalty[k, k], self._penalty[:, -1]])
        solve_blocks = inverse_blocks(diagonal[:3], penalty)

        def precondition(r: Array) -> Array:
            out = np.empty_like(r)
            np.divide(r[:, :-1], spectrum, out=out[:, :-1])
            vector = solve_blocks(np.stack([r[k, k], r[:, -1]]))
            out[k, k], out[:, -1] = vector
            return out

        return precondition

    def _approximate_inverse(self, moments: "_Moments") -> Callable[[Array], Array]:
        n_classes = self._data.n_classes
        k = np.arange(n_classes)
        left, u = np.linalg.eigh(np.diag(moments.mass) - moments.gram[:, :n_classes])
        right, v = np.linalg.eigh(moments.second)
        total = moments.curvature
        spectrum = np.outer(np.maximum(left, 0), np.maximum(right, 0) / total)
        spectrum += 2 * self._off_diagonal + 1e-9 * spectrum.max()
        spectrum += np.finfo(float).tiny
        solve_vector = inverse(self._vector_hessian(moments))

        def precondition(r: Array) -> Array:
            off = r[:, :-1].copy()
            off[k, k] = 0
            out = np.empty_like(r)
            out[:, :-1] = u @ ((u.T @ off @ v) / spectrum) @ v.T
            vector = solve_vector(np.stack([r[k, k], r[:, -1]]))
            out[k, k], out[:, -1] = vector
            return out

        return precondition

    def _vector_hessian(self, moments: "_Moments") -> Array:
        """Hessian by the diagonal of W and by b, in this order."""
        n_classes = self._data.n_classes
        k = np.arange(n_classes)
        pp, pz, zz = np.split(moments.gram, 3, axis=1)
        hessian = -np.block([[zz, pz.T], [pz, pp]])
        hessian[k, k] += moments.square + 2 * self._penalty[k, k]
        hessian[k, n_classes + k] += moments.linear
        hessian[n_classes + k, k] += moments.linear
        hessian[n_classes + k, n_classes + k] += moments.mass + 2 * self._penalty[:, -1]
        return hessian


def _outer_sums(change: NDArray, z: NDArray) -> Array:
    """Sum over the rows of the outer product of `change` and ``(z, 1)``."""
    n_samples, n_classes = change.shape
    sums = np.empty((n_classes, n_classes + 1))
    sums[:, :-1] = change.T @ z
    sums[:, -1] = np.ones(n_samples, change.dtype) @ change
    return sums


@dataclass
class _Moments:
    """Additive statistics from which the approximate inverse is built."""

    mass: Array  # sum of w p
    linear: Array  # sum of w p z
    square: Array  # sum of w p z^2
    gram: Array  # sum of w p p', w p (pz)' and w pz (pz)', side by side
    second: Array  # sum of w (1 - |p|^2) z z'
    curvature: float  # sum of w (1 - |p|^2)

    def __iadd__(self, other: "_Moments") -> "_Moments":
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass(frozen=True)
class _Steering:
    """What the Hessian needs of one block of rows, in the precision of steering."""

    z: NDArray[Any]
    proba: NDArray[Any]
    weight: NDArray[Any]

    @classmethod
    def of_block(cls, z: NDArray, e: Exponentials, weight: Array) -> "_Steering":
        z = steering_precision(z)
        proba = e.values / e.total[:, np.newaxis]
        return cls(z, proba.astype(z.dtype), weight.astype(z.dtype))

    def product(self, direction: Array) -> Array:
        """Product of the block's Hessian with a (K, K + 1) array."""
        change = _scores(direction.astype(self.z.dtype), self.z)
        return _outer_sums(curvature_product(self.proba, change, self.weight), self.z)

    def diagonal(self) -> Array:
        """Sum w p (1 - p) times z^2, z and 1, and w z^2, for the Hessian's diagonal.

        The entry for w_ij is about the product of the third sum for i and the last
        one for j.
        """
        mass = self.proba * (1 - self.proba)
        first = mass * self.z
        sums = [
            self.weight @ (first * self.z),
            self.weight @ first,
            self.weight @ mass,
            self.weight @ (self.z * self.z),
        ]
        return _double(np.stack(sums))

    def moments(self) -> _Moments:
        root = np.sqrt(self.weight)
        p = self.proba * root[:, np.newaxis]
        px = p * self.z
        curvature = np.maximum(1 - np.vecdot(self.proba, self.proba), 0) * self.weight
        scaled = self.z * np.sqrt(curvature)[:, np.newaxis]
        return _Moments(
            _double(root @ p),
            _double(root @ px),
            _double(root @ (px * self.z)),
            _double(np.hstack([p.T @ p, p.T @ px, px.T @ px])),
            _double(scaled.T @ scaled),
            float(curvature.sum()) + np.finfo(float).tiny,
        )


def _double(sums: NDArray[Any]) -> Array:
    return sums.astype(np.float64)
