"""Checks of the logits, labels and weights that reach a calibrator.

An estimator is named in the errors; a text does for one where no columns are kept.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from skcalib._blocks import (
    CalibrationData,
    RepeatedSource,
    Source,
    is_stored,
    map_blocks,
    on_host,
    open_source,
    slices_of,
)
from skcalib._numerics import distinct, first_not_finite
from skcalib._validation._column_classes import (
    classes_of_columns,
    columns_of_labels,
    preview,
    refuse_another_order,
    refuse_index,
    stand_for_others,
)
from skcalib._validation._containers import (
    column_names,
    column_on_host,
    in_one_unit,
    is_dask,
    is_standard,
    is_tensor,
    readable,
    refuse_dates,
    refuse_masked,
    refuse_missing,
)
from skcalib._validation._mistakes import refuse_swapped, warn_of_mistakes
from skcalib._validation._shares import check_shares, classes_of_shares, is_shares
from skcalib._validation._weight import check_weight, counted
from skcalib._warnings import warn
from skcalib.exceptions import AbsentClassWarning

# So many absent classes are named.
SHOWN = 10
# So many rows show that a column is an index of them.
INDEX_ROWS = 10_000


def name_of(estimator: Any) -> str:
    return estimator if isinstance(estimator, str) else type(estimator).__name__


def check_logits(estimator: Any, X: Any, *, reset: bool = True) -> Source:
    """Return the block source of `X`, after its shape, type and values are checked.

    `X` is (n, K), or (n,) and (n, 1) with the log-odds of the second class. An
    estimator keeps what its columns are called, or is held to it unless `reset`.
    """
    if is_dask(X):
        from skcalib._validation._dask import check_dask_logits

        return check_dask_logits(estimator, X, reset=reset)
    if is_tensor(X):
        from skcalib._validation._tensor import check_tensor_logits

        return check_tensor_logits(estimator, X, reset=reset)
    name = name_of(estimator)
    refuse_masked(X, name)
    like, X = X if is_standard(X) else None, readable(X)
    names = column_names(X)
    if not isinstance(X, np.memmap) and not is_stored(X):
        refuse_dates(X, "X")
        converted = check_array(
            X,
            dtype=[np.float64, np.float32, np.float16],
            ensure_all_finite=False,
            ensure_2d=not _is_column(X),
            estimator=name,
            input_name="X",
        )
    else:
        if X.ndim not in (1, 2) or X.shape[0] == 0 or X.dtype.kind not in "fiub":
            raise ValueError(
                f"X is a {_kind_of(X)} of shape {X.shape} and dtype {X.dtype}; {name} "
                "needs numbers of shape (n_samples, n_classes), n_samples > 0."
            )
        is_column = X.ndim == 1 or X.shape[1] == 1
        of_library = is_stored(X) and not isinstance(X, Source)
        converted = X[:] if of_library and is_column else X
    if name is not estimator:
        columns = X if converted.ndim == 2 else converted.reshape(-1, 1)
        # Sets or checks n_features_in_ and feature_names_in_.
        validate_data(estimator, columns, reset=reset, skip_check_array=True)
        check_column_names(estimator, names, reset=reset)
    source = open_source(converted, like)
    check_finite(source, name)
    return source


def _is_column(X: Any) -> bool:
    """Whether these are one number a sample, and no rows."""
    if isinstance(X, (list, tuple)):
        return len(X) > 0 and np.ndim(X[0]) == 0
    # Arrays of Arrow have no shape.
    return len(X.shape if hasattr(X, "shape") else np.asarray(X).shape) == 1


def _kind_of(X: Any) -> str:
    if isinstance(X, np.memmap):
        return "memory-mapped array"
    return f"{type(X).__name__} of {type(X).__module__.partition('.')[0]}"


def check_column_names(estimator: Any, names: list[Any] | None, *, reset: bool) -> None:
    """Refuse columns in another order than in fit, also where that saw no names.

    scikit-learn checks names that are text against those seen in fit.
    """
    if not reset and names and hasattr(estimator, "classes_"):
        told = estimator.classes_.tolist()[-len(names) :]
        if stand_for_others(names, told, estimator.classes_):
            raise ValueError(
                f"The columns of X are named {preview(names)}, those seen in fit are "
                f"of {preview(told)}. Pass them in the same order."
            )
    if names is None or all(isinstance(name, str) for name in names):
        names = None
    if reset:
        estimator._numbered_columns = names
    elif names and getattr(estimator, "_numbered_columns", None) not in (None, names):
        raise ValueError(
            f"The columns of X are {preview(names)}, those seen in fit are "
            f"{preview(estimator._numbered_columns)}. Pass them in the same order."
        )


def check_finite(source: Source, name: str) -> None:
    """Refuse NaN and infinity, naming the first row that holds one."""

    def first_bad_row(rows: slice) -> tuple[int, Any] | None:
        bad = first_not_finite(source[rows])
        return None if bad is None else (rows.start + bad[0], on_host(bad[1]))

    for found in map_blocks(first_bad_row, slices_of(source)):
        if found is not None:
            refuse_not_finite(name, f"row {found[0]}", found[1])


def refuse_not_finite(name: str, place: str, value: Any) -> NoReturn:
    """Refuse NaN or infinity at a place."""
    kind = "NaN" if np.isnan(value) else "infinity"
    raise ValueError(
        f"Input X contains {kind}: {place} holds {value}. {name} needs finite logits; "
        "remove or mend such rows, and pass probabilities through "
        "skcalib.logits_from_proba."
    )


def check_out(out: Any, source: Source) -> None:
    """Refuse an `out` that does not hold what is computed of every row."""
    check_floats(out)
    if out.shape != source.shape:
        raise ValueError(
            f"out has shape {out.shape}; the probabilities have {source.shape}."
        )


def check_floats(out: Any) -> None:
    """Refuse an `out` that is no array of real numbers."""
    if not isinstance(out, np.ndarray) or out.dtype.kind != "f":
        kind = f"an array of {out.dtype}" if hasattr(out, "dtype") else type(out)
        raise TypeError(f"out is {kind}; it must be a NumPy array of floats.")


def encode_labels(
    estimator: Any,
    y: Any,
    n_columns: int,
    classes: ArrayLike | None,
    names: Sequence[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return ``(classes_, codes)``: the label of a column, the column of a row.

    Without `classes`, the `names` of the columns decide where they are labels.
    """
    name = name_of(estimator)
    y = one_column(y)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(
            f"Input y contains NaN or infinity. {name} needs class labels."
        )
    refuse_continuous(y)
    if classes is None and names is None and y.dtype.kind in "iu":
        extremes = np.array([y.min(), y.max()])
        if _are_column_numbers(extremes, n_columns):  # Spares many rows a copy.
            return _numbered(extremes, n_columns), y.astype(np.intp, copy=False)
    present, codes = distinct(y)
    if classes is None and names is not None:
        classes = classes_of_columns(present, names)
    if classes is not None:
        return _encode_named(name, present, codes, n_columns, classes)
    if _are_column_numbers(present, n_columns):
        return _numbered(present, n_columns), y.astype(np.intp, copy=False)
    if present.shape[0] == n_columns:
        return present, codes.astype(np.intp, copy=False)
    raise ValueError(
        f"X has {n_columns} columns but y has {present.shape[0]} classes "
        f"({preview(present)}). {name} needs one column of logits per class, or a "
        "single column for a binary problem. If some classes never occur in y, name "
        "them all in the order of the columns: classes=[...]."
    )


