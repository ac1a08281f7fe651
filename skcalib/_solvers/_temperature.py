r"""One temperature by log-loss: safeguarded Newton's method on log beta, beta = 1/T.

Minimised over T > 0 is the mean log-loss of softmax(z / T) [Guo, Pleiss, Sun &
Weinberger, On Calibration of Modern Neural Networks, ICML 2017, section 4.2].

With t = beta (z - max z) and E, Var under softmax(t), the derivatives of the mean loss
with respect to log beta are mean(E[t] - t_y) and mean(Var[t] + E[t] - t_y). The loss is
convex in beta, so the sign of the slope says on which side the optimum lies, and a
bracket keeps Newton's steps safe: one that leads out of it gives way to bisection.

A prior adds 2 c log cosh(log(beta) / 2) / n to the mean loss of n samples: the log-loss
of c trials that came out "larger than 1" and c "smaller", had 1 / (1 + 1/beta) been the
probability of the former (a beta distribution of that probability, of beta itself a
beta prime). It has its mode at T = 1, the slope c tanh(log(beta) / 2) / n and so never
pulls by more than c / n, however far off the units of the logits are. The sum grows at
both ends, so that samples told apart without error have an optimum, too.

The loop is not that of `_descend`. What is looked for is the root of a slope of one
unknown, in a bracket that each point makes smaller; no step needs a line search, and
after a last one, short enough for Newton's method to have squared the error, no look.
"""

from dataclasses import dataclass
from functools import partial
from math import exp, log, log1p, sqrt, tanh
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._numerics import TINY, in_line, side_by_side
from skcalib._solvers._result import (
    ALL_EQUAL,
    CONVERGED,
    LIMIT,
    NO_ERRORS,
    NO_INFORMATION,
    Result,
)

# A subsample holds 1/32 of the numbers, but not fewer than this, enough for a starting
# point within a few per cent, nor more than 64 times this, however large the data.
SUBSAMPLE_ELEMENTS = 1 << 16
# The search stays within this factor of the typical distance of the two top logits.
REACH = 1e3
# Terms below exp(-DEEPEST) of the largest are nothing; cut, their products stay finite.
DEEPEST = 200.0
# Samples that speak for T = 1 beforehand, chosen by `benchmarks/never_harm.py`.
PRIOR = 8.0
# Absolute error of the logarithm of a temperature.
TOL = 1e-10
# In units of the weight of all samples; more changes nothing.
MOST_PRIOR = 1e9
# Temperatures below this, with the reach of the search, have no finite inverse.
LEAST_TEMPERATURE = 2.0**-1000


@dataclass(frozen=True)
class Pull:
    """A pull of log beta towards `centre`, `strength` being relative to the samples."""

    strength: float
    centre: float

    def at(self, log_beta: float) -> tuple[float, float, float]:
        """Return what it adds to the loss, its slope and its curvature."""
        half = abs(log_beta - self.centre) / 2
        pull = tanh((log_beta - self.centre) / 2)
        # log cosh of half the distance, which cosh would overflow.
        cost = 2 * (half + log1p(exp(-2 * half)) - log(2))
        strength = self.strength
        return strength * cost, strength * pull, strength * (1 - pull**2) / 2


def prior_strength(prior: float | None, data: CalibrationData) -> float:
    """Return the weight of a prior of so many samples beside those of the data."""
    return strength_beside(prior, data.total_weight)


def strength_beside(prior: float | None, n_samples: float) -> float:
    """Return the weight of a prior of so many samples beside `n_samples` others."""
    # Beside samples of next to no weight it is finite, too.
    return min((prior or 0.0) / max(n_samples, TINY), MOST_PRIOR)


def fit_temperature(
    data: CalibrationData,
    *,
    prior: float | None = None,
    near: float | None = None,
    tol: float = TOL,
    max_iter: int = 100,
) -> Result:
    """Minimise log-loss and prior over T > 0; `tol` is the absolute error of log T.

    `prior` is its weight in samples, None no prior; `near` is a temperature to start
    from, where one is known. The same rows are fitted in the same way once, whichever
    calibrators ask for it.
    """
    key = "temperature", prior, near, tol, max_iter
    result: Result = data.once(key, lambda: _fit(data, prior, near, tol, max_iter))
    return result


