"""Newton's method for smooth convex losses, its linear systems solved by CG.

An objective says at each point what the loss, the gradient, the product of the Hessian
with a vector and an approximate inverse of the Hessian are. The approximate inverse
preconditions the conjugate gradients; where it is exact, one CG step does. The loss
alone, which is cheaper, serves the rare steps that are too long.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
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
# Steps of which the approximate inverse remembers what they showed.
MAX_LESSONS = 2
# Losses that differ by less, in nats, may be equal.
ROUNDING = 1e-15


@dataclass(frozen=True)
class Expansion:
    """A loss to second order about one point."""

    loss: float
    gradient: Array
    # None where the inverse is the best that is known of the Hessian.
    hessian_product: Callable[[Array], Array] | None
    precondition: Callable[[Array], Array]


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
    n_iter = 0
    forcing = 0.1
    previous = 1.0
    while n_iter < max_iter:
        n_iter += 1
        step, drop = _newton_step(point, forcing, tol)
        # Half the product of step and gradient is the loss that is left, were the
        # loss quadratic; the residual of CG is a fraction `forcing` of that.
        if drop <= 2 * tol or previous <= min(drop, ROUNDING):
            message = "converged"
            break
        curvature = None if _is_slow(drop, previous, tol) else point
        previous = drop
        x, new = _descend(expand, loss, x, point, step, drop, curvature)
        if new is point:
            # The remaining drop is below the rounding of the loss itself.
            message = "converged" if drop <= 1e-9 else "no descent along Newton's step"
            break
        forcing = min(0.1, float(np.sqrt(drop)))
        if new.hessian_product is None and new.precondition is point.precondition:
            new = _corrected(point, new, step)
        point = new
    norm = float(np.linalg.norm(point.gradient))
    return Result(x, point.loss, n_iter, message == "converged", message, norm)


def _is_slow(drop: float, previous: float, tol: float) -> bool:
    """Whether new curvature costs less than the steps that the old one would take."""
    if drop >= previous:
        return True
    return bool(np.log(drop / tol) > MAX_CHORDS * np.log(previous / drop))


def _corrected(old: Expansion, new: Expansion, step: Array) -> Expansion:
    """Teach the approximate inverse what the last step showed (the BFGS update)."""
    change = new.gradient - old.gradient
    product = float(np.vdot(step, change))
    if not product > 0:
        return new
    known = new.precondition
    if not isinstance(known, _Corrected):
        known = _Corrected(known, ())
    lessons = (*known.lessons, (step, change, product))[-MAX_LESSONS:]
    return replace(new, precondition=_Corrected(known.inverse, lessons))


@dataclass(frozen=True)
class _Corrected:
    """An approximate inverse, and what the last steps have shown of the Hessian."""

    inverse: Callable[[Array], Array]
    # A step, the change of the gradient along it, and their product; oldest first.
    lessons: tuple[tuple[Array, Array, float], ...]

    def __call__(self, r: Array) -> Array:
        rest, shares = r.copy(), []
        for step, change, product in reversed(self.lessons):
            shares.append(float(np.vdot(step, rest)) / product)
            rest -= shares[-1] * change
        out = self.inverse(rest)
        for step, change, product in self.lessons:
            out += (shares.pop() - float(np.vdot(change, out)) / product) * step
        return out


def _newton_step(point: Expansion, forcing: float, tol: float) -> tuple[Array, float]:
    """Solve Hessian @ step = -gradient; return the step and -gradient @ step.

    Where the approximate inverse already promises no more than `tol`, it must do.
    """
    residual = -point.gradient
    step = np.zeros_like(residual)
    z = point.precondition(residual)
    rho = first = float(np.vdot(residual, z))
    if point.hessian_product is None or not first > tol:
        return z, first
    direction = z
    for _ in range(MAX_CG_STEPS):
        product = point.hessian_product(direction)
        curvature = float(np.vdot(direction, product))
        if not curvature > 0:
            # Rounding has left no curvature; what has been gathered must do.
            step = step if step.any() else direction
            break
        length = rho / curvature
        step += length * direction
        residual -= length * product
        z = point.precondition(residual)
        rho, previous = float(np.vdot(residual, z)), rho
        # More steps would gain less than what is asked for.
        if rho <= max(forcing**2 * first, 0.01 * tol):
            break
        direction = z + (rho / previous) * direction
    return step, -float(np.vdot(point.gradient, step))


def _descend(
    expand: Expand,
    loss: Callable[[Array], float],
    x: Array,
    point: Expansion,
    step: Array,
    drop: float,
    curvature: Expansion | None,
) -> tuple[Array, Expansion]:
    """Shorten the step until the loss falls enough; the old point if it never does."""
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
