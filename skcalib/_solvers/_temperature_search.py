"""One temperature by a loss that need not be convex: focal, Brier or binned ECE.

Minimised over log T is the mean of ``(1 - p)^gamma * -log p`` or of the squared
distance of p from the one-hot label, first by Brent's method, then by the root of the
derivative; or the binned ECE, on a grid.
"""

from collections.abc import Callable
from functools import cache, partial
from math import exp, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar

from skcalib._blocks import CalibrationData
from skcalib._solvers._result import Result
from skcalib._solvers._temperature import (
    ALL_EQUAL,
    LEAST_TEMPERATURE,
    NO_ERRORS,
    NO_INFORMATION,
    REACH,
    enlarged,
    scaled_logits,
    subsample,
    typical_gap,
)

Objective = Literal["focal", "brier", "ece"]

# Points of the coarse grid over log T that finds the valley.
GRID_POINTS = 49
ROUNDING = 1e-14
# How near the loss alone leads to the minimum, in log T.
ROUGH = 1e-4
ECE_TEMPERATURES = np.arange(1, 5001) / 1000
ECE_BINS = 15
# Nodes in log T at which confidences are computed; a spline gives them in between.
ECE_NODES = 256
# Rows a block of the ECE search: each carries 5,000 confidences.
ECE_ROWS = 256


