"""Scores with the classes along any axis, as the rows that everything else takes."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import DenseRows, is_stored
from skcalib._validation._containers import (
    column_on_host,
    is_tensor,
    readable,
    refuse_dask,
    refuse_dates,
    refuse_masked,
)
from skcalib._validation._groups import check_groups


def as_rows(
    X: Any, y: Any = None, *, class_axis: int = 1, ignore_index: Any = None
) -> Any:
    """Read scores of pixels or tokens as rows, one for each, without a copy.

    Calibrators and metrics take the rows as they take any (n, K) array, block by block.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Logits, or probabilities: (n, K, H, W) of images, (n, T, K) of sequences. May be
        a `numpy.memmap`, an ``h5py.Dataset`` or a ``zarr.Array`` larger than memory,
        which is read a unit of the first axis at a time.

    y : array-like of the shape of `X` without its `class_axis`, default=None
        True classes; without, there are only rows.

    class_axis : int, default=1
        The axis of `X` that holds the classes: 1 in images of torch, -1 in sequences.
        It is not the first.

    ignore_index : int or float, default=None
        The label of places that count for nothing, such as 255 of pixels without a
        class, -100, NaN or that of padding; they have no row.

    Returns
    -------
    rows : Source of shape (n_rows, K)
        The rows, read when they are needed; ``rows[:]`` is an array of them. Folds that
        a calibrator draws keep those of one unit of the first axis together. Of a torch
        tensor, a tensor of its device, copied.

    labels : ndarray of shape (n_rows,)
        The label of each row; only with `y`.

    See Also
    --------
    DenseCalibration : A calibrator of such arrays, which gives probabilities of their
        shape.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.special import softmax
    >>> from skcalib import as_rows
    >>> from skcalib.metrics import expected_calibration_error
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(10, 3, 8, 8))  # 10 images of 8 x 8 pixels
    >>> y = rng.integers(0, 3, (10, 8, 8))
    >>> y[:, 0] = 255  # without a class
    >>> proba = softmax(logits, axis=1)
    >>> rows, labels = as_rows(proba, y, class_axis=1, ignore_index=255)
    >>> rows.shape
    (560, 3)
    >>> round(expected_calibration_error(labels, rows), 2)
    0.3
    """
    refuse_dask("as_rows", X)
    refuse_masked(X, "as_rows")
    X = readable(X)
    if not (isinstance(X, np.ndarray) or is_stored(X) or is_tensor(X)):
        X = np.asarray(X)
    axis = check_class_axis(X.shape, class_axis)
    _refuse_other_types(X)
    if y is None:
        return _rows_of(X, axis, None)
    labels = column_on_host(y)
    labels = labels if isinstance(labels, np.ndarray) else np.asarray(labels)
    places = (*X.shape[:axis], *X.shape[axis + 1 :])
    if labels.shape != places:
        raise ValueError(
            f"y has shape {labels.shape}; X of shape {tuple(X.shape)} with "
            f"class_axis={class_axis} needs a label at each place of the other "
            f"dimensions, {places}. Another axis may hold the classes."
        )
    labels = labels.reshape(labels.shape[0], -1)
    kept = None if ignore_index is None else _find_kept(labels, ignore_index)
    return _rows_of(X, axis, kept), labels.reshape(-1) if kept is None else labels[kept]


def check_class_axis(shape: Any, class_axis: Any) -> int:
    """Return the axis of the classes, counted from the front."""
    n_axes = len(shape)
    if not isinstance(class_axis, Integral) or isinstance(class_axis, bool):
        raise TypeError(f"class_axis={class_axis!r} is not a whole number.")
    axis = int(class_axis) + (n_axes if class_axis < 0 else 0)
    if not 0 < axis < n_axes:
        raise ValueError(
            f"class_axis={class_axis} is not an axis of classes of X, which has shape "
            f"{tuple(shape)}. The first axis counts images or sequences; the classes "
            "are along another: 1 of (n, K, H, W), -1 of (n, T, K)."
        )
    if 0 in shape:
        raise ValueError(f"X has shape {tuple(shape)}, so that there are no rows.")
    return axis


def spread_weight(sample_weight: Any, y: Any, ignore_index: Any) -> Any:
    """Return the weight of each row, given one for each place or unit of `y`."""
    if sample_weight is None:
        return None
    refuse_dates(sample_weight, "sample_weight")
    labels, weight = np.asarray(column_on_host(y)), column_on_host(sample_weight)
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape == labels.shape[:1]:
        weight = weight.reshape(-1, *[1] * (labels.ndim - 1))
    elif weight.shape != labels.shape:
        raise ValueError(
            f"sample_weight has shape {weight.shape}; it needs one weight for each "
            f"entry of y, of shape {labels.shape}, or of its first axis."
        )
    return _spread(weight, labels, ignore_index)


def spread_groups(groups: Any, y: Any, ignore_index: Any) -> Any:
    """Return the group of each row, given one for each unit of `y`."""
    if groups is None:
        return None
    labels = np.asarray(column_on_host(y))
    groups = check_groups(groups, labels.shape[0])
    groups = groups.reshape(-1, *[1] * (labels.ndim - 1))
    return _spread(groups, labels, ignore_index)


def _spread(values: Any, labels: NDArray[Any], ignore_index: Any) -> NDArray[Any]:
    """Return one value for each label that counts."""
    values = np.broadcast_to(values, labels.shape)
    if ignore_index is None:
        return values.reshape(-1)
    return values[_counts(labels, ignore_index)]


def _counts(labels: NDArray[Any], ignore_index: Any) -> NDArray[np.bool_]:
    """Return which labels are not the ignored one, which may be NaN."""
    if isinstance(ignore_index, bool):
        raise TypeError(f"ignore_index={ignore_index!r} is not a label; name a number.")
    is_nan = ignore_index != ignore_index
    kind = labels.dtype.kind
    alien = isinstance(ignore_index, Real) != (kind in "biuf")
    if kind != "O" and (alien or (is_nan and kind != "f")):
        raise ValueError(
            f"ignore_index={ignore_index!r} is never a label: y holds values of type "
            f"{labels.dtype}, such as {labels.flat[0]!r}. Name the label of the places "
            "to leave out, or leave ignore_index at None."
        )
    return np.asarray(labels == labels if is_nan else labels != ignore_index)


def _find_kept(labels: NDArray[Any], ignore_index: Any) -> NDArray[np.bool_] | None:
    """Return which labels count, None if all do."""
    kept = _counts(labels, ignore_index)
    if not kept.any():
        raise ValueError(
            f"All {kept.size:,} labels are ignore_index={ignore_index!r}, so that "
            "there is nothing to learn from or to judge by."
        )
    return None if kept.all() else kept


def _refuse_other_types(X: Any) -> None:
    is_number = X.is_floating_point() if is_tensor(X) else X.dtype.kind in "fiub"
    if not is_number:
        raise TypeError(f"X holds values of type {X.dtype}; scores are numbers.")


def _rows_of(X: Any, axis: int, kept: NDArray[np.bool_] | None) -> Any:
    if not is_tensor(X):
        return DenseRows(X, axis, kept)
    rows = X.movedim(axis, -1).reshape(-1, X.shape[axis])
    return rows if kept is None else rows[X.new_tensor(kept.reshape(-1)).bool()]
