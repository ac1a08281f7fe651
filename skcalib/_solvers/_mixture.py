"""Weights of a mixture of predictions, on the simplex, by log-loss.

Minimised is the mean of -log(share @ w) over w >= 0 with sum(w) = 1, by sequential
quadratic programming [Kim, Carbonetto, Stephens & Anitescu, A fast algorithm for
maximum likelihood estimation of mixture proportions using sequential quadratic
programming, 2020]. As there, the constraint on the sum is put into the loss: with
-mean log(share @ w) + sum(w), any w are best scaled so that they sum to 1, since the
loss of c w is -log c + c sum(w) and a constant.

With `ratio` the shares over share @ w, `gain` is its mean over the rows; then the
gradient is 1 - gain and the Hessian mean(ratio ratio'). Since gain @ w = 1 and the loss
is convex, other weights v gain at most gain @ v - gain @ w <= max(gain) - 1: a bound on
what is left, at which the search ends.

Deviations: parts are few, so that the quadratic models are solved exactly by the step
of `_bounded_newton`, and the shares are not approximated by a matrix of low rank; a
step must leave each row some of its probability (a trust region), since the model of
the logarithm is worth nothing far below; and a prior counts as rows that one part alone
explains.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._bounded_newton import bounded_step
from skcalib._solvers._descend import NOISE, backtrack, descend
from skcalib._solvers._result import CONVERGED, GAP, Result

Array = NDArray[np.float64]

# No row may keep less than this of its probability in one step.
LEAST_KEPT = 1e-3


class _Step(NamedTuple):
    w: Array
    # The shares over those of the mixture, and their mean.
    ratio: Array
    gain: Array
    left: float


def fit_mixture(
    log_proba: Array,
    weight: Array,
    *,
    prior: Array | float = 0.0,
    tol: float,
    max_iter: int,
) -> Result:
    """Find the weights of parts whose true classes have these log-probabilities.

    `log_proba` is (n, n_parts), `weight` counts the samples. With a `prior`, one number
    or one a part, parts are thought to have been right alone for so many more samples.
    The gradient norm of the result is the relative gain of moving all weight to the
    best part.
    """
    n_parts = log_proba.shape[1]
    # Each row in units of its largest part: the logarithms of the units are constant.
    unit = log_proba.max(axis=1)
    share = np.exp(log_proba - unit[:, np.newaxis])
    prior = np.broadcast_to(prior, n_parts)
    share = np.vstack([share, np.eye(n_parts)[prior > 0]])
    weight = np.concatenate([weight, prior[prior > 0]])
    weight = weight / weight.sum()
    excess = np.inf

    def step_from(w: Array) -> _Step:
        nonlocal excess
        ratio = share / (share @ w)[:, np.newaxis]
        gain = ratio.T @ weight
        excess = float(gain.max()) - 1
        return _Step(w, ratio, gain, excess)

    def go(step: _Step) -> Array | str:
        hessian = (step.ratio * weight[:, np.newaxis]).T @ step.ratio
        newton = bounded_step(1 - step.gain, hessian, -step.w)
        new = _shortened(step.w, newton, share, weight)
        return GAP.format(excess, tol) if new is None else new / new.sum()

    start = np.full(n_parts, 1 / n_parts)
    w, n_iter, _ = descend(start, step_from, go, tol=tol, max_iter=max_iter)
    converged = excess <= max(tol, 100 * NOISE)
    message = CONVERGED if converged else GAP.format(excess, tol)
    loss = -float(np.log(share @ w) @ weight + unit @ weight[: unit.shape[0]])
    return Result(w, loss, n_iter, message, excess)


def _shortened(w: Array, step: Array, share: Array, weight: Array) -> Array | None:
    """Go along a step while the loss falls; None is nowhere."""
    old = share @ w

    def at(length: float) -> tuple[float, Array]:
        new = np.maximum(w + length * step, 0)
        kept = share @ new / old
        if kept.min() < LEAST_KEPT:
            return np.inf, new
        return float(new.sum() - w.sum()) - float(np.log(kept) @ weight), new

    found = backtrack(at, NOISE, 0.0)
    return None if found is None else found[1]
