"""What is looked for in a file, by which names, and what is found."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import free_memory
from skcalib._networks._named import NamedRows
from skcalib._validation import names_twice
from skcalib.cli._errors import DataError

Role = Literal["inputs", "logits", "probabilities", "labels", "groups"]

USUAL_NAMES: dict[Role, tuple[str, ...]] = {
    "inputs": ("inputs", "input", "x", "images", "image", "features"),
    "logits": ("logits", "scores"),
    "probabilities": ("probabilities", "proba", "probs", "predictions"),
    "labels": ("labels", "label", "y", "y_true", "targets", "target", "ground_truth"),
    "groups": ("groups", "group"),
}
# What is one number or name for each row.
OF_A_ROW = ("labels", "groups")
STANDARD_INPUT = Path("-")
# Numbers of which so many would not fit in the free memory stay in their file.
LARGEST_SHARE = 2
# Above it not every whole number is a float64.
LARGEST_WHOLE = 2**53
# Text that may be an integer; programs write 3 as 3.0, +3 and 3.000e+00.
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*(e[-+][0-9]+)?)?")


class Rows(NamedTuple):
    """What a file holds: one row a sample, labels and names where it has them, groups.

    `values` are an array, or rows that stay in the file, as they would take too much
    memory; `names` are those of their columns, in a table with a header. Groups are
    read where their key is given.
    """

    values: Any
    labels: NDArray[Any] | None = None
    names: list[str] | None = None
    groups: NDArray[Any] | None = None


class Request(NamedTuple):
    """What to look for in a file; a key is the name of an array or of columns.

    With `by_name` the key lists several inputs of a model. `columns` are names that
    columns are known to have: of scores those of their classes, of labels those in the
    file of the scores; `classes` are names that labels are known to have otherwise.
    Labels that are not wanted are told apart from the values, and left unread.
    """

    role: Role
    key: str | None = None
    labels_key: str | None = None
    groups_key: str | None = None
    by_name: bool = False
    columns: Sequence[str] = ()
    classes: Sequence[str] = ()
    wants_labels: bool = True

    @property
    def key_option(self) -> str:
        """The option of the command line that gives the key."""
        return f"--{self.role}-key"

    @property
    def keys(self) -> list[str]:
        """The names in the key, which commas separate."""
        return split_names(self.key or "")


Reader = Callable[[Path, Request], Rows]


def split_names(text: str) -> list[str]:
    """Return names that commas separate."""
    return [name.strip() for name in text.split(",")]


def is_large(shape: tuple[int, ...], itemsize: int = 8) -> bool:
    """Whether so many numbers would take too much of the memory."""
    return LARGEST_SHARE * math.prod(shape) * itemsize > free_memory()


def is_dataset(path: Path) -> bool:
    """Whether a path is a folder that Hugging Face's datasets have written."""
    return (path / "state.json").is_file()


def stays_in_file(rows: Any) -> bool:
    """Whether rows of several columns are too many to be read at once."""
    several = len(rows.shape) > 1 and rows.shape[1] > 1
    return several and is_large(rows.shape, rows.dtype.itemsize)


def in_memory(rows: Any) -> Any:
    """Read rows of a file, unless they are to stay there."""
    return rows if stays_in_file(rows) else rows[:]


def take(
    path: Path,
    held: Mapping[str, str],
    request: Request,
    read: Callable[[str], Any],
    read_labels: Callable[[str], Any],
) -> Rows:
    """Read the array, or by name the arrays, that are asked for, labels and groups.

    `held` describes each array of the file.
    """
    names = list(held)
    check_names(path, names)
    if request.by_name:
        label_name = find_name(names, "labels", request.labels_key)
        found = {key: find_name(names, "inputs", key) for key in request.keys}
        values: Any = NamedRows({key: read(str(name)) for key, name in found.items()})
    else:
        name, label_name = choose(path, held, request)
        values = read(name)
    is_unread = label_name is None or not request.wants_labels
    labels = None if is_unread else read_labels(str(label_name))
    if request.groups_key is None:
        return Rows(values, labels)
    groups = find_name(names, "groups", request.groups_key)
    return Rows(values, labels, groups=read_labels(str(groups)))


def choose(
    path: Path, held: Mapping[str, str], request: Request
) -> tuple[str, str | None]:
    """Return the names of the array that is asked for, and of that of its labels."""
    names = list(held)
    name = find_name(names, request.role, request.key)
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        listed = ", ".join(f"{name} ({held[name]})" for name in names)
        raise DataError(
            f"{path} has no array that can be taken for the {request.role}. It "
            f"holds {listed or 'none'}. Name one with {request.key_option}."
        )
    if request.role in OF_A_ROW:
        return name, None
    return name, find_name(names, "labels", request.labels_key)


def find_name(names: list[str], role: Role, key: str | None) -> str | None:
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


def refuse_missing(path: Path, of: str, is_missing: NDArray[np.bool_]) -> None:
    """Refuse labels or groups, called `of`, of which some are missing."""
    if is_missing.any():
        raise DataError(
            f"{path} misses {is_missing.sum():,} values of {of}, the first in row "
            f"{int(is_missing.argmax())}, counted from 0. Remove such rows."
        )


def whole_numbers(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return floats as integers if all are whole numbers; pandas writes 3 as 3.0."""
    is_whole = np.abs(numbers) < LARGEST_WHOLE  # False for NaN
    if not (is_whole & (np.trunc(numbers) == numbers)).all():
        return numbers
    return numbers.astype(np.int64)


def integers(text: NDArray[Any], names: Collection[str]) -> NDArray[Any]:
    """Return text as integers where all of it is whole numbers, else as it is.

    Names that an integer would spell otherwise, such as 01, stay text.
    """
    if not all(map(NUMBER.fullmatch, set(text.ravel().tolist()))):
        return text
    try:
        numbers = text.astype(np.int64)
    except (ValueError, OverflowError):
        numbers = whole_numbers(text.astype(np.float64))
    spelled_otherwise = set(text[text != numbers.astype(str)].tolist())
    is_text = numbers.dtype.kind != "i" or not spelled_otherwise.isdisjoint(names)
    return text if is_text else numbers


def check_names(path: Path, names: list[str]) -> None:
    """Refuse two columns, or arrays, of one name: which is meant cannot be known."""
    twice = names_twice(names)
    if twice:
        raise DataError(
            f"{path} uses a name more than once: {', '.join(twice[:6])}. Rename the "
            "columns, so that each has a name of its own."
        )
