"""From files to logits and labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._networks._given import perturbs_inputs
from skcalib._validation import (
    check_calibration_set,
    logits_from_proba,
    refuse_index,
)
from skcalib.cli._console import progress
from skcalib.cli._errors import DataError
from skcalib.cli._options import Source
from skcalib.cli._readers import Request, read_labels, read_rows
from skcalib.frozen import OnnxLogits

# Rows a step of the progress bar.
_ROWS_A_STEP = 2048


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
        advice = f"Name the columns of the {role}: --{role}-key {{others}}"
        refuse_index(names, values, labels, of=str(path), advice=advice)
    data = check_calibration_set(
        "Calibration", values, labels, None, named, names=names
    )
    columns = None if names is None else _mapping(names, data.classes)
    return Scores(
        np.asarray(values), data.codes, data.classes, network, inputs, columns
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
