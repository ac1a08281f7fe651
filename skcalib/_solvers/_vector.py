"""Vector scaling: softmax(v * z + b), with a ridge penalty towards the start.

Minimised over v and b is the mean log-loss [Guo, Pleiss, Sun & Weinberger, On
Calibration of Modern Neural Networks, ICML 2017, section 4.2] plus ``sum(penalty *
(x - start)^2)``; for structured vector scaling, the penalty of Berta, Holzmuller,
Jordan & Bach, Structured Matrix Scaling for Multi-Class Calibration, 2025.

The parameters are a (2, K) array x of v and b. With r = p - e_y the gradient of a row
is (r z, r). With A = diag(p) - p p' its Hessian is A in b, diag(z) A diag(z) in v and
diag(z) A between them: diagonal matrices in all four places, less the outer product of
(p z, p) with itself. Up to a few hundred classes it is formed and factorised, so that
Newton's steps are exact; beyond, its 2 x 2 diagonal blocks (block Jacobi) precondition
conjugate gradients and memory stays proportional to K.

The log-loss of the confidence in the predicted class (`_top_versus_all`) may take the
place of the log-loss. It need not be convex, and L-BFGS finds a local minimum.

Deviation: the plain form has no optimum where a map can tell the samples apart without
error, and many where a class has none; a penalty that no loss shows picks one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from skcalib._blocks import CalibrationData
from skcalib._numerics import TINY, softmax_
from skcalib._solvers import _lbfgs
from skcalib._solvers._descend import jittered
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._result import INTERRUPTED, Result
from skcalib._solvers._softmax import Exponentials, curvature_product
from skcalib._solvers._top_versus_all import top_expansion_of_block

Array = NDArray[np.float64]

# From here on the (2K, 2K) Hessian costs more than it saves; a round number, of which
# no search is recorded.
MAX_DENSE_CLASSES = 300
# In units of the curvature: too weak to be seen in a loss, but samples that a map can
# tell apart without error have an optimum too.
SLIGHT = 1e-10
# Nats to be gained that only the gradient can tell from none.
LOWEST = 1e-16
# Nats above its minimum to which the log-loss is solved where it is but a start.
NEAR = 1e-6
# In units of the Hessian's diagonal, so that rounding leaves it positive definite.
RIDGE = 1e-10


def fit_vector(
    data: CalibrationData,
    start: Array,
    *,
    penalty: Array,
    tol: float,
    max_iter: int,
    near: Array | None = None,
    blind: float = 0.0,
) -> Result:
    """Minimise log-loss + sum(penalty * (x - start)^2).

    `start` is the (2, K) starting point, `penalty` of the same shape. The search begins
    at `near` instead, if that is known to be nearer; `blind` is that of `minimize`.
    """

    def expand(x: Array, curvature: Expansion | None) -> Expansion:
        return _expand(data, x, penalty, start, curvature)

    def loss(x: Array) -> float:
        mean = float(data.sum(partial(loss_of_block, x)))
        return mean + float((penalty * (x - start) ** 2).sum())

    x = start if near is None else near
    return minimize(expand, loss, x, tol=tol, max_iter=max_iter, blind=blind)


def fit_top_vector(
    data: CalibrationData, start: Array, *, penalty: Array, tol: float, max_iter: int
) -> Result:
    """Minimise the top-versus-all loss + sum(penalty * (x - start)^2) by L-BFGS.

    It need not be convex: the search begins at `start` or at the optimum of the
    log-loss, whichever is lower, and its steps are in units of the log-loss's Hessian.
    """

    def evaluate(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(start.shape)
        loss, gradient = data.sum(partial(top_expansion_of_block, x))
        away = x - start
        gradient += 2 * penalty * away
        return float(loss + (penalty * away**2).sum()), gradient.ravel()

    def precondition(r: Array) -> Array:
        return curvature.precondition(r.reshape(start.shape)).ravel()

    other = fit_vector(data, start, penalty=penalty, tol=NEAR, max_iter=max_iter).x
    points = [(x, evaluate(x.ravel())) for x in (start, other)]
    x, first = min(points, key=lambda point: point[1][0])
    curvature = _expand(data, x, penalty, start, None)
    found = _lbfgs.minimize(
        evaluate,
        x.ravel(),
        precondition=precondition,
        max_evaluations=max_iter,
        tol=max(tol, LOWEST),
        first=first,
    )
    if found.message == INTERRUPTED:
        # Half a fit is none: others need not stop at a warning.
        raise KeyboardInterrupt
    return found.at(found.x.reshape(start.shape))


def slight_penalty(data: CalibrationData, x: Array) -> Array:
    """Return a penalty too weak to be seen where the data determine the parameters."""
    vv, _, bb = data.sum(partial(_curvature_of_block, x))
    return SLIGHT * np.stack([_raised(vv), _raised(bb)])


def promised_gain(data: CalibrationData, start: Array, penalty: Array) -> float:
    """Return the nats that the first step of `fit_vector` promises."""
    first = _expand(data, start, penalty, start, None)
    return float(np.vdot(first.gradient, first.precondition(first.gradient))) / 2


def _curvature_of_block(
    x: Array, logits: NDArray, codes: NDArray, weight: Array
) -> Array:
    z = logits.astype(np.float64, copy=False)
    return _diagonal_hessian(softmax_(_scores(x, z)), z, weight)


def _raised(curvature: Array) -> Array:
    """Raise small entries, so that classes without any mass stay finite."""
    return curvature + 1e-10 * curvature.max() + TINY


def loss_of_block(x: Array, logits: NDArray, codes: NDArray, weight: Array) -> float:
    return float(Exponentials.of_scores(_scores(x, logits), codes).loss @ weight)


def _scores(x: Array, z: NDArray) -> Array:
    scores = x[0] * z
    scores += x[1]
    return scores


def _expand(
    data: CalibrationData,
    x: Array,
    penalty: Array,
    target: Array,
    curvature: Expansion | None,
) -> Expansion:
    n_classes = data.n_classes
    dense = n_classes <= MAX_DENSE_CLASSES
    hessian_of = dense_hessian if dense else _diagonal_hessian

    def hessian_product(direction: Array) -> Array:
        product: Array = data.sum(partial(_product_of_block, x, direction))
        return product + 2 * penalty * direction

    heavy = dense and curvature is None
    loss, gradient, *hessian = data.sum(
        partial(expansion_of_block, x, None if curvature is not None else hessian_of),
        heavy=heavy,
    )
    away = x - target
    loss += float((penalty * away**2).sum())
    gradient += 2 * penalty * away
    product = None if dense else hessian_product
    if curvature is not None:
        precondition = curvature.precondition
    elif dense:
        precondition = inverse(hessian[0] + np.diag(2 * penalty.ravel()))
    else:
        precondition = inverse_blocks(hessian[0], penalty)
    return Expansion(loss, gradient, product, precondition)


def expansion_of_block(
    x: Array,
    hessian_of: Callable[[Array, Array, Array], Array] | None,
    logits: NDArray,
    codes: NDArray,
    weight: Array,
) -> tuple[Any, ...]:
    """Sum loss, gradient and, if it is asked for, the Hessian over one block."""
    z = logits.astype(np.float64, copy=False)
    e = Exponentials.of_scores(_scores(x, z), codes)
    loss = float(e.loss @ weight)
    if hessian_of is None:
        return loss, _gradient(e, z, weight)
    proba = e.values / e.total[:, np.newaxis]
    return loss, _gradient(e, z, weight), hessian_of(proba, z, weight)


def _product_of_block(
    x: Array, direction: Array, logits: NDArray, codes: NDArray, weight: Array
) -> Array:
    """Multiply the Hessian of one block, at `x`, by a direction."""
    z = logits.astype(np.float64, copy=False)
    change = _scores(direction, z)
    change = curvature_product(softmax_(_scores(x, z)), change, weight)
    return np.stack([np.einsum("ij,ij->j", change, z), change.sum(axis=0)])


def _gradient(e: Exponentials, z: Array, weight: Array) -> Array:
    """Gradient of one block; overwrites the exponentials."""
    residual = e.turn_into_residuals()
    share = weight / e.total
    by_intercept = share @ residual
    residual *= z
    return np.stack([share @ residual, by_intercept])


def dense_hessian(proba: Array, z: Array, weight: Array) -> Array:
    """Hessian of one block by (v, b): diag(...) minus the Gram matrix of (p z, p)."""
    n_samples, n_classes = z.shape
    both = np.empty((n_samples, 2 * n_classes), like=z)
    both[:, n_classes:] = proba
    first = np.multiply(proba, z, out=both[:, :n_classes])
    moments = weight @ (first * z), weight @ first, weight @ proba
    both *= np.sqrt(weight)[:, np.newaxis]
    hessian = both.T @ both
    hessian *= -1
    k = np.arange(n_classes)
    hessian[k, k] += moments[0]
    hessian[k, n_classes + k] += moments[1]
    hessian[n_classes + k, k] += moments[1]
    hessian[n_classes + k, n_classes + k] += moments[2]
    return hessian


def _diagonal_hessian(proba: Array, z: Array, weight: Array) -> Array:
    """Sum the (v_k, b_k) blocks of the Hessian, as rows vv, vb and bb."""
    mass = proba * (1 - proba)
    first = mass * z
    return np.stack([weight @ (first * z), weight @ first, weight @ mass])


def inverse_blocks(blocks: Array, penalty: Array) -> Callable[[Array], Array]:
    vv = _raised(blocks[0] + 2 * penalty[0])
    bb = _raised(blocks[2] + 2 * penalty[1])
    vb = blocks[1]
    determinant = vv * bb - vb**2
    determinant = np.maximum(determinant, 1e-12 * vv * bb)

    def solve(r: Array) -> Array:
        v = (bb * r[0] - vb * r[1]) / determinant
        b = (vv * r[1] - vb * r[0]) / determinant
        return np.stack([v, b])

    return solve


def inverse(
    hessian: Array, shape: tuple[int, int] | None = None, classes: int = 1
) -> Callable[[Array], Array]:
    """Solve with a Hessian after Cholesky jitter, which makes it positive definite.

    It is that by (v, b), or by parameters of another shape, whose axis `classes` counts
    the classes.
    """
    diagonal = np.diagonal(hessian).reshape(shape or (2, -1))
    # Parameters of one kind share their units: the scale of v follows the logits, that
    # of b does not. Where all probabilities are 0 or 1, rounding may leave no positive
    # curvature.
    largest = diagonal.max(axis=classes, keepdims=True)
    floor = np.where(largest > 1e-280, 1e-14 * largest, 1.0)
    scale = 1 / np.sqrt(np.maximum(diagonal, floor)).ravel()
    scaled = hessian * scale[:, np.newaxis] * scale
    factor = jittered(scaled, RIDGE, partial(cho_factor, lower=True))

    def solve(r: Array) -> Array:
        return (scale * cho_solve(factor, scale * r.ravel())).reshape(r.shape)

    return solve
