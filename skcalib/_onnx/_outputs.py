"""The outputs of a network, laid out as rows of scores."""

from typing import Any

import numpy as np

from skcalib._warnings import warn
from skcalib.exceptions import ModelFormatError

# A single column cannot show by its sum that it holds probabilities, so many rows do.
FEWEST_OF_ONE = 8


def has_columns(values: Any, n_rows: int) -> bool:
    """Whether values are (n,), (n, K) or (n, K, 1, 1)."""
    shape = tuple(values.shape)
    return bool(shape) and shape[0] == n_rows and all(d == 1 for d in shape[2:])


def as_columns(
    values: Any,
    n_rows: int,
    name: str,
    advice: str = "Name the output that holds the logits: output=...",
) -> Any:
    """Lay out (n,), (n, K) or (n, K, 1, 1) values as (n, columns).

    `values` is an array or a torch tensor; anything else than scores is refused.
    """
    if not has_columns(values, n_rows):
        raise ModelFormatError(
            f"{name} has shape {tuple(values.shape)} for {n_rows} rows of input; the "
            "scores of a classifier have a row a sample and a column a class. "
            f"{advice}"
        )
    is_array = isinstance(values, np.ndarray)
    if not (values.dtype.kind == "f" if is_array else values.is_floating_point()):
        raise ModelFormatError(
            f"{name} has type {values.dtype}; logits are floating-point."
        )
    return values.reshape(n_rows, -1)


def own_row(values: Any, n_rows: int) -> Any:
    """Give a tensor of scores of one row its axis back, which a module may squeeze."""
    if values.ndim < 2 and n_rows == 1 and values.shape not in ((0,), (1,)):
        return values.unsqueeze(0)
    return values


def are_proba(values: np.ndarray) -> bool:
    """Whether all rows are non-negative and sum to 1."""
    values = values.astype(np.float64)
    tolerance = 1e-3 * values.shape[1] ** 0.5
    # Forests add up leaf weights in single precision, which may end below zero.
    inside = bool((values >= -1e-6).all() and (values <= 1 + tolerance).all())
    if values.shape[1] == 1:
        is_seen = values.shape[0] >= FEWEST_OF_ONE
        return inside and is_seen and bool((values <= 1).all())
    return inside and bool((np.abs(values.sum(axis=1) - 1) <= tolerance).all())


def warn_of_proba(values: np.ndarray) -> None:
    """Warn where a network's results are probabilities in place of logits."""
    if are_proba(values):
        warn(
            "The network's results look like probabilities, not logits: between 0 and "
            "1, with rows that sum to 1. Remove the softmax or sigmoid at its end."
        )


def refuse_nan(logits: np.ndarray, rows: Any = None) -> None:
    """Raise a ValueError that names the first row of `logits` that is not finite.

    `rows` are the numbers of the rows where they are not all of X.
    """
    finite = np.isfinite(logits).all(axis=1)
    if finite.all():
        return
    row = int(np.argmin(finite))
    name = row if rows is None else int(rows[row])
    raise ValueError(
        f"The network gave {logits[row][~np.isfinite(logits[row])][0]} for row {name} "
        f"of X ({(~finite).sum()} of {len(finite)} rows are not finite). Check that X "
        "is scaled as in training and holds no NaN."
    )
