"""What comes as an array, a data frame or a tensor: its values, its column names."""

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import NUMBERS, ParquetRows, alike, is_stored, lies_on_host
from skcalib._sklearn_compat import as_table

# What the host's memory is called in DLPack.
HOST_MEMORY = 1

# How far a row may be from summing to 1: rounding to three digits, or to float16. A sum
# of 0.999 is off by less.
SUM_TOLERANCE = 1.001e-3
# And one of bfloat16.
BFLOAT16_SUM = 2.0**-7


def readable(values: Any) -> Any:
    """Return a torch tensor as an array without a copy, anything else as it is.

    It is cut off from its gradients; bfloat16, which NumPy lacks, becomes float32. A
    tensor on another device stays a tensor. So is an array of the array API standard
    read; it is refused on another device. An open Parquet file becomes rows of all its
    columns, a batch of them a table.
    """
    _refuse_future(values)
    if isinstance(values, np.ndarray) and values.dtype.kind == "T":
        return values.astype(object)  # scikit-learn does not know NumPy's newer texts.
    if is_standard(values):
        return _of_standard(values)
    if is_stored(values) and not hasattr(values, "shape"):
        return ParquetRows(values)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(values, torch.Tensor):
        return as_table(values)
    values = values.detach()
    known = (torch.float16, torch.float32, torch.float64)
    if values.is_floating_point() and values.dtype not in known:
        values = values.float()
    return values.numpy() if lies_on_host(values) else values


def _refuse_future(values: Any) -> None:
    kind = getattr(sys.modules.get("distributed"), "Future", ())
    if isinstance(values, kind):
        raise TypeError(
            f"This is a {type(values).__module__}.{type(values).__name__}; of Dask's "
            "collections, arrays and data frames can be used. Pass future.result() if "
            "it fits into memory."
        )


def is_standard(values: Any) -> bool:
    """Whether these are an array of the array API standard, but not of NumPy."""
    names = ("__array_namespace__", "__dlpack_device__")
    is_ours = isinstance(values, (np.ndarray, np.generic))
    return not is_ours and all(hasattr(values, name) for name in names)


def _of_standard(values: Any) -> NDArray[Any]:
    if values.__dlpack_device__()[0] != HOST_MEMORY:
        raise TypeError(
            f"An array of {type(values).__module__} lies on the device "
            f"{values.device}, and is not moved unasked. Pass "
            "torch.from_dlpack(array), which shares its memory, to stay there."
        )
    array: NDArray[Any] = np.from_dlpack(values)
    return array


def readable_proba(values: Any) -> Any:
    """Return what holds probabilities as `readable` does.

    Rows of bfloat16 whose sum is off by no more than its 8 bits explain are normalised.
    """
    rows = readable(values)
    if not is_tensor(values) or str(values.dtype) != "torch.bfloat16" or rows.ndim != 2:
        return rows
    off = abs(rows.sum(axis=1) - 1)
    off = (off > SUM_TOLERANCE) & (off <= BFLOAT16_SUM) & (rows.shape[1] > 1)
    if off.any():
        rows[off] /= rows[off].sum(axis=1)[:, None]
    return rows


def column_on_host(values: Any) -> Any:
    """Bring what is small, such as labels or weights, to the host.

    Masked entries are refused, and dates and durations are in one unit.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{np.ma.count_masked(values)} entries of labels, weights or the like are "
            "masked, which says that they are not known. Leave their rows out; labels "
            "of places in an image may be ignore_index."
        )
    values = readable(values)
    values = values.cpu().numpy() if is_tensor(values) else _plain(values)
    return in_one_unit(values) if isinstance(values, np.ndarray) else values


def in_one_unit(values: NDArray[Any]) -> NDArray[Any]:
    """Return dates and durations in microseconds, where that loses nothing.

    Of nanoseconds NumPy makes Python's integers, of others its dates.
    """
    kind = values.dtype.kind
    if kind not in "mM" or values.dtype == f"{kind}8[us]":
        return values
    converted = values.astype(f"{kind}8[us]")
    return converted if np.array_equal(converted, values, equal_nan=True) else values


def _plain(values: Any) -> Any:
    """Return pandas' own kinds of bool and integer as NumPy's.

    scikit-learn makes them floats. Those with missing values are returned as they are.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(values, "isna") or is_dask(values):
        return values
    kinds, known = _types(values), pandas.api.types
    is_bool = all(map(known.is_bool_dtype, kinds))
    is_whole = is_bool or all(map(known.is_integer_dtype, kinds))
    if not kinds or not is_whole or np.any(values.isna()):
        return values
    types = (getattr(kind, "numpy_dtype", kind.type) for kind in kinds)
    return np.asarray(values, dtype=bool if is_bool else np.result_type(*types))


