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

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._solvers._bounded_newton import bounded_step
from skcalib._solvers._descend import NOISE, backtrack, descend
from skcalib._solvers._result import CONVERGED, GAP, Result

Array = NDArray[np.float64]

# No row may keep less than this of its probability in one step.
LEAST_KEPT = 1e-3
# In units of the weight of all rows; less would let weights run to where squares of
# shares over them overflow, and changes no weight that is seen.
LEAST_PRIOR = 1e-12


class _Step(NamedTuple):
    w: Array
    gain: Array
    hessian: Array
    left: float


class Shares(Protocol):
    """What the parts say of the true classes, as sums over rows of weights w."""

    n_parts: int

    def expand(self, w: Array) -> tuple[Array, Array]:
        """Return the mean of the ratios, and that of their products."""

    def mean_log_kept(self, w: Array, new: Array) -> float:
        """Return the mean of log(share @ new / share @ w), -inf if a row goes to 0."""

    def loss(self, w: Array) -> float:
        """Return the mean log-loss."""


class HeldShares:
    """The shares of rows in memory, and of rows that a part alone explains."""

    def __init__(self, log_proba: Array, weight: Array, prior: Array | float) -> None:
        self.n_parts = log_proba.shape[1]
        # Each row in units of its largest part: the logarithms of the units are
        # constant.
        self._unit = log_proba.max(axis=1)
        share = np.exp(log_proba - self._unit[:, np.newaxis])
        prior = np.broadcast_to(prior, self.n_parts)
        self._share = np.vstack([share, np.eye(self.n_parts)[prior > 0]])
        of_prior = np.maximum(prior[prior > 0], LEAST_PRIOR * weight.sum())
        weight = np.concatenate([weight, of_prior])
        self._weight = weight / weight.sum()

    def expand(self, w: Array) -> tuple[Array, Array]:
        return _expand(self._share, w, self._weight)

    def mean_log_kept(self, w: Array, new: Array) -> float:
        kept = self._share @ new / (self._share @ w)
        if kept.min() < LEAST_KEPT:
            return -np.inf
        return float(np.log(kept) @ self._weight)

    def loss(self, w: Array) -> float:
        of_units = self._unit @ self._weight[: self._unit.shape[0]]
        return -float(np.log(self._share @ w) @ self._weight + of_units)


class SummedShares:
    """The shares of rows that lie elsewhere, computed anew for every sum.

    ``of_parts(logits, codes, weight)`` are the log-probabilities of a block.
    """

    def __init__(
        self, data: CalibrationData, of_parts: Callable[..., Array], n_parts: int
    ) -> None:
        self.n_parts = n_parts
        self._sum = lambda statistic, *w: data.sum(partial(statistic, of_parts, *w))

    def expand(self, w: Array) -> tuple[Array, Array]:
        sums: tuple[Array, Array] = self._sum(_expand_block, w)
        return sums

    def mean_log_kept(self, w: Array, new: Array) -> float:
        n_lost, total = self._sum(_kept_of_block, w, new)
        return -np.inf if n_lost else float(total)

    def loss(self, w: Array) -> float:
        return float(self._sum(_loss_of_block, w))


def _expand(share: Array, w: Array, weight: Array) -> tuple[Array, Array]:
    ratio = share / (share @ w)[:, np.newaxis]
    return ratio.T @ weight, (ratio * weight[:, np.newaxis]).T @ ratio


def _shares_of(log_proba: Array) -> tuple[Array, Array]:
    unit = log_proba.max(axis=1)
    return unit, np.exp(log_proba - unit[:, np.newaxis])


def _expand_block(
    of_parts: Callable[..., Array], w: Array, *rows: NDArray
) -> tuple[Array, Array]:
    _, share = _shares_of(of_parts(*rows))
    return _expand(share, w, rows[2])


def _kept_of_block(
    of_parts: Callable[..., Array], w: Array, new: Array, *rows: NDArray
) -> tuple[int, float]:
    _, share = _shares_of(of_parts(*rows))
    kept = share @ new / (share @ w)
    lost = kept < LEAST_KEPT
    return int(lost.sum()), float(np.log(np.where(lost, 1, kept)) @ rows[2])


def _loss_of_block(of_parts: Callable[..., Array], w: Array, *rows: NDArray) -> float:
    unit, share = _shares_of(of_parts(*rows))
    return -float((np.log(share @ w) + unit) @ rows[2])


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
    """
    return fit_shares(HeldShares(log_proba, weight, prior), tol=tol, max_iter=max_iter)


def fit_shares(shares: Shares, *, tol: float, max_iter: int) -> Result:
    """Find the weights of parts by sums over their shares.

    The gradient norm of the result is the relative gain of moving all weight to the
    best part.
    """
    excess = np.inf

    def step_from(w: Array) -> _Step:
        nonlocal excess
        gain, hessian = shares.expand(w)
        excess = float(gain.max()) - 1
        return _Step(w, gain, hessian, excess)

    def go(step: _Step) -> Array | str:
        newton = bounded_step(1 - step.gain, step.hessian, -step.w)
        new = _shortened(step.w, newton, shares)
        return GAP.format(excess, tol) if new is None else new / new.sum()

    start = np.full(shares.n_parts, 1 / shares.n_parts)
    w, n_iter, _ = descend(start, step_from, go, tol=tol, max_iter=max_iter)
    converged = excess <= max(tol, 100 * NOISE)
    message = CONVERGED if converged else GAP.format(excess, tol)
    return Result(w, shares.loss(w), n_iter, message, excess)


def _shortened(w: Array, step: Array, shares: Shares) -> Array | None:
    """Go along a step while the loss falls; None is nowhere."""

    def at(length: float) -> tuple[float, Array]:
        new = np.maximum(w + length * step, 0)
        return float(new.sum() - w.sum()) - shares.mean_log_kept(w, new), new

    found = backtrack(at, NOISE, 0.0)
    return None if found is None else found[1]
