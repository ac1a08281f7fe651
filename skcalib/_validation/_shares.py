"""Labels that are shares: of the annotators of a row, how many chose each class.

A row with the shares s stands for rows of every class k with the weights s_k, of which
it has the expected loss. It is turned into these rows once, here: they are read from
the one that came, so that the logits take no more memory, and `CalibrationData.row`
says which belong together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from skcalib._validation._column_classes import (
    preview,
    refuse_twice,
    stand_for_others,
)
from skcalib._validation._containers import (
    SUM_TOLERANCE,
    column_names,
    readable_proba,
    refuse_masked,
)


def is_shares(y: Any) -> bool:
    """Whether labels have a column for each class."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return len(shape) == 2 and shape[1] > 1


def check_shares(name: str, y: Any, n_columns: int) -> NDArray[np.float64]:
    """Return shares that sum to 1, after checking every row."""
    refuse_masked(y, "this", name)
    shares: NDArray[np.float64] = check_array(
        readable_proba(y), dtype=np.float64, input_name=name
    )
    if shares.shape[1] != n_columns:
        raise ValueError(
            f"{name} has {shares.shape[1]} columns and there are {n_columns} classes. "
            "It needs a true class in each row, or the shares of all classes."
        )
    total = shares.sum(axis=1)
    bad = (shares < 0).any(axis=1) | (np.abs(total - 1) > SUM_TOLERANCE)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"Row {row} of {name} is {preview(shares[row])}, whose sum is "
            f"{total[row]:.6g}. A label is a single class, 1d, or the shares of all "
            "classes, at least 0 and of the sum 1: divide counts by their sum, which "
            "may be the sample_weight. Where several labels hold at once "
            "(multilabel), calibrate each by itself."
        )
    return shares / total[:, np.newaxis]


def classes_of_shares(
    y: Any,
    n_columns: int,
    classes: ArrayLike | None,
    names: Sequence[Any] | None,
    parameter: str = "classes",
) -> NDArray[Any]:
    """Return the class of each column, by default as the columns of `y` are named.

    `parameter` is what the caller calls `classes`.
    """
    own = column_names(y)
    if classes is None:
        classes = np.arange(n_columns) if own is None else own
    labels = np.asarray(classes).copy()
    if labels.shape != (n_columns,):
        raise ValueError(
            f"{parameter} has shape {labels.shape} but there are {n_columns} columns. "
            "It needs one entry per column, in their order."
        )
    refuse_twice(labels, parameter)
    known = labels.tolist()
    for given in (own, names):
        if given is not None and stand_for_others(given, known[-len(given) :], labels):
            raise ValueError(
                f"Columns are named {preview(given)}, and the classes are "
                f"{preview(known)}, in another order. Pass logits or probabilities, "
                "shares and classes in the same order; a single column is that of the "
                "last class."
            )
    return labels
