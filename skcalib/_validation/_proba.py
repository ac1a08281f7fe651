"""Checks of predicted probabilities, made in the pass that finds each row's largest."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skcalib._blocks import map_blocks, row_slices
from skcalib._validation._logits import _are_column_numbers, _preview, check_weight

# How far a row may be from summing to 1: rounding to three digits, or to float16.
SUM_TOLERANCE = 1e-3
# How far above 1 rounding may carry a single-precision probability.
ROUNDING = 1e-6
# A block takes a fraction of a millisecond, so that starting it costs little.
BLOCK_ELEMENTS = 1 << 17


def check_proba_rows(proba: ArrayLike) -> NDArray[Any]:
    """Return probabilities as (n, K) floats after checking every row.

    `proba` is (n, K), or (n,) and (n, 1) with the probability of the second class.
    float32 stays float32, everything else becomes float64; good input is not copied.
    """
    array = _as_columns(proba)
    _find_top(array)
    return array


def check_proba(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.float64]]:
    """Return ``(codes, proba, weight)``: column of each label, rows, weights.

    `labels` names the columns of `y_proba` in order. Without it, integers inside
    ``range(K)`` are column numbers, and other labels must be as many as the columns.
    """
    proba = check_proba_rows(y_proba)
    codes, weight = _check_labels(y_true, y_proba, proba.shape, labels, sample_weight)
    return codes, proba, weight


def check_top_label(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return ``(confidence, hit, weight)`` of each row, read in a single pass.

    `confidence` is the largest probability, `hit` whether its (first) column is that
    of the true label; see `check_proba` for the rest.
    """
    proba = _as_columns(y_proba)
    codes, weight = _check_labels(y_true, y_proba, proba.shape, labels, sample_weight)
    top, confidence = _find_top(proba)
    return confidence, top == codes, weight


def _as_columns(proba: ArrayLike) -> NDArray[Any]:
    array = check_array(
        proba,
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        ensure_2d=False,
        input_name="y_proba",
    )
    if array.ndim == 2 and array.shape[1] > 1:
        return array
    second = array.reshape(-1)
    return np.column_stack([np.clip(1 - second, 0, 1), second])


def _find_top(proba: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Check the rows; return the (first) column and value of each row's maximum."""
    n_rows, n_columns = proba.shape
    top = np.empty(n_rows, dtype=np.intp)
    confidence = np.empty(n_rows)

    def of_block(rows: slice) -> bool:
        block = proba[rows]
        column = block.argmax(axis=1)
        largest = block[np.arange(column.shape[0]), column]
        top[rows] = column
        confidence[rows] = largest
        # argmax stops at NaN, which then fails the first comparison.
        return bool(
            largest.max() <= 1 + ROUNDING
            and block.min() >= 0
            # Unlike `sum` fast on short rows, unlike `@` free of threads of its own.
            and np.abs(np.einsum("ij->i", block) - 1).max() <= SUM_TOLERANCE
        )

    slices = row_slices(n_rows, n_columns, BLOCK_ELEMENTS)
    for rows, is_good in zip(slices, map_blocks(of_block, slices), strict=True):
        if not is_good:
            _refuse_bad_row(proba[rows], rows.start)
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
        f"Row {first_row + row} of the probabilities sums to {total[row]:.6g}. Every "
        f"row has to sum to 1 within {SUM_TOLERANCE:g}. Pass the probabilities of all "
        "classes, normalised."
    )


def _check_labels(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    shape: tuple[int, ...],
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    check_consistent_length(y_true, y_proba)
    codes = _encode(column_or_1d(y_true), shape[1], labels)
    return codes, check_weight(sample_weight, codes)


def _encode(
    y: NDArray[Any], n_columns: int, labels: ArrayLike | None
) -> NDArray[np.intp]:
    """Return the column number of each label."""
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int((~np.isfinite(y)).argmax())
        raise ValueError(f"y_true holds {y[row]} in row {row}; it needs class labels.")
    if y.dtype.kind not in "iub":  # Spares integers a sort.
        check_classification_targets(y)
    extremes = np.array([y.min(), y.max()]) if y.dtype.kind in "iu" else y[:1]
    if labels is None and _are_column_numbers(extremes, n_columns):
        return y.astype(np.intp, copy=False)
    present, codes = np.unique(y, return_inverse=True)
    if labels is not None:
        return _columns_of(present, n_columns, labels)[codes]
    if present.shape[0] != n_columns:
        raise ValueError(
            f"y_proba has {n_columns} columns but the labels in y_true are "
            f"{_preview(present)}. Name the class of each column, in order: "
            "labels=[...], for instance labels=classifier.classes_."
        )
    return codes.astype(np.intp, copy=False)


def _columns_of(
    present: NDArray[Any], n_columns: int, labels: ArrayLike
) -> NDArray[np.intp]:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.shape[0] != n_columns:
        raise ValueError(
            f"labels has shape {labels.shape} but y_proba has {n_columns} columns. "
            "It needs one entry per column, in the order of the columns."
        )
    column_of = {label: k for k, label in enumerate(labels.tolist())}
    if len(column_of) != n_columns:
        raise ValueError(f"labels names a class twice: {_preview(labels)}.")
    unknown = [label for label in present.tolist() if label not in column_of]
    if unknown:
        raise ValueError(
            f"y_true holds classes that labels does not name: {_preview(unknown)}. "
            f"labels is {_preview(labels)}."
        )
    return np.array([column_of[label] for label in present.tolist()], dtype=np.intp)
