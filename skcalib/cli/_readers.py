"""Arrays and labels out of .npy, .npz, .csv and .parquet files.

Reading never runs code from a file: NumPy files that hold Python objects are refused.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skcalib.cli._errors import DataError
from skcalib.cli._tables import CsvTable, ParquetTable, Table

Role = Literal["inputs", "logits", "probabilities", "labels"]

USUAL_NAMES: dict[Role, tuple[str, ...]] = {
    "inputs": ("inputs", "input", "x", "images", "image", "features"),
    "logits": ("logits", "scores"),
    "probabilities": ("probabilities", "proba", "probs", "predictions"),
    "labels": ("labels", "label", "y", "y_true", "targets", "target", "ground_truth"),
}


class Rows(NamedTuple):
    """What a file holds: one row a sample, and the labels where it has them."""

    values: NDArray[Any]
    labels: NDArray[Any] | None


class Request(NamedTuple):
    """What to look for in a file; a key is the name of an array or of columns."""

    role: Role
    key: str | None = None
    labels_key: str | None = None


def read_rows(path: Path, request: Request) -> Rows:
    """Read inputs, logits or probabilities, with labels where the same file has them.

    In an .npz file an array is found by its key, else by a usual name of its role,
    else because it is the only one. In a table the label column is found likewise;
    the values are the columns named in the key, separated by commas, else all others.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} has the ending {path.suffix!r}; files that can be read end in "
            f"{', '.join(_READERS)}."
        )
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        rows = reader(path, request)
    except DataError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {_reason(error)}") from error
    for array in rows:
        if array is not None and array.ndim == 0:
            raise DataError(f"{path} holds a single value where rows are needed.")
    if request.role != "labels" and rows.values.dtype.kind not in "fiu":
        raise DataError(
            f"{path} holds {request.role} of type {rows.values.dtype}; they must be "
            "numbers."
        )
    return rows


def read_labels(path: Path, key: str | None) -> NDArray[Any]:
    """Read a file of labels: an array, or one column of a table."""
    labels = read_rows(path, Request("labels", key)).values
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path} holds an array of shape {labels.shape}; labels are one number or "
            "name for each row."
        )
    return labels


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "allow_pickle" in text or "Python objects" in text or "magic string" in text:
        return (
            "it is not a NumPy file of numbers or text. Python objects are never "
            "unpickled, as that could run code."
        )
    return text


def _read_npy(path: Path, request: Request) -> Rows:
    # Mapped, not read: logits may be larger than memory.
    array = np.lib.format.open_memmap(path, mode="r")
    if request.key is not None:
        raise DataError(
            f"{path} holds one array without a name; leave out --{request.role}-key."
        )
    return Rows(array, None)


def _read_npz(path: Path, request: Request) -> Rows:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise DataError(f"{path} is a single array; let its name end in .npy.")
        name = _find(list(arrays), request.role, request.key)
        if name is None and len(arrays) == 1:
            name = arrays.files[0]
        if name is None:
            raise DataError(
                f"{path} has no array that can be taken for the {request.role}. It "
                f"holds {_describe(arrays)}. Name one with --{request.role}-key."
            )
        label_name = None
        if request.role != "labels":
            label_name = _find(list(arrays), "labels", request.labels_key)
        return Rows(arrays[name], None if label_name is None else arrays[label_name])


def _find(names: list[str], role: Role, key: str | None) -> str | None:
    """Return `key`, or the one name that is usual for the role, or None."""
    if key is not None:
        if key not in names:
            raise DataError(
                f"There is no {key!r} for the {role}; the names are {', '.join(names)}."
            )
        return key
    usual = [name for name in names if name.lower() in USUAL_NAMES[role]]
    if len(usual) > 1:
        raise DataError(
            f"Several names may stand for the {role}: {', '.join(usual)}. "
            f"Choose one with --{role}-key."
        )
    return usual[0] if usual else None


def _describe(arrays: Any) -> str:
    return ", ".join(
        f"{name} ({array.dtype}, shape {array.shape})" for name, array in arrays.items()
    )


def _read_table(table: Table, request: Request) -> Rows:
    names = table.names
    if request.role == "labels":
        name = _find(names, "labels", request.key)
        if name is None and len(names) > 1:
            raise DataError(
                f"The columns are {', '.join(names)}; none has a usual name of labels. "
                "Name one with --labels-key."
            )
        return Rows(table.column(name or names[0]), None)
    label_name = _find(names, "labels", request.labels_key)
    if request.key is None:
        chosen = [name for name in names if name != label_name]
    else:
        chosen = [
            _find(names, request.role, name.strip()) or ""
            for name in request.key.split(",")
        ]
    labels = None if label_name is None else table.column(label_name)
    return Rows(table.matrix(chosen), labels)


_READERS: dict[str, Callable[[Path, Request], Rows]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": lambda path, request: _read_table(CsvTable(path), request),
    ".parquet": lambda path, request: _read_table(ParquetTable(path), request),
}
