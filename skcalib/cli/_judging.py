"""Held-out probabilities: cross-fitted, or of a part of the samples kept apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import ShuffleSplit

from skcalib._blocks import is_stored, open_source
from skcalib._maps import CalibrationMap, Softmax, evaluate
from skcalib._validation import lone_class, make_splits, number_equal_rows
from skcalib.cli._console import progress
from skcalib.cli._errors import DataError
from skcalib.cli._scores import Scores


@dataclass(frozen=True)
class HeldOut:
    """True classes of samples with the probabilities before and after calibration."""

    codes: NDArray[np.intp]
    classes: NDArray[Any]
    before: NDArray[Any]
    after: NDArray[Any]
    how: str
    columns: dict[str, Any] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """The true class of each sample."""
        return self.classes[self.codes]


def uncalibrated(logits: Any) -> Any:
    """Return the softmax of logits; a single column is that of the second class."""
    return evaluate(CalibrationMap(Softmax()), open_source(logits))


def probabilities(logits: Any, calibrator: Any = None) -> Any:
    """Return the softmax of logits, or what a calibrator makes of them.

    Of rows in a file, it is computed whenever they are read.
    """
    function = uncalibrated if calibrator is None else calibrator.predict_proba
    if is_stored(logits):
        return open_source(logits).mapped(function)
    return function(logits)


def picked(logits: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows in memory."""
    return open_source(logits).take(rows) if is_stored(logits) else logits[rows]


def cross_fit(calibrator: Any, scores: Scores, n_folds: int, seed: int) -> HeldOut:
    """Judge every sample by a calibrator that was fitted on the other folds."""
    weight = np.ones(scores.codes.shape[0])
    splits = make_splits(n_folds, scores.rows, scores.codes, weight, seed)
    lone = lone_class(splits, scores.codes)
    if lone is not None:
        raise DataError(
            f"Fold {lone[0]} leaves samples of one class only to fit on, "
            f"{scores.classes.tolist()[lone[1]]!r}: too few different samples of the "
            "others are there to cross-fit. Pass more of them."
        )
    before = uncalibrated(scores.logits)
    after = np.empty_like(before)
    labels, X = scores.labels, scores.seen_by(calibrator)
    for train, test in progress(splits, "Cross-fitting", len(splits)):
        fitted = clone(calibrator).fit(X[train], labels[train])
        after[test] = fitted.predict_proba(X[test])
    how = f"{len(labels):,} samples, cross-fitted in {len(splits)} folds"
    return HeldOut(scores.codes, scores.classes, before, after, how, scores.columns)


def split_rows(
    scores: Scores, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows at random into those to fit on and the `fraction` to judge by.

    Equal rows of a class stay together.
    """
    unit = number_equal_rows(scores.rows, scores.codes)
    split = ShuffleSplit(1, test_size=fraction, random_state=seed)
    train, test = next(split.split(np.empty(unit.max() + 1)))
    return np.flatnonzero(np.isin(unit, train)), np.flatnonzero(np.isin(unit, test))


def judge(calibrator: Any, scores: Scores, rows: NDArray[np.intp]) -> HeldOut:
    """Judge a fitted calibrator by rows that it has not seen."""
    return HeldOut(
        scores.codes[rows],
        scores.classes,
        uncalibrated(picked(scores.logits, rows)),
        calibrator.predict_proba(picked(scores.seen_by(calibrator), rows)),
        f"{len(rows):,} samples held out",
        scores.columns,
    )
