r"""The network to first order in a few numbers: logits Z + J theta.

What is minimised, over theta and u = log T, is equation (9) of Tang, Chen & Ho ("Neural
Clamping", TMLR 2024), as a mean, with the network linearised in the coordinates theta
of the perturbation (delta = B theta, B orthonormal)::

    sum_i w_i loss(s_i, y_i) + lambda |theta|^2,    s_i = (Z_i + J_i theta) / exp(u)

The linearisation is ours. One Jacobian J_i = df(x_i + B theta) / dtheta at theta = 0
replaces the network, so that every penalty, every loss and every fold of a cross-fit
costs products of arrays and no pass of the network; what it leaves is mended by a few
steps on the network itself (`_solve.py`). A row of J is a slot of a row's classes, one
class or several that move alike, relative to the row's most probable one (`_pools.py`).

Gradient. With r_i the gradient of a row's loss by its scores s_i,
ds_i/dtheta = J_i / T and ds_i/du = -s_i::

    d/dtheta = sum_i w_i J_i' r_i / T + 2 lambda theta,    d/du = -sum_i w_i r_i' s_i

Curvature (generalised Gauss-Newton, at theta = 0). To second order in a change D of a
row's scores its loss rises by half of |root * (D - p'D)|^2, with p the softmax and root
that of `_solvers/_focal_brier.py`: sqrt(p) for the cross-entropy, which is exact, the
variance of D under p. The scores move by D = [J_i / T, -s_i] a unit of (theta, u), so
that with the factor A_i = sqrt(w_i) root_i * (D - p_i'D), a row a class and a column a
coordinate, H = sum_i A_i' A_i. By theta the classes of a slot move alike, and one row
of A_i stands for them, with the root of the sum of their squared roots.

The point may also be another than theta = 0: Z are then the logits that the derivatives
there extend to theta = 0, and H is taken at the point.

Left out, beside what root leaves out, are the second derivatives of s_i by (theta, u).
That by u twice is s_i: it counts r_i' s_i, which sums to 0 at the best temperature,
where H is taken. H is a sum over rows, so that of a training part is H less that of the
rest. With 2 lambda on the diagonal of theta, its inverse is what L-BFGS starts from (a
preconditioner), and a handful of steps are left.
"""

from collections.abc import Callable
from functools import partial
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from skcalib._numerics import TINY
from skcalib._solvers._descend import jittered
from skcalib._solvers._focal_brier import row_losses
from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import INTERRUPTED, Result
from skcalib._solvers._temperature_search import are_tiny
from skcalib.clamping._perturbation import Basis
from skcalib.clamping._pools import Jacobian
from skcalib.clamping._problem import LARGEST_CHANGE, Problem, Rows

# Numbers in one block of the Hessian's factor.
BLOCK_ELEMENTS = 1 << 21
# Of the linear model; they cost no pass of the network, and most fits need a handful.
MAX_EVALUATIONS = 30
# Relative to the diagonal, so that a flat direction has an inverse: about the rounding
# of the single precision in which the Hessian is summed.
RIDGE = 1e-7
# Curvature of the flattest coordinate of theta, relative to that of the steepest.
FLATTEST = 1e-7


