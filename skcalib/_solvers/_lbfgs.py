"""L-BFGS for objectives of which every evaluation is a pass over the data.

Passes are what counts, so nothing is evaluated that is known already: the first value
and gradient, a good first step and the curvature can all be handed in. The best point
is kept whatever ends the search, an interrupt included.
"""

from collections import deque

import numpy as np

from skcalib._solvers._result import Result

MEMORY = 10
SUFFICIENT = 1e-4
CONVERGED = "converged"
INTERRUPTED = "it was interrupted from the keyboard"
EXHAUSTED = "max_iter was reached"


def minimize(
    evaluate,
    x,
    *,
    precondition,
    max_evaluations,
    tol,
    first=None,
    step=None,
    last_limit=np.inf,
    report=None,
):
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
    search = _Search(evaluate, max_evaluations, report)
    pairs = deque(maxlen=MEMORY)
    value, gradient = np.inf, np.zeros_like(x)
    message = EXHAUSTED
    try:
        value, gradient = first if first is not None else search(x)
        while True:
            if step is None or not step @ gradient < 0:
                step = -_inverse_times(gradient, pairs, precondition)
            if not -(step @ gradient) / 2 > tol:
                message = CONVERGED
                break
            found = _descend(search, x, value, gradient, step, last_limit)
            if found is None:
                # Without passes left nothing is known; else the rounding of the loss
                # is all that remains.
                message = EXHAUSTED if search.exhausted else CONVERGED
                break
            change, new_value, new_gradient = found
            _remember(pairs, change, new_gradient - gradient)
            x, value, gradient, step = x + change, new_value, new_gradient, None
    except KeyboardInterrupt:
        message = INTERRUPTED
    norm = float(np.linalg.norm(gradient))
    done = message == CONVERGED
    return Result(x, float(value), search.count, done, message, norm)


class _Search:
    """Counts the evaluations and reports the best value."""

    def __init__(self, evaluate, limit, report):
        self._evaluate = evaluate
        self._limit = limit
        self._report = report
        self.count = 0
        self._best = np.inf

    @property
    def exhausted(self):
        return self.count >= self._limit

    def __call__(self, x):
        self.count += 1
        value, gradient = self._evaluate(x)
        self._best = min(self._best, value)
        if self._report is not None:
            self._report(self._best)
        return value, gradient


def _descend(search, x, value, gradient, step, last_limit):
    """Shorten the step until the value falls enough; None where it never does."""
    slope = step @ gradient
    length = min(1.0, last_limit / max(abs(step[-1]), 1e-300))
    while not search.exhausted and length > 1e-6:
        trial = length * step
        new_value, new_gradient = search(x + trial)
        usable = np.isfinite(new_gradient).all()
        if usable and new_value <= value + SUFFICIENT * length * slope:
            return trial, new_value, new_gradient
        # The minimum of the parabola through what is known, within limits.
        bend = new_value - value - length * slope
        best = -slope * length / (2 * bend) if np.isfinite(bend) else 0.1
        length *= float(np.clip(best, 0.1, 0.5))
    return None


def _remember(pairs, change, difference):
    """Keep a pair that shows positive curvature."""
    product = change @ difference
    if product > 1e-10 * np.linalg.norm(change) * np.linalg.norm(difference):
        pairs.append((change, difference, product))


def _inverse_times(gradient, pairs, precondition):
    """Multiply by the inverse Hessian that the pairs and `precondition` give."""
    direction = gradient.copy()
    lengths = []
    for change, difference, product in reversed(pairs):
        length = (change @ direction) / product
        direction -= length * difference
        lengths.append(length)
    scale = 1.0
    if pairs:
        _, difference, product = pairs[-1]
        scale = product / (difference @ precondition(difference))
    direction = scale * precondition(direction)
    for (change, difference, product), length in zip(
        pairs, reversed(lengths), strict=True
    ):
        direction += (length - (difference @ direction) / product) * change
    return direction