def _fit(
    data: CalibrationData,
    prior: float | None,
    near: float | None,
    tol: float,
    max_iter: int,
) -> Result:
    strength = prior_strength(prior, data)
    sample = subsample(data)
    gap = typical_gap(sample)
    if gap == 0:
        return Result(np.ones(1), log(data.n_classes), 0, ALL_EQUAL)
    unit = LEAST_TEMPERATURE if gap < LEAST_TEMPERATURE else 1.0
    if unit < 1:
        data = enlarged(data)
        sample = subsample(data)
        gap = typical_gap(sample)
    pull = Pull(strength, log(unit))
    start = -log(gap)
    bracket = (start - log(REACH), start + log(REACH))
    if strength > 0:
        # Where the data say little, the optimum lies on the way to the prior's.
        bracket = min(bracket[0], pull.centre - 1), max(bracket[1], pull.centre + 1)
    if near is not None:
        start = min(max(-log(near / unit), bracket[0]), bracket[1])
    elif sample is not data:
        trial = _newton(sample, start, bracket, pull, 1e-6, max_iter)
        start = -log(trial.x[0]) if trial.converged else start
    result = _newton(data, start, bracket, pull, tol, max_iter)
    return result.at(result.x * unit)


def enlarged(data: CalibrationData) -> CalibrationData:
    """Return tiny logits in units of the smallest temperature with a finite inverse."""
    return data.mapped(_enlarged)


def _enlarged(block: NDArray) -> NDArray:
    return block / LEAST_TEMPERATURE


def inverse_factors(temperature: float) -> tuple[float, ...]:
    """Return finite factors whose product is 1/T: one, or two where 1/T overflows."""
    if temperature >= LEAST_TEMPERATURE:
        return (1 / temperature,)
    return (1 / (temperature / LEAST_TEMPERATURE), 1 / LEAST_TEMPERATURE)


def _newton(
    data: CalibrationData,
    log_beta: float,
    bracket: tuple[float, float],
    prior: Pull,
    tol: float,
    max_iter: int,
) -> Result:
    lower, upper = bracket
    converged = False
    n_iter = 0
    while not converged and n_iter < max_iter:
        n_iter += 1
        *sums, misses = data.sum(partial(_statistic, exp(log_beta)))
        loss, slope, curvature = np.add(sums, prior.at(log_beta))
        if misses == 0 and not prior.strength:
            loss, slope, *_ = data.sum(partial(_statistic, exp(upper)))
            return _result(upper, loss, slope, n_iter, NO_ERRORS)
        if slope > 0:
            upper = log_beta
        else:
            lower = log_beta
        newton = log_beta - slope / curvature if curvature > 0 else np.inf
        inside = lower < newton < upper
        step = (newton if inside else (lower + upper) / 2) - log_beta
        log_beta += step
        # Newton squares the error: a step this short leaves less than tol.
        converged = abs(step) <= (sqrt(tol) if inside else tol)
    if not converged:
        sums = data.sum(partial(_statistic, exp(log_beta)))[:3]
        loss, slope, _ = np.add(sums, prior.at(log_beta))
    if log_beta - bracket[0] < 0.01 and not prior.strength:
        return _result(log_beta, loss, slope, n_iter, NO_INFORMATION)
    message = CONVERGED if converged else LIMIT.format(max_iter)
    return _result(log_beta, loss, slope, n_iter, message)


def _result(
    log_beta: float, loss: float, slope: float, n_iter: int, message: str
) -> Result:
    x = np.array([exp(-log_beta)])
    return Result(x, float(loss), n_iter, message, abs(float(slope)))


def _statistic(
    beta: float, logits: NDArray, codes: NDArray, weight: NDArray
) -> NDArray[np.float64]:
    """Sum loss, slope, curvature and misses of one block, in log beta."""
    below, axis, largest = less_largest(logits)
    log_total, mean, square = moments(beta, below, axis)
    t_label = beta * (own_logit(logits, codes) - largest)
    mean_label, mean_t = weight @ t_label, weight @ mean
    slope = mean_t - mean_label
    curvature = weight @ (square - mean * mean) + slope
    loss = weight @ log_total - mean_label
    misses = weight @ (t_label < 0)
    return np.stack([loss, slope, curvature, misses])


