"""Logistic regressions of every class against the rest, all at once.

Minimised for each class is the mean log-loss of "is it this class" under a logistic
function of a few features of the row (one or two) and an intercept, as in Platt scaling
(`_platt`) and beta calibration (`_beta`), by damped Newton steps with Armijo's rule
[Nocedal & Wright, Numerical Optimization, 2006, ch. 3; for Platt scaling, Lin, Lin &
Weng, A note on Platt's probabilistic outputs for support vector machines, 2007].

A step is the solution of a 2x2 or 3x3 system, and one pass over the data serves all
classes. That is why the loop is not that of `_descend`: each class is a problem of its
own, at another point of its search, and those that are done leave the pass. A step that
does not bring enough is halved while others go on; and a last one, whose predicted gain
is below the tolerance, needs no look, since Newton's method squares the error.

Where coefficients must not be negative, the step minimises the quadratic model under
that constraint. The minimum has some coefficients at zero and is a free minimum in the
others, so that with one or two coefficients all two or four sets of those that may
differ from zero can be tried: the lowest of the minima that hold the constraint is it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._blocks._scores import Block
from skcalib._numerics import LARGEST_LOGIT, TINY, cut_logits
from skcalib._solvers._centre import NATS, fit_centre
from skcalib._solvers._descend import NOISE, SUFFICIENT
from skcalib._solvers._moments import ROUNDING, deviation, moments_of_block
from skcalib._solvers._result import CONVERGED, LIMIT, SEPARATED, Result
from skcalib._solvers._temperature import TOL, prior_strength

Sums = tuple[Block, Block, Block]
# Of a block, the features of some problems.
_FeaturesOf = Callable[[NDArray], Block]

# The loss of a class, relative to its weight, below which its scores tell it from the
# rest without error: no parameters are best, but for the slight penalty.
NO_LOSS = 1e-6
# In units of the trace of the Hessian: what makes flat directions solvable.
DAMPING = 1e-13
# Factor of the squared distance from the best constant, in standardised features and
# relative to the weight of the class. It moves no loss that matters, but gives
# separable classes an optimum that does not depend on the order of the rows.
SLIGHT = 1e-10
# Temperatures from the middle beyond which a class is certain, whatever the slope: a
# mask of -1e30 is no further. And those beyond which no score counts for centre and
# scale, in whose units the slight penalty acts.
FAR, REACH = 1e6, 1e3
# Half the usual block, since a dozen temporaries of its size are in use.
BLOCK_ELEMENTS = 1 << 15
# So many features are kept in memory (128 MB) instead of computed in each pass; when
# only a few of many classes go on, that spares most of the work.
KEPT_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class LogisticModel:
    """What is fitted: ``log-odds of q_k = coef_k . features_k + intercept_k``.

    `features` maps (n, K) logits to (n_features, n, K) values. `low` and `high` are
    the targets of the rows of other classes and of the own class, one for each class.
    A feature whose standard deviation is not above `smallest_scale`, or may come of
    rounding, is a constant. The sum of the features is a log-odds or a logit; those far
    from `middle`, in units of `nat`, are all alike.
    The search starts from `start`, the coefficients of every class, with the intercepts
    `offsets`, or without it from the constant that fits best. A `prior` above 0 adds so
    many times the squared distance from that start, coefficients in units of those of
    the start.
    """

    features: Callable[[Block], Block]
    n_features: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    non_negative: bool = False
    intercept: bool = True
    smallest_scale: float = 0.0
    nat: float = np.inf
    middle: float = 0.0
    start: float | None = None
    offsets: NDArray[np.float64] | None = None
    prior: float = 0.0
    is_flat: bool = False

    def drawn(self, data: CalibrationData, prior: float | None, unit: float) -> Self:
        """Return the model that starts at a temperature, and is drawn to what is there.

        Its features are those of the logits over `unit`.
        """
        # What is only a start need not be precise.
        centre = fit_centre(data, prior, tol=1e-2 if prior is None else TOL)
        if not centre.converged:
            return self
        drawn = replace(self, start=unit * centre.slope, offsets=centre.of_odds)
        strength = prior_strength(prior, data)
        return replace(drawn, prior=strength, is_flat=centre.is_flat)

    @property
    def free_sets(self) -> list[list[int]]:
        """The sets of parameters that may differ from zero together."""
        m = self.n_features
        always = [m] if self.intercept else []
        sizes = range(m + 1) if self.non_negative else [m]
        return [
            [*some, *always] for size in sizes for some in combinations(range(m), size)
        ]


def fit_logistic(
    data: CalibrationData,
    model: LogisticModel,
    columns: NDArray[np.intp],
    *,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise the log-loss of every class in `columns` against the rest.

    ``result.x`` is (n_columns, n_features + 1), the intercept last. A class has
    converged when its next step would gain less than `tol`, relative to its loss.
    """
    return _Newton(data, model, columns).run(tol, max_iter)