def refuse_continuous(y: NDArray[Any]) -> None:
    """Refuse numbers that are no classes.

    Not asked of integers and texts, which scikit-learn would sort; and it warns when
    many classes are rare.
    """
    is_text = y.dtype.kind == "O" and y.size > 0 and isinstance(y[0], str)
    if y.dtype.kind not in "iubUS" and not is_text:
        check_classification_targets(y)


def _numbered(labels: NDArray[Any], n_columns: int) -> NDArray[Any]:
    """Return the numbers of the columns, in the type of the labels."""
    # A small integer type may hold the labels but not all column numbers.
    dtype = np.promote_types(labels.dtype, np.min_scalar_type(n_columns - 1))
    return np.arange(n_columns, dtype=dtype)


def one_column(y: Any, name: str = "y", otherwise: str = "") -> NDArray[Any]:
    """Return labels on the host as one column; `otherwise` is added for several."""
    y = column_on_host(y)
    if is_shares(y):
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {np.shape(y)} "
            "instead. Rows that mark their class by a one become labels by "
            f"{name}.argmax(axis=1).{otherwise}"
        )
    column: NDArray[Any] = in_one_unit(column_or_1d(y, warn=True))
    if column.dtype.kind == "U" and isinstance(y, (list, tuple)):
        # NumPy has made text of what stands beside text.
        refuse_missing(np.array(y, dtype=object), name)
    refuse_missing(column, name)
    return column