def less_largest(logits: NDArray) -> tuple[NDArray, int, NDArray[np.float64]]:
    """Return z - max z of each row, the axis of the classes in it, and max z.

    Narrow rows come as columns, which take a fraction of the time.
    """
    columns = side_by_side(logits)
    with np.errstate(over="ignore"):
        if columns is None:
            largest = logits.max(axis=1, keepdims=True)
            return logits - largest, 1, largest.reshape(-1).astype(np.float64)
        largest = columns.max(axis=0)
        columns -= largest  # They are a copy.
    return columns, 0, largest.astype(np.float64)


def moments(
    beta: float, below: NDArray, axis: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return log sum exp(t) and the means of t and t^2 under softmax(t), row by row.

    Here t = beta (z - max z), from what `less_largest` returns.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _sums_over_classes(beta, below, axis)
        if not np.isfinite(sums[-1]).all():
            sums = _sums_over_classes(beta, below, axis, floor=-DEEPEST)
    total, mean, square = sums
    return np.log(total), mean / total, square / total


def _sums_over_classes(
    beta: float, below: NDArray, axis: int, floor: float | None = None
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[Any]]:
    """Return the sums of exp(t), t exp(t) and t^2 exp(t), t being cut at `floor`.

    Without the cut, what overflows leaves NaN.
    """
    t = _scaled(below, beta)
    if floor is not None:
        np.maximum(t, floor, out=t)
    exp_t = np.exp(t)
    # Dot products, several times as fast as sums; over the rows, float64 takes over.
    if axis == 1:
        total = np.vecdot(exp_t, np.ones_like(t[0])).astype(np.float64)
        first = np.vecdot(exp_t, t)
        exp_t *= t
        return total, first, np.vecdot(exp_t, t)
    total = exp_t.sum(axis=0).astype(np.float64)
    first = np.einsum("kn,kn->n", exp_t, t)
    exp_t *= t
    return total, first, np.einsum("kn,kn->n", exp_t, t)


def scaled_logits(
    logits: NDArray, codes: NDArray, beta: float
) -> tuple[NDArray, NDArray[np.float64]]:
    """Return ``beta * (z - max z)``, cut at -DEEPEST, and that of the label, uncut."""
    largest = logits.max(axis=1, keepdims=True)
    t_label = beta * (own_logit(logits, codes) - largest[:, 0])
    with np.errstate(over="ignore"):
        t = _scaled(logits - largest, beta)
    np.maximum(t, -DEEPEST, out=t)
    return t, t_label


def own_logit(logits: NDArray, codes: NDArray) -> NDArray[np.float64]:
    """Return the logit of the class of each row."""
    line, index = in_line(logits, (np.arange(codes.shape[0], like=codes), codes))
    own: NDArray[np.float64] = line[index].astype(np.float64)
    return own


def _scaled(below: NDArray, beta: float) -> NDArray:
    return below * (below.dtype.type(beta) if _is_normal(beta, below.dtype) else beta)


def _is_normal(beta: float, dtype: np.dtype) -> bool:
    info = np.finfo(dtype)
    return bool(info.tiny <= beta <= info.max)


def subsample(data: CalibrationData) -> CalibrationData:
    """Every m-th row, so that 1/32 of the numbers remain, within limits."""
    units = data.n_samples * data.n_classes // SUBSAMPLE_ELEMENTS
    step = max(min(32, units), units // 64)
    if step < 4:
        return data.every(1) if data.source.is_remote else data
    return data.every(step)


def typical_gap(data: CalibrationData) -> float:
    """Median distance of the two largest logits of a row, the unit of the search.

    Unlike the spread of all logits it ignores columns masked by -1e30. Where most
    rows tie, the mean distance, and if that is 0 too, the mean spread takes its place.
    """
    logits = data.head(max(1, SUBSAMPLE_ELEMENTS // data.n_classes))
    top = np.sort(logits.astype(np.float64), axis=1)
    # Masks may be as large as floats go.
    with np.errstate(over="ignore"):
        gap = top[:, -1] - top[:, -2]
        spread = top[:, -1] - top[:, 0]
        candidates = (np.median(gap), gap.mean(), spread.mean())
    return float(next((value for value in candidates if 0 < value < np.inf), 0.0))