class Linearised:
    """Logits ``Z + J theta`` of the calibration rows, under one loss.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logits at the point where the derivatives are taken.

    jacobian : Jacobian
        Derivatives J by theta.

    codes : ndarray of shape (n_samples,)
        Column of each row's class.

    loss : {"focal", "brier"}
        Which loss.

    gamma : float
        Exponent of the focal loss.

    theta : ndarray of shape (dim,), default=None
        The point; None for 0.
    """

    def __init__(
        self,
        logits: NDArray[Any],
        jacobian: Jacobian,
        codes: NDArray[np.intp],
        loss: str,
        gamma: float,
        theta: NDArray[np.float64] | None = None,
    ) -> None:
        self.here = self.base = np.asarray(logits)
        wide = np.float64 if are_tiny(self.base) else None
        self.jacobian = np.ascontiguousarray(jacobian.values, dtype=wide)
        self.pools = jacobian.pools
        self.codes = codes
        self.loss = loss
        self.gamma = gamma
        self.dim = self.jacobian.shape[1]
        if theta is not None:
            self.base = self.here - self._change(theta)

    @classmethod
    def of(
        cls,
        problem: Problem,
        jacobian: Jacobian,
        logits: NDArray[Any] | None = None,
        theta: NDArray[np.float64] | None = None,
    ) -> "Linearised":
        """Return the linear model of a problem, by default without a perturbation."""
        logits = problem.logits if logits is None else logits
        codes, loss, gamma = problem.codes, problem.loss, problem.gamma
        return cls(logits, jacobian, codes, loss, gamma, theta)

    def logits(self, theta: NDArray[np.float64]) -> NDArray[Any]:
        """Return the linearised logits."""
        return self.base + self._change(theta)

    def _change(self, theta: NDArray[np.float64]) -> NDArray[Any]:
        change = self.jacobian @ theta.astype(self.jacobian.dtype)
        return np.append(change, 0)[self.pools.place]

    def evaluate(
        self, x: NDArray[np.float64], weight: NDArray[np.float64], penalty: float
    ) -> tuple[float, NDArray[np.float64]]:
        """Return the penalised mean loss and its gradient at x = (theta, log T)."""
        with np.errstate(over="ignore", invalid="ignore"):
            # A step that overflows is shortened.
            return self._evaluate(x, weight, penalty)

    def _evaluate(
        self, x: NDArray[np.float64], weight: NDArray[np.float64], penalty: float
    ) -> tuple[float, NDArray[np.float64]]:
        theta, temperature = x[:-1], exp(x[-1])
        scores = self.logits(theta).astype(np.float64)
        if not np.isfinite(scores).all():
            return np.inf, np.full_like(x, np.nan)
        scores /= temperature
        kept = scores.copy()
        losses, residual, _, _ = row_losses(scores, self.codes, self.loss, self.gamma)
        residual *= weight[:, np.newaxis]
        gradient = np.empty_like(x)
        by_slots = (self.pools.sum(residual) / temperature).astype(self.jacobian.dtype)
        gradient[:-1] = by_slots @ self.jacobian + 2 * penalty * theta
        gradient[-1] = -np.vdot(residual, kept)
        return float(losses @ weight + penalty * (theta @ theta)), gradient

    def curvature(
        self, log_temperature: float, weight: NDArray[np.float64], rows: Rows = None
    ) -> NDArray[np.float64]:
        """Sum the Gauss-Newton Hessian by (theta, log T) at the point over rows."""
        rows = np.arange(weight.shape[0]) if rows is None else rows
        total = np.zeros((self.dim + 1, self.dim + 1))
        size = max(1, BLOCK_ELEMENTS // (self.base.shape[1] * (self.dim + 1)))
        for start in range(0, rows.shape[0], size):
            block = rows[start : start + size]
            total += self._curvature(log_temperature, weight[block], block)
        return total

    def _curvature(
        self,
        log_temperature: float,
        weight: NDArray[np.float64],
        rows: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        """Return A'A of the module's derivation, summed over rows."""
        scores = self.here[rows] / np.float64(exp(log_temperature))
        found = row_losses(scores.copy(), self.codes[rows], self.loss, self.gamma)
        proba, root = found[2:]
        slots, owner, place = self.pools.of_rows(rows)

        def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
            found = np.bincount(place.ravel(), values.ravel(), owner.shape[0])
            return found.astype(np.float64, copy=False)

        # The slots of all rows, then a row for the reference of each, which stays.
        change = np.zeros((owner.shape[0], self.dim), dtype=self.jacobian.dtype)
        change[: slots.shape[0]] = self.jacobian[slots] / exp(log_temperature)
        weighed = sums(proba).astype(change.dtype)[:, np.newaxis] * change
        starts = np.append(0, self.pools.counts[rows].cumsum())[:-1]
        change -= np.add.reduceat(weighed, starts)[owner]
        square = weight[:, np.newaxis] * root**2
        by_slots = np.sqrt(sums(square))
        change *= by_slots.astype(change.dtype)[:, np.newaxis]
        away = np.einsum("ij,ij->i", proba, scores)[:, np.newaxis] - scores
        crossed = sums(square * away)
        np.divide(crossed, by_slots, out=crossed, where=by_slots > 0)
        total = np.empty((self.dim + 1, self.dim + 1))
        total[:-1, :-1] = change.T @ change
        total[-1, :-1] = total[:-1, -1] = crossed.astype(change.dtype) @ change
        total[-1, -1] = np.vdot(square, away**2)
        return total

    def fit(
        self,
        x: NDArray[np.float64],
        weight: NDArray[np.float64],
        penalty: float,
        hessian: NDArray[np.float64],
        *,
        tol: float,
    ) -> Result:
        """Minimise the penalised loss from x = (theta, log T), by L-BFGS."""
        result = minimize(
            lambda point: self.evaluate(point, weight, penalty),
            x,
            precondition=inverse(hessian, penalty),
            max_evaluations=MAX_EVALUATIONS,
            last_limit=LARGEST_CHANGE,
            tol=tol,
        )
        if result.message == INTERRUPTED:
            # One fit of many: it is the search that ends.
            raise KeyboardInterrupt
        return result


Model = tuple[Linearised, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def linearise(problem: Problem, jacobian: Jacobian) -> Model:
    """Return what a fit to all rows needs: linear model, x, weight and Hessian.

    x is (theta, log T) without a perturbation, and the weights sum to 1.
    """
    linear = Linearised.of(problem, jacobian)
    log_temperature = log(problem.plain_temperature.x[0])
    return _model(problem, linear, np.append(np.zeros(linear.dim), log_temperature))


def linearise_again(
    problem: Problem, basis: Basis, x: NDArray[np.float64], logits: NDArray[Any]
) -> Model:
    """Return what `linearise` does, of the network at x, where it has these logits."""
    theta = x[:-1]
    pools = problem.pools_of(logits, exp(x[-1]))
    jacobian = problem.jacobian(basis, basis.at(theta), pools)
    return _model(problem, Linearised.of(problem, jacobian, logits, theta), x)


def _model(problem: Problem, linear: Linearised, x: NDArray[np.float64]) -> Model:
    weight = problem.weight / problem.weight.sum()
    return linear, x, weight, linear.curvature(x[-1], weight)


def inverse(
    hessian: NDArray[np.float64], penalty: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function that multiplies by the inverse of the penalised Hessian.

    By Cholesky, after scaling to a unit diagonal (Jacobi), which makes the ridge
    independent of the units of theta and u.
    """
    matrix = hessian.copy()
    np.einsum("ii->i", matrix)[:-1] += 2 * penalty
    diagonal = np.einsum("ii->i", matrix).clip(TINY)
    scale = np.sqrt(np.maximum(diagonal, FLATTEST * diagonal[:-1].max()))
    scale[-1] = np.sqrt(diagonal[-1])
    matrix /= scale[:, np.newaxis] * scale
    # The rounding of single precision may outweigh the ridge.
    factor = jittered(matrix, RIDGE, partial(cho_factor, lower=True))
    return lambda vector: cho_solve(factor, vector / scale) / scale
