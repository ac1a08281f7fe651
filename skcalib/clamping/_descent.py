"""Descent on the network itself: perturbation and temperature together, by epochs."""

from math import log

import numpy as np

from skcalib._networks._network import refuse_nan_gradient
from skcalib._solvers._focal_brier import mean_loss, row_losses
from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import INTERRUPTED, Result
from skcalib.clamping._linearised import LARGEST_CHANGE
from skcalib.clamping._problem import sample_rows

# Rows on which the curvature along the first step is probed.
PROBE_ROWS = 128
# Size of the probing step, in standard deviations of the inputs.
PROBE_STEP = 1e-2
# How a first step that leads up is shortened, and how often at most.
SHORTER = 0.4
MAX_PROBES = 8


class NetworkLoss:
    """The penalised mean loss at x = (theta, log T), one epoch a call.

    Remembers the logits of the lowest point.
    """

    def __init__(self, problem, basis, penalty, rows=None, start=None):
        self._problem = problem
        self._basis = basis
        self._penalty = penalty
        self._rows = rows
        self._lowest, self.logits = (np.inf, None) if start is None else start

    def __call__(self, x):
        theta = x[:-1]
        logits, value, by_delta, by_log_t = self._problem.objective.evaluate(
            self._basis.expand(theta), x[-1], self._rows
        )
        value += self._penalty * (theta @ theta)
        if value < self._lowest:
            self._lowest, self.logits = value, logits
        gradient = np.empty_like(x)
        gradient[:-1] = self._basis.reduce(by_delta) + 2 * self._penalty * theta
        gradient[-1] = by_log_t
        return value, gradient


def descend(problem, basis, penalty, theta, logits, *, rows=None, **options):
    """Minimise from `theta`, whose logits are given; return result and logits.

    The first temperature is the exact one.
    """
    temperature = problem.joint_temperature(logits, _index(rows)).x[0]
    x = np.append(np.asarray(theta, dtype=np.float64), log(temperature))
    loss = NetworkLoss(problem, basis, penalty, rows)
    report = options.pop("report", None)
    limit = options.pop("max_evaluations")
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
        max_evaluations=limit - 1,
        last_limit=LARGEST_CHANGE,
        report=report,
        **options,
    )
    return result, loss.logits


def scalar_inverse(problem, basis, penalty, x, gradient, logits, rows=None):
    """Return a function that divides by the curvatures of theta and of log T.

    That of theta is taken along the gradient, from forward runs of few rows: a network
    bends more than its linearisation, so the first step is tried on them.
    """
    rows = np.arange(problem.codes.shape[0]) if rows is None else rows
    scores = logits.astype(np.float64) / np.exp(x[-1])
    codes, weight = problem.codes[rows], problem.weight[rows]
    by_log_t = _curvature(problem, scores, scores, codes, weight)
    by_theta = _curvature_along(problem, basis, penalty, x, gradient[:-1], logits, rows)
    diagonal = np.full_like(x, by_theta)
    diagonal[-1] = by_log_t
    diagonal = np.maximum(diagonal, 1e-12)
    return lambda vector: vector / diagonal


def _curvature_along(problem, basis, penalty, x, slope, logits, rows):
    norm = np.linalg.norm(slope)
    if norm == 0:
        return 1.0
    chosen, weight = sample_rows(problem.weight[rows], PROBE_ROWS)
    rows, logits = rows[chosen], logits[chosen]
    codes = problem.codes[rows]
    temperature = np.exp(x[-1])

    def logits_at(length):
        delta = basis.expand(x[:-1] - length * slope / norm)
        return problem.objective.logits(delta, rows=rows)

    def loss_at(length):
        theta = x[:-1] - length * slope / norm
        loss = mean_loss(
            logits_at(length), codes, weight, temperature, problem.loss, problem.gamma
        )
        return loss + penalty * (theta @ theta)

    small = PROBE_STEP * np.sqrt(problem.input_variance * np.prod(problem.shape))
    change = (logits_at(small) - logits) / (small * temperature)
    scores = logits.astype(np.float64) / temperature
    curvature = _curvature(problem, scores, change, codes, weight) + 2 * penalty
    length = norm / max(curvature, 1e-12)
    lowest = loss_at(length)
    for _ in range(MAX_PROBES):
        shorter = loss_at(SHORTER * length)
        if shorter >= lowest:
            break
        length, lowest = SHORTER * length, shorter
    return norm / length


def _curvature(problem, scores, change, codes, weight):
    """Return the Gauss-Newton curvature of the mean loss along a change of scores."""
    found = row_losses(scores.copy(), codes, problem.loss, problem.gamma)
    proba, root = found[2:]
    centred = change - np.einsum("ij,ij->i", proba, change)[:, np.newaxis]
    squares = ((root * centred) ** 2).sum(axis=1)
    return float(squares @ weight / weight.sum())


def _index(rows):
    return slice(None) if rows is None else rows
