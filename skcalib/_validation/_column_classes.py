"""Columns that are named after classes, and columns that are no classes at all."""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import product
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._numerics import distinct
from skcalib._validation._containers import in_one_unit

# What an index is called that was saved as a column.
_INDEX_NAME = re.compile(
    r"unnamed.*|__index_level_\d+__|level_\d+|#|no\.?|nr\.?|rows?|row_?names?"
    r"|(.*[ _.-])?(id|idx|index|number)|(row|sample|image|record|item|user)id",
    re.IGNORECASE,
)
# What the predicted class is called that was saved as a number.
_PREDICTION_NAME = re.compile(
    r"y_?hat|arg_?max|(y[ _.-]?)?pred(s|icted|ictions?)?([ _.-]?(class|label))?",
    re.IGNORECASE,
)
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?)")
_MIDNIGHT = re.compile(r"T00:00:00(\.0+)?$")
_POINT_ZERO = re.compile(r"(?<=\d)\.0*$")
BOTH = np.array([False, True])
# Labels of which the larger is the positive one; True equals 1.
WITH_A_POSITIVE = ([0, 1], [-1, 1])


def classes_of_columns(
    present: NDArray[Any], names: Iterable[Any], parameter: str = "classes"
) -> NDArray[Any] | None:
    """Return the label that each column is named after; None where none is.

    `present` are the labels that occur, sorted. All of them must be names of columns,
    or none; a column whose label never occurs is normal. Labels are compared as text,
    as tables have no other names; what all names begin or end with is left out where
    the rest are the labels. A single column holds the scores of its own class against
    the other.
    """
    names = [as_text(name) for name in names]
    label_of = {as_text(label): label for label in present.tolist()}
    if len(names) == 1:
        return _with_other(names[0], label_of, present)
    names = _bare(names, label_of.keys(), present)
    numbers = [str(k) for k in range(len(names))]
    known = set(names)
    found = [label for text, label in label_of.items() if text in known]
    missing = [label for text, label in label_of.items() if text not in known]
    is_text = present.dtype.kind not in "iu" and label_of.keys() == known
    # Columns that were numbered, not named.
    if not found or (names == numbers and not is_text):
        return None
    if missing:
        raise ValueError(
            f"Of the labels in y, {preview(found)} are names of columns and "
            f"{preview(missing)} are not; the columns are {preview(names)}. "
            f"{_what_to_do(parameter)}"
        )
    if present.dtype.kind in "iu" and label_of.keys() <= set(numbers) != known:
        raise ValueError(
            f"The labels {preview(found)} in y may be names or numbers of columns; the "
            f"columns are {preview(names)}. {_what_to_do(parameter)}"
        )
    try:
        classes = [_as_label(name, label_of) for name in names]
    except ValueError as error:
        raise ValueError(
            f"The labels in y are named by columns, and are {preview(present)}; "
            f"not all of the columns {preview(names)} are of that kind. "
            f"{_what_to_do(parameter)}"
        ) from error
    dtype = object if present.dtype.kind == "O" else None
    return np.array(classes, dtype=dtype)


def in_another_order(names: Sequence[Any], classes: NDArray[Any]) -> bool:
    """Whether columns are named after classes, but not each after its own.

    A single column stands for the last class. Numbers 0, 1, ... are no names, unless
    they are those of all classes.
    """
    texts, known = _as_texts(names, classes)
    numbers = [str(k) for k in range(len(texts))]
    if texts == numbers and set(texts) != set(known):
        return False
    pairs, labels = zip(texts, known[-len(texts) :], strict=False), set(known)
    return any(name != label and name in labels for name, label in pairs)


def refuse_another_order(
    names: Sequence[Any] | None,
    classes: ArrayLike,
    parameter: str,
    pos_label: object = None,
) -> None:
    """Refuse classes that are names of the columns, but not each of its own.

    A single column stands for `pos_label`, else for the last class. Numbers 0, 1, ...
    in order are no names.
    """
    if names is None:
        return
    classes = np.asarray(classes)
    told = classes.tolist()[-len(names) :]
    if len(names) == 1 and parameter == "labels":
        told, parameter = told if pos_label is None else [pos_label], "pos_label"
    if stand_for_others(names, told, classes):
        raise ValueError(
            f"The columns are named {preview(names)}, but by {parameter} they stand "
            f"for {preview(told)}. "
            + (
                "Pass them in this order."
                if parameter.endswith("_")  # It was learned.
                else f"Name the class of each column in {parameter}, in the order of "
                "the columns, or rename them."
            )
        )


