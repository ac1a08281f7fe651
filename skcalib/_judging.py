"""Held-out probabilities, before and after: what a calibration is judged by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone

from skcalib._blocks import open_source
from skcalib._maps import CalibrationMap, Softmax, evaluate
from skcalib._sklearn_compat import safe_indexing
from skcalib._validation import (
    is_search,
    lone_class,
    make_splits,
    name_classes,
    number_groups,
    predicts_by_groups,
    takes_groups,
)
from skcalib._warnings import quiet
from skcalib.exceptions import (
    AbsentClassWarning,
    OneColumnWarning,
    ProbabilitiesAsLogitsWarning,
)

# Passes on the splits, and may tell of them.
Watch = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True)
class HeldOut:
    """True classes of samples with the probabilities before and after calibration.

    Attributes
    ----------
    codes : ndarray of shape (n_samples,)
        Column of the true class of each sample.

    classes : ndarray of shape (n_classes,)
        Class of each column.

    before, after : ndarray of shape (n_samples, n_classes)
        The probabilities.

    how : str
        In words, how many samples there are and what was fitted without them.

    columns : dict or None
        Which class each named column of a table was taken for.

    unit : ndarray of shape (n_samples,) or None
        Number of the group of each sample, where groups were given.
    """

    codes: NDArray[np.intp]
    classes: NDArray[Any]
    before: NDArray[Any]
    after: NDArray[Any]
    how: str
    columns: dict[str, Any] | None = None
    unit: NDArray[np.intp] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """The true class of each sample."""
        return self.classes[self.codes]

    @property
    def summary(self) -> str:
        """How sure the model was and is, and how often it is right."""
        (sure, right), (now_sure, now_right) = (
            (
                f"{100 * proba.max(axis=1).mean():.1f} %",
                f"{100 * (proba.argmax(axis=1) == self.codes).mean():.1f} %",
            )
            for proba in (self.before, self.after)
        )
        return (
            f"Before calibration the model was {sure} sure of its predictions on "
            f"average, and right {right} of the time. After calibration it is "
            f"{now_sure} sure, and right {now_right} of the time."
        )


def units(groups: NDArray[Any] | None) -> NDArray[np.intp] | None:
    """Return the number of the group of each sample, where groups are given."""
    return None if groups is None else number_groups(groups)


def in_samples(n_rows: int, unit: NDArray[np.intp] | None) -> str:
    """Return in words how many samples there are, and groups of them."""
    samples = f"{n_rows:,} samples"
    if unit is None:
        return samples
    n_groups = np.unique(unit).size
    return f"{samples} in {n_groups:,} group{'s' if n_groups > 1 else ''}"


def wants_groups(calibrator: Any) -> bool:
    """Whether the fit of a calibrator draws folds, and keeps groups together in them.

    One that learns what tells its groups apart is refused.
    """
    inner = calibrator.estimator if is_search(calibrator) else calibrator
    if predicts_by_groups(inner):
        raise ValueError(
            "groups name rows that belong together, which stay on one side of each "
            f"fold. Those of {type(inner).__name__} are calibrated by themselves, "
            "and are needed to predict: call its own fit(X, y, groups=...) for them, "
            "or leave groups out."
        )
    return takes_groups(calibrator)


def describe(calibrator: Any) -> str:
    """Return a calibrator and its parameters that are not at their defaults."""
    plain = name_classes(clone(calibrator), None)
    with config_context(print_changed_only=True):
        return " ".join(repr(plain).split())


def uncalibrated(logits: Any) -> Any:
    """Return the softmax of logits; a single column is that of the second class."""
    return evaluate(CalibrationMap(Softmax()), open_source(logits))


def cross_fit(
    estimator: Any,
    X: Any,
    codes: NDArray[np.intp],
    classes: NDArray[Any],
    before: NDArray[Any],
    *,
    rows: NDArray[Any],
    n_folds: int,
    seed: Any,
    groups: Any = None,
    told: bool = False,
    watch: Watch = iter,
) -> HeldOut:
    """Judge every sample by an estimator that was fitted on the other folds.

    Those that are equal in `rows` and of one class stay together, or with `groups`
    those of a group, of which the estimator is `told` or not. What all samples lack, or
    look like, is told where an estimator is fitted to them all. Folds are not balanced:
    a gain is to be none where classes are as frequent as they are by chance.
    """
    splits = make_splits(
        n_folds, rows, codes, np.ones(codes.shape[0]), seed, groups, balanced=False
    )
    _check_folds(splits, codes, classes, groups, told)
    unit = units(groups)
    # Whole numbers are probabilities, too.
    after = np.empty(before.shape, np.result_type(before, np.float32))
    labels = classes[codes]
    with quiet(AbsentClassWarning, OneColumnWarning, ProbabilitiesAsLogitsWarning):
        for train, test in watch(splits):
            known = {"groups": groups[train]} if told else {}
            fitted = clone(estimator)
            fitted.fit(safe_indexing(X, train), labels[train], **known)
            after[test] = fitted.predict_proba(safe_indexing(X, test))
    how = f"{in_samples(len(codes), unit)}, cross-fitted in {len(splits)} folds"
    return HeldOut(codes, classes, before, after, how, unit=unit)


def _check_folds(
    splits: list[Any],
    codes: NDArray[np.intp],
    classes: NDArray[Any],
    groups: Any,
    told: bool,
) -> None:
    """Refuse a fold that leaves one class to fit on, or one group to draw folds of."""
    lone = lone_class(splits, codes)
    if lone is not None:
        few = "different samples" if groups is None else "groups with samples"
        raise ValueError(
            f"Fold {lone[0]} leaves samples of one class only to fit on, "
            f"{classes.tolist()[lone[1]]!r}: too few {few} of the others are there to "
            "cross-fit. Pass more of them."
        )
    if told and np.unique(groups).size == 2:
        raise ValueError(
            f"groups holds two groups only, {np.unique(groups).tolist()}. What is "
            "fitted to one, to be judged by the other, cannot draw folds of it. Pass "
            "more groups, or a calibrator that draws none, such as TemperatureScaling."
        )
