"""One temperature by a loss that need not be convex: focal, Brier, top or binned ECE.

Minimised over log T is the mean focal or Brier loss of softmax(z / T) (`_focal_brier`),
or the log-loss of the confidence in the predicted class (`_top_versus_all`): a grid
finds the valley, Brent's method its bottom up to the rounding of the loss, and the root
of the derivative (Brent's again) the rest [Brent, Algorithms for Minimization without
Derivatives, 1973]. Or the ECE of 15 bins, on the grid 0.001, 0.002, ..., 5 of
the baseline of Tang, Chen & Ho, Neural Clamping, TMLR 2024.

Deviations: the confidences of the 5,000 temperatures of that grid are interpolated, and
any of the objectives may have the prior of `_temperature` added to it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from math import exp, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._solvers._descend import NOISE
from skcalib._solvers._focal_brier import summed_losses, summed_slopes
from skcalib._solvers._result import (
    ALL_EQUAL,
    CONVERGED,
    NO_ERRORS,
    NO_INFORMATION,
    Result,
)
from skcalib._solvers._temperature import (
    LEAST_TEMPERATURE,
    REACH,
    Pull,
    enlarged,
    fit_temperature,
    prior_strength,
    scaled_logits,
    subsample,
    typical_gap,
)
from skcalib._solvers._top_versus_all import summed_top_losses, summed_top_slopes

Objective = Literal["focal", "brier", "top", "ece"]

# Points of the coarse grid over log T that finds the valley.
GRID_POINTS = 49
# How near the loss alone leads to the minimum, in log T, and the derivative.
ROUGH, FINE = 1e-4, 1e-12
ECE_TEMPERATURES = np.arange(1, 5001) / 1000
ECE_BINS = 15
# Nodes in log T at which confidences are computed; a spline gives them in between.
ECE_NODES = 256
# Rows a block of the ECE search: each carries 5,000 confidences.
ECE_ROWS = 256
# Single precision holds the inverse square of a logit of this size, with room for sums.
SMALLEST_SINGLE = 1e-15


def search_temperature(
    data: CalibrationData,
    objective: Objective,
    gamma: float,
    *,
    prior: float | None = None,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise `objective` and prior over T > 0; that is none, or its samples."""
    return _search(
        data,
        objective,
        gamma,
        Pull(prior_strength(prior, data), 0.0),
        tol=tol,
        max_iter=max_iter,
    )


def _search(
    data: CalibrationData,
    objective: Objective,
    gamma: float,
    pull: Pull,
    *,
    tol: float,
    max_iter: int,
) -> Result:
    sample = subsample(data)
    gap = typical_gap(sample)
    if objective == "ece":
        result = _search_ece(data, pull)
        return result if gap else replace(result, x=np.ones(1), message=ALL_EQUAL)
    if 0 < gap < LEAST_TEMPERATURE:
        larger, pull = enlarged(data), replace(pull, centre=log(LEAST_TEMPERATURE))
        result = _search(larger, objective, gamma, pull, tol=tol, max_iter=max_iter)
        return result.at(result.x * LEAST_TEMPERATURE)

    def mean(
        statistic: Callable[..., float],
        order: int,
        u: float,
        rows: CalibrationData = data,
    ) -> float:
        total = float(rows.sum(partial(statistic, exp(u))))
        return total + pull.at(u)[order]

    if objective == "top":
        losses, slopes = summed_top_losses, summed_top_slopes
    else:
        losses = partial(summed_losses, objective, gamma)
        slopes = partial(summed_slopes, objective, gamma)
    loss, slope = partial(mean, losses, 0), partial(mean, slopes, 1)
    if gap == 0:
        return Result(np.ones(1), loss(0.0), 0, ALL_EQUAL)
    low, high = -log(gap) - log(REACH), -log(gap) + log(REACH)
    if pull.strength > 0:
        low, high = min(low, pull.centre - 1), max(high, pull.centre + 1)
    grid = np.linspace(low, high, GRID_POINTS)
    coarse = np.array([loss(u, sample) for u in grid])
    # Where no sample is in error the loss ends at 0 but for rounding: go to the end.
    best = int(np.flatnonzero(coarse <= coarse.min() + NOISE)[-1])
    if sample is not data:
        best = _downhill(loss, grid, best)
    if best in (0, GRID_POINTS - 1):
        message = NO_INFORMATION if best == 0 else NO_ERRORS
        end = float(grid[best])
        x = np.array([exp(-end)])
        return Result(x, loss(end), GRID_POINTS, message, abs(slope(end)))
    found = minimize_scalar(
        loss,
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
        options={"xatol": max(tol, ROUGH), "maxiter": max_iter},
    )
    minimum = _root_near(slope, found.x, tol)
    x = np.array([exp(-minimum)])
    message = CONVERGED if found.success else found.message
    return Result(x, loss(minimum), found.nfev, message, abs(slope(minimum)))


def _root_near(slope: Callable[[float], float], middle: float, tol: float) -> float:
    """Return where the slope changes its sign, or the middle if it does not nearby.

    Where the loss is flat, its rounding leaves half of the digits of its minimum.
    """
    low, high = middle - 4 * ROUGH, middle + 4 * ROUGH
    if not slope(low) < 0 < slope(high):
        return middle
    return float(brentq(slope, low, high, xtol=max(tol, FINE)))


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


def best_temperature(
    logits: NDArray,
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    loss: Objective = "focal",
    gamma: float = 0.0,
    prior: float | None = None,
) -> Result:
    """Find the temperature that minimises the mean loss of logits in memory."""
    used = np.flatnonzero(weight > 0)
    if used.shape[0] < weight.shape[0]:
        logits, codes, weight = logits[used], codes[used], weight[used]
    if are_tiny(logits):
        logits = logits.astype(np.float64)
    data = CalibrationData(ArraySource(logits), codes, weight)
    if loss == "focal" and gamma == 0:
        return fit_temperature(data, prior=prior)
    return search_temperature(data, loss, gamma, prior=prior, tol=1e-10, max_iter=100)


def are_tiny(logits: NDArray) -> bool:
    """Whether logits are so small that single precision lacks what divides by them."""
    if logits.dtype != np.float32 or not logits.size:
        return False
    return bool(max(logits.max(), -logits.min()) < SMALLEST_SINGLE)


def _search_ece(data: CalibrationData, pull: Pull) -> Result:
    """Try every temperature of the grid in one pass over the data."""
    rows = ECE_ROWS * data.n_classes
    gaps = data.sum(_ece_gaps, block_elements=rows, heavy=True)
    errors = np.abs(gaps).sum(axis=1)
    errors += [pull.at(-log(t))[0] for t in ECE_TEMPERATURES.tolist()]
    best = int(np.argmin(errors))
    n_iter = len(ECE_TEMPERATURES)
    x = ECE_TEMPERATURES[best : best + 1].copy()
    # The error has steps, and no slope.
    return Result(x, float(errors[best]), n_iter, CONVERGED, np.nan)


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
