"""The range of valid inputs, and calibration inputs that leave it."""

import numpy as np


def check_range(feasible_range, inputs):
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


def _as_bound(bound):
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
