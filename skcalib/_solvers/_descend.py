"""What all descents share: the loop, the line search, limits and the mended Hessian.

A descent looks for a step at each point, ends once no more than a tolerance is left to
be gained, and goes along the step as far as the loss falls enough. Methods differ in
their steps: truncated Newton (`_newton_cg`), Newton with bounds (`_bounded_newton`), on
the simplex (`_mixture`), and L-BFGS (`_lbfgs`). Source: Nocedal & Wright, Numerical
Optimization, 2006, chapter 3.

Three solvers keep loops of their own, for reasons that their files give, and share
limits and outcome: `_temperature` (one unknown in a bracket), `_logistic` and
`_group_scaling` (many problems at once).
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._result import CONVERGED, LIMIT, NO_DESCENT

Array = NDArray[np.float64]

# The Armijo rule: the share of the predicted decrease that a step must bring.
SUFFICIENT = 1e-4
# What a shorter step keeps of the last one's length, at most.
LONGEST = 0.5
MAX_HALVINGS = 40
# Losses that differ by less may be equal: two sums of the same terms, in nats, and
# sums by different ways, relative to the loss where that is not about 1.
ROUNDING = 1e-15
NOISE = 1e-14
# Nats to be gained that the rounding of many rows may hide.
LOSS_NOISE = 1e-9


class Step(Protocol):
    """A step from a point."""

    @property
    def left(self) -> float:
        """How far the loss may still fall, by a bound or an estimate."""


P = TypeVar("P")
S = TypeVar("S", bound=Step)
T = TypeVar("T")


def descend(
    point: P,
    step_from: Callable[[P], S],
    go: Callable[[S], P | str],
    *,
    tol: float,
    max_iter: int,
) -> tuple[P, int, str]:
    """Descend from a point until a step says that no more than `tol` is left.

    ``go(step)`` returns the next point, or the message that says why there is none.
    Returns the last point, the number of steps looked for, and the message.
    """
    for n_iter in range(1, max_iter + 1):
        step = step_from(point)
        if step.left <= tol:
            return point, n_iter, CONVERGED
        new = go(step)
        if isinstance(new, str):
            return point, n_iter, new
        point = new
    return point, max_iter, LIMIT.format(max_iter)


def backtrack(
    at: Callable[[float], tuple[float, T]],
    loss: float,
    drop: float,
    length: float = 1.0,
    *,
    shortest: float = LONGEST,
    least: float = 0.0,
    max_trials: int = MAX_HALVINGS,
) -> tuple[float, T] | None:
    """Shorten a step until the loss falls enough (Armijo backtracking).

    ``at(length)`` returns the loss after that share of the step, and anything else;
    `loss` is that before it, and `drop` the decrease that its slope promises. A trial
    keeps at least `shortest` of the length of the last one, by default half of it.
    Returns the length and what came with its loss; None if none above `least` will do.
    """
    for _ in range(max_trials):
        if length <= least:
            break
        new, found = at(length)
        if new <= loss - SUFFICIENT * length * drop:
            return length, found
        length = shortened(length, new - loss, drop, shortest)
    return None


def end_of(left: float) -> str:
    """Say how a search ended that rounding of the loss keeps from going on."""
    return CONVERGED if left <= LOSS_NOISE else NO_DESCENT.format(left)


def shortened(length: float, rise: float, drop: float, shortest: float) -> float:
    """Where the parabola through both losses has its minimum, within limits.

    Its slope at the start is minus `drop`. [Nocedal & Wright, section 3.5]
    """
    bend = rise + length * drop
    share = length * drop / (2 * bend) if np.isfinite(bend) else 0.0
    return length * float(np.clip(share, shortest, LONGEST))


def jittered(matrix: Array, ridge: float, factorise: Callable[[Array], T]) -> T:
    """Cholesky jitter: raise the diagonal until the matrix is positive definite.

    [Nocedal & Wright, algorithm 3.3] The matrix, of unit diagonal, is overwritten.
    """
    while True:
        matrix[np.diag_indices_from(matrix)] += ridge
        try:
            return factorise(matrix)
        except np.linalg.LinAlgError:
            ridge *= 100
