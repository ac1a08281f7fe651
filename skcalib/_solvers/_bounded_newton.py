"""Newton's method for a few parameters with lower bounds, the Hessian formed.

Minimised is a smooth convex loss over x >= lower (sequential quadratic programming).
Each step minimises the quadratic model over the bounds exactly, as a least-squares
problem with non-negative unknowns.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import nnls

from skcalib._solvers._newton_cg import ROUNDING
from skcalib._solvers._result import Result

Array = NDArray[np.float64]
# Loss, gradient and Hessian at a point.
Expand = Callable[[Array], tuple[float, Array, Array]]

MAX_HALVINGS = 40
# In units of the Hessian's diagonal, so that rounding leaves it positive definite.
SLIGHT = 1e-12


def minimize_bounded(
    expand: Expand, x: Array, lower: Array, *, tol: float, max_iter: int
) -> Result:
    """Minimise over ``x >= lower`` until the loss is about `tol` above its minimum."""
    loss, gradient, hessian = expand(x)
    message = f"max_iter={max_iter} was reached"
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        step = bounded_step(gradient, hessian, lower - x)
        drop = -float(gradient @ step + step @ hessian @ step / 2)
        if drop <= max(tol, ROUNDING):
            message = "converged"
            break
        length, new = 1.0, expand(x + step)
        for _ in range(MAX_HALVINGS):
            if new[0] <= loss - 1e-4 * length * drop:
                break
            length /= 2
            new = expand(x + length * step)
        else:
            message = "converged" if drop <= 1e-9 else "no descent along Newton's step"
            break
        x = np.maximum(x + length * step, lower)
        loss, gradient, hessian = new
    # What the bounds hold back does not count.
    free = (x > lower) | (gradient < 0)
    norm = float(np.linalg.norm(gradient[free]))
    return Result(x, loss, n_iter, message == "converged", message, norm)


def bounded_step(gradient: Array, hessian: Array, lower: Array) -> Array:
    """Minimise ``gradient @ s + s @ hessian @ s / 2`` over ``s >= lower``."""
    unit = 1 / np.sqrt(np.diagonal(hessian) + np.finfo(float).tiny)
    scaled = hessian * np.outer(unit, unit)
    root = _cholesky(scaled)
    lower = lower / unit
    # In t = s - lower, which is to be non-negative.
    slope = gradient * unit + scaled @ lower
    target = -solve_triangular(root, slope, trans="T")
    result: Array = (nnls(root, target)[0] + lower) * unit
    return result


def _cholesky(scaled: Array) -> Array:
    """Factorise a matrix of unit diagonal, raised until it is positive definite."""
    ridge = SLIGHT
    while True:
        scaled[np.diag_indices_from(scaled)] += ridge
        try:
            root: Array = cholesky(scaled)
        except LinAlgError:
            ridge *= 100
        else:
            return root