def stand_for_others(
    names: Sequence[Any], told: Sequence[Any], classes: NDArray[Any]
) -> bool:
    """Whether names are those of all `classes`, or of one, but not of those `told`."""
    texts, known = _as_texts(names, classes)
    of_classes = set(texts) == set(known) or (len(texts) == 1 and texts[0] in known)
    numbers = [str(k) for k in range(len(texts))]
    return of_classes and texts not in ([*map(as_text, told)], numbers)


def _as_texts(
    names: Sequence[Any], classes: NDArray[Any]
) -> tuple[list[str], list[str]]:
    """Return what tells names of columns apart, and classes, as text."""
    known = [as_text(label) for label in classes.tolist()]
    return _bare([as_text(name) for name in names], known, classes), known


def like_known(labels: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Return labels as the known ones are written, where all are these as text.

    A file of the labels 1 and 2 alone is read as numbers though others are text.
    """
    if labels.dtype.kind == known.dtype.kind or labels.ndim != 1:
        return labels
    present, codes = distinct(labels)
    label_of = {as_text(label): label for label in known.tolist()}
    texts = [as_text(label) for label in present.tolist()]
    if not texts or not label_of.keys() >= set(texts):
        return labels
    return np.array([label_of[text] for text in texts], dtype=known.dtype)[codes]


def _bare(
    names: list[str], labels: Collection[str], classes: NDArray[Any]
) -> list[str]:
    """Return what tells names apart, where that are all labels or all numbers.

    That is what is left without a common beginning and end, up to a sign such as _ or
    a bracket; 1.0 is the number 1, and of bool labels 1 is True.
    """
    wanted = set(labels)
    if len(names) < 2 or wanted & set(names):
        return names
    numbers = {str(k) for k in range(len(names))}
    read = {"0": "False", "1": "True"} if classes.dtype.kind == "b" else {}
    for i, j in product(_cuts(names), _cuts([name[::-1] for name in names])):
        rest = [_POINT_ZERO.sub("", name[i : len(name) - j]) for name in names]
        rest = [read.get(name, name) for name in rest]
        if wanted <= set(rest) and set(rest) in (wanted, numbers):
            return rest
    return names


def _cuts(names: list[str]) -> list[int]:
    """Return the lengths of common beginnings that end in a sign; 0 is the first."""
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    length = next((k for k, (a, b) in pairs if a != b), len(first))
    return [k for k in range(length + 1) if k == 0 or not first[k - 1].isalnum()]


def _with_other(
    name: str, label_of: dict[str, Any], present: NDArray[Any]
) -> NDArray[Any] | None:
    """Return both classes where a single column is named after one of them."""
    if present.dtype.kind in "iuf" or name not in label_of or len(label_of) != 2:
        return None
    other = next(label for text, label in label_of.items() if text != name)
    return np.array([other, label_of[name]], dtype=present.dtype)


def as_text(label: Any) -> str:
    """Return a label as it is compared with names; midnight is the date alone."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    text = label.decode() if isinstance(label, bytes) else str(label)
    date = _DATE.fullmatch(text)
    return text if date is None else _MIDNIGHT.sub("", "T".join(date.groups()))


def _as_label(name: str, label_of: dict[str, Any]) -> Any:
    """Return the label of this name, made like the others if it does not occur."""
    if name in label_of:
        return label_of[name]
    like = next(iter(label_of.values()))
    if isinstance(like, bool):
        return bool(("False", "True").index(name))
    return name.encode() if isinstance(like, bytes) else type(like)(name)


def _what_to_do(parameter: str) -> str:
    return (
        f"Say which class each column stands for, in order: {parameter}=[...], or "
        "rename the columns."
    )


def both_of_bool(y: NDArray[Any]) -> NDArray[Any]:
    """Return False and True for labels that are bool, of which one may not occur.

    Others are returned as they are. Only a single column says that there are two.
    """
    return BOTH if y.dtype.kind == "b" else y


def positive_column(
    classes: list[Any], pos_label: object, is_single: bool
) -> int | None:
    """Return the column of `pos_label`, None where nothing depends on it."""
    if pos_label is not None:
        if len(classes) > 2:
            raise ValueError(
                f"pos_label={pos_label!r} names the class of a single column, but "
                f"y_proba has {len(classes)} columns. Leave it out; labels=[...] names "
                "the classes of several columns."
            )
        if pos_label not in classes:
            raise ValueError(
                f"pos_label={pos_label!r} is not one of the labels {classes[0]!r} and "
                f"{classes[1]!r}."
            )
        return classes.index(pos_label)
    if is_single and classes not in WITH_A_POSITIVE:
        raise ValueError(
            f"y_proba has a single column and the labels are {classes[0]!r} and "
            f"{classes[1]!r}, so that it could be the probability of either. Name its "
            f"class, for instance pos_label={classes[1]!r}, or pass a column for each."
        )
    return None


def columns_of_labels(
    present: NDArray[Any], named: NDArray[Any], parameter: str, holds: str
) -> NDArray[np.intp]:
    """Return the column of each label that occurs; `named` are those of the columns.

    `parameter` has told them; errors begin with it, or with what `holds` the labels.
    """
    refuse_twice(named, parameter)
    if present.dtype.kind == "M":  # Dates are named in any unit, or as text.
        named = in_one_unit(named)
        present = like_known(present, named)
    column_of = {label: k for k, label in enumerate(named.tolist())}
    unknown = [label for label in present.tolist() if label not in column_of]
    if unknown:
        raise ValueError(
            f"{holds} that {parameter} does not name: {preview(unknown)}. "
            f"{parameter} is {preview(named)}."
        )
    return np.array([column_of[label] for label in present.tolist()], dtype=np.intp)


def refuse_twice(named: NDArray[Any], parameter: str, what: str = "class") -> None:
    """Refuse columns of which two have one name."""
    if len(set(named.tolist())) != named.shape[0]:
        raise ValueError(f"{parameter} names a {what} twice: {preview(named)}.")


def preview(labels: ArrayLike, limit: int = 6) -> str:
    """Write the first few labels."""
    labels = list(np.asarray(labels).tolist())
    shown = ", ".join(repr(label) for label in labels[:limit])
    return f"[{shown}{', ...' if len(labels) > limit else ''}]"


def refuse_index(
    names: Sequence[Any],
    rows: NDArray[Any],
    labels: ArrayLike,
    *,
    of: str = "X",
    advice: str = "Leave it out, or name the class of each column, in order: "
    "classes=[...].",
) -> None:
    """Refuse a column of row or class numbers; `advice` may name {others}.

    Such a column has a name like `id`, and holds whole numbers that are all different,
    or a name like `y_pred`, and holds whole numbers beside two columns or more; it is
    the name of no label that occurs.
    """
    if rows.ndim != 2 or rows.shape[1] != len(names) or rows.shape[0] < 2:
        return
    for name, column in zip(names, rows.T, strict=True):
        found = _numbered(str(name), column, len(names))
        if found is None:
            continue
        if str(name) not in map(as_text, np.ravel(np.asarray(labels)).tolist()):
            others = ",".join(str(other) for other in names if other != name)
            others = shorten(others, 200, placeholder=" ...")
            raise ValueError(
                f"The column {name!r} of {of} {found}. {advice.format(others=others)}"
            )


def _numbered(name: str, column: NDArray[Any], n_columns: int) -> str | None:
    """Return what a column numbers, rows or predicted classes, by its name."""
    is_index = _INDEX_NAME.fullmatch(name)
    is_prediction = n_columns > 2 and _PREDICTION_NAME.fullmatch(name)
    if not (is_index or is_prediction) or (column != np.floor(column)).any():
        return None
    if is_prediction:
        return "holds predicted classes: whole numbers, and no scores"
    if np.unique(column).shape[0] < column.shape[0]:
        return None
    return "numbers the rows: whole numbers, all different"
