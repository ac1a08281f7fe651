"""What comes beside the rows, such as the group of each, a market or a device."""

from bisect import bisect_left
from datetime import date
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import has_fit_parameter

from skcalib._validation._containers import (
    column_names,
    column_on_host,
    in_one_unit,
    readable,
    refuse_dates,
    refuse_masked,
    refuse_missing,
    refuse_outside,
)
from skcalib._warnings import warn


def check_groups(groups: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Return the group of each row as an array, dates and durations in one unit."""
    array = _local_dates(np.asarray(column_on_host(groups)))
    if array.shape != (n_rows,):
        raise ValueError(
            f"groups has shape {array.shape}; it needs one entry for each of the "
            f"{n_rows} rows."
        )
    if array.dtype.kind in "fmM" and not np.isfinite(array).all():
        row = int((~np.isfinite(array)).argmax())
        raise ValueError(f"groups holds {array[row]} in row {row}; it needs names.")
    if array.dtype.kind in "OUS":
        # NumPy makes text of what stands beside text in a list.
        names: Any = groups if isinstance(groups, list | tuple) else array.tolist()
        try:
            # Twice, so that one alone is compared as well.
            sorted([*set(names)] * 2)
        except TypeError as error:
            kinds = sorted({type(name).__name__ for name in names})
            if "NoneType" not in kinds:
                refuse_missing(array, "groups", "names")
            raise TypeError(
                f"groups holds entries of the types {', '.join(kinds)}, which have no "
                "order. Give every group a name of one type, such as str."
            ) from error
        refuse_missing(array, "groups", "names")
    return array


def _local_dates(names: NDArray[Any]) -> NDArray[Any]:
    """Return dates and durations in one unit, those of Python and pandas too.

    Dates in a time zone, which NumPy lacks, stay objects: these are equal in any unit.
    """
    is_objects = names.dtype.kind == "O" and names.size > 0
    if is_objects and all(map(_is_local_date, names.flat)):
        names = names.astype("M8[us]")
    return in_one_unit(names)


def _is_local_date(name: Any) -> bool:
    is_naive = isinstance(name, date) and getattr(name, "tzinfo", None) is None
    return is_naive and name == name  # NaT is none.


def place_of_group(name: Any, known: list[Any]) -> int:
    """Return the place of a name among those of `fit`, which are sorted, or -1."""
    try:
        place = bisect_left(known, name)
    except (TypeError, ValueError):  # It is of another type.
        return -1
    return place if place < len(known) and known[place] == name else -1


def warn_of_namesakes(unknown: list[Any], known: list[Any], *, any_seen: bool) -> None:
    """Warn if groups of a prediction are named by another type than those of `fit`.

    Of names that were not seen, those are told that read as one that was; and if none
    was seen, those of another type.
    """
    others = [name for name in unknown if known and not _is_of_kind(name, known[0])]
    if not others:
        return
    by_text = {_text(name): name for name in known}
    alike = [name for name in others if _text(name) in by_text]
    if alike or not any_seen:
        name = (alike or others)[0]
        seen = by_text.get(_text(name), known[0])
        warn(
            f"The group {name!r} was not seen in fit, which saw {seen!r}, and gets the "
            f"calibration of the whole. Name groups as in fit, by values of the type "
            f"{type(seen).__name__}."
        )


def _is_of_kind(name: Any, other: Any) -> bool:
    """Whether a name is of the type of another, in a time zone where that one is."""
    return isinstance(name, type(other)) and (
        _is_local_date(name) == _is_local_date(other)
    )


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def plain_names(names: ArrayLike) -> list[Any]:
    """Return names that JSON knows: text, numbers, and all else, as dates, as text."""
    array = _local_dates(np.asarray(names))
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "M":
        texts: list[str] = array.astype(str).tolist()
        return [t.removesuffix(".000000").removesuffix("T00:00:00") for t in texts]
    listed: list[Any] = array.tolist()
    if array.dtype.kind in "biufU":
        return listed
    return [name if isinstance(name, str | int) else str(name) for name in listed]


def check_both_times(owner: object, name: str, value: Any, *, in_fit: bool) -> None:
    """Refuse what came beside the rows of `fit` only, or of a prediction only."""
    if (value is not None) != in_fit:
        fitted, came = ("with", "without") if in_fit else ("without", "with")
        raise ValueError(
            f"{type(owner).__name__} was fitted {fitted} {name} and is asked to "
            f"predict {came}. Pass {name}= both times, or never."
        )


def takes_groups(calibrator: Any) -> bool:
    """Whether its fit draws folds and takes the groups that stay together in them.

    A search of scikit-learn hands them on to a splitter that takes them.
    """
    if is_search(calibrator):
        return hasattr(calibrator.cv, "set_split_request")
    draws_folds = getattr(calibrator, "draws_folds", True)
    return bool(draws_folds and has_fit_parameter(calibrator, "groups"))


def is_search(calibrator: Any) -> bool:
    """Whether it is a `GridSearchCV` or its like, of scikit-learn or elsewhere."""
    return {"estimator", "scoring", "refit"} <= vars(calibrator).keys()


def chosen(calibrator: Any) -> Any:
    """Return the calibrator that a search of scikit-learn has chosen."""
    return calibrator.best_estimator_ if is_search(calibrator) else calibrator


def check_search(calibrator: Any) -> None:
    """Refuse a search of scikit-learn that would choose nothing."""
    if not is_search(calibrator):
        return
    name = type(calibrator).__name__
    if calibrator.scoring is None:
        raise ValueError(
            f"{name} without scoring compares accuracy, which calibration seldom "
            'changes. Pass scoring="neg_log_loss", or "accuracy" if you mean it.'
        )
    if not calibrator.refit:
        raise ValueError(
            f"{name} with refit={calibrator.refit!r} keeps no calibrator. Leave refit "
            "at True, or name the score to choose by."
        )


def predicts_by_groups(calibrator: Any) -> bool:
    """Whether the predictions of a calibrator take groups as its `fit` does."""
    methods = calibrator.fit, calibrator.predict_proba
    return all("groups" in signature(method).parameters for method in methods)


def refuse_needed_groups(owner: object, calibrator: Any) -> None:
    """Refuse groups for a calibrator whose predictions need them too, and get none."""
    if predicts_by_groups(calibrator):
        name, of = type(owner).__name__, type(calibrator).__name__
        raise ValueError(
            f"{name} hands no groups to predictions, which {of} needs if fit gets "
            f"them. Fit {of} beside it, to the logits of ClassifierLogits, or pass no "
            "groups."
        )


def check_features(
    owner: str, features: Any, name: str = "features", **options: Any
) -> NDArray[Any]:
    """Return what is known of each row as numbers; `options` are of `check_array`."""
    refuse_masked(features, owner, name)
    refuse_outside(features, name)
    refuse_dates(features, name)
    try:
        array: NDArray[Any] = check_array(
            readable(features), input_name=name, **options
        )
    except (TypeError, ValueError):
        _refuse_texts(features, name)
        raise
    return array


def _refuse_texts(features: Any, name: str) -> None:
    """Refuse a data frame that has a column of no numbers, by its name."""
    names = column_names(features) if hasattr(features, "iloc") else None
    for column in names or []:
        try:
            check_array(
                features[column].to_frame(),
                dtype=np.float64,
                ensure_all_finite=False,
                ensure_min_samples=0,
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The column {column!r} of {name} holds no numbers: {error}. Encode "
                "categories, such as by OrdinalEncoder, or leave the column out."
            ) from error


def check_same_columns(names: list[Any] | None, seen: list[Any] | None) -> None:
    """Refuse features of the rows with columns of other names than in `fit`."""
    if names and seen and names != seen:
        raise ValueError(
            f"The columns of features are {names}, and were {seen} in fit. Pass the "
            "same columns in the same order."
        )


def check_width(array: NDArray[Any], n_columns: int | None) -> None:
    """Refuse features of the rows with other columns than `fit` saw, if any."""
    if n_columns is not None and array.shape[1] != n_columns:
        raise ValueError(
            f"features has {array.shape[1]} columns, but {n_columns} were seen in fit."
        )
