"""The range of valid inputs, and where a perturbation starts within it.

Zeros, noise, an array, or the data-driven start of Theorem 3.2 of Tang, Chen & Ho
("Neural Clamping", TMLR 2024), which moves every coordinate of the inputs by all the
room that is left towards one end of the range. Deviations: on natural images some row
fills the range at every coordinate, and no room is left; so the 1 % quantiles stand for
the extremes. And a step by the whole room is far from what the network knows; so it is
at most 1 % of the range. Without a range, that of the quantiles takes its place. The
start "theorem" does without the first two.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skcalib._networks._inputs import Inputs
from skcalib._numerics import is_whole, log_softmax_
from skcalib._warnings import warn
from skcalib.clamping._objective import Objective
from skcalib.clamping._perturbation import Full
from skcalib.clamping._problem import Problem, sample_rows
from skcalib.clamping._space import in_space

# Standard deviation of the random start, that of the published code.
RANDOM_SCALE = 1e-3
# The share of the values at a coordinate that a data-driven start may push out of the
# range, and its largest size as a share of that range.
QUANTILE = 0.01
LARGEST_SHARE = 0.01
# Numbers of X that are sorted at a time, and rows that are looked at.
BLOCK_ELEMENTS = 1 << 24
MAX_ROWS = 20_000


def check_range(feasible_range: Any, inputs: Inputs) -> None:
    """Refuse a range that is none, or that some calibration input leaves."""
    if feasible_range is None:
        return
    if len(feasible_range) != 2:
        raise ValueError(
            f"feasible_range has {len(feasible_range)} entries; it needs two, "
            "(low, high)."
        )
    bounds = [_as_bound(bound) for bound in feasible_range]
    try:
        low, high = (np.broadcast_to(bound, inputs.shape) for bound in bounds)
    except ValueError as error:
        raise ValueError(
            f"feasible_range has bounds of shapes {bounds[0].shape} and "
            f"{bounds[1].shape}, which do not fit inputs of shape {inputs.shape}."
        ) from error
    if not (low < high).all():
        raise ValueError(
            "feasible_range is empty somewhere: every lower bound has to lie below the "
            "upper one."
        )
    # In the type the network sees, so that rounding puts nothing outside.
    start = 0
    for values in inputs.values():
        block = values.cpu().numpy()
        outside = (block < low.astype(block.dtype)) | (block > high.astype(block.dtype))
        if outside.any():
            row = int(outside.reshape(block.shape[0], -1).any(axis=1).argmax())
            where = np.unravel_index(int(outside[row].argmax()), inputs.shape)
            raise ValueError(
                f"Row {start + row} of X holds {block[row][where]:.6g}, outside "
                f"feasible_range = ({low[where]:.6g}, {high[where]:.6g}). The range "
                "has to hold all calibration inputs, in the scale the network takes."
            )
        start += block.shape[0]


def _as_bound(bound: Any) -> NDArray[np.float64]:
    try:
        values = np.asarray(bound, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if np.isnan(values).any():
        raise ValueError(
            f"feasible_range has the bound {bound!r}; both bounds have to be numbers "
            "or arrays of them, infinite where there is none."
        )
    return values


def first_perturbation(
    start: Any,
    problem: Problem,
    feasible_range: Any,
    random_state: np.random.RandomState,
) -> NDArray[np.float64]:
    """Return the perturbation to start from, float64 of an input's shape."""
    shape = problem.shape
    if isinstance(start, str):
        if start == "random":
            noise = RANDOM_SCALE * random_state.standard_normal(shape)
            basis = in_space(Full(shape), problem.scale)
            return basis.at(noise.ravel()).change.delta
        if start in ("data_driven", "theorem"):
            capped = start == "data_driven"
            objective, weight = problem.objective, problem.weight
            return data_driven(objective, feasible_range, capped, weight)
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


def data_driven(
    objective: Objective,
    feasible_range: Any,
    capped: bool = True,
    weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    r"""Return the start of Theorem 3.2, with quantiles in the place of extremes.

    With g the gradient of the summed output entropy by the inputs, the coordinate
    moves by :math:`l - \alpha` against the range's lower end where g is negative and
    by :math:`\beta - \mu` towards the upper end where it is positive. What is not
    `capped` is the theorem to the letter: extremes, and all of the room.
    """
    quantile = QUANTILE if capped else 0.0
    low, high = coordinate_quantiles(objective.inputs, quantile, weight)
    bottom, top = _range(feasible_range, low, high)
    largest = (LARGEST_SHARE if capped else 1.0) * (top - bottom)
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


def _range(
    feasible_range: Any, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[Any, Any]:
    if feasible_range is None:
        return low.min(), high.max()
    bottom, top = (np.asarray(bound, dtype=np.float64) for bound in feasible_range)
    # An end that is none leaves that of the inputs.
    bottom = np.where(np.isfinite(bottom), bottom, low.min())
    return bottom, np.where(np.isfinite(top), top, high.max())


def coordinate_quantiles(
    inputs: Inputs,
    quantile: float = QUANTILE,
    weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the lower and upper quantile of the inputs, coordinate by coordinate.

    The quantile 0 is the smallest and the largest value, of all rows that count.
    """
    weight = np.ones(inputs.n_samples) if weight is None else weight
    rows = _repeated(weight) if quantile else np.flatnonzero(weight)
    n_entries = int(np.prod(inputs.shape))
    width = max(1, BLOCK_ELEMENTS // rows.size)
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
            block, quantile, axis=0, method="lower"
        )
        found[1, start : start + width] = np.quantile(
            block, 1 - quantile, axis=0, method="higher"
        )
    return found.reshape(2, *inputs.shape)


def _repeated(weight: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return rows that stand for all, each repeated as its weight says."""
    n_rows = weight.sum() if is_whole(weight) else np.count_nonzero(weight)
    n_rows = min(int(n_rows), MAX_ROWS)
    rows, shares = sample_rows(weight, n_rows)
    return np.repeat(rows, np.rint(shares * n_rows).astype(np.intp))


def entropy_gradient(objective: Objective) -> NDArray[np.float64]:
    """Return the gradient by the inputs of the output entropy, summed over rows."""
    total, network = torch.zeros(()), objective.network
    options: dict[str, Any] = {"dtype": network.dtype, "device": network.device}
    for index, x in objective.inputs.batches():
        leaf = torch.zeros(objective.inputs.shape, **options).requires_grad_()
        with torch.enable_grad():
            logits = network(objective.shift(x, leaf))
        scores = logits.detach().double().cpu().numpy()
        by_logits = torch.as_tensor(_entropy_slope(scores)).to(logits)
        by_logits *= objective.weight_of_mean_one[index][:, None].to(logits)
        (part,) = torch.autograd.grad(logits, leaf, by_logits)
        total = total + part.double()
    return total.cpu().numpy()


def _entropy_slope(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradient of each row's entropy by its scores."""
    log_proba = log_softmax_(scores)
    proba = np.exp(log_proba)
    entropy = -(proba * log_proba).sum(axis=1, keepdims=True)
    return -proba * (log_proba + entropy)