def search_temperature(
    data: CalibrationData,
    objective: Objective,
    gamma: float,
    *,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise `objective` over T > 0."""
    sample = subsample(data)
    gap = typical_gap(sample)
    if gap == 0:
        return Result(np.ones(1), np.nan, 0, False, ALL_EQUAL)
    if objective == "ece":
        return _search_ece(data)
    if gap < LEAST_TEMPERATURE:
        larger = enlarged(data)
        result = search_temperature(
            larger, objective, gamma, tol=tol, max_iter=max_iter
        )
        return result.at(result.x * LEAST_TEMPERATURE)
    middle = -log(gap)
    grid = np.linspace(middle - log(REACH), middle + log(REACH), GRID_POINTS)
    coarse = np.array([_mean_loss(u, sample, objective, gamma) for u in grid])
    # Where no sample is in error the loss ends at 0 but for rounding: go to the end.
    best = int(np.flatnonzero(coarse <= coarse.min() + ROUNDING)[-1])
    if sample is not data:
        best = _downhill(lambda u: _mean_loss(u, data, objective, gamma), grid, best)
    if best in (0, GRID_POINTS - 1):
        message = NO_INFORMATION if best == 0 else NO_ERRORS
        x = np.array([exp(-grid[best])])
        return Result(x, float(coarse[best]), GRID_POINTS, False, message)
    found = minimize_scalar(
        _mean_loss,
        bounds=(grid[best - 1], grid[best + 1]),
        args=(data, objective, gamma),
        method="bounded",
        options={"xatol": max(tol, ROUGH), "maxiter": max_iter},
    )
    minimum = _root_near(lambda u: _mean_slope(u, data, objective, gamma), found.x, tol)
    loss = _mean_loss(minimum, data, objective, gamma)
    x = np.array([exp(-minimum)])
    return Result(x, loss, found.nfev, bool(found.success), found.message)


def _root_near(slope: Callable[[float], float], middle: float, tol: float) -> float:
    """Return where the slope changes its sign, or the middle if it does not nearby.

    Where the loss is flat, its rounding leaves half of the digits of its minimum.
    """
    low, high = middle - 4 * ROUGH, middle + 4 * ROUGH
    if not slope(low) < 0 < slope(high):
        return middle
    return float(brentq(slope, low, high, xtol=max(tol, 1e-12)))


def _downhill(
    loss: Callable[[float], float], grid: NDArray[np.float64], start: int
) -> int:
    """Walk from the best point of the sample to one that no neighbour undercuts."""
    at = cache(lambda i: loss(float(grid[i])))
    best = start
    while True:
        inside = [i for i in (best - 1, best + 1) if 0 <= i < len(grid)]
        lowest = min(inside, key=at)
        if not at(lowest) < at(best):
            return best
        best = lowest


def _mean_loss(
    log_beta: float, data: CalibrationData, objective: Objective, gamma: float
) -> float:
    statistic = _brier if objective == "brier" else partial(_focal, gamma)
    return float(data.sum(partial(statistic, exp(log_beta))))


def _focal(
    gamma: float, beta: float, logits: NDArray, codes: NDArray, weight: NDArray
) -> float:
    t, t_label = scaled_logits(logits, codes, beta)
    log_p = t_label - np.log(np.exp(t).sum(axis=1, dtype=np.float64))
    loss = (-np.expm1(log_p)) ** gamma * -log_p
    return float(loss @ weight)


def _brier(beta: float, logits: NDArray, codes: NDArray, weight: NDArray) -> float:
    t, t_label = scaled_logits(logits, codes, beta)
    exp_t = np.exp(t)
    total = exp_t.sum(axis=1, dtype=np.float64)
    square = np.einsum("ij,ij->i", exp_t, exp_t) / total**2
    own = np.exp(t_label) / total
    return float((square - 2 * own + 1) @ weight)


def _mean_slope(
    log_beta: float, data: CalibrationData, objective: Objective, gamma: float
) -> float:
    """Return the derivative of the mean loss by log beta."""
    exponent = None if objective == "brier" else gamma
    return float(data.sum(partial(_slope, exponent, exp(log_beta))))


def _slope(
    gamma: float | None,
    beta: float,
    logits: NDArray,
    codes: NDArray,
    weight: NDArray,
) -> float:
    """Sum the derivatives of the focal or, without gamma, the Brier loss of a block.

    By log beta the derivative of p_k is p_k (t_k - mean), with the mean of t under p.
    """
    t, t_label = scaled_logits(logits, codes, beta)
    proba = np.exp(t).astype(np.float64)
    total = proba.sum(axis=1)
    proba /= total[:, np.newaxis]
    mean = np.einsum("ij,ij->i", proba, t)
    own = np.exp(t_label) / total
    by_log_own = t_label - mean
    if gamma is None:
        square = np.einsum("ij,ij->i", proba, proba)
        moment = np.einsum("ij,ij,ij->i", proba, proba, t)
        slope = 2 * (moment - mean * square - own * by_log_own)
    else:
        log_own = t_label - np.log(total)
        missed = np.maximum(-np.expm1(log_own), np.finfo(float).tiny)
        power = gamma * missed ** (gamma - 1) * own * log_own if gamma else 0.0
        slope = (power - missed**gamma) * by_log_own
    return float(slope @ weight)


def _search_ece(data: CalibrationData) -> Result:
    """Try every temperature of the grid in one pass over the data."""
    rows = ECE_ROWS * data.n_classes
    gaps = data.sum(_ece_gaps, block_elements=rows, heavy=True)
    errors = np.abs(gaps).sum(axis=1)
    best = int(np.argmin(errors))
    n_iter = len(ECE_TEMPERATURES)
    x = ECE_TEMPERATURES[best : best + 1].copy()
    return Result(x, float(errors[best]), n_iter, True, "converged")


def _ece_gaps(logits: NDArray, codes: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Sum ``weight * (hit - confidence)`` per temperature and bin.

    The logarithm of a row's confidence is a smooth function of log T, so it is computed
    at a few hundred nodes and interpolated in between, to about 1e-8.
    """
    hit = logits.argmax(axis=1) == codes
    ends = log(ECE_TEMPERATURES[0]), log(ECE_TEMPERATURES[-1])
    nodes = np.linspace(*ends, ECE_NODES)
    log_confidence = [
        -np.log(np.exp(scaled_logits(logits, codes, exp(-u))[0]).sum(axis=1))
        for u in nodes
    ]
    spline = CubicSpline(nodes, np.asarray(log_confidence, dtype=np.float64))
    confidence = np.exp(spline(np.log(ECE_TEMPERATURES)))
    n_temperatures = len(ECE_TEMPERATURES)
    index = np.ceil(confidence * ECE_BINS).astype(np.intp) - 1
    np.clip(index, 0, ECE_BINS - 1, out=index)
    index += ECE_BINS * np.arange(n_temperatures)[:, np.newaxis]
    gap = weight * (hit - confidence)
    n_cells = ECE_BINS * n_temperatures
    sums = np.asarray(np.bincount(index.ravel(), gap.ravel(), n_cells), np.float64)
    return sums.reshape(n_temperatures, ECE_BINS)