class _Newton:
    """Damped Newton steps with step halving, in standardised features, by class."""

    def __init__(
        self, data: CalibrationData, model: LogisticModel, columns: NDArray[np.intp]
    ) -> None:
        self.data, self.model, self.columns = data, model, columns
        self.centre, self.scale = _moments(data, model, columns)
        eps = np.finfo(np.float64).eps
        # Beside huge weights a class may round to nothing, or to all there is.
        own = np.clip(data.class_weights()[columns], eps, 1 - eps)
        self.mass = np.minimum(own, 1 - own)
        low, high = model.low[columns], model.high[columns]
        self.hard_targets = low == 0
        mean = low + (high - low) * own if model.intercept else np.full_like(own, 0.5)
        # The best constant, in case its loss is below that of the start.
        self.theta = np.zeros((own.shape[0], model.n_features + 1))
        self.theta[:, -1] = np.log(mean) - np.log1p(-mean)
        self.loss = -mean * np.log(mean) - (1 - mean) * np.log1p(-mean)
        self.constant = self.theta.copy()
        if model.prior > 0:
            self.to_raw, self.target = self._raw_form()
        self.direction = self._start() - self.theta
        self.step = np.ones(own.shape[0])
        self.gain = np.zeros(own.shape[0])
        self.residual = np.zeros(own.shape[0])
        # Rows of standardised features, (n_features * n_kept,), of these problems.
        self.rows: CalibrationData | None = None
        self.kept = np.arange(own.shape[0])

    def _start(self) -> Block:
        if self.model.start is None:
            return self.theta
        start = np.zeros_like(self.theta)
        varies = np.isfinite(self.scale)
        coef = np.where(varies, self.model.start, 0)
        start[:, :-1] = (coef * np.where(varies, self.scale, 0)).T
        start[:, -1] = (coef * self.centre).sum(axis=0) + self._offsets()
        return start

    def _offsets(self) -> Block | float:
        offsets = self.model.offsets
        return 0.0 if offsets is None else offsets[self.columns]

    def _raw_form(self) -> tuple[Block, Block]:
        """Return the matrices from standardised to raw parameters, and the starts.

        Raw coefficients are in units of those of the start, or of `NATS` where that is
        flat, and there the intercept is the one at the mean.
        """
        n_problems, size = self.theta.shape
        j = np.arange(size - 1)
        inverse = 1 / self.scale.T
        matrix = np.zeros((n_problems, size, size))
        start = max(self.model.start or 1.0, 1 / LARGEST_LOGIT)
        flat = self.model.is_flat & (inverse > start)
        unit = np.where(flat, NATS * inverse, start)
        matrix[:, j, j] = inverse / unit
        matrix[:, -1, :-1] = np.where(flat, 0, -self.centre.T * inverse)
        matrix[:, -1, -1] = 1
        target = np.empty((n_problems, size))
        target[:, :-1] = start / unit
        target[:, -1] = self._offsets() + start * (flat * self.centre.T).sum(axis=1)
        return matrix, target

    def run(self, tol: float, max_iter: int) -> Result:
        todo = np.arange(self.columns.shape[0])
        n_iter = 0
        while todo.size and n_iter < max_iter:
            n_iter += 1
            self._keep_features(todo)
            rejected = self._advance(todo)
            if n_iter == 1:
                # Back to the constant, whose loss is now measured like all others.
                self.step[rejected] = 0
                self.loss[rejected] = np.inf
                continue
            self.step[rejected] /= 2
            done = self.gain <= tol * self.loss
            done[rejected] = False
            # Newton squares the error, so the last step needs no look.
            finished = todo[done[todo]]
            self.theta[finished] += self.direction[finished]
            todo = todo[~done[todo]]
        separated = self.hard_targets & (self.loss <= NO_LOSS * self.mass)
        separated &= self.model.prior == 0
        failed = np.union1d(np.flatnonzero(separated), todo)
        return Result(
            x=self._raw_parameters(),
            loss=float(self.loss.sum()),
            n_iter=n_iter,
            message=_message(self.columns[failed], todo.size, max_iter),
            gradient_norm=float(self.residual.max(initial=0)),
        )

    def _advance(self, todo: NDArray[np.intp]) -> NDArray[np.intp]:
        """Take the step of each class and find the next one.

        Returns the classes whose step does not lower the loss, and is not taken.
        """
        step = self.step[todo]
        trial = self.theta[todo] + step[:, np.newaxis] * self.direction[todo]
        loss, gradient, hessian = self._penalised_sums(trial, todo)
        promised = SUFFICIENT * step * self.gain[todo]
        noise = NOISE * np.maximum(loss, self.mass[todo])
        accept = loss <= self.loss[todo] - promised + noise
        good = todo[accept]
        self.theta[good] = trial[accept]
        self.loss[good] = loss[accept]
        self.direction[good], self.gain[good] = _newton_step(
            self.theta[good], gradient[accept], hessian[accept], self.model
        )
        self.residual[good] = _residual(self.theta[good], gradient[accept], self.model)
        self.step[good] = 1.0
        return todo[~accept]

    def _penalised_sums(self, theta: Block, todo: NDArray[np.intp]) -> Sums:
        """Add the slight penalty to loss, gradient and Hessian."""
        loss, gradient, hessian = self._sums(theta, todo)
        factor = SLIGHT * self.mass[todo]
        away = theta - self.constant[todo]
        loss += factor * (away**2).sum(axis=1) / 2
        gradient += factor[:, np.newaxis] * away
        hessian += factor[:, np.newaxis, np.newaxis] * np.eye(theta.shape[1])
        if self.model.prior > 0:
            away = np.einsum("kij,kj->ki", self.to_raw[todo], theta) - self.target[todo]
            pull = 2 * self.model.prior * self.to_raw[todo].transpose(0, 2, 1)
            loss += self.model.prior * (away**2).sum(axis=1)
            gradient += np.einsum("kij,kj->ki", pull, away)
            hessian += pull @ self.to_raw[todo]
        return loss, gradient, hessian

    def _keep_features(self, todo: NDArray[np.intp]) -> None:
        """Hold the features of the problems left in memory, once they are few."""
        n_samples, width = self.data.n_samples, self.model.n_features * todo.shape[0]
        if not self.data.source.is_here or n_samples * width > KEPT_ELEMENTS:
            return
        if self.rows is not None and 2 * todo.shape[0] > self.kept.shape[0]:
            return

        function = partial(_rows_of, self._features_of(todo))
        rows = ArraySource(self._source.rows(function))
        self.rows = CalibrationData(rows, self.data.codes, self.data.weight)
        self.kept = todo

    @property
    def _source(self) -> CalibrationData:
        return self.data if self.rows is None else self.rows

    def _features_of(self, todo: NDArray[np.intp]) -> _FeaturesOf:
        """Make the function of a block of `_source` to features of these problems."""
        if self.rows is not None:
            same = todo.shape[0] == self.kept.shape[0]
            index = None if same else np.searchsorted(self.kept, todo)
            return partial(_kept_features, self.model.n_features, index)
        centre, scale = (
            self.centre[:, np.newaxis, todo],
            self.scale[:, np.newaxis, todo],
        )
        columns = self.columns[todo]
        return partial(_standardised, self.model, columns, centre, scale)

    def _sums(self, theta: Block, todo: NDArray[np.intp]) -> Sums:
        """Loss, gradient and Hessian at `theta` of the problems `todo`."""
        columns = self.columns[todo]
        low, high = self.model.low[columns], self.model.high[columns]

        statistic = partial(
            _sums_of_block, self._features_of(todo), columns, low, high, theta
        )
        result: Sums = self._source.sum(statistic, block_elements=BLOCK_ELEMENTS)
        return result

    def _raw_parameters(self) -> Block:
        coef = self.theta[:, :-1] / self.scale.T
        shift = (coef * self.centre.T).sum(axis=1)
        return np.column_stack([coef, self.theta[:, -1] - shift])


