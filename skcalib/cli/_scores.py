"""From files to logits and labels, and from those to held-out probabilities."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ShuffleSplit

from skcalib._blocks import open_source
from skcalib._maps import CalibrationMap, Softmax, evaluate
from skcalib._validation import (
    check_calibration_set,
    index_column,
    logits_from_proba,
    lone_class,
    make_splits,
    number_equal_rows,
)
from skcalib.cli._console import progress
from skcalib.cli._errors import DataError, UsageError
from skcalib.cli._readers import Request, Role, read_labels, read_rows
from skcalib.export._clamping import perturbs_inputs
from skcalib.frozen import OnnxLogits

# Rows a step of the progress bar.
_ROWS_A_STEP = 2048


class Source(NamedTuple):
    """The files named on the command line, and where to look in them."""

    model: Path | None = None
    inputs: Path | None = None
    logits: Path | None = None
    probabilities: Path | None = None
    labels: Path | None = None
    inputs_key: str | None = None
    logits_key: str | None = None
    probabilities_key: str | None = None
    labels_key: str | None = None
    model_output: str | None = None
    classes: str | None = None
    floor: float = 1e-12

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        named = (self.model, self.inputs, self.logits, self.probabilities, self.labels)
        return [path for path in named if path is not None]

    @property
    def values(self) -> tuple[Role, Path, str | None]:
        """The one file of inputs, logits or probabilities, and the key in it."""
        named: list[tuple[Role, Path | None, str | None]] = [
            ("inputs", self.inputs, self.inputs_key),
            ("logits", self.logits, self.logits_key),
            ("probabilities", self.probabilities, self.probabilities_key),
        ]
        given = [(role, path, key) for role, path, key in named if path is not None]
        if len(given) != 1:
            raise UsageError(
                "Pass exactly one of --inputs (for a model), --logits and "
                f"--probabilities; got {len(given)} of them."
            )
        if given[0][0] == "inputs" and self.model is None:
            raise UsageError(
                "--inputs are the inputs of a model; name its ONNX file too, or pass "
                "what the model said of them: --logits or --probabilities."
            )
        return given[0]


@dataclass(frozen=True)
class Judging:
    """How the figures of the report are made.

    Without `test_fraction` they come from cross-fitting in so many `folds`.
    """

    test_fraction: float | None = None
    folds: int = 5
    n_bins: int = 15
    n_bootstrap: int = 1000
    seed: int = 0


class Calibration(BaseEstimator):
    """Stands for the command in the messages of the input checks."""


@dataclass(frozen=True)
class Scores:
    """Checked logits of labelled samples, and the network and inputs they came from.

    `columns` says which class each named column of a table was taken for.
    """

    logits: NDArray[Any]
    codes: NDArray[np.intp]
    classes: NDArray[Any]
    network: OnnxLogits | None = None
    inputs: NDArray[Any] | None = None
    columns: dict[str, Any] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """The true class of each sample."""
        return self.classes[self.codes]

    @property
    def rows(self) -> NDArray[Any]:
        """What tells samples apart: the network's inputs, or logits without any."""
        return self.logits if self.inputs is None else self.inputs

    def seen_by(self, calibrator: Any) -> NDArray[Any]:
        """Return what a calibrator is fitted on: logits, or the network's inputs."""
        if self.inputs is not None and perturbs_inputs(calibrator):
            return self.inputs
        return self.logits


def load_scores(source: Source) -> Scores:
    """Read and check logits and labels, running the model where inputs were given."""
    role, path, key = source.values
    if source.labels is None:
        values, labels, names = read_rows(path, Request(role, key, source.labels_key))
    else:
        values, _, names = read_rows(path, Request(role, key))
        labels = read_labels(source.labels, source.labels_key)
    if labels is None:
        raise DataError(
            f"No labels found in {path}. Name the array or column with --labels-key, "
            "or their own file with --labels. Columns without a header are called 0, "
            "1, ..."
        )
    if values.shape[:1] != labels.shape[:1]:
        raise DataError(
            f"{path} has {len(values)} rows but there are {len(labels)} labels. (The "
            "first line of a .csv file is a header unless it holds numbers only.)"
        )
    network = inputs = None
    if role == "inputs":
        inputs = values
        network = OnnxLogits(str(source.model), output=source.model_output).fit(inputs)
        values, names = _run(network, inputs), None
    elif role == "probabilities":
        values = logits_from_proba(values, floor=source.floor)
    named = _parse_classes(source.classes, labels)
    if names is not None and key is None and named is None:
        _refuse_index(path, role, names, values, labels)
    classes, data = check_calibration_set(
        Calibration(), values, labels, None, named, names=names
    )
    columns = None if names is None else _mapping(names, classes)
    return Scores(np.asarray(values), data.codes, classes, network, inputs, columns)


def _refuse_index(
    path: Path, role: Role, names: list[str], values: NDArray[Any], labels: NDArray[Any]
) -> None:
    found = index_column(names, values, labels)
    if found is not None:
        others = ",".join(name for name in names if name != found)
        raise DataError(
            f"The column {found!r} of {path} numbers the rows (whole numbers, all "
            f"different), so it is taken for no class. Name the columns of the {role}: "
            f"--{role}-key {textwrap.shorten(others, 200, placeholder=' ...')}"
        )


def _mapping(names: list[str], classes: NDArray[Any]) -> dict[str, Any]:
    """Return the class of each column; a single one is that of the second class."""
    return dict(zip(names, classes.tolist()[-len(names) :], strict=True))


def _parse_classes(text: str | None, labels: NDArray[Any]) -> list[Any] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if labels.dtype.kind not in "iu":
        return names
    try:
        return [int(name) for name in names]
    except ValueError as error:
        raise DataError(
            f"The labels are integers, but --classes names {text}. Name the integers."
        ) from error


def _run(network: OnnxLogits, inputs: NDArray[Any]) -> NDArray[Any]:
    starts = range(0, len(inputs), _ROWS_A_STEP)
    return np.concatenate(
        [
            network.transform(inputs[start : start + _ROWS_A_STEP])
            for start in progress(starts, "Running the model", len(starts))
        ]
    )


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


def uncalibrated(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the softmax of logits; a single column is that of the second class."""
    return evaluate(CalibrationMap(Softmax()), open_source(logits))


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
        uncalibrated(scores.logits[rows]),
        calibrator.predict_proba(scores.seen_by(calibrator)[rows]),
        f"{len(rows):,} samples held out",
        scores.columns,
    )
