"""Truncated Newton (Newton-CG) for smooth convex losses.

Minimised is a mean log-loss plus a convex quadratic penalty, f. An objective says at
each point x what f, its gradient g, the product of the Hessian H with a vector and an
approximate inverse of H are. H @ step = -g is solved by conjugate gradients with the
approximate inverse as preconditioner (where that is exact, one iteration does); Armijo
backtracking shortens the rare steps that are too long [Nocedal & Wright, Numerical
Optimization, 2006, ch. 7.1]. Where there is no product with H, the approximate inverse
gets the BFGS update of the last steps (L-BFGS, ch. 7.2).

A search ends when the loss that is left is bounded by `tol`. A log-loss is generalised
self-concordant, so f(x) - min f <= g' H^-1 g, the squared Newton decrement, near the
minimum, and half of it to second order [Bach, Self-concordant analysis for logistic
regression, 2010]. CG finds a part of it from below; the rest is r' H^-1 r with the
residual r, which is at most r' M r over the smallest eigenvalue of M H, with M the
approximate inverse. That eigenvalue is estimated by the Lanczos matrix which CG builds
by the way [Golub & Meurant, Matrices, moments and quadrature, 1994]. The estimate
misses a flat direction that M takes for a steep one; so an objective with few enough
parameters also offers the exact inverse, with which the last step is looked at again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from threadpoolctl import ThreadpoolController

from skcalib._solvers._result import Result

Array = NDArray[np.float64]
# Makes the expansion about a point, with the curvature of an earlier one if given.
Expand = Callable[[Array, "Expansion | None"], "Expansion"]

MAX_CG_STEPS = 250
# So many steps with old curvature, or fewer, are cheaper than new curvature.
MAX_CHORDS = 8
# Trials of a shorter step, and what a trial leaves of the last one's length.
MAX_TRIALS = 20
SHORTEST, LONGEST = 0.05, 0.5
# Pairs of the BFGS update: steps of which the inverse remembers what they showed.
MAX_PAIRS = 2
# Losses that differ by less, in nats, may be equal.
ROUNDING = 1e-15
# Nats to be gained that the rounding of many rows may hide.
LOSS_NOISE = 1e-9
# Of the step's decrease, the root of the share that may be missing from an early step.
LOOSEST = 0.3
# Of the tolerance, so much may be left by the solution of a linear system.
SOLVED = 0.1
TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Expansion:
    """A loss to second order about one point."""

    loss: float
    gradient: Array
    # None where the inverse is the best that is known of the Hessian.
    hessian_product: Callable[[Array], Array] | None
    precondition: Callable[[Array], Array]
    # Makes the exact inverse, where that is affordable.
    exact: Callable[[], Callable[[Array], Array]] | None = None


def minimize(
    expand: Expand,
    loss: Callable[[Array], float],
    x: Array,
    *,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise from `x` until the loss is within about `tol` of its minimum."""
    # The blocks already run side by side; BLAS must not split each of them again.
    with _thread_pools().limit(limits=1, user_api="blas"):
        return _minimize(expand, loss, x, tol, max_iter)


@cache
def _thread_pools() -> ThreadpoolController:
    """Find the BLAS of NumPy and SciPy, once since it takes a millisecond."""
    return ThreadpoolController()


def _minimize(
    expand: Expand,
    loss: Callable[[Array], float],
    x: Array,
    tol: float,
    max_iter: int,
) -> Result:
    point = expand(x, None)
    message = f"max_iter={max_iter} was reached"
    n_iter, stalled = 0, False
    forcing, previous, quality = LOOSEST, np.inf, np.inf
    while n_iter < max_iter:
        n_iter += 1
        newton = _newton_step(point, forcing, tol, quality, previous)
        if newton.left <= tol and point.exact is not None:
            point = replace(point, precondition=point.exact(), exact=None)
            newton = _newton_step(point, forcing, tol, np.inf, previous)
        drop = newton.drop
        if newton.left <= tol:
            message = "converged"
            break
        new = point
        if not (stalled and drop > 0.9 * previous):
            curvature = None if _is_slow(drop, previous, tol) else point
            x, new = _descend(expand, loss, x, point, newton, curvature)
        if new is point:
            message = _end(newton.left)
            break
        quality = np.inf if curvature is None else min(quality, newton.quality)
        stalled = new.loss >= point.loss - ROUNDING * max(1.0, abs(point.loss))
        forcing, previous = min(LOOSEST, float(np.sqrt(drop))), drop
        if new.hessian_product is None and new.precondition is point.precondition:
            new = _bfgs_updated(point, new, newton.step)
        point = new
    norm = float(np.linalg.norm(point.gradient))
    return Result(x, point.loss, n_iter, message == "converged", message, norm)


def _end(left: float) -> str:
    """Say how a search ended that rounding of the loss keeps from going on."""
    if left <= LOSS_NOISE:
        return "converged"
    return f"no descent along Newton's step, with up to {left:.1e} nats to be gained"


def _is_slow(drop: float, previous: float, tol: float) -> bool:
    """Whether new curvature costs less than the steps that the old one would take."""
    previous = min(previous, 1.0)
    if drop >= previous:
        return True
    return bool(np.log(drop / tol) > MAX_CHORDS * np.log(previous / drop))


