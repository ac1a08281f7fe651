"""Labels that exclude nothing: a column of zeros and ones for each, some not known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import is_stored
from skcalib._validation._column_classes import (
    preview,
    refuse_another_order,
    refuse_twice,
)
from skcalib._validation._containers import (
    column_names,
    column_on_host,
    missing,
    readable,
    refuse_masked,
    refuse_outside,
)
from skcalib._validation._proba import ROUNDING


def check_indicator(
    y: Any, shape: tuple[int, ...], name: str = "y"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return ``(is_set, is_known)`` of every row and label.

    `shape` is that of the scores: (n, L), L at least 2. -1, NaN, pandas' NA and masked
    entries are not known.
    """
    if isinstance(y, np.ma.MaskedArray):
        y = np.ma.filled(y.astype(np.float64), np.nan)
    y = y[:] if is_stored(y) else y
    values = y.toarray() if hasattr(y, "toarray") else np.asarray(column_on_host(y))
    if values.shape != shape:
        raise ValueError(
            f"{name} has shape {values.shape} and the scores have {shape}. Labels that "
            "may occur together need a matrix of 0 and 1 with a row a sample and a "
            "column a label, -1 or NaN where it is not known."
        )
    if values.dtype.kind == "O":
        values = np.where(missing(values), np.nan, values)
    values = values.astype(np.float64)
    is_set, is_known = values == 1, (values == 0) | (values == 1)
    wrong = ~is_known & ~np.isnan(values) & (values != -1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name} holds {values[row, column]:g} in row {row}, column {column}. It "
            "takes 1 where a label is set, 0 where it is not, -1 or NaN where it is "
            "not known."
        )
    if not is_known.any():
        raise ValueError(
            f"{name} holds no label that is known: all entries are -1 or NaN."
        )
    return is_set, is_known


def check_all_known(y: Any) -> NDArray[np.int64]:
    """Return an indicator matrix for a classifier, which knows every label."""
    shape = np.shape(y)
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(
            f"y has shape {shape}; a MultiLabelCalibration needs a column of 0 and 1 "
            "for each of several labels."
        )
    is_set, is_known = check_indicator(y, shape)
    if not is_known.all():
        row, column = np.argwhere(~is_known)[0]
        raise ValueError(
            f"Label {column} of row {row} of y is not known, and a classifier cannot "
            "be fitted on it. Fit the classifier first, and a MultiLabelCalibration on "
            "its scores."
        )
    return is_set.astype(np.int64)


def label_names(
    y: Any, X: Any, classes: Any, n_labels: int, parameter: str = "classes"
) -> NDArray[Any]:
    """Return the name of each label: as given, those of a data frame, or numbers."""
    if classes is not None:
        names = _one_each(classes)
        if names.shape != (n_labels,):
            raise ValueError(
                f"{parameter} has shape {names.shape} but there are {n_labels} labels. "
                "Name each label once, in the order of the columns."
            )
        refuse_twice(names, parameter, "label")
        for given in (y, X):
            refuse_another_order(column_names(given), names, parameter)
        return names
    of_y, of_X = column_names(y), column_names(X)
    if of_y and of_X and of_y != of_X and set(of_y) == set(of_X):
        raise ValueError(
            f"The columns of y are {preview(of_y)}, those of X are {preview(of_X)}. "
            "Pass both in the same order."
        )
    found = of_y or of_X
    return np.arange(n_labels) if found is None else _one_each(found)


def _one_each(names: Any) -> NDArray[Any]:
    """Return names as an array of one axis, also those of several levels, tuples."""
    if isinstance(names, list) and any(isinstance(name, tuple) for name in names):
        return np.fromiter(names, dtype=object, count=len(names))
    return np.asarray(names)


def check_label_proba(y_proba: Any) -> NDArray[np.float64]:
    """Return the (n, L) probability of each label, from whatever a classifier gives.

    That is a matrix, or a list with the (n, 2) probabilities of each label.
    """
    for part in y_proba if isinstance(y_proba, list) else [y_proba]:
        refuse_outside(readable(part), "y_proba")
        refuse_masked(part, "this", "y_proba")
    if isinstance(y_proba, list) and all(np.ndim(part) == 2 for part in y_proba):
        y_proba = np.column_stack([_second_column(part) for part in y_proba])
    proba = np.asarray(column_on_host(y_proba), dtype=np.float64)
    if proba.ndim != 2 or proba.shape[1] < 2 or not proba.size:
        raise ValueError(
            f"The probabilities of the labels have shape {proba.shape}. They need a "
            "row a sample and a column for each of several labels; a single label is "
            'an event: pass its column with pos_label="event".'
        )
    wrong = ~((proba >= 0) & (proba <= 1 + ROUNDING))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"The probabilities of the labels hold {proba[row, column]} in row {row}, "
            f"column {column}. They lie between 0 and 1; scores need a sigmoid first."
        )
    return np.minimum(proba, 1)


def _second_column(proba: Any) -> NDArray[Any]:
    if np.shape(proba)[1] != 2:
        raise ValueError(
            f"A classifier gives probabilities of shape {np.shape(proba)} for a label, "
            "which needs two columns: it was not set and set in the training data."
        )
    return np.asarray(proba)[:, 1]


def log_odds_of(proba: NDArray[Any], floor: float) -> NDArray[Any]:
    """Return ``log(p / (1 - p))``, neither of which counts as less than `floor`."""
    return np.log(np.maximum(proba, floor)) - np.log(np.maximum(1 - proba, floor))