def given_back(result: NDArray[Any], like: Any) -> Any:
    """Return numbers as an array of the kind of `like`, where it lies; texts as came.

    That is a tensor, or an array of the array API standard; else it is NumPy's.
    """
    if result.dtype.kind not in NUMBERS:
        return result
    if is_tensor(like):
        return sys.modules["torch"].from_numpy(result).to(like.device)
    return alike(result, like) if is_standard(like) else result


def is_column(values: Any) -> bool:
    """Whether these are one number a row, such as of one of two classes alone."""
    shape = shape_of(values)
    return len(shape) == 1 or shape[1:] == (1,)


def shape_of(values: Any) -> tuple[int, ...]:
    """Return the shape of what is, or becomes, an array; never by its own functions."""
    return tuple((values if hasattr(values, "shape") else np.asarray(values)).shape)


def is_tensor(values: Any) -> bool:
    """Whether these are rows of a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def is_dask(values: Any) -> bool:
    """Whether these are rows of a Dask collection."""
    return hasattr(values, "__dask_graph__") and "dask" in sys.modules


FIT_THERE = (
    "TemperatureScaling, VectorScaling, IsotonicCalibration and others fit Dask "
    "collections where they lie."
)


def refuse_dask(name: str, X: Any, otherwise: str = FIT_THERE) -> None:
    """Refuse a Dask collection, for what needs all rows in memory."""
    if is_dask(X):
        raise TypeError(
            f"X is a Dask collection, and {name} needs all rows in memory. Pass "
            f"X.compute() if they fit. {otherwise}"
        )


def refuse_outside(values: Any, name: str) -> None:
    """Refuse rows of a Dask collection or a file, for what needs them in memory."""
    if is_dask(values):
        raise TypeError(
            f"{name} is a Dask collection, and this needs all of its rows in memory. "
            f"Pass {name}.compute() if they fit."
        )
    if is_stored(values):
        raise TypeError(
            f"{name} is a {type(values).__name__}, a file of {values.shape[0]:,} rows. "
            f"This needs all of them in memory: read them first, such as {name}[:]."
        )


def refuse_dates(values: Any, name: str) -> None:
    """Refuse dates and durations, which NumPy would turn into numbers unasked."""
    for dtype in _types(values):
        # NumPy reads a column of categories as what they are.
        dtype = getattr(getattr(dtype, "categories", None), "dtype", dtype)
        if str(dtype).lower().startswith(("date", "time", "duration")):
            raise TypeError(
                f"{name} holds values of type {dtype}; it needs numbers. Leave dates "
                "and durations out."
            )


def refuse_masked(values: Any, owner: str, name: str = "X") -> None:
    """Refuse masked entries, which NumPy would read as if they were not."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} is a masked array, {np.ma.count_masked(values)} of whose entries "
            f"are masked, and {owner} needs all of them. Leave such rows out. Options "
            "that a row of logits does not have are for OptionCalibration and "
            "pad_options."
        )


def refuse_missing(
    labels: NDArray[Any], name: str, needs: str = "class labels"
) -> None:
    """Refuse None, NaN, NaT and NA among labels that are objects, texts or dates."""
    is_missing: NDArray[np.bool_] = np.zeros(1, dtype=bool)
    if labels.dtype.kind == "O":
        is_missing = missing(labels)
    elif labels.dtype.kind in "mM":
        is_missing = np.isnat(labels)
    if is_missing.any():
        row = int(is_missing.argmax())
        raise ValueError(
            f"{name} holds {labels[row]} in row {row}; it needs {needs}. Leave out "
            "rows where they are not known."
        )


def missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each of these objects is None, NaN, NaT or NA."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        found: NDArray[np.bool_] = pandas.isna(values)
        return found
    is_missing = [
        each is None or (isinstance(each, float | np.generic) and each != each)
        for each in values.flat
    ]
    return np.reshape(is_missing, values.shape)


def _types(values: Any) -> list[Any]:
    """Return the types of all columns; of nested lists that of the first entry."""
    while isinstance(values, (list, tuple)) and len(values) > 0:
        values = values[0]
    if hasattr(values, "dtype"):
        return [values.dtype]
    if hasattr(values, "dtypes"):
        return list(values.dtypes)
    if hasattr(values, "schema"):  # pyarrow
        return list(values.schema.types)
    return [values.type] if hasattr(values, "type") else []


def column_names(X: Any) -> list[Any] | None:
    """Return the names of the columns of a data frame, or None; refuse one name twice.

    A series is a column of its name.
    """
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) == 1 and isinstance(getattr(X, "name", None), str):
        return [X.name]
    names = getattr(X, "column_names", getattr(X, "columns", None))
    if names is None or callable(names) or len(shape) != 2 or len(names) != shape[1]:
        return None
    names = list(names)
    twice = names_twice(names)
    if twice:
        raise ValueError(
            f"Columns of one name: {twice}. Each column needs a name of its own; "
            "rename them, or pass the values without names."
        )
    return names


def names_twice(names: Iterable[Any]) -> list[Any]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]