def _bfgs_updated(old: Expansion, new: Expansion, step: Array) -> Expansion:
    """Give the approximate inverse the BFGS update of the last step."""
    change = new.gradient - old.gradient
    product = float(np.vdot(step, change))
    if not product > 0:
        return new
    known = new.precondition
    if not isinstance(known, _BfgsInverse):
        known = _BfgsInverse(known, ())
    pairs = (*known.pairs, (step, change, product))[-MAX_PAIRS:]
    return replace(new, precondition=_BfgsInverse(known.inverse, pairs))


@dataclass(frozen=True)
class _BfgsInverse:
    """An approximate inverse and its BFGS updates, by the two-loop recursion."""

    inverse: Callable[[Array], Array]
    # A step, the change of the gradient along it, and their product; oldest first.
    pairs: tuple[tuple[Array, Array, float], ...]

    def __call__(self, r: Array) -> Array:
        rest, shares = r.copy(), []
        for step, change, product in reversed(self.pairs):
            shares.append(float(np.vdot(step, rest)) / product)
            rest -= shares[-1] * change
        out = self.inverse(rest)
        for step, change, product in self.pairs:
            out += (shares.pop() - float(np.vdot(change, out)) / product) * step
        return out


@dataclass(frozen=True)
class _NewtonStep:
    """A step, minus the gradient along it, and a bound on the loss that is left."""

    step: Array
    drop: float
    left: float
    # Smallest eigenvalue seen of the Hessian times the approximate inverse.
    quality: float


def _newton_step(
    point: Expansion, forcing: float, tol: float, quality: float, previous: float
) -> _NewtonStep:
    """Solve Hessian @ step = -gradient by preconditioned conjugate gradients.

    `quality` is that of earlier steps with the same inverse, inf if there are none;
    `previous` is the last drop.
    """
    residual = -point.gradient
    z = point.precondition(residual)
    rho = float(np.vdot(residual, z))
    if rho == 0:  # No gradient, or one whose square is none.
        return _NewtonStep(np.zeros_like(residual), 0.0, 0.0, quality)
    if point.hessian_product is None:
        return _NewtonStep(z, rho, rho / _chord_quality(rho, previous), quality)
    if rho <= quality * tol < np.inf:
        return _NewtonStep(z, rho, rho / quality, quality)
    step, direction = np.zeros_like(residual), z
    lanczos = _Lanczos(quality)
    gained, unsolved = 0.0, np.inf
    for _ in range(MAX_CG_STEPS):
        product = point.hessian_product(direction)
        curvature = float(np.vdot(direction, product))
        if not curvature > 0:
            # Rounding has left no curvature; what has been gathered must do.
            step = step if step.any() else direction
            break
        length = rho / curvature
        step += length * direction
        gained += length * rho
        residual -= length * product
        z = point.precondition(residual)
        rho, previous = float(np.vdot(residual, z)), rho
        lanczos.add(length, rho / previous)
        enough = max(forcing**2 * gained, SOLVED * tol)
        unsolved = lanczos.bound(rho, enough)
        if unsolved <= enough:
            break
        direction = z + (rho / previous) * direction
    drop = -float(np.vdot(point.gradient, step))
    return _NewtonStep(step, drop, drop + unsolved, lanczos.smallest)


def _chord_quality(drop: float, previous: float) -> float:
    """Estimate the quality of an inverse that is not that of the Hessian.

    Each step leaves 1 - quality of the error that the inverse knows the least of.
    """
    return max(1 - float(np.sqrt(drop / previous)), 1e-3) if previous > 0 else 1e-3


class _Lanczos:
    """The tridiagonal matrix that conjugate gradients build by the way.

    Its smallest eigenvalue tends to that of the preconditioned Hessian.
    """

    def __init__(self, smallest: float) -> None:
        self.smallest = smallest
        self._diagonal: list[float] = []
        self._beside: list[float] = []
        self._carry = 0.0

    def add(self, length: float, ratio: float) -> None:
        """Take in a step's length and the ratio of the residuals after and before."""
        self._diagonal.append(1 / length + self._carry)
        self._beside.append(np.sqrt(max(ratio, 0.0)) / length)
        self._carry = ratio / length

    def bound(self, rho: float, enough: float) -> float:
        """Bound residual @ inverse Hessian @ residual, unless it exceeds `enough`."""
        if rho <= enough * self.smallest:
            values = eigvalsh_tridiagonal(
                self._diagonal, self._beside[:-1], select="i", select_range=(0, 0)
            )
            self.smallest = max(min(self.smallest, float(values[0])), TINY)
        return rho / self.smallest


def _descend(
    expand: Expand,
    loss: Callable[[Array], float],
    x: Array,
    point: Expansion,
    newton: _NewtonStep,
    curvature: Expansion | None,
) -> tuple[Array, Expansion]:
    """Shorten the step until the loss falls enough (Armijo's rule).

    Returns the old point if it never does.
    """
    step, drop = newton.step, newton.drop
    new = expand(x + step, curvature)
    if new.loss <= point.loss - 1e-4 * drop + ROUNDING:
        return x + step, new
    length, tried = 1.0, new.loss
    for _ in range(MAX_TRIALS):
        length = _shorter(length, tried - point.loss, drop)
        tried = loss(x + length * step)
        if tried <= point.loss - 1e-4 * length * drop:
            return x + length * step, expand(x + length * step, None)
    return x, point


def _shorter(length: float, rise: float, drop: float) -> float:
    """Where the parabola through both losses has its minimum, within reason.

    Its slope at the start is minus `drop`.
    """
    minimum = 0.0
    if np.isfinite(rise):
        minimum = length**2 * drop / (2 * (rise + length * drop))
    return float(np.clip(minimum, SHORTEST * length, LONGEST * length))
