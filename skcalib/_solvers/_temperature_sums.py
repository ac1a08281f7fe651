r"""The temperature of rows that come in parts, of which a fixed number of sums is kept.

With v = log beta, beta = 1/T, and t = beta (z - max z), the log-loss of a row is
log sum exp(t) + beta (max z - z_y). Of the second term the sum over rows of max z - z_y
says all. The first, A, is a smooth function of v: no sum of a fixed number says all of
it, but its singularities keep their distance from the real axis in whatever units the
logits are (with two classes pi / 2; with K, atan(pi / log(K - 1)) at least), so that a
polynomial of degree m over an interval is off by no more than a constant times rho^-m
[Trefethen, Approximation Theory and Approximation Practice, theorem 8.2]. Kept are the
sums of A, A' and A'' at Chebyshev nodes of v; the polynomial that agrees with all of
them is Hermite's. Sums of parts add up, and the minimum of the interpolated loss and
prior is looked for as the root of the slope, as in `_temperature`.

`NODES` was chosen on the logits of real networks, on which the temperature is off by
less than 1e-8 of itself (tests/calibrators/test_temperature_stream.py); where all of a
thousand classes lie at one distance from the largest, as bad as it can be, by 1e-5.
"""

from functools import cache
from math import exp, log

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebder, chebval
from numpy.typing import NDArray
from scipy.optimize import brentq

from skcalib._blocks import CalibrationData
from skcalib._solvers._result import (
    ALL_EQUAL,
    CONVERGED,
    LIMIT,
    NO_ERRORS,
    OUTSIDE,
    Result,
)
from skcalib._solvers._temperature import (
    Pull,
    less_largest,
    moments,
    own_logit,
    strength_beside,
)

# Temperatures from 1 / WIDEST to WIDEST are found.
WIDEST = 50.0
NODES = 32
ORDERS = 3
DOMAIN = (-log(WIDEST), log(WIDEST))


def sums_of_rows(data: CalibrationData, whole: bool) -> NDArray[np.float64]:
    """Return the sums over some rows; those of several parts of the rows add up.

    They are those of A, A' and A'' at each of the nodes, then of the distances of the
    true class to the largest logit, of the rows that have one, of the weights, and of
    their squares; and the number of rows of parts whose weights are not all `whole`.
    """
    sums: NDArray[np.float64] = data.sum(_sums_of_block)
    sums *= data.total_weight
    if data.row is None:
        sums[-1] *= data.total_weight
    else:  # Classes that share a row are one sample.
        sums[-1] = (np.bincount(data.row, data.sample_weight) ** 2).sum()
    return np.append(sums, 0 if whole else data.n_samples)


def _sums_of_block(
    logits: NDArray, codes: NDArray, weight: NDArray
) -> NDArray[np.float64]:
    # Rounding to single precision would be enlarged by the interpolation.
    below, axis, largest = less_largest(logits.astype(np.float64))
    sums = []
    for log_beta in nodes():
        log_total, mean, square = moments(exp(log_beta), below, axis)
        slope = weight @ mean
        curvature = weight @ (square - mean * mean) + slope
        sums += [weight @ log_total, slope, curvature]
    gap = largest - own_logit(logits, codes)
    rest = [weight @ gap, weight @ (gap > 0), weight.sum(), weight @ weight]
    return np.stack([*sums, *rest])


def weights_of(sums: NDArray[np.float64]) -> tuple[float, float, bool]:
    """Return the sums of weights and of their squares, and whether all are whole."""
    total, squares, not_whole = sums[-3:]
    return float(total), float(squares), not not_whole


def temperature_of(
    sums: NDArray[np.float64],
    n_samples: float,
    *,
    prior: float | None,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise log-loss and prior of all rows, which are `n_samples`, over T > 0."""
    total = sums[-3]
    if not total:  # No rows yet.
        return Result(np.ones(1), 0.0, 0, CONVERGED)
    gap, misses = sums[-5:-3] / total
    values = sums[:-5].reshape(NODES, ORDERS) / total
    if not (values[:, 1].any() or gap):
        return Result(np.ones(1), float(values[0, 0]), 0, ALL_EQUAL)
    pull = Pull(strength_beside(prior, n_samples), 0.0)
    smooth = Chebyshev(np.linalg.solve(_conditions(), values.T.ravel()), DOMAIN)
    derivative = smooth.deriv()

    def slope(v: float) -> float:
        return float(derivative(v) + exp(v) * gap) + pull.at(v)[1]

    def found(v: float, n_iter: int, message: str) -> Result:
        loss = float(smooth(v) + exp(v) * gap) + pull.at(v)[0]
        return Result(np.array([exp(-v)]), loss, n_iter, message, abs(slope(v)))

    low, high = DOMAIN
    if misses == 0 and not pull.strength:
        return found(high, 0, NO_ERRORS)
    if slope(low) >= 0 or slope(high) <= 0:
        end = low if slope(low) >= 0 else high
        return found(end, 0, OUTSIDE.format(1 / WIDEST, WIDEST))
    v, course = brentq(
        slope, low, high, xtol=tol, maxiter=max_iter, full_output=True, disp=False
    )
    message = CONVERGED if course.converged else LIMIT.format(max_iter)
    result = found(v, course.iterations, message)
    # Where the log-loss falls ever faster towards the end, what it gains beyond may
    # outweigh the prior.
    curvature = float(smooth.deriv(2)(high) + exp(high) * gap)
    falls = slope(high) < pull.at(high)[1] and curvature < 0
    if falls and result.loss > pull.at(high)[0]:
        return found(v, course.iterations, OUTSIDE.format(1 / WIDEST, WIDEST))
    return result


def nodes() -> NDArray[np.float64]:
    """Return the nodes, values of log beta."""
    return DOMAIN[1] * _unit_nodes()


def _unit_nodes() -> NDArray[np.float64]:
    angles = (np.arange(NODES) + 0.5) * np.pi / NODES
    unit: NDArray[np.float64] = np.cos(angles)
    return unit


@cache
def _conditions() -> NDArray[np.float64]:
    """Return the matrix that takes Chebyshev coefficients to A, A' and A'' at nodes."""
    degrees = np.eye(ORDERS * NODES)
    parts = [
        chebval(_unit_nodes(), chebder(degrees, order, scl=1 / DOMAIN[1]))
        for order in range(ORDERS)
    ]
    return np.concatenate(parts, axis=1).T.astype(np.float64)
