"""Newton's method for a few parameters with lower bounds, the Hessian formed.

Minimised is a smooth convex loss over x >= lower, by sequential quadratic programming
[Nocedal & Wright, Numerical Optimization, 2006, chapter 18]. A step s minimises the
quadratic model

    g' s + s' H s / 2   over   s >= l = lower - x,

exactly. With the Cholesky factor H = R' R and t = s - l >= 0, the model is, but for a
constant, (g + H l)' t + |R t|^2 / 2 = |R t - b|^2 / 2 with R' b = -(g + H l): a
least-squares problem with non-negative unknowns, for which Lawson & Hanson's active-set
method is exact [Solving Least Squares Problems, 1974, ch. 23]. So the set of parameters
at their bounds is found by each step as a whole, and near the optimum, where it no
longer changes, the method is Newton's on the others and converges quadratically. Where
the free minimum of the model holds the bounds, it is the step.

The model of a convex loss promises a decrease at every point but the optimum, where it
is an estimate of what is left; Armijo backtracking halves steps that bring less. All
is computed in units where the Hessian has a unit diagonal, with as much added to it
(Cholesky jitter) as makes it positive definite.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls

from skcalib._numerics import TINY
from skcalib._solvers._descend import ROUNDING, backtrack, descend, end_of, jittered
from skcalib._solvers._result import Result

Array = NDArray[np.float64]
# Loss, gradient and Hessian at a point.
Expand = Callable[[Array], tuple[float, Array, Array]]

# In units of the Hessian's diagonal, so that rounding leaves it positive definite.
RIDGE = 1e-12


class _Point(NamedTuple):
    x: Array
    loss: float
    gradient: Array
    hessian: Array


class _Step(NamedTuple):
    point: _Point
    step: Array
    # The decrease of the quadratic model.
    left: float


def minimize_bounded(
    expand: Expand, x: Array, lower: Array, *, tol: float, max_iter: int
) -> Result:
    """Minimise over ``x >= lower`` until the loss is about `tol` above its minimum."""

    def step_from(point: _Point) -> _Step:
        gradient, hessian = point.gradient, point.hessian
        step = bounded_step(gradient, hessian, lower - point.x)
        drop = -float(gradient @ step + step @ hessian @ step / 2)
        return _Step(point, step, drop)

    def go(newton: _Step) -> _Point | str:
        x, drop = newton.point.x, newton.left

        def at(length: float) -> tuple[float, _Point]:
            new = x + length * newton.step
            # The bounds hold but for rounding.
            point = _Point(np.maximum(new, lower), *expand(new))
            return point.loss, point

        found = backtrack(at, newton.point.loss, drop)
        if found is None:
            return end_of(drop)
        return found[1]

    start = _Point(x, *expand(x))
    point, n_iter, message = descend(
        start, step_from, go, tol=max(tol, ROUNDING), max_iter=max_iter
    )
    # What the bounds hold back does not count.
    free = (point.x > lower) | (point.gradient < 0)
    norm = float(np.linalg.norm(point.gradient[free]))
    return Result(point.x, point.loss, n_iter, message, norm)


def bounded_step(gradient: Array, hessian: Array, lower: Array) -> Array:
    """Minimise ``gradient @ s + s @ hessian @ s / 2`` over ``s >= lower``.

    All of `lower` is finite, or all of it minus infinity, where nothing is bounded.
    """
    root, unit = scaled_root(hessian)
    free: Array = -unit * cho_solve((root, False), gradient * unit)
    if (free >= lower).all():
        return free
    lower = lower / unit
    # In t = s - lower, which is to be non-negative.
    slope = gradient * unit + root.T @ (root @ lower)
    target = -solve_triangular(root, slope, trans="T")
    result: Array = (nnls(root, target)[0] + lower) * unit
    return result


def scaled_root(hessian: Array) -> tuple[Array, Array]:
    """Return the Cholesky root in units of a unit diagonal, and these units."""
    diagonal = np.diagonal(hessian)
    # Where there is no curvature, rounding may leave some below 0.
    diagonal = np.where(diagonal < 0, np.abs(diagonal).max(), diagonal)
    unit = 1 / np.sqrt(diagonal + TINY)
    root: Array = jittered(hessian * np.outer(unit, unit), RIDGE, cholesky)
    return root, unit
