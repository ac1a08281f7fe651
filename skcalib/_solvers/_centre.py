"""What a prior draws to: a temperature, and offsets where the base rates have moved.

Where a classifier was trained with class weights, or on classes of other shares, a
temperature alone takes the wrong base rates for over-confidence and flattens all there
is. A prior that draws to it would then be wrong on slopes and offsets, and not give way
however many samples say so.

So the temperature is fitted beside an offset for every class, too [bias-corrected
temperature scaling: Alexandari, Kundaje & Shrikumar, Maximum likelihood with
bias-corrected calibration is hard-to-beat at label shift adaptation, ICML 2020], with
the prior of `_temperature` and a weak one on the offsets. Both are the centre if their
gain is evident: above a nat an offset, as in Akaike's criterion, and odds of 50 to 1.
What is not evident costs the samples no more than that, all together.

Steps are Newton's in (log beta, b), with what is not convex of the curvature left out.

Scores that fall with their class, and columns in other units than the rest, flatten the
temperature, too. Slopes in units of it would then never give way. Where it leaves less
than a nat for a standard deviation of a column, and slopes of their own, as in vector
scaling, gain as evidently, their unit is so large that they are all but free.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._numerics import (
    LARGEST_LOGIT,
    TINY,
    cut_logits,
    row_maxima,
    side_by_side,
)
from skcalib._solvers._moments import means_and_spreads
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._softmax import Exponentials
from skcalib._solvers._temperature import (
    LEAST_TEMPERATURE,
    TOL,
    Pull,
    fit_temperature,
    prior_strength,
)
from skcalib._solvers._vector import MAX_DENSE_CLASSES, inverse, promised_gain

Array = NDArray[np.float64]

# Nats by which the gain of offsets has to exceed their number.
EVIDENT = float(np.log(50))
# Of the prior on the temperature, so much holds the offsets.
OF_OFFSETS = 1 / 8
# Nats that a last step promises: it squares about what is left, and parameters err by
# the root of that. A fit errs by a small part of it, as far as its prior counts.
NEAR = 1e-9
# Nats for a standard deviation that count as 1 where slopes are all but free: a prior
# of 8 samples is then a normal distribution of two nats.
NATS = 8.0
# Steps end within this factor of the temperature alone.
REACH = 1e3
# Of the curvature by log beta, so much stays beside the offsets of many classes.
LEAST_OWN = 1e-3


@dataclass(frozen=True)
class Centre:
    """The map softmax(z / temperature + offsets)."""

    temperature: float
    offsets: Array
    # The same as offsets of each class's log-odds against the rest, about.
    of_odds: Array
    # Whether there is such a temperature: not where nothing holds it.
    converged: bool
    # Slope and offset of each column that count as 1 to a prior, (2, n_classes).
    units: Array

    @property
    def slope(self) -> float:
        return 1 / self.temperature

    @property
    def is_flat(self) -> bool:
        """Whether it leaves next to nothing of some column that says more."""
        return bool((self.units > units_of(self.temperature, 1)).any())


def fit_centre(
    data: CalibrationData,
    prior: float | None,
    *,
    near: float | None = None,
    tol: float = TOL,
) -> Centre:
    """Return what a prior of so many samples draws to; without one, a temperature.

    The options are those of `fit_temperature`.
    """
    key = "centre", prior, near, tol
    centre: Centre = data.once(key, lambda: _fit(data, prior, near, tol))
    return centre


def _fit(
    data: CalibrationData, prior: float | None, near: float | None, tol: float
) -> Centre:
    alone = fit_temperature(data, prior=prior, near=near, tol=tol)
    # No smaller one has a finite inverse.
    temperature = max(float(alone.x[0]), LEAST_TEMPERATURE)
    shares = data.class_weights()
    offsets = np.zeros(data.n_classes)
    if prior is not None and alone.converged:
        found = _beside_offsets(data, prior, temperature, shares > 0)
        if found is not None:
            temperature, offsets = found
    # What shares the others would have without the offsets.
    rest = shares.sum() - shares
    without = shares * np.exp(-offsets)
    before = without.sum() - without
    usable = (rest > 0) & (before > 0)
    moved = np.divide(rest, before, out=np.ones_like(rest), where=usable)
    of_odds = offsets - np.log(moved)
    units = _units(data, prior, temperature, offsets)
    return Centre(temperature, offsets, of_odds, alone.converged, units)


def _units(
    data: CalibrationData, prior: float | None, temperature: float, offsets: Array
) -> Array:
    """Return that of the temperature, or what slopes of their own evidently gain by."""
    units = units_of(temperature, data.n_classes)
    if prior is None:
        return units
    mean, spread = means_and_spreads(data)
    is_flat = (spread > 0) & (spread * units[0] < 1)
    if not is_flat.any():
        return units
    # An offset has to go with the slope that turns about the mean.
    slope = NATS / np.where(is_flat, spread, 1)
    free = np.stack([slope, np.maximum(slope * abs(mean), 1)])
    wider = np.where(is_flat, free, units)
    present = data.present
    start = np.stack([np.full_like(offsets, 1 / temperature), offsets])[:, present]
    penalty = prior_strength(prior, data) / wider[:, present] ** 2
    if present.shape[0] < data.n_classes:
        data = data.columns(present)
    data = data.mapped(cut_logits)
    # The prior on the temperature may itself have held back a nat for each sample.
    enough = 2 * (present.shape[0] - 1) + EVIDENT + prior
    gain = promised_gain(data, start, penalty) * data.total_weight
    return wider if gain > enough else units


def units_of(temperature: float, n_classes: int) -> Array:
    """Return the units of slopes and offsets where a temperature alone gives them."""
    units = np.ones((2, n_classes))
    units[0] = max(1 / temperature, 1 / LARGEST_LOGIT)
    return units


def _beside_offsets(
    data: CalibrationData, prior: float, temperature: float, present: NDArray[np.bool_]
) -> tuple[float, Array] | None:
    """Return temperature and offsets; None unless the gain is evident."""
    start = np.append(-np.log(temperature), np.zeros(data.n_classes))
    problem = _Problem(data, prior_strength(prior, data), present, start[0])
    first = problem.expand(start)
    enough = (present.sum() - 1 + EVIDENT) / data.total_weight
    # By Newton's step; what is evident is so by far.
    if np.vdot(first.gradient, first.precondition(first.gradient)) / 2 <= enough:
        return None
    found = minimize(
        lambda x, _: first if x is start else problem.expand(x),
        problem.loss,
        start,
        tol=NEAR,
        blind=NEAR,
        max_iter=20,
    )
    if first.loss - found.loss <= enough:
        return None
    offsets = np.where(present, found.x[1:], 0)
    offsets[present] -= offsets[present].mean()
    return float(np.exp(-found.x[0])), offsets


class _Problem:
    def __init__(
        self,
        data: CalibrationData,
        strength: float,
        present: NDArray[np.bool_],
        log_beta: float,
    ) -> None:
        self._data, self._present = data, present
        self._most = log_beta + np.log(REACH)
        self._pull, self._ridge = Pull(strength, 0.0), OF_OFFSETS * strength

    def loss(self, x: Array) -> float:
        if x[0] > self._most:
            return np.inf
        loss: float = self._data.sum(partial(_loss_of_block, x))
        return loss + self._pull.at(x[0])[0] + self._ridge * float(x[1:] @ x[1:])

    def expand(self, x: Array) -> Expansion:
        if x[0] > self._most:  # So far off that it is refused.
            return Expansion(np.inf, np.zeros_like(x), None, np.copy)
        loss, gradient, by_beta, by_offsets = self._data.sum(partial(_sums_of_block, x))
        cost, slope, bend = self._pull.at(x[0])
        # The curvature by log beta is this and the slope, which may be negative.
        by_beta[0] += max(gradient[0], 0.0) + bend
        loss += cost + self._ridge * float(x[1:] @ x[1:])
        gradient[0] += slope
        gradient[1:] += 2 * self._ridge * x[1:]
        gradient[1:][~self._present] = 0
        if by_offsets.ndim == 1:
            precondition = _inverse_of_arrow(by_beta, by_offsets + 2 * self._ridge)
        else:
            hessian = np.block(
                [[by_beta[:1], by_beta[1:]], [by_beta[1:, np.newaxis], by_offsets]]
            )
            k = np.arange(1, x.shape[0])
            hessian[k, k] += 2 * self._ridge
            precondition = inverse(hessian, (1, x.shape[0]))
        return Expansion(loss, gradient, None, precondition)


def _inverse_of_arrow(first: Array, diagonal: Array) -> Callable[[Array], Array]:
    """Invert a matrix of which the first row and the rest of the diagonal are given."""
    across = first[1:] / diagonal
    # What is missing beside the diagonal may leave no curvature.
    own = max(first[0] - across @ first[1:], LEAST_OWN * first[0], TINY)

    def solve(r: Array) -> Array:
        beta = (r[0] - across @ r[1:]) / own
        return np.append(beta, r[1:] / diagonal - beta * across)

    return solve


def _scores(x: Array, logits: NDArray[Any]) -> tuple[Array, Array]:
    """Return beta times the logits less their maximum, and that with offsets."""
    t = cut_logits(logits)
    columns = side_by_side(t)
    if columns is not None:
        t = columns.T
    t -= row_maxima(t)[:, np.newaxis]
    t *= np.exp(x[0])
    return t, t + x[1:]


def _loss_of_block(x: Array, logits: NDArray, codes: NDArray, weight: Array) -> float:
    _, scores = _scores(x, logits)
    return float(Exponentials.of_scores(scores, codes).loss @ weight)


def _sums_of_block(
    x: Array, logits: NDArray, codes: NDArray, weight: Array
) -> tuple[float, Array, Array, Array]:
    """Loss, gradient and Hessian by (log beta, b): its first row, and that by b.

    Of many classes the last is only a diagonal.
    """
    t, scores = _scores(x, logits)
    e = Exponentials.of_scores(scores, codes)
    share = weight / e.total
    first = e.values * t
    mean = np.einsum("ij->i", first) / e.total
    gradient = np.empty(x.shape[0], like=t)
    by_beta = np.empty(x.shape[0], like=t)
    gradient[0] = weight @ (mean - t[e.own])
    t -= mean[:, np.newaxis]
    by_beta[0] = share @ np.einsum("ij,ij->i", first, t)
    by_beta[1:] = share @ np.multiply(e.values, t, out=t)
    curvature = share @ e.values
    if e.values.shape[1] <= MAX_DENSE_CLASSES:
        root = np.multiply(e.values, (np.sqrt(weight) / e.total)[:, np.newaxis], out=t)
        by_offsets = -(root.T @ root)
        k = np.arange(x.shape[0] - 1)
        by_offsets[k, k] += curvature
    else:
        by_offsets = curvature - (share / e.total) @ np.square(e.values, out=t)
    gradient[1:] = share @ e.turn_into_residuals()
    return float(e.loss @ weight), gradient, by_beta, by_offsets
