"""Checks of predicted probabilities, made in the pass that finds each row's largest."""

from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from skcalib._blocks import (
    Source,
    is_mapped_file,
    is_stored,
    map_blocks,
    on_host,
    open_source,
    slices_of,
)
from skcalib._numerics import distinct, largest_column
from skcalib._validation._column_classes import (
    both_of_bool,
    classes_of_columns,
    columns_of_labels,
    positive_column,
    preview,
    refuse_another_order,
)
from skcalib._validation._containers import (
    SUM_TOLERANCE,
    column_names,
    column_on_host,
    is_column,
    is_dask,
    is_tensor,
    readable_proba,
    refuse_dates,
    refuse_masked,
    refuse_outside,
)
from skcalib._validation._event import check_event, is_event, warn_of_confidences
from skcalib._validation._logits import (
    _are_column_numbers,
    one_column,
    refuse_continuous,
)
from skcalib._validation._mistakes import refuse_swapped, warn_of_counting_from_1
from skcalib._validation._weight import LARGEST_WEIGHT, check_weight, refuse_negative

# How far above 1 rounding may carry a probability.
ROUNDING = 1e-6
# A block takes a fraction of a millisecond: starting it costs little.
BLOCK_ELEMENTS = 1 << 17

Rows = NDArray[Any] | Source  # A source is read slice by slice, as an array is.


@overload
def check_proba_rows(proba: Any, *, blocks: Literal[False] = ...) -> NDArray[Any]: ...


@overload
def check_proba_rows(proba: Any, *, blocks: Literal[True]) -> Rows: ...


def check_proba_rows(proba: Any, *, blocks: bool = False) -> Rows:
    """Return probabilities as (n, K) floats after checking every row.

    `proba` is (n, K), or (n,) and (n, 1) with the probability of the second class.
    float32 stays float32, everything else becomes float64; good input is not copied.
    With `blocks`, those of a file or float16 stay so, to be read by slices of rows.
    """
    rows = _as_columns(_as_floats(readable_proba(proba), blocks=blocks))
    _find_top(rows)
    return rows


def normalised_rows(proba: Any) -> NDArray[Any]:
    """Return what `check_proba_rows` does after each row was divided by its sum.

    A single column, of one of two classes, is left as it is.
    """
    given = _as_floats(readable_proba(proba))
    if is_column(given):
        return check_proba_rows(given)
    rows = given[:]
    total = rows.sum(axis=1)
    bad = ~((rows >= 0).all(axis=1) & (total > 0) & np.isfinite(total))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"Row {row} of the probabilities is {preview(rows[row])}; to divide it by "
            "its sum takes non-negative numbers that are not all zero. Logits need a "
            "softmax instead."
        )
    return rows / total[:, np.newaxis]


Checked = tuple[NDArray[np.intp], NDArray[Any], NDArray[np.float64]]
CheckedRows = tuple[NDArray[np.intp], Rows, NDArray[np.float64]]


@overload
def check_proba(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    pos_label: object = ...,
    *,
    top_label: bool = ...,
    blocks: Literal[False] = ...,
) -> Checked: ...


@overload
def check_proba(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    pos_label: object = ...,
    *,
    top_label: bool = ...,
    blocks: Literal[True],
) -> CheckedRows: ...


def check_proba(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    pos_label: object = None,
    *,
    top_label: bool = False,
    blocks: bool = False,
) -> CheckedRows:
    """Return ``(codes, proba, weight)``: column of each label, rows, weights.

    `labels` names the columns of `y_proba` in order. Without it, integers inside
    ``range(K)`` are column numbers, and other labels must be as many as the columns.
    `pos_label` names the class of a single column. `top_label` says that the
    predicted class is judged, to which confidences must not be passed as one column;
    `blocks` is that of `check_proba_rows`.
    """
    given = _read(y_true, y_proba, labels, pos_label, blocks=blocks)
    weight = check_weight(sample_weight, given.codes)
    _find_top(given.proba)
    if top_label and given.is_unnamed:
        warn_of_confidences(given.proba, given.codes, weight)
    return given.codes, given.proba, weight


def check_columns(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    pos_label: object = None,
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.float64], list[Any]]:
    """Return what `check_proba` does, and the class of each column."""
    given = _read(y_true, y_proba, labels, pos_label)
    weight = check_weight(sample_weight, given.codes)
    _find_top(given.proba)
    return given.codes, given.proba, weight, given.classes