def _features(
    model: LogisticModel, logits: NDArray, columns: NDArray[np.intp]
) -> Block:
    features = model.features(cut_logits(logits))
    if columns.shape[0] == features.shape[2]:
        return features
    return features[:, :, columns]


def _cut(model: LogisticModel, factor: float, x: Block) -> Block:
    reach = factor * model.nat
    return np.clip(x, model.middle - reach, model.middle + reach, out=x)


def _standardised(
    model: LogisticModel,
    columns: NDArray[np.intp],
    centre: Block,
    scale: Block,
    logits: NDArray,
) -> Block:
    """Compute (n_features, n, n_problems) features of one block."""
    x = _cut(model, FAR, _features(model, logits, columns))
    x -= centre
    x /= scale
    return x


def _kept_features(
    n_features: int, index: NDArray[np.intp] | None, block: NDArray
) -> Block:
    """Take the features of some problems, all by default, from rows that hold them."""
    x = block.reshape(block.shape[0], n_features, -1).transpose(1, 0, 2)
    return x if index is None else x[:, :, index]


def _rows_of(features_of: _FeaturesOf, block: NDArray, *_: NDArray) -> Block:
    x = features_of(block)
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def _sums_of_block(
    features_of: _FeaturesOf,
    columns: NDArray[np.intp],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    theta: Block,
    block: NDArray,
    codes: NDArray,
    weight: NDArray,
) -> Sums:
    target = np.where(codes[:, np.newaxis] == columns, high, low)
    return _logistic_sums(features_of(block), target, weight, theta)


