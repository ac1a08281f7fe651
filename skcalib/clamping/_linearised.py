"""The network to first order in a few numbers: logits Z + J theta.

One Jacobian replaces the network, so that every penalty, every loss and every fold of a
cross-fit costs products of arrays and no pass of the network. Temperature and theta are
found together, as x = (theta, log T); the Gauss-Newton Hessian at theta = 0 leaves
L-BFGS a handful of steps.
"""

from math import exp, log

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from skcalib._solvers._focal_brier import row_losses
from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import INTERRUPTED
from skcalib._solvers._temperature_search import are_tiny

# Numbers in one block of the Hessian's factor.
BLOCK_ELEMENTS = 1 << 21
MAX_EVALUATIONS = 30
# Of log T in one step.
LARGEST_CHANGE = 1.0
# Relative to the diagonal, so that a flat direction has an inverse.
RIDGE = 1e-7
# Curvature of the flattest coordinate of theta, relative to that of the steepest.
FLATTEST = 1e-7


class Linearised:
    """Logits ``Z + J theta`` of the calibration rows, under one loss.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logits Z at theta = 0.

    jacobian : ndarray of shape (n_samples, n_classes, dim)
        Derivatives J of the logits by theta.

    codes : ndarray of shape (n_samples,)
        Column of each row's class.

    loss : {"focal", "brier"}
        Which loss.

    gamma : float
        Exponent of the focal loss.
    """

    def __init__(self, logits, jacobian, codes, loss, gamma):
        self.base = np.asarray(logits)
        wide = np.float64 if are_tiny(self.base) else None
        self.jacobian = np.ascontiguousarray(jacobian, dtype=wide)
        self.codes = codes
        self.loss = loss
        self.gamma = gamma
        self.dim = jacobian.shape[2]
        self._flat = self.jacobian.reshape(-1, self.dim)

    def logits(self, theta, rows=None):
        """Return the linearised logits, of some rows if given."""
        if rows is None:
            change = self._flat @ theta.astype(self._flat.dtype)
            return self.base + change.reshape(self.base.shape)
        change = self.jacobian[rows] @ theta.astype(self._flat.dtype)
        return self.base[rows] + change

    def evaluate(self, x, weight, penalty):
        """Return the penalised mean loss and its gradient at x = (theta, log T)."""
        with np.errstate(over="ignore", invalid="ignore"):
            # A step that overflows is shortened.
            return self._evaluate(x, weight, penalty)

    def _evaluate(self, x, weight, penalty):
        theta, temperature = x[:-1], exp(x[-1])
        scores = self.logits(theta).astype(np.float64)
        if not np.isfinite(scores).all():
            return np.inf, np.full_like(x, np.nan)
        scores /= temperature
        kept = scores.copy()
        losses, residual, _, _ = row_losses(scores, self.codes, self.loss, self.gamma)
        residual *= weight[:, np.newaxis]
        gradient = np.empty_like(x)
        by_logits = (residual / temperature).astype(self._flat.dtype)
        gradient[:-1] = by_logits.ravel() @ self._flat + 2 * penalty * theta
        gradient[-1] = -np.vdot(residual, kept)
        return float(losses @ weight + penalty * (theta @ theta)), gradient

    def curvature(self, log_temperature, weight, rows):
        """Sum the Gauss-Newton Hessian by (theta, log T) at theta = 0 over rows."""
        n_classes = self.base.shape[1]
        total = np.zeros((self.dim + 1, self.dim + 1))
        size = max(1, BLOCK_ELEMENTS // (n_classes * (self.dim + 1)))
        for start in range(0, rows.shape[0], size):
            block = rows[start : start + size]
            factor = self._factor(log_temperature, weight[block], block)
            total += factor.T @ factor
        return total

    def _factor(self, log_temperature, weight, rows):
        temperature = exp(log_temperature)
        scores = self.base[rows].astype(np.float64) / temperature
        change = np.empty((*scores.shape, self.dim + 1), dtype=self._flat.dtype)
        change[..., :-1] = self.jacobian[rows] / temperature
        change[..., -1] = -scores
        found = row_losses(scores, self.codes[rows], self.loss, self.gamma)
        proba, root = (part.astype(change.dtype) for part in found[2:])
        root *= np.sqrt(weight).astype(change.dtype)[:, np.newaxis]
        change -= np.matmul(proba[:, np.newaxis, :], change)
        change *= root[:, :, np.newaxis]
        return change.reshape(-1, self.dim + 1)

    def fit(self, x, weight, penalty, hessian, *, tol):
        """Minimise the penalised loss from x = (theta, log T)."""
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


def linearise(problem, jacobian):
    """Return what a fit to all rows needs: linear model, x, weight and Hessian.

    x is (theta, log T) without a perturbation, and the weights sum to 1.
    """
    linear = Linearised(
        problem.logits, jacobian, problem.codes, problem.loss, problem.gamma
    )
    weight = problem.weight / problem.weight.sum()
    log_temperature = log(problem.plain_temperature.x[0])
    x = np.append(np.zeros(linear.dim), log_temperature)
    hessian = linear.curvature(log_temperature, weight, np.arange(weight.shape[0]))
    return linear, x, weight, hessian


def inverse(hessian, penalty):
    """Return a function that multiplies by the inverse of the penalised Hessian."""
    matrix = hessian.copy()
    np.einsum("ii->i", matrix)[:-1] += 2 * penalty
    diagonal = np.einsum("ii->i", matrix).clip(np.finfo(np.float64).tiny)
    scale = np.sqrt(np.maximum(diagonal, FLATTEST * diagonal[:-1].max()))
    scale[-1] = np.sqrt(diagonal[-1])
    matrix /= scale[:, np.newaxis] * scale
    factor = _factorised(matrix)
    return lambda vector: cho_solve(factor, vector / scale) / scale


def _factorised(matrix):
    """Return a Cholesky factor, with as much added to the diagonal as that takes."""
    ridge = RIDGE
    while True:
        lifted = matrix + ridge * np.eye(matrix.shape[0])
        try:
            return cho_factor(lifted, lower=True)
        except LinAlgError:  # the rounding of single precision outweighs the ridge
            ridge *= 10