def check_top_label(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    pos_label: object = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return ``(confidence, hit, weight)`` of each row, read in a single pass.

    `confidence` is the largest probability, `hit` whether its (first) column is that
    of the true label; see `check_proba` for the rest.
    """
    given = _read(y_true, y_proba, labels, pos_label, blocks=True)
    weight = check_weight(sample_weight, given.codes)
    top, confidence = _top_of(given)
    if given.is_unnamed:
        warn_of_confidences(given.proba, given.codes, weight)
    return confidence, top == given.codes, weight


class Batch(NamedTuple):
    """Checked rows; `confidence` and `hit` as of `check_top_label`."""

    codes: NDArray[np.intp]
    proba: Rows
    weight: NDArray[np.float64]
    confidence: NDArray[np.float64]
    hit: NDArray[np.bool_]

    def part(self, rows: slice) -> "Batch":
        """Return some of the rows, in memory."""
        codes, proba, weight, confidence, hit = self
        return Batch(
            codes[rows], proba[rows], weight[rows], confidence[rows], hit[rows]
        )

    @staticmethod
    def joined(batches: list["Batch"]) -> "Batch":
        """Return the rows of all, copied into memory."""
        columns = (
            np.concatenate([part[:] for part in parts])
            for parts in zip(*batches, strict=True)
        )
        codes, proba, weight, confidence, hit = columns
        return Batch(codes, proba, weight, confidence, hit)


def check_batch(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    pos_label: object = None,
) -> tuple[Batch, list[Any]]:
    """Return some rows of many, and the labels of the columns.

    Unlike in `check_proba` they mean the same whatever rows they come with: without
    `labels`, integers are column numbers, and other labels are refused. Weights are
    left as they are, and may all be 0.
    """
    given = _read(y_true, y_proba, labels, pos_label, numbered=True, blocks=True)
    weight = _weight_of_batch(sample_weight, given.codes)
    top, confidence = _top_of(given)
    if given.is_unnamed and weight.any():
        warn_of_confidences(given.proba, given.codes, weight)
    hit = top == given.codes
    return Batch(given.codes, given.proba, weight, confidence, hit), given.classes


def _weight_of_batch(
    sample_weight: ArrayLike | None, codes: NDArray[np.intp]
) -> NDArray[np.float64]:
    if sample_weight is None:
        return np.ones(codes.shape[0])
    refuse_dates(sample_weight, "sample_weight")
    weight: NDArray[np.float64] = check_array(
        column_on_host(sample_weight),
        dtype=np.float64,
        ensure_2d=False,
        input_name="sample_weight",
    )
    if weight.shape != codes.shape:
        raise ValueError(
            f"sample_weight has shape {weight.shape}; there are {codes.shape[0]} rows, "
            "each of which needs one weight."
        )
    refuse_negative(weight)
    if weight.max() > 2.0**LARGEST_WEIGHT:
        row = int(weight.argmax())
        raise ValueError(
            f"sample_weight holds {weight[row]:g} in row {row}. Weights that are added "
            f"up batch by batch are 2^{LARGEST_WEIGHT} at most; divide all by a common "
            "factor."
        )
    return weight


class _Given(NamedTuple):
    """What a metric was given; unnamed is a single column without `pos_label`."""

    codes: NDArray[np.intp]
    proba: Any
    classes: list[Any]
    is_unnamed: bool
    is_event: bool


def _read(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None,
    pos_label: object,
    *,
    numbered: bool = False,
    blocks: bool = False,
) -> _Given:
    """Bring labels and probabilities together, whose values are still to be checked.

    `numbered` says that labels that are not named are column numbers.
    """
    refuse_swapped(y_true, y_proba, ("y_true", "y_proba"))
    y_proba = readable_proba(y_proba)
    array = _as_floats(y_proba, blocks=blocks)
    proba: Any = _as_columns(array)
    is_single = proba is not array
    check_consistent_length(y_true, array)
    y = column_on_host(y_true)
    # As for probabilities.
    if type(y) is not np.ndarray or y.ndim != 1 or y.dtype.kind in "OmM":
        y = one_column(y, "y_true", " calibration_report takes shares of classes.")
    if is_event(y, pos_label):
        codes = check_event(y, array, labels)
        return _Given(codes, proba, [0, 1], is_unnamed=False, is_event=True)
    names = column_names(y_proba)
    seen = both_of_bool(y) if is_single else y
    if labels is None and names is not None:
        labels = classes_of_columns(np.unique(seen), names, "labels")
        if is_single and labels is not None and pos_label is None:
            pos_label = labels[1]
    if labels is None and numbered:
        codes, classes = _column_numbers(y, proba.shape[1])
    else:
        if labels is None and seen is not y:
            labels = seen
        codes, classes = _encode(y, proba.shape[1], labels, is_single)
    if labels is None:
        warn_of_counting_from_1(
            "y_true", codes, proba.shape[1], lambda n: on_host(proba[:n]), "labels"
        )
    column = positive_column(classes, pos_label, is_single)
    refuse_another_order(names, classes, "labels", pos_label)
    if is_single and column == 0:
        proba = np.ascontiguousarray(proba[:, ::-1])
    unnamed = is_single and pos_label is None
    return _Given(codes, proba, classes, unnamed, is_event=False)


def _as_floats(proba: Any, *, blocks: bool = False) -> Rows:
    if is_dask(proba):
        raise TypeError(
            "y_proba is a Dask collection, which would have to be brought into memory "
            "for this. CalibrationAccumulator().update(y_true, y_proba) sums it where "
            "it lies, as reports and, of the predicted class, reliability diagrams "
            "with n_bootstrap=0 do; y_proba.compute() brings it here."
        )
    if is_tensor(proba):
        proba = _of_tensor(proba, blocks=blocks)
    if is_mapped_file(proba) or is_stored(proba):
        proba = _of_file(proba, blocks=blocks)
    if isinstance(proba, Source) or (
        type(proba) is np.ndarray
        and proba.dtype in (np.float32, np.float64)
        and proba.ndim == 2
        and proba.size > 0
    ):  # Nothing to convert: batches may be of one row, and many.
        return proba
    refuse_masked(proba, "this", "y_proba")
    refuse_dates(proba, "y_proba")
    array: NDArray[Any] = check_array(
        proba,
        dtype=[np.float64, np.float32, np.float16],
        ensure_all_finite=False,
        ensure_2d=False,
        input_name="y_proba",
    )
    if array.dtype == np.float16 and (not blocks or _as_columns(array) is not array):
        return array.astype(np.float64)
    return open_source(array) if array.dtype == np.float16 else array


def _of_tensor(proba: Any, *, blocks: bool) -> Source:
    """Return the rows of a tensor on a device, which are summed there."""
    if proba.ndim != 2 or proba.shape[1] < 2 or not proba.numel() or not blocks:
        what = "This" if not blocks else "What is not of (n_samples, n_classes)"
        raise TypeError(
            f"y_proba is a tensor of shape {tuple(proba.shape)} on {proba.device}. "
            f"{what} is computed on the host: pass y_proba.cpu()."
        )
    from skcalib._blocks._tensor import TensorSource

    return TensorSource(proba)


def _of_file(proba: Any, *, blocks: bool) -> Any:
    """Return a source of rows that are in a file, or an array of a few numbers."""
    n_columns = 1 if proba.ndim == 1 else proba.shape[1]
    if proba.ndim > 2 or n_columns == 1 or 0 in proba.shape:
        return np.asarray(proba[:])
    if blocks and proba.dtype.kind in "fiub":
        return open_source(proba)
    refuse_outside(proba, "y_proba")
    return proba


def _as_columns(rows: Rows) -> Rows:
    """Return `rows` itself, or both columns where it holds that of a class only."""
    if isinstance(rows, Source) or (rows.ndim == 2 and rows.shape[1] > 1):
        return rows
    second = rows.reshape(-1)
    return np.column_stack([np.clip(1 - second, 0, 1), second])


def _find_top(proba: Rows) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Check the rows; return the (first) column and value of each row's maximum."""
    n_rows = proba.shape[0]
    top = np.empty(n_rows, dtype=np.intp)
    confidence = np.empty(n_rows)

    def of_block(rows: slice) -> bool:
        block = proba[rows]
        column, largest = largest_column(block)
        top[rows] = on_host(column)
        confidence[rows] = on_host(largest)
        # The maximum of NaN is NaN, which fails the first comparison.
        return bool(
            largest.max() <= 1 + ROUNDING
            and block.min() >= 0
            # Unlike `sum` fast on short rows, unlike `@` free of threads of its own.
            and np.abs(np.einsum("ij->i", block) - 1).max() <= SUM_TOLERANCE
        )

    slices = slices_of(proba, BLOCK_ELEMENTS)
    for rows, is_good in zip(slices, map_blocks(of_block, slices), strict=True):
        if not is_good:
            _refuse_bad_row(on_host(proba[rows]), rows.start)
    return top, confidence


def _top_of(given: _Given) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Check the rows; return column and value of the maximum, or of the event."""
    top, confidence = _find_top(given.proba)
    if given.is_event:
        return np.ones_like(top), given.proba[:, 1].astype(np.float64)
    return top, confidence


def _refuse_bad_row(block: NDArray[Any], first_row: int) -> None:
    """Raise for the first bad row of a block that failed the quick check."""
    inside = (block >= 0) & (block <= 1 + ROUNDING)
    total = block.sum(axis=1, dtype=np.float64)
    off = ~(np.abs(total - 1) <= SUM_TOLERANCE)
    bad = off | ~inside.all(axis=1)
    if not bad.any():  # The quick sum was off by its own rounding.
        return
    row = int(bad.argmax())
    if not inside[row].all():
        value = block[row, (~inside[row]).argmax()]
        raise ValueError(
            f"Row {first_row + row} of the probabilities holds {value}. Probabilities "
            "lie between 0 and 1. Pass the output of predict_proba; logits and other "
            "scores need a softmax first."
        )
    raise ValueError(
        f"Row {first_row + row} of the probabilities sums to {total[row]:.6g}; every "
        f"row has to sum to 1, and may be off by {SUM_TOLERANCE:.1g}. Pass the "
        "probabilities of all classes. If they are, but rounded, divide each row by "
        "its sum: proba / proba.sum(axis=1, keepdims=True). logits_from_proba does it "
        "with normalise=True, the command line with --normalise."
    )


def _encode(
    y: NDArray[Any], n_columns: int, labels: ArrayLike | None, is_single: bool
) -> tuple[NDArray[np.intp], list[Any]]:
    """Return the column number of each label, and the labels of the columns."""
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int((~np.isfinite(y)).argmax())
        raise ValueError(f"y_true holds {y[row]} in row {row}; it needs class labels.")
    refuse_continuous(y)
    extremes = np.array([y.min(), y.max()]) if y.dtype.kind in "iu" else y[:1]
    if labels is None and _are_column_numbers(extremes, n_columns):
        return y.astype(np.intp, copy=False), list(range(n_columns))
    present, codes = distinct(y)
    found = f"{n_columns} columns"
    if is_single:
        found = "a single column, of one of two classes,"
    if labels is not None:
        named = np.asarray(labels)
        if named.ndim != 1 or named.shape[0] != n_columns:
            raise ValueError(
                f"labels has shape {named.shape} but y_proba has {found}. "
                "It needs one entry per class, in the order of the columns."
            )
        columns = columns_of_labels(present, named, "labels", "y_true holds classes")
        return columns[codes], named.tolist()
    if present.shape[0] != n_columns:
        raise ValueError(
            f"y_proba has {found} but the labels in y_true are "
            f"{preview(present)}. Name the class of each column, in order: "
            "labels=[...], for instance labels=classifier.classes_."
        )
    return codes.astype(np.intp, copy=False), present.tolist()


def _column_numbers(
    y: NDArray[Any], n_columns: int
) -> tuple[NDArray[np.intp], list[Any]]:
    """Take labels for the numbers of their columns, or refuse them."""
    if y.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):
            codes = y.astype(np.intp, copy=False)
        if codes.min() >= 0 and codes.max() < n_columns and (codes == y).all():
            return codes, list(range(n_columns))
    raise ValueError(
        f"The labels in y_true are {preview(np.unique(y))}, which are not all numbers "
        f"of the {n_columns} columns of y_proba. Rows that come in batches may lack "
        "some classes, so name the class of each column, in order: labels=[...]."
    )
