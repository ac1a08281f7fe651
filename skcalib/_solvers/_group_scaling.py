"""Scaling the logits of groups, each shrunk towards those of all rows.

Of the log-probabilities L that hold for all rows, a group gets softmax(v L + b), where
with the n rows (the sum of the weights) of the group

    mean log-loss + (strength / n) |(v, b) - (1, 0)|^2

is least: a hierarchical ridge, the maximum a posteriori estimate where groups vary
about the whole by a normal distribution of variance 1 / (2 strength). With few rows the
penalty rules, with many the data. For "vector" there is a v and b for each class, and
the strength is multiplied by the number of classes K, as in structured vector scaling;
for "temperature" v is one number and b is 0. That problem is convex in one unknown:
with m and s^2 the mean and variance of L under softmax(v L), its derivative is
mean(m - L_y) + 2 (strength / n) (v - 1), its second mean(s^2) + 2 strength / n.

Newton's steps, damped by Armijo's rule, are taken in all groups at once, as in
`_logistic`: one pass over the rows gives the sums of each group, a step that brings too
little is shortened while others go on, and a last one, whose predicted gain is below
the tolerance, needs no look. Groups without rows stay at (1, 0).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._numerics import TINY, places_by
from skcalib._solvers._descend import LONGEST, NOISE, SUFFICIENT
from skcalib._solvers._newton_cg import SHORTEST
from skcalib._solvers._result import CONVERGED, LIMIT, Result
from skcalib._solvers._softmax import Exponentials
from skcalib._solvers._vector import fit_vector

Array = NDArray[np.float64]

_MAX_ITER = 200
# Nats a row that a last step may gain: after it, the square of so little is left.
_LAST = 1e-12
_TOL = 1e-9


def fit_groups(
    data: CalibrationData,
    number: NDArray[np.intp],
    n_groups: int,
    strength: float,
    structure: str,
) -> Result:
    """Return v and b of all groups, ``result.x`` of shape (2, n_groups, n_classes).

    `number` is the group of each row. The loss is the mean over rows.
    """
    x = np.zeros((2, n_groups, data.n_classes))
    x[0] = 1
    if np.isinf(strength):
        return Result(x, np.nan, 0, CONVERGED)
    if structure == "vector":
        return _fit_vectors(data, number, x, strength)
    found = _fit_powers(data, number, n_groups, strength)
    x[0] = found.x[:, np.newaxis]
    return found.at(x)


def _fit_vectors(
    data: CalibrationData, number: NDArray[np.intp], x: Array, strength: float
) -> Result:
    x, loss, square, n_iter, messages = x.copy(), 0.0, 0.0, 0, []
    for group, rows in places_by(number):
        own = data.subset(rows)
        share = own.total_weight / data.total_weight
        penalty = np.full_like(x[:, group], strength * x.shape[2] / own.total_weight)
        found = fit_vector(
            own, x[:, group], penalty=penalty, tol=_TOL, max_iter=_MAX_ITER
        )
        x[:, group] = found.x
        loss += share * found.loss
        square += (share * found.gradient_norm) ** 2
        n_iter = max(n_iter, found.n_iter)
        if not found.converged:
            messages.append(found.message)
    return Result(x, loss, n_iter, _message(messages), float(np.sqrt(square)))


def _fit_powers(
    data: CalibrationData, number: NDArray[np.intp], n_groups: int, strength: float
) -> Result:
    """Return the v of each group."""
    # Rows on a device refuse to come to the host.
    source = data.source if data.source.is_here else data.source.in_memory()
    beside = data.codes, data.sample_weight, number

    def expand(v: Array) -> Array:
        sums: Array = source.sum(partial(_sums_of_block, v), *beside)
        away = v - 1
        pull = np.stack([away**2, 2 * away, np.full(n_groups, 2.0)])
        return sums + strength * pull

    mass = np.bincount(number, data.sample_weight, n_groups)
    v, length = np.ones(n_groups), np.ones(n_groups)
    point, todo = expand(v), np.ones(n_groups, dtype=bool)
    n_iter = 0
    while n_iter < _MAX_ITER:
        n_iter += 1
        loss, slope, bend = point
        step, gain = -slope / bend, slope**2 / bend
        last = todo & (gain <= _LAST * mass)
        v = np.where(last, v + step, v)
        todo &= ~last
        if not todo.any():
            break
        trial = np.where(todo, v + length * step, v)
        new = expand(trial)
        rise, promised = new[0] - loss, length * gain
        noise = NOISE * np.maximum(loss, mass)
        good = todo & (rise <= noise - SUFFICIENT * promised)
        v, point = np.where(good, trial, v), np.where(good, new, point)
        # The parabola's minimum, as in `_descend.shortened`.
        share = promised / (2 * (np.maximum(rise, 0) + promised) + TINY)
        length = np.where(good, 1.0, length * np.clip(share, SHORTEST, LONGEST))
    message = _message([LIMIT.format(_MAX_ITER)] * np.count_nonzero(todo))
    mean, norm = point[0].sum(), np.linalg.norm(point[1])
    total = data.total_weight
    return Result(v, float(mean / total), n_iter, message, float(norm / total))


def _message(failures: list[str]) -> str:
    return f"{failures[0]} in {len(failures)} groups" if failures else CONVERGED


def _sums_of_block(
    v: Array, logits: NDArray, codes: NDArray, weight: NDArray, number: NDArray
) -> Array:
    """Sum loss, slope and second derivative of the rows of each group."""
    z = logits.astype(np.float64, copy=False)
    e = Exponentials.of_scores(v[number, np.newaxis] * z, codes)
    proba = e.values / e.total[:, np.newaxis]
    away = z - z[e.own][:, np.newaxis]
    slope = np.vecdot(proba, away)
    away -= slope[:, np.newaxis]
    terms = e.loss, slope, np.vecdot(proba, away**2)
    return np.stack([np.bincount(number, weight * t, v.shape[0]) for t in terms])
