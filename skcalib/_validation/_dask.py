"""Checks of Dask collections: one look at all rows before a fit, none to predict."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import validate_data

from skcalib._blocks._dask import (
    DaskSource,
    aligned,
    as_array,
    as_column,
    one_column_chunk,
    reduce_chunks,
)
from skcalib._blocks._dask_data import DaskData, Inspection, encode, inspect
from skcalib._numerics import first_not_finite
from skcalib._validation._column_classes import (
    both_of_bool,
    classes_of_columns,
    refuse_another_order,
    refuse_index,
)
from skcalib._validation._containers import column_names, is_dask, refuse_dates
from skcalib._validation._event import EVENT, is_event
from skcalib._validation._logits import (
    check_column_names,
    encode_labels,
    name_of,
    one_column,
    refuse_not_finite,
)
from skcalib._validation._weight import (
    are_repetitions,
    check_part,
    effective_number,
    sensible_exponent,
)

# So many rows tell whether a column numbers them.
FIRST_ROWS = 1000


def check_dask_logits(estimator: Any, X: Any, *, reset: bool) -> DaskSource:
    """Return the source of `X`, whose values are checked when they are computed."""
    name = name_of(estimator)
    array = as_array(X, "X")
    refuse_dates(X, "X")
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        raise ValueError(
            f"X is a Dask collection of shape {array.shape} and dtype {array.dtype}; "
            f"{name} needs numbers of shape (n_samples, n_classes)."
        )
    if name is not estimator:
        empty = getattr(X, "_meta", None)
        if array.ndim == 1 or not hasattr(empty, "columns"):
            empty = np.empty((0, 1 if array.ndim == 1 else array.shape[1]))
        validate_data(estimator, empty, reset=reset, skip_check_array=True)
        check_column_names(estimator, column_names(empty), reset=reset)
    return DaskSource(array, partial(_check_block, name))


def _check_block(name: str, block: NDArray[Any], first_row: int, chunk: int) -> None:
    bad = first_not_finite(block)
    if bad is not None:
        row, value = bad
        refuse_not_finite(name, f"row {first_row + row} of chunk {chunk}", value)


def check_dask_set(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    classes: ArrayLike | None,
    is_part: bool,
    *,
    names: Sequence[Any] | None,
    reset: bool,
) -> DaskData:
    """Validate everything `fit` is given, in one pass over the rows."""
    name = name_of(estimator)
    if not is_dask(X):
        kind = f"{type(X).__module__}.{type(X).__name__}"
        raise TypeError(
            f"y or sample_weight is a Dask collection, and X is a {kind}. Pass all of "
            "them as Dask collections, or none."
        )
    source = check_dask_logits(estimator, X, reset=reset)
    columns = [as_column(y, "y")]
    if sample_weight is not None:
        columns.append(as_column(sample_weight, "sample_weight"))
    array, *beside = aligned(source.array, columns)
    found = inspect(array, beside[0], beside[1] if len(beside) > 1 else None)
    if found is None:
        raise ValueError(f"X has no rows. {name} needs at least two.")
    _refuse_bad_rows(name, found, np.cumsum([0, *array.chunks[0]]))
    if names is None:
        names = column_names(getattr(X, "_meta", None))
        if names is not None and classes is None:
            first = array[:FIRST_ROWS].compute()
            refuse_index(names, first, np.array(list(found.labels)))
    source = DaskSource(array)
    present = np.array(sorted(found.labels), dtype=beside[0].dtype)
    if classes is not None:
        refuse_another_order(names, classes, "classes")
    classes_, code = encode_labels(estimator, present, source.shape[1], classes, names)
    exponent = sensible_exponent(found.largest_weight)
    largest = float(np.ldexp(found.largest_weight, exponent))
    mass = np.zeros(classes_.shape[0])
    mass[code] = np.ldexp([found.labels[label] for label in present.tolist()], exponent)
    total = float(mass.sum())
    is_numbered = present.dtype.kind in "iu" and np.array_equal(present, code)
    known = None if is_numbered else present
    step = partial(encode, known, code, exponent, total)
    number = _number_of(found, largest, total, is_part)
    return DaskData(
        source, beside, [step], classes_, source.shape[0], mass / total, number
    )


def _number_of(found: Inspection, largest: float, total: float, is_part: bool) -> float:
    """Return the number of samples, of a part of the rows the sum of the weights."""
    if is_part:
        check_part(found.largest_weight)
        return total
    repeated = are_repetitions(found.whole, largest)
    return effective_number(total, found.squares * largest**2, repeated)


def _refuse_bad_rows(name: str, found: Inspection, first: NDArray[np.intp]) -> None:
    if found.first_bad is not None:
        chunk, row, value = found.first_bad
        place = f"row {first[chunk] + row} (row {row} of chunk {chunk})"
        refuse_not_finite(name, place, value)
    if found.negative is not None:
        chunk, row, value = found.negative
        raise ValueError(
            f"sample_weight holds {value} in row {first[chunk] + row} (row {row} of "
            f"chunk {chunk}); weights are finite and not negative."
        )
    if not found.largest_weight:
        raise ValueError("sample_weight is zero everywhere; no sample is left to fit.")


def classes_of_chunks(
    proba: Any, y: Any, is_single: bool, labels: ArrayLike | None, pos_label: Any
) -> tuple[ArrayLike | None, Any]:
    """Return the class of each column of `proba`, and that of a single column.

    Where `labels` does not tell, and columns have names or there is one of them, it
    takes a pass over `y`, a Dask array, to know which classes occur. None says that
    labels are column numbers.
    """
    names = column_names(getattr(proba, "_meta", None))
    is_number = pos_label == EVENT and y.dtype.kind in "biuf"
    if labels is None and not is_number and (is_single or names is not None):
        present = np.array(sorted(reduce_chunks(_labels_of_chunk, [y])))
        if is_event(present.astype(object), pos_label):
            return None, pos_label
        seen = both_of_bool(present) if is_single else present
        if names is not None:
            labels = classes_of_columns(seen, names, "labels")
        if is_single and labels is not None and pos_label is None:
            pos_label = np.asarray(labels)[1]
        if is_single and labels is None and seen.shape[0] == 2:
            labels = seen
    if labels is not None:
        refuse_another_order(names, labels, "labels", pos_label)
    return labels, pos_label


def _labels_of_chunk(number: int, y: Any) -> Counter[Any]:
    return Counter(np.unique(one_column(np.asarray(y), "y_true")).tolist())


def logits_of_chunks(
    proba: Any, of_rows: Callable[[Any], Any], *, is_exact: bool
) -> Any:
    """Return what a function makes of the probabilities of each chunk, when computed.

    A data frame stays one; a single column becomes those of both classes. What is not
    `is_exact`, in float64, stays in single precision.
    """
    rows: Any = one_column_chunk(as_array(proba, "proba"))
    is_single = rows.dtype == np.float32 and not is_exact
    dtype = np.dtype(np.float32 if is_single else np.float64)
    if hasattr(proba, "map_partitions") and rows.ndim == 2 and rows.shape[1] > 1:
        of_frame = partial(_logits_of_frame, of_rows, dtype)
        return proba.map_partitions(of_frame, meta=proba._meta.astype(dtype))
    rows = rows if rows.ndim == 2 else rows[:, np.newaxis]
    n_columns = max(rows.shape[1], 2)
    return rows.map_blocks(
        partial(_logits_of_chunk, of_rows, n_columns, dtype),
        chunks=(rows.chunks[0], (n_columns,)),
        dtype=dtype,
        meta=np.empty((0, n_columns), dtype=dtype),
    )


def _logits_of_chunk(
    of_rows: Callable[[Any], Any],
    n_columns: int,
    dtype: np.dtype,
    block: Any,
    block_id: tuple[int, ...] = (0,),
) -> NDArray[Any]:
    if not block.shape[0]:
        return np.empty((0, n_columns), dtype=dtype)
    try:
        logits: NDArray[Any] = of_rows(np.asarray(block))
    except ValueError as error:
        raise ValueError(f"Chunk {block_id[0]}: {error}") from error
    return logits


def _logits_of_frame(of_rows: Callable[[Any], Any], dtype: np.dtype, part: Any) -> Any:
    return of_rows(part) if len(part) else part.astype(dtype)
