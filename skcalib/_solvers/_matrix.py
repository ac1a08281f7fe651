"""Matrix scaling: softmax(W x + b) with ridge penalties towards the identity map.

The parameters are one (K, K + 1) array, W with b as its last column, and x carries a
constant 1. The Hessian, of size K (K + 1), is never formed. Its approximate inverse has
two parts: for the off-diagonal entries the Kronecker product of the mean of
diag(p) - p p' and the second moments of x, inverted through the eigenvectors of both;
for the diagonal of W and b, which carry other penalties, their exact Hessian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from skcalib._blocks import CalibrationData, Statistic
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._result import Result
from skcalib._solvers._softmax import (
    curvature_product,
    loss_and_proba,
    steering_precision,
    weighted_residual,
)
from skcalib._solvers._vector import inverse

Array = NDArray[np.float64]


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
    # The blocks already run side by side; BLAS must not split each of them again.
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        return minimize(problem.expand, problem.loss, start, tol=tol, max_iter=max_iter)


def log_loss(data: CalibrationData, x: Array) -> float:
    """Mean log-loss of the (K, K + 1) parameters `x`, without penalty."""

    def of_block(features: NDArray, codes: NDArray, weight: Array) -> float:
        scores = features @ x[:, :-1].T + x[:, -1]
        return loss_and_proba(scores, codes, weight)[0]

    return float(data.sum(of_block, heavy=True))


class _Problem:
    def __init__(self, data: CalibrationData, ridge: Ridge) -> None:
        self._data = data
        self._penalty = ridge.table(data.n_classes)
        self._off_diagonal = ridge.off_diagonal
        self._target = identity_map(data.n_classes)
        # At least a few rows per class, or the products of a block are too thin.
        self._block_elements = max(1 << 16, 128 * data.n_classes)

    def loss(self, x: Array) -> float:
        """Penalised loss at `x`."""
        penalty = float((self._penalty * (x - self._target) ** 2).sum())
        return log_loss(self._data, x) + penalty

    def expand(self, x: Array, curvature: Expansion | None) -> Expansion:
        """Loss, gradient and Hessian products about `x`.

        The approximate inverse of `curvature`, if given, is kept.
        """

        def statistic(
            features: NDArray, codes: NDArray, weight: Array
        ) -> tuple[Any, ...]:
            z = _with_one(features)
            loss, proba = loss_and_proba(z @ x.T, codes, weight)
            gradient = weighted_residual(proba, codes, weight).T @ z
            if curvature is not None:
                return loss, gradient
            return loss, gradient, _Moments.of_block(proba, z, weight)

        def hessian_product(direction: Array) -> Array:
            def of_block(features: NDArray, codes: NDArray, weight: Array) -> Array:
                z = steering_precision(_with_one(features))
                at, d = x.astype(z.dtype), direction.astype(z.dtype)
                change = curvature_product(z @ at.T, z @ d.T, weight)
                return (change.T @ z).astype(np.float64)

            return self._sum(of_block) + 2 * self._penalty * direction

        loss, gradient, *moments = self._sum(statistic)
        away = x - self._target
        loss += float((self._penalty * away**2).sum())
        gradient += 2 * self._penalty * away
        if curvature is not None:
            precondition = curvature.precondition
        else:
            precondition = self._approximate_inverse(moments[0])
        return Expansion(loss, gradient, hessian_product, precondition)

    def _sum(self, statistic: Statistic) -> Any:
        return self._data.sum(
            statistic, block_elements=self._block_elements, heavy=True
        )

    def _approximate_inverse(self, moments: "_Moments") -> Callable[[Array], Array]:
        n_classes = self._data.n_classes
        k = np.arange(n_classes)
        left, u = np.linalg.eigh(np.diag(moments.mass) - moments.gram[:, :n_classes])
        right, v = np.linalg.eigh(moments.second[:-1, :-1])
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


@dataclass
class _Moments:
    """Additive statistics from which the approximate inverse is built."""

    mass: Array  # sum of w p
    linear: Array  # sum of w p z
    square: Array  # sum of w p z^2
    gram: Array  # sum of w p p', w p (pz)' and w pz (pz)', side by side
    second: Array  # sum of w (1 - |p|^2) z z'
    curvature: float  # sum of w (1 - |p|^2)

    @classmethod
    def of_block(cls, proba: Array, z: Array, weight: Array) -> "_Moments":
        x = z[:, :-1]
        weighted = proba * weight[:, np.newaxis]
        weighted_x = weighted * x
        root = np.sqrt(weight)[:, np.newaxis]
        p = steering_precision(root * proba)
        px = steering_precision(root * proba * x)
        curvature = weight * (1 - np.einsum("ij,ij->i", proba, proba))
        scaled = steering_precision(z * np.sqrt(curvature)[:, np.newaxis])
        return cls(
            weighted.sum(axis=0),
            weighted_x.sum(axis=0),
            np.einsum("ij,ij->j", weighted_x, x),
            np.hstack([p.T @ p, p.T @ px, px.T @ px]).astype(np.float64),
            (scaled.T @ scaled).astype(np.float64),
            float(curvature.sum()) + np.finfo(float).tiny,
        )

    def __iadd__(self, other: "_Moments") -> "_Moments":
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def _with_one(features: NDArray) -> Array:
    """Append the constant 1 that carries the intercept."""
    z = np.empty((features.shape[0], features.shape[1] + 1))
    z[:, :-1] = features
    z[:, -1] = 1
    return z