def _encode_named(
    name: str,
    present: NDArray[Any],
    codes: NDArray[np.intp],
    n_columns: int,
    classes: ArrayLike,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    classes = in_one_unit(np.asarray(classes).copy())
    if classes.ndim != 1 or classes.shape[0] != n_columns:
        raise ValueError(
            f"classes has shape {classes.shape} but X has {n_columns} columns. {name} "
            "needs one entry of classes per column, in the order of the columns."
        )
    columns = columns_of_labels(present, classes, "classes", "y holds labels")
    return classes, columns[codes]


def _are_column_numbers(present: NDArray[Any], n_columns: int) -> bool:
    integer = present.dtype.kind in "iu"
    return integer and bool(present[0] >= 0 and present[-1] < n_columns)


def check_calibration_set(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    classes: ArrayLike | None,
    *,
    names: Sequence[Any] | None = None,
    reset: bool = True,
    is_part: bool = False,
) -> CalibrationData:
    """Validate everything `fit` is given, once.

    `names` are those of the columns where `X` does not carry them; `reset` as in
    `check_logits`. Of a part of the rows a single class is enough, and its weights are
    left as they are: only those of all parts tell how many samples there are. Classes
    without samples are warned of where something is learned of each class by itself.
    """
    data = _checked_set(estimator, X, y, sample_weight, classes, names, reset, is_part)
    if not is_part:
        refuse_one_class(estimator, data.present, data.classes)
    keeps_class = getattr(estimator, "keeps_class", False)
    warn_of_mistakes(name_of(estimator), data, keeps_class, classes is not None)
    if getattr(estimator, "learns_by_class", False):
        _warn_of_absent(name_of(estimator), data)
    return data


def _warn_of_absent(name: str, data: CalibrationData) -> None:
    occurs = data.class_weights() > 0
    if occurs.all():
        return
    absent = data.classes[~occurs].tolist()
    shown = ", ".join(map(repr, absent[:SHOWN]))
    shown += ", ..." if len(absent) > SHOWN else ""
    warn(
        f"The calibration set has no sample of {len(absent)} of {data.n_classes} "
        f"classes: {shown}. {name} can learn nothing of them, and treats them like the "
        "others on average or leaves their probabilities alone. Add samples of them if "
        "there are any.",
        AbsentClassWarning,
    )


def _checked_set(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    classes: ArrayLike | None,
    names: Sequence[Any] | None,
    reset: bool,
    is_part: bool,
) -> CalibrationData:
    if y is None:
        raise ValueError(
            f"{name_of(estimator)} requires y to be passed, but the target y is None. "
            "Pass the true class of each row."
        )
    if any(map(is_dask, (X, y, sample_weight))):
        from skcalib._validation._dask import check_dask_set

        return check_dask_set(
            estimator, X, y, sample_weight, classes, is_part, names=names, reset=reset
        )
    if is_stored(X):
        X = readable(X)
    refuse_swapped(y, X, ("y", "X"))
    source = check_logits(estimator, X, reset=reset)
    check_consistent_length(X, y)
    if is_shares(y):
        names = column_names(X) if names is None else names
        return _check_share_set(
            estimator, source, y, sample_weight, classes, is_part, names
        )
    if is_tensor(X) and not source.is_here:
        from skcalib._validation._tensor import check_tensor_set

        return check_tensor_set(estimator, source, y, sample_weight, classes, is_part)
    if names is None:
        names = column_names(X)
        if names is not None and classes is None:
            # An index tells itself from scores in the first rows of a large file.
            n_rows = INDEX_ROWS if is_stored(X) else source.shape[0]
            refuse_index(names, source.read(slice(0, n_rows)), y)
    if classes is not None:
        refuse_another_order(names, classes, "classes")
    classes, codes = encode_labels(estimator, y, source.shape[1], classes, names)
    weight = counted(check_weight(sample_weight, codes), sample_weight, is_part)
    return CalibrationData(source, codes, weight, classes)


def _check_share_set(
    estimator: Any,
    source: Source,
    y: Any,
    sample_weight: ArrayLike | None,
    classes: ArrayLike | None,
    is_part: bool,
    names: Sequence[Any] | None,
) -> CalibrationData:
    """Return a calibration set with a row for each class that has a share in one."""
    if not source.is_here:
        raise TypeError(
            f"y has a column for each class, and {name_of(estimator)} reads shares "
            "beside logits in memory or in a file. Pass X.cpu()."
        )
    labels = classes_of_shares(y, source.shape[1], classes, names)
    shares = check_shares("y", y, source.shape[1])
    weight = counted(check_weight(sample_weight, shares[:, 0]), sample_weight, is_part)
    row, codes = np.nonzero(shares)
    weight = weight[row] * shares[row, codes]
    if row.size == source.shape[0]:  # Each row is of one class.
        return CalibrationData(source, codes, weight, labels)
    return CalibrationData(RepeatedSource(source, row), codes, weight, labels, row)


def check_two_classes(
    estimator: Any,
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    classes: NDArray[Any],
) -> None:
    """Refuse rows of a single class, those of weight 0 left out."""
    present = np.flatnonzero(on_host(np.bincount(codes, weight)))
    refuse_one_class(estimator, present, classes)


def refuse_one_class(
    estimator: Any, present: NDArray[np.intp], classes: NDArray[Any]
) -> None:
    """Refuse rows of a single class, `present` being the columns that occur."""
    if present.shape[0] < 2:
        held = [f"one class only: {label!r}" for label in classes[present].tolist()]
        raise ValueError(
            f"y holds {held[0] if held else 'no samples'}. {name_of(estimator)} needs "
            "at least two classes among the samples with positive weight."
        )
