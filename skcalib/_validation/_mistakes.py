"""Arguments that are probably not what they were taken for: swapped, or of a kind.

Looked at are their shapes, the first rows and, where labels may count the columns from
1, which of them occur.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData, on_host
from skcalib._numerics import TINY
from skcalib._onnx._outputs import are_proba
from skcalib._validation._column_classes import preview
from skcalib._validation._containers import (
    column_on_host,
    is_column,
    is_dask,
    shape_of,
)
from skcalib._warnings import warn
from skcalib.exceptions import OneColumnWarning, ProbabilitiesAsLogitsWarning

# So many rows are looked at.
FEW_ROWS = 64
# And so many where labels may count the columns from 1.
NUMBERED_ROWS = 1000
# And so many where the columns may be in another order.
ORDER_ROWS = 256
# And so many of a single column, whose sign is told from its mean in each class.
SIGN_ROWS = 10_000
# So many standard errors below 0 is their difference where the sign is wrong.
SIGN_ERRORS = 5
# Fewer rows of a class say nothing.
LEAST_ROWS = 10


def refuse_swapped(labels: Any, scores: Any, names: tuple[str, str]) -> None:
    """Refuse scores where labels belong, beside a column of labels.

    One column belongs beside labels of two columns, where these are shares; beside
    more it never does. `names` are those of the arguments.
    """
    if is_dask(labels) or is_dask(scores):
        return
    shape, column = shape_of(labels), shape_of(scores)
    if is_column(labels) and _are_fractions(labels):
        _refuse_swapped_columns(labels, scores, names)
    if len(shape) != 2 or shape[1] < 2 or not is_column(scores):
        return
    if shape[1] == 2 and not (_are_labels(scores) and _are_fractions(labels)):
        return
    shares = f" If {names[0]} holds shares, pass {names[1]} as floating-point numbers."
    raise ValueError(
        f"{names[0]} has shape {shape} and {names[1]} has shape {column}: are they "
        f"swapped? {names[0]} holds the class of each row, {names[1]} a column of "
        f"scores for each class.{shares if shape[1] == 2 else ''}"
    )


def _refuse_swapped_columns(labels: Any, scores: Any, names: tuple[str, str]) -> None:
    if not is_column(scores):
        return
    few = _few(scores)
    if not _are_labels(scores) and (few.dtype.kind != "f" or (few % 1 != 0).any()):
        return
    raise ValueError(
        f"{names[0]} holds fractions, such as {_few(labels).ravel()[0]}, and "
        f"{names[1]} whole numbers or names: are they swapped? {names[0]} is the class "
        f"of each row{', and comes first' if names[0] == 'y_true' else ''}."
    )


def _few(values: Any) -> NDArray[Any]:
    rows = values if hasattr(values, "__getitem__") else np.asarray(values)
    return np.asarray(column_on_host(rows[:FEW_ROWS]))


def _are_labels(column: Any) -> bool:
    return _few(column).dtype.kind in "iubOUS"


def _are_fractions(rows: Any) -> bool:
    few = _few(rows)
    return few.dtype.kind == "f" and bool((few[np.isfinite(few)] % 1 != 0).any())


def warn_of_mistakes(
    name: str, data: CalibrationData, keeps_class: bool, is_named: bool
) -> None:
    """Warn of a calibration set that is probably not what was meant.

    `keeps_class` says of a calibrator that it cannot turn the sign of a column, nor
    their order, and `is_named` that the class of each column was told.
    """
    if data.source.is_remote:
        return
    few = data.head(FEW_ROWS)
    # Scores that came as a single column have zeros beside it.
    if few.shape[1] == 2 and not few[:, 0].any():
        if keeps_class:
            _warn_of_sign(name, data)
        return
    _warn_of_probabilities(name, few)
    if is_named:
        return
    told = "y", data.codes, data.n_classes, data.head, "classes"
    is_numbered = data.classes.dtype.kind in "iu" and data.classes[0] == 0
    if not (is_numbered and warn_of_counting_from_1(*told)) and keeps_class:
        _warn_of_order(name, data)


def warn_of_counting_from_1(
    name: str,
    codes: NDArray[np.intp],
    n_columns: int,
    head: Callable[[int], NDArray[Any]],
    parameter: str,
) -> bool:
    """Warn of labels that were read as numbers of columns and probably count from 1.

    Return whether there was a reason: none is 0, and the largest score lies in the
    column before that of the label. `head` returns the first rows of scores,
    `parameter` names the columns.
    """
    few = on_host(codes[:NUMBERED_ROWS])
    if n_columns < 3 or not few.all() or not on_host(codes).all():
        return False
    scores, row = head(NUMBERED_ROWS), np.arange(len(few))
    largest = scores.max(axis=1)
    of_label, before = scores[row, few], scores[row, few - 1]
    hits = int(((of_label == largest) & (before < largest)).sum())
    shifted = int(((before == largest) & (of_label < largest)).sum())
    if shifted - hits <= SIGN_ERRORS * np.sqrt(shifted + hits):
        return False
    warn(
        f"No label in {name} is 0, and of the first {len(few)} rows {hits} have their "
        f"largest score in the column of that number, counted from 0, and {shifted} in "
        "the one before. If the labels count the columns from 1, name them: "
        f"{parameter}=range(1, {n_columns + 1})."
    )
    return True


def _warn_of_order(name: str, data: CalibrationData) -> None:
    """Warn of columns in which the true class has less than the mean of its row."""
    if data.row is not None:
        return
    scores = data.head(ORDER_ROWS).astype(np.float64)
    scores /= max(np.abs(scores).max(), TINY)  # Sums of huge ones overflow.
    codes = on_host(data.codes[: len(scores)])
    used = on_host(data.sample_weight[: len(scores)]) > 0
    own = (scores[np.arange(len(scores)), codes] - scores.mean(axis=1))[used]
    if len(own) < FEW_ROWS:
        return
    if own.mean() >= -SIGN_ERRORS * own.std() / np.sqrt(len(own)):
        return
    warn(
        f"In the first {len(scores)} rows of X the logit of the true class lies below "
        f"the mean of its row on average, and {name} cannot turn that around. Are the "
        f"columns those of the classes {preview(data.classes)}, in this order, and are "
        "larger logits likelier? Else name the class of each column: classes=[...]."
    )


def _warn_of_probabilities(name: str, few: NDArray[Any]) -> None:
    # Rows of zeros and a single one show nothing.
    is_one_hot = (few.max(axis=1) > 1 - 1e-6).all()
    if few.min() < -1e-6 or is_one_hot or not are_proba(few):
        return
    warn(
        f"The first {len(few)} rows of X are non-negative and sum to 1, as "
        f"probabilities do, and {name} reads them as logits. Pass probabilities "
        "through skcalib.logits_from_proba(X). If they are logits, silence this: "
        'warnings.simplefilter("ignore", '
        "skcalib.exceptions.ProbabilitiesAsLogitsWarning).",
        ProbabilitiesAsLogitsWarning,
    )


def _warn_of_sign(name: str, data: CalibrationData) -> None:
    log_odds = data.head(SIGN_ROWS)[:, 1]
    used = on_host(data.sample_weight[:SIGN_ROWS]) > 0
    is_second = on_host(data.codes[:SIGN_ROWS]) == 1
    first, second = log_odds[used & ~is_second], log_odds[used & is_second]
    if data.row is not None or min(len(first), len(second)) < LEAST_ROWS:
        return
    error = np.sqrt(first.var() / len(first) + second.var() / len(second))
    if second.mean() - first.mean() >= -SIGN_ERRORS * error:
        return
    labels = data.classes.tolist()
    warn(
        f"X is a single column, which {name} reads as the log-odds of the second "
        f"class, {labels[1]!r}, and it is larger where {labels[0]!r} is true. If it is "
        f"that one's, name the classes in order, classes={labels[::-1]!r}.",
        OneColumnWarning,
    )
