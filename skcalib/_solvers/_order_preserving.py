r"""An increasing map of log-probabilities, by log-loss.

With u the log-probabilities of a row after temperature scaling and H its entropy, the
scores are ``s(H) u + g(u)``. The positive function s joins values at a few entropies by
straight lines; g joins pieces of slope >= 0. Both are linear in their parameters, so
the log-loss is convex in them, and its Hessian is a matrix of a dozen rows.
"""

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._numerics import entropy, log_softmax_
from skcalib._solvers._bounded_newton import minimize_bounded
from skcalib._solvers._result import Result
from skcalib._solvers._scores import cut_logits
from skcalib._solvers._softmax import Exponentials

Array = NDArray[np.float64]

# Scores must keep the order of the logits, so the scale may not fall to 0.
LEAST_SCALE = 1e-3
# Of the entries of a row only so many of the largest have a say in the knots.
N_LARGEST = 10
# Knots are looked for on grids: of entropies in units of the largest possible, and of
# log-probabilities down to -DEPTH.
GRID = 4096
DEPTH = 32.0
# Neighbouring knots are at least so many steps of the grid apart.
LEAST_GAP = 4
# How far the parameters themselves are held, in units of the penalty on their jumps.
HOLD = 1e-2
# Blocks are this much smaller, as each entry becomes one number a parameter.
BLOCK_ELEMENTS = 1 << 13


@dataclass(frozen=True)
class Knots:
    """Where the two functions may bend: in entropy, and in log-probability."""

    scale: Array
    curve: Array


def log_proba_of(logits: NDArray, temperature: float) -> Array:
    """Log-probabilities of one block after temperature scaling."""
    u = cut_logits(logits)
    u /= temperature
    return log_softmax_(u)


def choose_knots(data: CalibrationData, temperature: float, n_knots: int) -> Knots:
    """Put knots at quantiles of entropies and log-probabilities that are uncertain.

    Each row counts with the root of its entropy, each of its largest probabilities p
    with the root of p (1 - p): what is certain tells nothing about its own shape.
    """
    n_largest = min(N_LARGEST, data.n_classes)
    highest = log(data.n_classes)

    def statistic(
        logits: NDArray, codes: NDArray, weight: Array
    ) -> tuple[Array, Array]:
        u = log_proba_of(logits, temperature)
        h = entropy(u)
        top = -np.partition(-u, n_largest - 1, axis=1)[:, :n_largest]
        p = np.exp(top)
        say = np.sqrt(p * (1 - p)) * weight[:, np.newaxis]
        return (
            _histogram(h / highest, weight * np.sqrt(h)),
            _histogram(-top.ravel() / DEPTH, say.ravel()),
        )

    of_entropy, of_depth = data.sum(statistic)
    share = np.arange(1, n_knots + 1) / (n_knots + 1)
    scale = highest * _quantiles(of_entropy, np.linspace(0.02, 0.98, n_knots))
    return Knots(scale, -DEPTH * _quantiles(of_depth, share)[::-1])


def _histogram(values: Array, weight: Array) -> Array:
    index = np.clip(values * GRID, 0, GRID - 1).astype(np.intp)
    histogram = np.bincount(index, weight, GRID)
    return np.asarray(histogram, dtype=np.float64)


def _quantiles(histogram: Array, share: Array) -> Array:
    """Return points of (0, 1] below which these shares lie, none too near another."""
    if not histogram.any():
        return np.ones(1)
    below = np.cumsum(histogram)
    # Rounding must not say which of two neighbours it is.
    index = np.searchsorted(below, (share - 1e-9) * below[-1]) + 1
    kept = [int(index[0])]
    for i in index[1:]:
        if i >= kept[-1] + LEAST_GAP:
            kept.append(int(i))
    return np.array(kept) / GRID


def hats(h: Array, knots: Array) -> Array:
    """Weights of the values at the knots in each linear interpolation, by rows."""
    columns = [np.interp(h, knots, unit) for unit in np.eye(knots.shape[0])]
    return np.stack(columns, axis=1)