def _moments(
    data: CalibrationData, model: LogisticModel, columns: NDArray[np.intp]
) -> tuple[Block, Block]:
    """Centre and scale of each feature, by which the fit is well conditioned.

    Without an intercept nothing may be moved, and the scale is measured from 0.
    """
    first = _cut(model, REACH, _features(model, data.head(1), columns))
    origin = first if model.intercept else np.zeros_like(first)
    statistic = partial(_moments_of_block, model, columns, origin)
    mean, square, noise = data.sum(statistic, block_elements=BLOCK_ELEMENTS)
    if not model.intercept:
        mean = np.zeros_like(mean)
    scale = deviation(mean, square, noise, model.smallest_scale)
    # A constant feature becomes 0 / inf: no slope, no curvature, coefficient 0.
    return origin[:, 0] + mean, np.where(scale > 0, scale, np.inf)


def _moments_of_block(
    model: LogisticModel,
    columns: NDArray[np.intp],
    origin: Block,
    logits: NDArray,
    codes: NDArray,
    weight: NDArray,
) -> NDArray:
    x = _features(model, logits, columns)
    noise = ROUNDING * np.finfo(logits.dtype).eps * (abs(x) + abs(logits[:, columns]))
    # Whatever rounding did, the sum of the features is out of reach.
    certain = abs(x.sum(axis=0) - model.middle) - noise > REACH * model.nat
    return moments_of_block(
        _cut(model, REACH, x), np.where(certain, 0, noise), origin, weight
    )


