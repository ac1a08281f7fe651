"""Weights of a mixture of predictions, on the simplex, by log-loss.

Newton's method on ``-mean log(share @ w) + sum(w)``, which has its minimum over all
non-negative w where they sum to 1 [Kim, Carbonetto, Stephens & Anitescu, 2020].
"""

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._bounded_newton import bounded_step
from skcalib._solvers._result import Result

Array = NDArray[np.float64]

# No row may keep less than this of its probability in one step.
LEAST_KEPT = 1e-3
MAX_HALVINGS = 40
# In float64, the losses of two points may differ by so much by chance.
ROUNDING = 1e-14


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
    w, excess, n_iter = np.full(n_parts, 1 / n_parts), np.inf, 0
    while n_iter < max_iter:
        n_iter += 1
        ratio = share / (share @ w)[:, np.newaxis]
        gain = ratio.T @ weight
        # It bounds the distance to the minimum.
        excess = float(gain.max()) - 1
        if excess <= tol:
            break
        hessian = (ratio * weight[:, np.newaxis]).T @ ratio
        new = _shortened(w, bounded_step(1 - gain, hessian, -w), share, weight)
        if new is None:
            break
        w = new / new.sum()
    converged = excess <= max(tol, 100 * ROUNDING)
    message = "converged" if converged else f"the gap is {excess:.1e} nats, not {tol}"
    loss = -float(np.log(share @ w) @ weight + unit @ weight[: unit.shape[0]])
    return Result(w, loss, n_iter, converged, message, excess)


def _shortened(w: Array, step: Array, share: Array, weight: Array) -> Array | None:
    """Go along a step while the loss falls; None is nowhere."""
    old = share @ w
    for halving in range(MAX_HALVINGS):
        new = np.maximum(w + 0.5**halving * step, 0)
        kept = share @ new / old
        if kept.min() >= LEAST_KEPT:
            fall = float(np.log(kept) @ weight) - float(new.sum() - w.sum())
            if fall > -ROUNDING:
                return new
    return None
