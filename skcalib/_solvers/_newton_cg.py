"""Truncated Newton (Newton-CG, preconditioned) for smooth convex losses.

Minimised is a mean log-loss plus a convex quadratic penalty, f. An objective says at
each point x what f, its gradient g, the product of the Hessian H with a vector and an
approximate inverse of H are. H @ step = -g is solved by conjugate gradients with the
approximate inverse as preconditioner (where that is exact, one iteration does); Armijo
backtracking shortens the rare steps that are too long [Nocedal & Wright, Numerical
Optimization, 2006, ch. 7.1]. Where there is no product with H, the approximate inverse
gets the BFGS update of the last steps (L-BFGS, ch. 7.2). New curvature costs much, so
several steps may share one Hessian's inverse (chords: Shamanskii's modified Newton
method).

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

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal

from skcalib._numerics import TINY
from skcalib._solvers._descend import (
    ROUNDING,
    SUFFICIENT,
    backtrack,
    descend,
    end_of,
    shortened,
)
from skcalib._solvers._lbfgs import Pair, bfgs_product
from skcalib._solvers._one_thread import one_blas_thread
from skcalib._solvers._result import CONVERGED, Result

Array = NDArray[np.float64]
# Makes the expansion about a point, with the curvature of an earlier one if given.
Expand = Callable[[Array, "Expansion | None"], "Expansion"]

# No search of these limits is recorded. `benchmarks/fit_speed.py` times what they make
# of a fit, and tests/calibrators/test_optima.py asks how near it ends.
MAX_CG_STEPS = 250
# So many steps with old curvature, or fewer, are cheaper than new curvature.
MAX_CHORDS = 8
# Trials of a shorter step, and what a trial leaves at least of the last one's length.
MAX_TRIALS = 20
SHORTEST = 0.05
# Pairs of the BFGS update: steps of which the inverse remembers what they showed.
MAX_PAIRS = 2
# Of the step's decrease, the root of the share that may be missing from an early step.
LOOSEST = 0.3
# The same, where each step may be the last.
LAST = 0.1
# Of the tolerance, so much may be left by the solution of a linear system.
SOLVED = 0.1


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


@dataclass(frozen=True)
class _NewtonStep:
    """A step, minus the gradient along it, and a bound on the loss that is left."""

    point: Expansion
    step: Array
    drop: float
    left: float
    # Smallest eigenvalue seen of the Hessian times the approximate inverse.
    quality: float


def minimize(
    expand: Expand,
    loss: Callable[[Array], float],
    x: Array,
    *,
    tol: float,
    max_iter: int,
    blind: float = 0.0,
) -> Result:
    """Minimise from `x` until the loss is within about `tol` of its minimum.

    A step that promises no more than `blind` is the last one: it is taken without a
    look at where it leads, so that loss and gradient are those before it.
    """
    search = _Search(expand, loss, x, tol, blind)
    # The blocks already run side by side; BLAS must not split each of them again.
    with one_blas_thread():
        point, n_iter, message = descend(
            expand(x, None), search.step_from, search.go, tol=tol, max_iter=max_iter
        )
    norm = float(np.linalg.norm(point.gradient))
    return Result(search.x, point.loss, n_iter, message, norm)


class _Search:
    """The point, and what the steps so far say of the next one."""

    def __init__(
        self,
        expand: Expand,
        loss: Callable[[Array], float],
        x: Array,
        tol: float,
        blind: float,
    ) -> None:
        self._expand, self._loss, self._tol = expand, loss, tol
        self.x = x
        self._blind = blind
        self._stalled = False
        self._forcing = LAST if blind else LOOSEST
        self._previous, self._quality = np.inf, np.inf

    def step_from(self, point: Expansion) -> _NewtonStep:
        """Find Newton's step; look at a last one again with the exact inverse."""
        tol, previous = self._tol, self._previous
        newton = _newton_step(point, self._forcing, tol, self._quality, previous)
        if newton.left <= tol and point.exact is not None:
            point = replace(point, precondition=point.exact(), exact=None)
            newton = _newton_step(point, self._forcing, tol, np.inf, previous)
        return newton

    def go(self, newton: _NewtonStep) -> Expansion | str:
        """Go along the step, and learn from it."""
        point, drop = newton.point, newton.drop
        if newton.left <= self._blind:
            self.x = self.x + newton.step
            return CONVERGED
        curvature = None if _is_slow(drop, self._previous, self._tol) else point
        hopeless = self._stalled and drop > 0.9 * self._previous
        new = None if hopeless else self._descended(newton, curvature)
        if new is None:
            return end_of(newton.left)
        self._quality = (
            np.inf if curvature is None else min(self._quality, newton.quality)
        )
        self._stalled = new.loss >= point.loss - ROUNDING * max(1.0, abs(point.loss))
        self._forcing, self._previous = min(LOOSEST, float(np.sqrt(drop))), drop
        if new.hessian_product is None and new.precondition is point.precondition:
            new = _bfgs_updated(point, new, newton.step)
        return new

    def _descended(
        self, newton: _NewtonStep, curvature: Expansion | None
    ) -> Expansion | None:
        """Shorten the step until the loss falls enough; None if it never does."""
        x, step, drop = self.x, newton.step, newton.drop
        old = newton.point.loss
        new = self._expand(x + step, curvature)
        if new.loss <= old - SUFFICIENT * drop + ROUNDING:
            self.x = x + step
            return new
        found = backtrack(
            lambda length: (self._loss(x + length * step), None),
            old,
            drop,
            shortened(1.0, new.loss - old, drop, SHORTEST),
            shortest=SHORTEST,
            max_trials=MAX_TRIALS,
        )
        if found is None:
            return None
        self.x = x + found[0] * step
        return self._expand(self.x, None)


def _is_slow(drop: float, previous: float, tol: float) -> bool:
    """Whether new curvature costs less than the steps that the old one would take.

    That is, whether more than so many chords are left at the present linear rate.
    """
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
    """An approximate inverse and its BFGS updates."""

    inverse: Callable[[Array], Array]
    pairs: tuple[Pair, ...]

    def __call__(self, r: Array) -> Array:
        return bfgs_product(r, self.pairs, self.inverse)


def _newton_step(
    point: Expansion, forcing: float, tol: float, quality: float, previous: float
) -> _NewtonStep:
    """Solve Hessian @ step = -gradient by preconditioned conjugate gradients (PCG).

    `quality` is that of earlier steps with the same inverse, inf if there are none;
    `previous` is the last drop.
    """
    residual = -point.gradient
    z = point.precondition(residual)
    rho = float(np.vdot(residual, z))
    if rho == 0:  # No gradient, or one whose square is none.
        return _NewtonStep(point, np.zeros_like(residual), 0.0, 0.0, quality)
    if point.hessian_product is None:
        return _NewtonStep(point, z, rho, rho / _chord_quality(rho, previous), quality)
    if rho <= quality * tol < np.inf:
        return _NewtonStep(point, z, rho, rho / quality, quality)
    step, direction, steepest = np.zeros_like(residual), z, (z, rho)
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
    if not drop > 0:  # Rounding has turned it upwards.
        step, drop = steepest
    return _NewtonStep(point, step, drop, drop + unsolved, lanczos.smallest)


def _chord_quality(drop: float, previous: float) -> float:
    """Estimate the quality of an inverse that is not that of the Hessian.

    Each step leaves 1 - quality of the error that the inverse knows the least of.
    """
    return max(1 - float(np.sqrt(drop / previous)), 1e-3) if previous > 0 else 1e-3


class _Lanczos:
    """The tridiagonal matrix of Lanczos, which conjugate gradients build by the way.

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
