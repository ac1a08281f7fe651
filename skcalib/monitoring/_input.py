"""Checks of the rows that a monitor is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skcalib._validation import (
    both_of_bool,
    check_groups,
    check_proba,
    check_proba_rows,
    column_names,
    column_on_host,
    encode_labels,
    is_column,
    plain_names,
    preview,
    readable,
    stand_for_others,
)


def check_begun(monitor: Any) -> None:
    """Refuse to tell of rows where there were none."""
    if not hasattr(monitor, "classes_"):
        raise NotFittedError("The monitor has seen no rows yet; call update first.")


def check_position(monitor: Any, position: int | None) -> None:
    """Refuse rows that come twice, or too early."""
    n_rows = getattr(monitor, "_own_rows", 0)
    if position is not None and position != n_rows:
        what = "came before" if position < n_rows else "leave out some"
        raise ValueError(
            f"The rows begin at position {position}, but {n_rows} rows were added: "
            f"they {what}. Rows have to come once, in order, from {n_rows} on."
        )


def is_empty(y: ArrayLike, proba: ArrayLike) -> bool:
    """Whether there are no rows, as after an hour without traffic."""
    return np.shape(y)[:1] == np.shape(proba)[:1] == (0,)


def as_batch(y: Any, proba: Any, groups: Any) -> tuple[Any, Any, Any]:
    """Return a single row as a batch of one, and a batch as it is."""
    if np.ndim(y) > 0:
        return y, proba, groups
    y, proba = (np.asarray(readable(part))[np.newaxis] for part in (y, proba))
    return y, proba, None if groups is None else np.asarray(groups)[np.newaxis]


def check_rows(
    monitor: Any, y: ArrayLike, proba: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """Return column numbers, rows of probabilities and the class of each column."""
    labels = known_classes(monitor)
    rows = check_proba_rows(proba)
    if labels is not None and len(labels) != rows.shape[1]:
        raise ValueError(
            f"proba has {rows.shape[1]} columns, but the monitor watches "
            f"{len(labels)} classes. Probabilities of other classes need a monitor of "
            "their own."
        )
    if labels is not None:
        check_order(column_names(proba), labels)
    if labels is None:
        name, names = type(monitor).__name__, column_names(proba)
        seen = both_of_bool(np.asarray(column_on_host(y))) if is_column(proba) else y
        labels, _ = encode_labels(name, seen, rows.shape[1], None, names)
    try:
        codes, rows, _ = check_proba(y, rows if is_column(proba) else proba, labels)
    except ValueError:
        # Of labels that are unknown it is told by the name of the parameter.
        encode_labels(type(monitor).__name__, y, rows.shape[1], labels)
        raise
    return codes, rows, np.asarray(labels)


def known_classes(monitor: Any, default: Any = None) -> Any:
    """Return the class of each column as far as the monitor was told, or `default`."""
    if hasattr(monitor, "classes_"):
        return monitor.classes_
    if monitor.classes is not None:
        return _listed(monitor.classes)
    if getattr(monitor, "calibrator", None) is not None:
        check_is_fitted(monitor.calibrator)
        return monitor.calibrator.classes_
    return default


def _listed(classes: Any) -> NDArray[Any]:
    listed = np.asarray(classes)
    if listed.ndim != 1:
        raise ValueError(
            f"classes has shape {listed.shape}, and came as {type(classes).__name__}. "
            "It needs one entry a class, in the order of the columns."
        )
    return listed


def check_map(calibrator: Any) -> None:
    """Refuse a calibrator that is not fitted, or maps more than logits alone."""
    if calibrator is None:
        return
    check_is_fitted(calibrator)
    if not hasattr(calibrator, "calibration_map"):
        raise TypeError(
            f"{type(calibrator).__name__} has no map from logits alone, by which a "
            "monitor knows its calibrator and recalibrates it. Leave it out: "
            "CalibrationMonitor(classes=calibrator.classes_) watches what it serves."
        )


def check_order(names: list[Any] | None, classes: Any) -> None:
    """Refuse columns that are named after the classes in another order."""
    known = np.asarray(classes).tolist()
    if names is not None and stand_for_others(names, known[-len(names) :], classes):
        what = "in this order" if len(names) > 1 else "a single column for the last"
        raise ValueError(
            f"The columns of proba are named {preview(names)}, but the monitor watches "
            f"{preview(known)}, {what}. Pass them so."
        )


def number_watched(
    monitor: Any, groups: ArrayLike | None, n_rows: int
) -> NDArray[np.intp]:
    """Return the number of the group of each row, from 1 on; 0 without groups."""
    if (groups is None) != (monitor._settings["groups"] is None):
        raise ValueError(
            "The monitor was made without groups; name them first: "
            "CalibrationMonitor(groups=[...])."
            if monitor._settings["groups"] is None
            else "groups is missing: the monitor needs the group of each row."
        )
    if groups is None:
        return np.zeros(n_rows, np.intp)
    number = {name: k for k, name in enumerate(group_names(monitor), start=1)}
    given = plain_names(check_groups(groups, n_rows))
    unknown = [row for row, name in enumerate(given) if name not in number]
    if unknown:
        raise ValueError(
            f"Row {unknown[0]} is of group {given[unknown[0]]!r}, which is none of "
            f"{list(number)}. The groups are fixed when the monitor is made."
        )
    return np.array([number[name] for name in given], dtype=np.intp)


def group_names(monitor: Any) -> list[Any]:
    """Return the names of the groups of a monitor that has some."""
    names = plain_names(readable(monitor._settings["groups"]))
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"groups={names} needs names, each of them once.")
    return names
