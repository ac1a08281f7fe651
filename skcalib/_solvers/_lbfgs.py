"""L-BFGS for objectives of which every evaluation is a pass over the data.

Minimised is any smooth function, by the limited-memory BFGS method [Nocedal & Wright,
Numerical Optimization, 2006, section 7.2]: the inverse Hessian is one that is handed
in, scaled to the last step (as in their equation 7.20, where it is the identity), after
the BFGS updates of the last steps (algorithm 7.4).

Passes are what counts, so nothing is evaluated that is known already: the first value
and gradient, a good first step and the curvature can all be handed in; and a step is
taken by Armijo backtracking, not by Wolfe's conditions, which ask for more passes and
would ensure what is checked instead, that a pair shows positive curvature. The best
point is kept whatever ends the search, an interrupt included.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._descend import backtrack, descend
from skcalib._solvers._result import CONVERGED, EXHAUSTED, INTERRUPTED, Result

Array = NDArray[np.float64]
Evaluate = Callable[[Array], tuple[float, Array]]
Inverse = Callable[[Array], Array]
Report = Callable[[float], object]
# A step, the change of the gradient along it, and their product.
Pair = tuple[Array, Array, float]

MEMORY = 10
# A trial keeps at least so much of the last one's length; the shortest of all.
SHORTEST, LEAST = 0.1, 1e-6
# A pair's curvature, as the cosine between step and change of the gradient.
LEAST_COSINE = 1e-10


class _Point(NamedTuple):
    x: Array
    value: float
    gradient: Array


class _Step(NamedTuple):
    step: Array
    slope: float

    @property
    def left(self) -> float:
        """The fall that a quadratic would have left."""
        return -self.slope / 2


def minimize(
    evaluate: Evaluate,
    x: Array,
    *,
    precondition: Inverse,
    max_evaluations: int,
    tol: float,
    first: tuple[float, Array] | None = None,
    step: Array | None = None,
    last_limit: float = np.inf,
    report: Report | None = None,
) -> Result:
    """Minimise from `x` until the loss can fall by less than about `tol`.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(x) -> (value, gradient)``.

    x : ndarray of shape (n,)
        Where to start.

    precondition : callable
        Multiplies a vector by an approximate inverse of the Hessian.

    max_evaluations : int
        Largest number of calls of `evaluate`.

    tol : float
        Half the product of gradient and step, the fall that a quadratic would have
        left, at which to stop.

    first : tuple, default=None
        Value and gradient at `x`, if known.

    step : ndarray of shape (n,), default=None
        First step to try; by default the preconditioned gradient's.

    last_limit : float, default=inf
        How far the last entry of `x`, the logarithm of a temperature, may move in one
        step.

    report : callable, default=None
        Told the lowest value so far after each evaluation.

    Returns
    -------
    result : Result
        The best point; `n_iter` counts the evaluations.
    """
    start = _Point(x, np.inf, np.zeros_like(x))
    search = _Search(
        evaluate, start, precondition, max_evaluations, last_limit, report, step
    )
    try:
        search.point = search.look(x) if first is None else _Point(x, *first)
        # Each step takes an evaluation, so that these end first.
        _, _, message = descend(
            search.point,
            search.step_from,
            search.go,
            tol=tol,
            max_iter=max_evaluations + 1,
        )
    except KeyboardInterrupt:
        message = INTERRUPTED
    x, value, gradient = search.point
    norm = float(np.linalg.norm(gradient))
    return Result(x, float(value), search.count, message, norm)


@dataclass
class _Search:
    """The best point, what was learned of the inverse, and a count of evaluations."""

    evaluate: Evaluate
    point: _Point
    precondition: Inverse
    limit: int
    last_limit: float
    report: Report | None
    # The step to try first.
    planned: Array | None
    pairs: deque[Pair] = field(default_factory=lambda: deque(maxlen=MEMORY))
    lowest: float = np.inf
    count: int = 0

    def look(self, x: Array) -> _Point:
        """Evaluate the objective and report the lowest value so far."""
        self.count += 1
        value, gradient = self.evaluate(x)
        self.lowest = min(self.lowest, value)
        if self.report is not None:
            self.report(self.lowest)
        return _Point(x, value, gradient)

    def step_from(self, point: _Point) -> _Step:
        """Find the step of the inverse Hessian that is known, or take the planned."""
        step, self.planned = self.planned, None
        if step is None or not step @ point.gradient < 0:
            step = -bfgs_product(point.gradient, self.pairs, self._scaled_inverse())
        return _Step(step, float(step @ point.gradient))

    def _scaled_inverse(self) -> Inverse:
        """Return `precondition`, in the units that the last pair shows."""
        if not self.pairs:
            return self.precondition
        _, change, product = self.pairs[-1]
        scale = product / (change @ self.precondition(change))
        return lambda vector: scale * self.precondition(vector)

    def go(self, newton: _Step) -> _Point | str:
        """Shorten the step until the value falls enough."""
        step, slope = newton
        x, value, gradient = self.point

        def at(length: float) -> tuple[float, _Point]:
            new = self.look(x + length * step)
            usable = np.isfinite(new.gradient).all()
            return new.value if usable else np.inf, new

        found = backtrack(
            at,
            value,
            -slope,
            min(1.0, self.last_limit / max(abs(step[-1]), 1e-300)),
            shortest=SHORTEST,
            least=LEAST,
            max_trials=self.limit - self.count,
        )
        if found is None:
            # Without passes left nothing is known; else the rounding of the loss is
            # all that remains.
            return EXHAUSTED if self.count >= self.limit else CONVERGED
        length, self.point = found
        self._remember(length * step, self.point.gradient - gradient)
        return self.point

    def _remember(self, step: Array, change: Array) -> None:
        """Keep a pair that shows positive curvature."""
        product = float(step @ change)
        if product > LEAST_COSINE * np.linalg.norm(step) * np.linalg.norm(change):
            self.pairs.append((step, change, product))


def bfgs_product(r: Array, pairs: Sequence[Pair], inverse: Inverse) -> Array:
    """Multiply by an inverse after its BFGS updates (L-BFGS two-loop recursion).

    The pairs are those of the last steps, oldest first. [Nocedal & Wright, algorithm
    7.4]
    """
    rest, shares = r.copy(), []
    for step, change, product in reversed(pairs):
        shares.append(float(np.vdot(step, rest)) / product)
        rest -= shares[-1] * change
    out = inverse(rest)
    for step, change, product in pairs:
        out += (shares.pop() - float(np.vdot(change, out)) / product) * step
    return out
