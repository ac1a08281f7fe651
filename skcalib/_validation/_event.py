"""What one column of probabilities is: of an event, or of one of two classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._validation._column_classes import preview
from skcalib._validation._containers import column_on_host
from skcalib._warnings import warn
from skcalib.exceptions import OneColumnWarning

# `pos_label` of the probability of an event, beside numbers that say if it happened.
EVENT = "event"
# So much of the error has to cancel for a warning.
CANCELLED = 0.01


def is_event(y_true: ArrayLike, pos_label: object) -> bool:
    """Whether a column is the probability of what `y_true` counts, and never turned.

    Beside labels that are texts, "event" is one of these.
    """
    if not (isinstance(pos_label, str) and pos_label == EVENT):
        return False
    truth = np.asarray(column_on_host(y_true))
    is_bool = truth.dtype.kind == "O" and all(isinstance(t, bool) for t in truth.flat)
    return is_bool or truth.dtype.kind in "biuf"


def check_event(
    y: NDArray[Any], proba: Any, labels: ArrayLike | None
) -> NDArray[np.intp]:
    """Return whether the event happened, 0 or 1 for each row."""
    if proba.ndim == 2 and proba.shape[1] != 1:
        raise ValueError(
            f'pos_label="event" takes the probability of the event, one column, but '
            f"y_proba has {proba.shape[1]}. Of the probabilities of all classes the "
            "confidence is y_proba.max(axis=1), and y_true says whether that class "
            "was right; without pos_label both are found by themselves."
        )
    if labels is not None:
        raise ValueError(
            f'labels={preview(np.asarray(labels))} beside pos_label="event": an event '
            "has no classes to name. Leave labels out."
        )
    other = (y != 0) & (y != 1)
    if other.any():
        row = int(other.argmax())
        raise ValueError(
            f'y_true holds {y[row]} in row {row}. With pos_label="event" it says '
            "whether the event happened: 1 or 0, True or False."
        )
    return y.astype(np.intp)


def warn_of_confidences(
    proba: NDArray[Any], codes: NDArray[np.intp], weight: NDArray[np.float64]
) -> None:
    """Warn where one column looks like confidences beside whether each was right.

    Read as the probability p of one class, a row below 0.5 predicts the other one,
    and the sign of its gap turns. Where p is off in one direction on both sides of
    0.5, each by more than chance, the error of the predicted class cancels. This is
    what confidences do, and shifted frequencies of the classes (class weights), but no
    temperature. How small p gets tells nothing: a single row may state 0.
    """
    p = np.minimum(proba[:, 1].astype(np.float64), 1)
    low = p < 0.5
    gap = weight * (p - codes)
    variance = weight**2 * p * (1 - p)
    gaps = np.array([gap[low].sum(), gap[~low].sum()])
    noise = np.sqrt([variance[low].sum(), variance[~low].sum()])
    shares = np.abs(gaps) / weight.sum()
    is_clear = (np.abs(gaps) > 3 * noise).all() and 2 * shares.min() > CANCELLED
    if not is_clear or (gaps[0] > 0) != (gaps[1] > 0):
        return
    warn(
        "y_proba has a single column, which is read as the probability of the second "
        f"class, and it is too {'large' if gaps[0] > 0 else 'small'} both below and "
        "above 0.5. Rows below 0.5 predict the first class, whose error has the "
        f"opposite sign: up to {2 * shares.min():.3f} of error cancels. If these are "
        "confidences and y_true says whether each was right, pass "
        'pos_label="event". If they are the probabilities of '
        "a class, name it by pos_label, and this warning will not come again.",
        OneColumnWarning,
    )
