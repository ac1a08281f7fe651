"""Where a perturbation starts: zeros, noise, an array, or from the data."""

import numpy as np
import torch

from skcalib._numerics import log_softmax_
from skcalib._warnings import warn

# Standard deviation of the random start, that of the published code.
RANDOM_SCALE = 1e-3
# The share of the values at a coordinate that a data-driven start may push out of the
# range, and its largest size as a share of that range.
QUANTILE = 0.01
LARGEST_SHARE = 0.01
# Numbers of X that are sorted at a time, and rows that are looked at.
BLOCK_ELEMENTS = 1 << 24
MAX_ROWS = 20_000


def first_perturbation(start, objective, feasible_range, random_state):
    """Return the perturbation to start from, float64 of an input's shape."""
    shape = objective.inputs.shape
    if isinstance(start, str):
        if start == "random":
            return RANDOM_SCALE * random_state.standard_normal(shape)
        if start == "data_driven":
            return data_driven(objective, feasible_range)
        return np.zeros(shape)
    delta = np.asarray(start, dtype=np.float64)
    if delta.shape != tuple(shape):
        raise ValueError(
            f"start has shape {delta.shape} but one input has shape {tuple(shape)}. "
            "It needs one value for each entry of an input, without the batch axis."
        )
    if not np.isfinite(delta).all():
        raise ValueError("start holds NaN or infinity; it needs finite values.")
    return delta


def data_driven(objective, feasible_range):
    r"""Return the start of Theorem 3.2, with quantiles in the place of extremes.

    With g the gradient of the summed output entropy by the inputs, the coordinate
    moves by :math:`l - \alpha` against the range's lower end where g is negative and
    by :math:`\beta - \mu` towards the upper end where it is positive.
    """
    low, high = coordinate_quantiles(objective.inputs)
    bottom, top = _range(feasible_range, low, high)
    largest = LARGEST_SHARE * (top - bottom)
    down = np.clip(low - bottom, 0, largest)
    up = np.clip(top - high, 0, largest)
    slope = entropy_gradient(objective)
    delta = np.where(slope > 0, up, np.where(slope < 0, -down, 0.0))
    if not delta.any():
        warn(
            "The data-driven start is zero everywhere: the inputs reach both ends of "
            "their range at every coordinate. start='zeros' does the same for less."
        )
    return delta


def _range(feasible_range, low, high):
    if feasible_range is None:
        return low.min(), high.max()
    return tuple(np.asarray(bound, dtype=np.float64) for bound in feasible_range)


def coordinate_quantiles(inputs):
    """Return the lower and upper quantile of the inputs, coordinate by coordinate."""
    n_rows = min(inputs.n_samples, MAX_ROWS)
    rows = np.linspace(0, inputs.n_samples - 1, n_rows).astype(np.intp)
    n_entries = int(np.prod(inputs.shape))
    width = max(1, BLOCK_ELEMENTS // n_rows)
    found = np.empty((2, n_entries))
    for start in range(0, n_entries, width):
        block = np.concatenate(
            [
                x.reshape(x.shape[0], -1)[:, start : start + width].cpu().numpy()
                for x in inputs.values(rows)
            ]
        )
        # Values that occur, so that a coordinate at its bound stays there.
        found[0, start : start + width] = np.quantile(
            block, QUANTILE, axis=0, method="lower"
        )
        found[1, start : start + width] = np.quantile(
            block, 1 - QUANTILE, axis=0, method="higher"
        )
    return found.reshape(2, *inputs.shape)


def entropy_gradient(objective):
    """Return the gradient by the inputs of the output entropy, summed over rows."""
    total, network = 0, objective.network
    options = {"dtype": network.dtype, "device": network.device}
    for _, x in objective.inputs.batches():
        leaf = torch.zeros(objective.inputs.shape, **options).requires_grad_()
        with torch.enable_grad():
            logits = network(objective.shift(x, leaf))
        scores = logits.detach().double().cpu().numpy()
        by_logits = torch.as_tensor(_entropy_slope(scores)).to(logits)
        (part,) = torch.autograd.grad(logits, leaf, by_logits)
        total = total + part.double()
    return total.cpu().numpy()


def _entropy_slope(scores):
    """Return the gradient of each row's entropy by its scores."""
    log_proba = log_softmax_(scores)
    proba = np.exp(log_proba)
    entropy = -(proba * log_proba).sum(axis=1, keepdims=True)
    return -proba * (log_proba + entropy)
