"""What the Hessian of matrix scaling needs of one block of rows, and sums of that.

The Hessian of a row is (diag(p) - p p') x (z, 1)(z, 1)' (a Kronecker product). Its
product with a change D of the parameters is the outer product of (diag(p) - p p') D
(z, 1) and (z, 1), so that it is never formed but for a few classes. All of this steers
the steps and does not move the optimum: single precision will do.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._softmax import (
    Exponentials,
    curvature_product,
    flushed,
    steering_precision,
)

Array = NDArray[np.float64]


def affine_scores(x: NDArray, z: NDArray) -> NDArray:
    """Map rows z to W z + b, where `x` is (K, K + 1) with b as its last column."""
    scores = z @ x[:, :-1].T
    scores += x[:, -1]
    return scores


def outer_sums(change: NDArray, z: NDArray) -> Array:
    """Sum over the rows of the outer product of `change` and ``(z, 1)``."""
    n_samples, n_classes = change.shape
    sums = np.empty((n_classes, n_classes + 1), like=change)
    sums[:, :-1] = change.T @ z
    sums[:, -1] = np.ones(n_samples, change.dtype, like=change) @ change
    return sums


def with_ones(z: NDArray) -> NDArray:
    """Append the constant feature 1, which carries b."""
    return np.column_stack([z, np.ones(z.shape[0], z.dtype, like=z)])


@dataclass
class _Additive:
    def __iadd__(self, other: Self) -> Self:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass
class Shifts(_Additive):
    """Additive statistics from which the inverse by shifts is built."""

    curvature: Array  # sum of w p (1 - p)
    linear: Array  # sum of w p (1 - p) z
    square: Array  # sum of w p (1 - p) z^2
    mean: Array  # sum of w z
    second: Array  # sum of w z^2
    hessian: Array  # sum of w (diag(p) - p p')

    @property
    def variance(self) -> Array:
        return np.maximum(self.second - self.mean**2, 0)


@dataclass
class Moments(_Additive):
    """Additive statistics from which the approximate inverse is built."""

    mass: Array  # sum of w p
    linear: Array  # sum of w p z
    square: Array  # sum of w p z^2
    gram: Array  # sum of w p p', w p (pz)' and w pz (pz)', side by side
    second: Array  # sum of w (1 - |p|^2) (z, 1) (z, 1)'


@dataclass(frozen=True)
class Steering:
    """What the Hessian needs of one block of rows, in the precision of steering."""

    # Features with the constant 1, so that b goes with W through each product.
    z1: NDArray[Any]
    proba: NDArray[Any]
    weight: NDArray[Any]

    @classmethod
    def of_block(cls, z: NDArray, e: Exponentials, weight: Array) -> "Steering":
        z = steering_precision(z)
        proba = e.values / e.total[:, np.newaxis]
        return cls(with_ones(z), flushed(proba.astype(z.dtype)), weight.astype(z.dtype))

    @property
    def z(self) -> NDArray[Any]:
        return self.z1[:, :-1]

    def product(self, direction: Array) -> Array:
        """Product of the block's Hessian with a (K, K + 1) array."""
        change = self.z1 @ direction.astype(self.z1.dtype).T
        change = curvature_product(self.proba, change, self.weight)
        product: Array = change.T @ self.z1
        return product

    def shifts(self) -> Shifts:
        mass = self.proba * (1 - self.proba)
        first = mass * self.z
        p = self.proba * np.sqrt(self.weight)[:, np.newaxis]
        hessian = _double(p.T @ p)
        hessian *= -1
        hessian[np.diag_indices_from(hessian)] += self.weight @ self.proba
        return Shifts(
            _double(self.weight @ mass),
            _double(self.weight @ first),
            _double(self.weight @ (first * self.z)),
            _double(self.weight @ self.z),
            _double(self.weight @ (self.z * self.z)),
            hessian,
        )

    def moments(self) -> Moments:
        root = np.sqrt(self.weight)
        p = self.proba * root[:, np.newaxis]
        px = p * self.z
        curvature = np.maximum(1 - np.vecdot(self.proba, self.proba), 0) * self.weight
        scaled = self.z1 * np.sqrt(curvature)[:, np.newaxis]
        return Moments(
            _double(root @ p),
            _double(root @ px),
            _double(root @ (px * self.z)),
            _double(np.hstack([p.T @ p, p.T @ px, px.T @ px])),
            _double(scaled.T @ scaled),
        )

    def hessian(self) -> Array:
        """Hessian of the block by all K (K + 1) parameters."""
        n_samples, n_classes = self.proba.shape
        z = self.z1
        root = self.proba * np.sqrt(self.weight)[:, np.newaxis]
        both = (root[:, :, np.newaxis] * z[:, np.newaxis]).reshape(n_samples, -1)
        hessian = _double(both.T @ both)
        hessian *= -1
        # p (1 - p) at once: p less its square has lost all digits near 1.
        mass = self.proba * (1 - self.proba) * self.weight[:, np.newaxis]
        blocks = hessian.reshape(n_classes, n_classes + 1, n_classes, n_classes + 1)
        for k in range(n_classes):
            blocks[k, :, k] = (z * mass[:, k, np.newaxis]).T @ z
        return hessian


def _double(sums: NDArray[Any]) -> Array:
    return sums.astype(np.float64)
