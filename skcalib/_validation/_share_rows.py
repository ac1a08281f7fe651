"""Predictions beside labels that are shares of the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_consistent_length

from skcalib._validation._containers import column_names, is_dask
from skcalib._validation._mistakes import refuse_swapped
from skcalib._validation._proba import check_proba_rows
from skcalib._validation._shares import check_shares, classes_of_shares, is_shares
from skcalib._validation._weight import check_weight

Given = tuple[Any, Any, Any, Any, NDArray[np.intp] | None]


def rows_of_shares(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
    pos_label: object,
) -> Given:
    """Return labels, rows, names of the columns and weights for `check_proba`.

    Of labels that are shares there is one for each class with a share in a row, and
    the number of that row, among those of positive weight, comes last. Other labels
    are returned as they are, with None.
    """
    if is_dask(y_true) or not is_shares(y_true):
        return y_true, y_proba, labels, sample_weight, None
    refuse_swapped(y_true, y_proba, ("y_true", "y_proba"))
    if pos_label is not None:
        raise ValueError(
            f"pos_label={pos_label!r} names the class of one column, and y_true has a "
            "column for each class. Pass y_proba so too, in the same order."
        )
    check_consistent_length(y_true, y_proba)
    rows = check_proba_rows(y_proba)
    n_classes = rows.shape[1]
    classes_of_shares(y_true, n_classes, labels, column_names(y_proba), "labels")
    shares = check_shares("y_true", y_true, n_classes)
    weight = check_weight(sample_weight, shares[:, 0])
    row, codes = np.nonzero(shares * (weight > 0)[:, np.newaxis])
    weight, rows = weight[row] * shares[row, codes], rows[row]
    _, number = np.unique(row, return_inverse=True)
    return codes, rows, range(n_classes), weight, number


def mean_share(
    y: ArrayLike,
    predicted: NDArray[Any],
    classes: NDArray[Any],
    names: Sequence[Any] | None,
    sample_weight: ArrayLike | None,
) -> float:
    """Return the accuracy of predicted classes where labels are shares of them."""
    check_consistent_length(y, predicted)
    classes_of_shares(y, len(classes), classes, names)
    share = check_shares("y", y, len(classes))[predicted[:, np.newaxis] == classes]
    return float(np.average(share, weights=check_weight(sample_weight, share)))
