"""Descent on the network itself: perturbation and temperature together, by epochs.

Minimises equation (9) of Tang, Chen & Ho ("Neural Clamping", TMLR 2024), with a mean in
the place of the sum: the mean loss of the network's logits at x + delta over T, plus
lambda times the squared norm of delta, over theta (the coordinates of delta) and log T.
They take a hundred epochs of stochastic steps. Here it is L-BFGS with Armijo
backtracking (`_solvers/_lbfgs.py`) from the exact temperature: an epoch for each value
and gradient, and four epochs on a small network, sixteen on a residual one, come within
0.001 of where the paper's recipe ends (``python -m benchmarks run neural_clamping
--parts speed``). log T keeps T positive and frees it of units.

L-BFGS starts from a diagonal of two numbers, the curvatures of theta and of log T. That
of log T is the Gauss-Newton form of the cached logits. That of theta is a secant along
the gradient: a difference of the logits in its direction takes the place of J in the
Gauss-Newton form (`_linearised.py`).
"""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._networks._network import refuse_nan_gradient
from skcalib._solvers._focal_brier import mean_loss, row_losses
from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import INTERRUPTED, Result
from skcalib.clamping._perturbation import Basis
from skcalib.clamping._problem import LARGEST_CHANGE, Problem, Rows, sample_rows

# Rows on which the curvature along the first step is probed: few, as every probe is a
# forward pass of them.
PROBE_ROWS = 128
# Size of the probing step, in standard deviations of the inputs: above the rounding of
# single precision, below the bends of a network.
PROBE_STEP = 1e-2
# Backtracking of the first step, tried on these rows: by how much it is shortened where
# that leads lower, and how often at most (to 1/1500 of it).
SHORTER = 0.4
MAX_PROBES = 8


class NetworkLoss:
    """The penalised mean loss at x = (theta, log T), one epoch a call.

    Remembers the logits of the lowest point.
    """

    def __init__(
        self,
        problem: Problem,
        basis: Basis,
        penalty: float,
        rows: Rows = None,
    ) -> None:
        self._problem = problem
        self._basis = basis
        self._penalty = penalty
        self._rows = rows
        self._lowest = np.inf
        self.logits: NDArray[Any] = np.empty(0)

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = x[:-1]
        logits, value, by_theta, by_log_t = self._problem.evaluate(
            self._basis.at(theta), x[-1], self._rows
        )
        value += self._penalty * float(theta @ theta)
        self.take(value, logits)
        gradient = np.empty_like(x)
        gradient[:-1] = by_theta + 2 * self._penalty * theta
        gradient[-1] = by_log_t
        return value, gradient

    def take(self, value: float, logits: NDArray[Any]) -> None:
        """Remember the logits of a point if it is the lowest."""
        if value < self._lowest:
            self._lowest, self.logits = value, logits


def descend(
    problem: Problem,
    basis: Basis,
    penalty: float,
    theta: NDArray[np.float64],
    logits: NDArray[Any],
    *,
    max_evaluations: int,
    tol: float,
    rows: Rows = None,
    report: Callable[[float], None] | None = None,
) -> tuple[Result, NDArray[Any]]:
    """Minimise from `theta`, whose logits are given; return result and logits.

    The first temperature is the exact one.
    """
    temperature = problem.joint_temperature(logits, rows).x[0]
    x = np.append(np.asarray(theta, dtype=np.float64), log(temperature))
    loss = NetworkLoss(problem, basis, penalty, rows)
    try:
        first = loss(x)
        refuse_nan_gradient(first[1])
        if report is not None:
            report(first[0])
        inverse = scalar_inverse(problem, basis, penalty, x, first[1], logits, rows)
    except KeyboardInterrupt:
        return Result(x, np.nan, 0, INTERRUPTED), logits
    result = minimize(
        loss,
        x,
        first=first,
        precondition=inverse,
        max_evaluations=max_evaluations - 1,
        last_limit=LARGEST_CHANGE,
        report=report,
        tol=tol,
    )
    return result, loss.logits


def scalar_inverse(
    problem: Problem,
    basis: Basis,
    penalty: float,
    x: NDArray[np.float64],
    gradient: NDArray[np.float64],
    logits: NDArray[Any],
    rows: Rows = None,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function that divides by the curvatures of theta and of log T.

    That of theta is taken along the gradient, from forward runs of few rows: a network
    bends more than its linearisation, so the first step is tried on them. How steep the
    loss is, is known of all rows; the few are asked only how it bends.
    """
    rows = np.arange(problem.codes.shape[0]) if rows is None else rows
    scores = logits.astype(np.float64) / np.exp(x[-1])
    codes, weight = problem.codes[rows], problem.weight[rows]
    by_log_t = _along(problem, scores, scores, codes, weight)[1]
    by_theta = _curvature_along(problem, basis, penalty, x, gradient[:-1], logits, rows)
    diagonal = np.full_like(x, by_theta)
    diagonal[-1] = by_log_t
    diagonal = np.maximum(diagonal, 1e-12)
    return lambda vector: vector / diagonal


def _curvature_along(
    problem: Problem,
    basis: Basis,
    penalty: float,
    x: NDArray[np.float64],
    slope: NDArray[np.float64],
    logits: NDArray[Any],
    rows: NDArray[np.intp],
) -> float:
    norm = float(np.linalg.norm(slope))
    if norm == 0:
        return 1.0
    chosen, weight = sample_rows(problem.weight[rows], PROBE_ROWS)
    rows, logits = rows[chosen], logits[chosen]
    codes = problem.codes[rows]
    temperature = np.exp(x[-1])

    def logits_at(length: float) -> NDArray[Any]:
        point = basis.at(x[:-1] - length * slope / norm)
        return problem.perturbed_logits(point, rows)

    def loss_at(length: float) -> float:
        loss = mean_loss(
            logits_at(length), codes, weight, temperature, problem.loss, problem.gamma
        )
        return loss - (own_slope + norm) * length + penalty * length**2

    small = PROBE_STEP * np.sqrt(problem.input_variance * np.prod(problem.shape))
    change = (logits_at(small) - logits_at(-small)) / (2 * small * temperature)
    scores = logits.astype(np.float64) / temperature
    own_slope, curvature = _along(problem, scores, change, codes, weight)
    length = norm / max(curvature + 2 * penalty, 1e-12)
    lowest = loss_at(length)
    for _ in range(MAX_PROBES):
        shorter = loss_at(SHORTER * length)
        if shorter >= lowest:
            break
        length, lowest = SHORTER * length, shorter
    return norm / length


def _along(
    problem: Problem,
    scores: NDArray[np.float64],
    change: NDArray[Any],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> tuple[float, float]:
    """Return slope and Gauss-Newton curvature of the loss along a change of scores."""
    found = row_losses(scores.copy(), codes, problem.loss, problem.gamma)
    residual, proba, root = found[1:]
    slopes = np.einsum("ij,ij->i", residual, change)
    centred = change - np.einsum("ij,ij->i", proba, change)[:, np.newaxis]
    squares = ((root * centred) ** 2).sum(axis=1)
    share = weight / weight.sum()
    return float(slopes @ share), float(squares @ share)
