"""Weights of ensemble temperature scaling, on the simplex, by log-loss.

Newton's method: the quadratic model of the loss in three weights is minimised over the
simplex exactly, by trying every set of weights that may be positive.
"""

from itertools import combinations
from math import log

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._solvers._result import Result
from skcalib._solvers._temperature import scaled_logits

Array = NDArray[np.float64]

START = np.array([0.9, 0.05, 0.05])


def fit_ensemble_weights(
    data: CalibrationData, temperature: float, *, tol: float, max_iter: int
) -> Result:
    """Minimise the log-loss of w1 softmax(z/T) + w2 softmax(z) + w3/K over w."""
    parts = _label_probabilities(data, temperature)
    # Each row in units of its largest part: the logarithms of the units are constant.
    unit = parts.max(axis=1)
    share = np.exp(parts - unit[:, np.newaxis])
    w, loss, excess, n_iter = START, _loss(START, share, data.weight), np.inf, 0
    while n_iter < max_iter:
        n_iter += 1
        ratio = share / (share @ w)[:, np.newaxis]
        gain = ratio.T @ data.weight
        # The gain of moving all weight to one part bounds the distance to the minimum.
        excess = float(gain.max()) - 1
        if excess <= tol:
            break
        hessian = (ratio * data.weight[:, np.newaxis]).T @ ratio
        target = _minimise_on_simplex(hessian, -gain - hessian @ w)
        new, new_loss = _line_search(w, target, loss, share, data.weight)
        if new_loss >= loss:
            break
        w, loss = new, new_loss
    # Below 1e-12 the losses of two points no longer differ in float64.
    converged = excess <= max(tol, 1e-12)
    message = "converged" if converged else f"the gap is {excess:.1e} nats, not {tol}"
    total = loss - float(unit @ data.weight)
    return Result(w, total, n_iter, converged, message, excess)


def _loss(w: Array, share: Array, weight: Array) -> float:
    return -float(np.log(share @ w) @ weight)


def _line_search(
    w: Array, target: Array, loss: float, share: Array, weight: Array
) -> tuple[Array, float]:
    new, new_loss = w, loss
    length = 1.0
    # Where a row has weight on one part only, that part must not lose all of it.
    while length > 1e-10 and not new_loss < loss:
        new = (1 - length) * w + length * target
        with np.errstate(divide="ignore"):
            new_loss = _loss(new, share, weight)
        length /= 2
    return new, new_loss


def _minimise_on_simplex(hessian: Array, linear: Array) -> Array:
    """Minimise w' H w / 2 + linear' w over non-negative w with sum 1."""
    best, lowest = START, np.inf
    for size in (1, 2, 3):
        for support in combinations(range(3), size):
            w = _minimise_on_support(hessian, linear, list(support))
            value = float(w @ hessian @ w / 2 + linear @ w)
            if w.min() >= 0 and value < lowest:
                best, lowest = w, value
    return best


def _minimise_on_support(hessian: Array, linear: Array, support: list[int]) -> Array:
    """Solve for the positive weights, each in units that make the Hessian's diagonal 1.

    A row that one part alone explains makes that part's curvature as large as it likes.
    """
    size = len(support)
    unit = 1 / np.sqrt(np.diagonal(hessian)[support] + np.finfo(float).tiny)
    system = np.zeros((size + 1, size + 1))
    system[:size, :size] = hessian[np.ix_(support, support)] * np.outer(unit, unit)
    system[size, :size] = system[:size, size] = unit
    right = np.append(-linear[support] * unit, 1.0)
    w = np.zeros(3)
    w[support] = np.linalg.lstsq(system, right)[0][:size] * unit
    return w


def _label_probabilities(data: CalibrationData, temperature: float) -> Array:
    """Log-probabilities of the true class under the three parts, (n, 3)."""
    n_classes = data.n_classes

    def of_block(logits: NDArray, codes: NDArray, weight: Array) -> Array:
        columns = []
        for beta in (1 / temperature, 1.0):
            t, t_label = scaled_logits(logits, codes, beta)
            total = np.exp(t, out=t).sum(axis=1, dtype=np.float64)
            columns.append(t_label - np.log(total))
        columns.append(np.full(codes.shape[0], -log(n_classes)))
        return np.stack(columns, axis=1)

    return data.rows(of_block)