def _logistic_sums(x: Block, target: Block, weight: NDArray, theta: Block) -> Sums:
    """Sum loss, gradient and Hessian over the rows of one block.

    `x` is (n_features, n, A), `target` (n, A) and `theta` (A, n_features + 1).
    """
    m = x.shape[0]
    u = x[0] * theta[:, 0]
    u += theta[:, m]
    for j in range(1, m):
        u += x[j] * theta[:, j]
    exp_u = np.exp(-np.abs(u))
    total = exp_u + 1
    inverse = 1 / total
    loss = np.log(total, out=total)
    loss += np.maximum(u, 0)
    loss -= target * u
    exp_u *= inverse
    # The logistic function is s or 1 - s with s = 1/(1 + exp(|u|)), and 1 - target is
    # exact: what is left of a row that is almost right keeps all its digits.
    above = u > 0
    slope = above - target
    slope += np.where(above, -exp_u, exp_u)
    slope *= weight[:, np.newaxis]
    exp_u *= inverse
    curvature = np.multiply(exp_u, weight[:, np.newaxis], out=exp_u)
    n_problems = theta.shape[0]
    gradient = np.empty((n_problems, m + 1), like=x)
    hessian = np.empty((n_problems, m + 1, m + 1), like=x)
    gradient[:, m] = slope.sum(axis=0)
    hessian[:, m, m] = curvature.sum(axis=0)
    for j in range(m):
        gradient[:, j] = np.einsum("ij,ij->j", slope, x[j])
        bent = curvature * x[j]
        hessian[:, j, m] = hessian[:, m, j] = bent.sum(axis=0)
        for i in range(j + 1):
            hessian[:, i, j] = hessian[:, j, i] = np.einsum("ij,ij->j", bent, x[i])
    return weight @ loss, gradient, hessian


def _newton_step(
    theta: Block, gradient: Block, hessian: Block, model: LogisticModel
) -> tuple[Block, NDArray[np.float64]]:
    """Minimise the quadratic model under the constraints (Newton, active sets tried).

    Returns the steps and the gains -gradient.step, twice what the model promises.
    """
    size = theta.shape[1]
    # Barely changes a step, but lets flat directions be solved for.
    damping = DAMPING * np.trace(hessian, axis1=1, axis2=2) + TINY
    hessian = hessian + damping[:, np.newaxis, np.newaxis] * np.eye(size)
    best = np.zeros_like(theta)
    best_value = np.full(theta.shape[0], np.inf)
    for free in model.free_sets:
        step = -theta
        step[:, free] = 0
        right = gradient + np.einsum("kij,kj->ki", hessian, step)
        system = hessian[np.ix_(range(theta.shape[0]), free, free)]
        step[:, free] = -np.linalg.solve(system, right[:, free, np.newaxis])[..., 0]
        curved = np.einsum("ki,kij,kj->k", step, hessian, step)
        value = np.einsum("ki,ki->k", gradient, step) + curved / 2
        if model.non_negative:
            value[(theta + step < 0)[:, :-1].any(axis=1)] = np.inf
        better = value < best_value
        best[better] = step[better]
        best_value[better] = value[better]
    return best, -np.einsum("ki,ki->k", gradient, best)


def _residual(
    theta: Block, gradient: Block, model: LogisticModel
) -> NDArray[np.float64]:
    """Largest violation of the conditions of optimality."""
    violation = np.abs(gradient)
    if model.non_negative:
        at_bound = theta[:, :-1] <= 0
        falling = np.maximum(-gradient[:, :-1], 0)
        violation[:, :-1] = np.where(at_bound, falling, violation[:, :-1])
    if not model.intercept:
        violation[:, -1] = 0
    return violation.max(axis=1, initial=0)


def _message(failed: NDArray[np.intp], n_unfinished: int, max_iter: int) -> str:
    if not failed.size:
        return CONVERGED
    reason = LIMIT.format(max_iter) if n_unfinished else SEPARATED
    shown = ", ".join(str(k) for k in failed[:6]) + (", ..." if failed.size > 6 else "")
    return f"{reason} (columns {shown})"
