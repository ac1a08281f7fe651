"""Vector scaling: softmax(v * z + b), optionally with ridge penalties towards (1, 0).

The parameters are a (2, K) array of v and b. Up to a few hundred classes the Hessian is
formed and factorised, so that Newton's steps are exact; beyond, its 2 x 2 diagonal
blocks precondition conjugate gradients and memory stays proportional to K.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from skcalib._blocks import CalibrationData
from skcalib._numerics import softmax_
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._result import Result
from skcalib._solvers._softmax import curvature_product, loss_and_exp

Array = NDArray[np.float64]

# From here on the (2K, 2K) Hessian costs more than it saves.
MAX_DENSE_CLASSES = 300
# v and b of the map that changes nothing.
IDENTITY = np.array([[1.0], [0.0]])


def fit_vector(
    data: CalibrationData,
    start: Array,
    *,
    coef_penalty: float = 0.0,
    intercept_penalty: float = 0.0,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise log-loss + coef_penalty |v - 1|^2 + intercept_penalty |b|^2.

    `start` is the (2, K) starting point.
    """
    penalty = np.array([[coef_penalty], [intercept_penalty]])

    def expand(x: Array, curvature: Expansion | None) -> Expansion:
        return _expand(data, x, penalty, curvature)

    def loss(x: Array) -> float:
        return _loss(data, x, penalty)

    return minimize(expand, loss, start, tol=tol, max_iter=max_iter)


def _loss(data: CalibrationData, x: Array, penalty: Array) -> float:
    def statistic(logits: NDArray, codes: NDArray, weight: Array) -> float:
        return loss_and_exp(_scores(x, logits), codes, weight)[0]

    return float(data.sum(statistic)) + float((penalty * (x - IDENTITY) ** 2).sum())


def _scores(x: Array, z: NDArray) -> Array:
    scores = x[0] * z
    scores += x[1]
    return scores


def _expand(
    data: CalibrationData, x: Array, penalty: Array, curvature: Expansion | None
) -> Expansion:
    n_classes = data.n_classes
    dense = n_classes <= MAX_DENSE_CLASSES

    def statistic(logits: NDArray, codes: NDArray, weight: Array) -> tuple[Any, ...]:
        z = logits.astype(np.float64, copy=False)
        loss, e, total = loss_and_exp(_scores(x, z), codes, weight)
        gradient = _gradient(e, total, z, codes, weight)
        if curvature is not None:
            return loss, gradient
        hessian = _dense_hessian if dense else _diagonal_hessian
        return loss, gradient, hessian(e, total, z, weight)

    def hessian_product(direction: Array) -> Array:
        def of_block(logits: NDArray, codes: NDArray, weight: Array) -> Array:
            z = logits.astype(np.float64, copy=False)
            change = _scores(direction, z)
            change = curvature_product(softmax_(_scores(x, z)), change, weight)
            return np.stack([np.einsum("ij,ij->j", change, z), change.sum(axis=0)])

        return data.sum(of_block) + 2 * penalty * direction

    heavy = dense and curvature is None
    loss, gradient, *hessian = data.sum(statistic, heavy=heavy)
    away = x - IDENTITY
    loss += float((penalty * away**2).sum())
    gradient += 2 * penalty * away
    product = None if dense else hessian_product
    if curvature is not None:
        precondition = curvature.precondition
    elif dense:
        ridge = np.repeat(2 * penalty[:, 0], n_classes)
        precondition = inverse(hessian[0] + np.diag(ridge))
    else:
        precondition = _inverse_blocks(hessian[0], penalty)
    return Expansion(loss, gradient, product, precondition)


# `e` is a block of unnormalised probabilities and `total` their row sums: sums over the
# rows with weights weight / total are sums of weight * p.


def _gradient(e: Array, total: Array, z: Array, codes: NDArray, weight: Array) -> Array:
    n_samples, n_classes = z.shape
    share = weight / total
    own = weight * z[np.arange(n_samples), codes]
    return np.stack(
        [
            share @ (e * z) - np.bincount(codes, own, n_classes),
            share @ e - np.bincount(codes, weight, n_classes),
        ]
    )


def _dense_hessian(e: Array, total: Array, z: Array, weight: Array) -> Array:
    """Hessian of one block by (v, b): diag(...) minus the Gram matrix of (p z, p)."""
    n_samples, n_classes = z.shape
    both = np.empty((n_samples, 2 * n_classes))
    first = np.multiply(e, z, out=both[:, :n_classes])
    share = weight / total
    moments = share @ (first * z), share @ first, share @ e
    both[:, n_classes:] = e
    both *= (np.sqrt(weight) / total)[:, np.newaxis]
    hessian = both.T @ both
    hessian *= -1
    k = np.arange(n_classes)
    hessian[k, k] += moments[0]
    hessian[k, n_classes + k] += moments[1]
    hessian[n_classes + k, k] += moments[1]
    hessian[n_classes + k, n_classes + k] += moments[2]
    return hessian


def _diagonal_hessian(e: Array, total: Array, z: Array, weight: Array) -> Array:
    """Sum the (v_k, b_k) blocks of the Hessian, as rows vv, vb and bb."""
    mass = e / total[:, np.newaxis]
    mass *= 1 - mass
    first = mass * z
    return np.stack([weight @ (first * z), weight @ first, weight @ mass])


def _inverse_blocks(blocks: Array, penalty: Array) -> Callable[[Array], Array]:
    vv = blocks[0] + 2 * penalty[0]
    bb = blocks[2] + 2 * penalty[1]
    vb = blocks[1]
    # A ridge far below the curvature keeps classes without any mass finite.
    vv = vv + 1e-10 * vv.max() + np.finfo(float).tiny
    bb = bb + 1e-10 * bb.max() + np.finfo(float).tiny
    determinant = vv * bb - vb**2
    determinant = np.maximum(determinant, 1e-12 * vv * bb)

    def solve(r: Array) -> Array:
        v = (bb * r[0] - vb * r[1]) / determinant
        b = (vv * r[1] - vb * r[0]) / determinant
        return np.stack([v, b])

    return solve


def inverse(hessian: Array) -> Callable[[Array], Array]:
    """Solve with a symmetric matrix, after a ridge that makes it positive definite."""
    diagonal = np.diagonal(hessian)
    # In units of each parameter: the scale of v follows the logits, that of b does not.
    # Where all probabilities are 0 or 1, rounding may leave no positive curvature.
    largest = diagonal.max()
    floor = 1e-14 * largest if largest > 0 else 1.0
    scale = 1 / np.sqrt(np.maximum(diagonal, floor))
    scaled = hessian * scale[:, np.newaxis] * scale
    factor = None
    ridge = 1e-10
    while factor is None:
        scaled[np.diag_indices_from(scaled)] += ridge
        try:
            factor = cho_factor(scaled, lower=True)
        except np.linalg.LinAlgError:
            ridge *= 100

    def solve(r: Array) -> Array:
        return (scale * cho_solve(factor, scale * r.ravel())).reshape(r.shape)

    return solve
