"""Held-out probabilities: cross-fitted, or of a part of the samples kept apart."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import ShuffleSplit

from skcalib import _judging
from skcalib._blocks import is_stored, open_source
from skcalib._judging import (
    HeldOut,
    in_samples,
    uncalibrated,
    units,
    wants_groups,
)
from skcalib._validation import number_equal_rows, number_groups
from skcalib.cli._console import progress
from skcalib.cli._scores import Scores


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
    held_out = _judging.cross_fit(
        calibrator,
        scores.seen_by(calibrator),
        scores.codes,
        scores.classes,
        uncalibrated(scores.logits),
        rows=scores.rows,
        n_folds=n_folds,
        seed=seed,
        groups=scores.groups,
        told=scores.groups is not None and wants_groups(calibrator),
        watch=lambda splits: progress(splits, "Cross-fitting", len(splits)),
    )
    return replace(held_out, columns=scores.columns)


def split_rows(
    scores: Scores, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows at random into those to fit on and the `fraction` to judge by.

    Those of a group stay together, or without groups equal rows of a class.
    """
    if scores.groups is None:
        unit = number_equal_rows(scores.rows, scores.codes)
    else:
        unit = number_groups(scores.groups, several=True)
    split = ShuffleSplit(1, test_size=fraction, random_state=seed)
    train, test = next(split.split(np.empty(unit.max() + 1)))
    return np.flatnonzero(np.isin(unit, train)), np.flatnonzero(np.isin(unit, test))


def fit(calibrator: Any, X: Any, scores: Scores, rows: Any = slice(None)) -> None:
    """Fit a calibrator to rows, of whose groups it is told if it draws folds."""
    known = {}
    if scores.groups is not None and wants_groups(calibrator):
        known = {"groups": scores.groups[rows]}
    calibrator.fit(X, scores.labels[rows], **known)


def judge(calibrator: Any, scores: Scores, rows: NDArray[np.intp]) -> HeldOut:
    """Judge a fitted calibrator by rows that it has not seen."""
    unit = None if scores.groups is None else units(scores.groups[rows])
    return HeldOut(
        scores.codes[rows],
        scores.classes,
        uncalibrated(picked(scores.logits, rows)),
        calibrator.predict_proba(picked(scores.seen_by(calibrator), rows)),
        f"{in_samples(len(rows), unit)} held out",
        scores.columns,
        unit,
    )