def pieces(u: Array, knots: Array) -> Array:
    """Increasing functions of u, each of slope 1 between two knots and flat beyond.

    The first one has slope 1 down to minus infinity. Along the last axis.
    """
    out = np.empty((*u.shape, knots.shape[0] + 1))
    lower = np.concatenate([[-np.inf], knots])
    upper = np.concatenate([knots, [0.0]])
    for j, (a, b) in enumerate(zip(lower, upper, strict=True)):
        np.clip(u, a, b, out=out[..., j])
        out[..., j] -= b
    return out


def fit_order_preserving(
    data: CalibrationData,
    temperature: float,
    knots: Knots,
    *,
    smoothness: float,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise log-loss + smoothness penalty over values of s and slopes of g."""
    n_scales, n_slopes = knots.scale.shape[0], knots.curve.shape[0] + 1
    start = np.concatenate([np.ones(n_scales), np.zeros(n_slopes)])
    lower = np.concatenate([np.full(n_scales, LEAST_SCALE), np.zeros(n_slopes)])
    penalty = smoothness * _roughness(n_scales, n_slopes)

    def expand(x: Array) -> tuple[float, Array, Array]:
        def statistic(
            logits: NDArray, codes: NDArray, weight: Array
        ) -> tuple[float, Array, Array]:
            u = log_proba_of(logits, temperature)
            return _of_block(x, u, codes, weight, knots)

        loss, gradient, hessian = data.sum(
            statistic, block_elements=BLOCK_ELEMENTS, heavy=True
        )
        away = x - start
        pull = penalty @ away
        return (
            loss + float(away @ pull),
            gradient + 2 * pull,
            hessian + 2 * penalty,
        )

    return minimize_bounded(expand, start, lower, tol=tol, max_iter=max_iter)


def _roughness(*sizes: int) -> Array:
    """Quadratic form: squared jumps within each group, and a little of each square."""
    matrix = HOLD * np.eye(sum(sizes))
    first = 0
    for size in sizes:
        jump = np.diff(np.eye(size), axis=0)
        matrix[first : first + size, first : first + size] += jump.T @ jump
        first += size
    return matrix


def _of_block(
    x: Array, u: Array, codes: NDArray, weight: Array, knots: Knots
) -> tuple[float, Array, Array]:
    """Loss, gradient and Hessian of one block of log-probabilities."""
    n_scales = knots.scale.shape[0]
    hat = hats(entropy(u), knots.scale)
    piece = pieces(u, knots.curve)
    scores = piece @ x[n_scales:]
    scores += (hat @ x[:n_scales])[:, np.newaxis] * u
    e = Exponentials.of_scores(scores, codes)
    proba = e.values / e.total[:, np.newaxis]
    mean_u = np.vecdot(proba, u)
    mean = _row_means(proba, piece)
    rows = np.arange(u.shape[0])
    off_u = weight * (mean_u - u[rows, codes])
    off = mean - piece[rows, codes]
    gradient = np.concatenate([hat.T @ off_u, off.T @ weight])
    # Covariances under the predicted probabilities: u with u, and u with the pieces.
    proba_u = proba * u
    var = weight * (np.vecdot(proba_u, u) - mean_u**2)
    cov = _row_means(proba_u, piece) - mean_u[:, np.newaxis] * mean
    corner = hat.T @ (cov * weight[:, np.newaxis])
    root = piece * np.sqrt(proba * weight[:, np.newaxis])[..., np.newaxis]
    root = root.reshape(-1, piece.shape[-1])
    curve = root.T @ root - (mean * weight[:, np.newaxis]).T @ mean
    scale = hat.T @ (hat * var[:, np.newaxis])
    hessian = np.block([[scale, corner], [corner.T, curve]])
    return float(e.loss @ weight), gradient, hessian


def _row_means(proba: Array, piece: Array) -> Array:
    result: Array = np.matmul(proba[:, np.newaxis, :], piece)[:, 0]
    return result
