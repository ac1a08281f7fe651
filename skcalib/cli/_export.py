"""Writing the calibrated model, and running what was written."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from skcalib._blocks import is_stored
from skcalib._networks._given import perturbs_inputs
from skcalib._onnx._files import open_model
from skcalib._onnx._inputs import batches
from skcalib._onnx._readout import Meaning
from skcalib._onnx._session import open_session
from skcalib._warnings import warn
from skcalib.cli._console import progress
from skcalib.cli._images import ImageRows
from skcalib.cli._options import Serving, Source
from skcalib.cli._scores import Values
from skcalib.export import calibrate_onnx_model, to_onnx
from skcalib.export._record import recorded
from skcalib.export._to_onnx import take_probabilities
from skcalib.export._verify import labels_of_map, largest_difference

# Rows a run of the written model.
_BATCH = 256
# Of rows that stay in their file, so many are compared; of images, as many from all.
_ROWS_OF_A_FILE = 10_000
_IMAGES = 256
# Half precision rounds probabilities by up to 5e-4.
_LARGEST_EXPECTED = 1e-3
MEANINGS: dict[Meaning, str] = {
    "logits": "logits",
    "log_proba": "log-probabilities",
    "proba": "probabilities",
}


@dataclass(frozen=True)
class Served:
    """A model file as a runtime sees it, and how closely it follows Python.

    `output` holds the calibrated scores, `meaning` says what they are, and
    `probabilities` is an output that was added; `event` is the class of which a single
    column of logits is the log-odds. `largest_difference` is None where nothing could
    be compared.
    """

    path: Path
    inputs: list[str]
    output: str
    meaning: Meaning = "proba"
    probabilities: str | None = None
    event: str | None = None
    n_compared: int = 0
    largest_difference: float | None = None

    @property
    def outputs_text(self) -> str:
        """Which output holds what, in a sentence."""
        text = f"The output {self.output!r} holds calibrated {MEANINGS[self.meaning]}"
        if self.event is not None:
            text += f", whose sigmoid is the probability of {self.event}"
        elif self.meaning != "proba":
            text += ", whose softmax is the probability"
        if self.probabilities is not None:
            text += f"; the probabilities are in {self.probabilities!r}"
        return f"{text}."

    @property
    def difference_text(self) -> str:
        """The largest difference as text."""
        return f"{self.largest_difference:.1e}" if self.largest_difference else "0"

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "output": str(self.path),
            "output_name": self.output,
            "output_holds": MEANINGS[self.meaning],
            "probabilities_name": self.probabilities,
            "largest_difference": self.largest_difference,
            "n_compared": self.n_compared,
        }


def write_model(
    calibrator: Any,
    values: Values | None,
    source: Source,
    path: Path,
    serving: Serving,
) -> tuple[Any, Served]:
    """Write `calibrator` into the model of `source`, or alone without one; run it.

    `path` is the file that it will go to; on `values`, where there are any, it is
    compared with Python. Alone it takes what `source` names, logits or probabilities.
    """
    if source.model is None:
        return _write_alone(calibrator, values, path, source)
    network = inputs = seen = None
    if values is not None:
        network, inputs = values.network, values.inputs
        seen = values.seen_by(calibrator)
        if isinstance(inputs, ImageRows):
            last = len(inputs) - 1
            rows = np.linspace(0, last, min(last + 1, _IMAGES), dtype=np.intp)
            inputs, seen = inputs[rows], seen[rows]
    fitted = calibrator
    if network is not None and not perturbs_inputs(calibrator):
        fitted = Pipeline([("logits", network), ("calibrator", calibrator)])
    calibrated = calibrate_onnx_model(
        str(source.model),
        fitted,
        output=source.model_output,
        keep_original=serving.keep_outputs,
        add_probabilities=serving.add_probabilities,
    )
    served = served_by(calibrated, path, calibrator)
    return calibrated, _compare(
        calibrated, source.model, served, inputs, calibrator, seen
    )


def served_by(model: Any, path: Path, calibrator: Any) -> Served:
    """Return what a model with a calibration serves, which goes to `path`."""
    outputs = recorded(model)["outputs"]
    name, meaning = outputs["scores"], outputs["meaning"]
    (scores,) = (value for value in model.graph.output if value.name == name)
    shape = [axis.dim_value for axis in scores.type.tensor_type.shape.dim]
    # Scores of shape (n,) are one column; 0 is a number that is not told.
    n_columns = shape[1] if len(shape) > 1 else len(shape)
    is_one = (n_columns or calibrator.n_features_in_) == 1 and meaning != "proba"
    event = repr(calibrator.classes_.tolist()[-1]) if is_one else None
    return Served(path, [], name, meaning, outputs["probabilities"], event)


def _write_alone(
    calibrator: Any, values: Values | None, path: Path, takes: Source
) -> tuple[Any, Served]:
    written = to_onnx(calibrator)
    served = Served(path, ["logits"], "probabilities")
    # What the model takes: Python must see the same numbers.
    given = seen = None if values is None else _sample(values.logits)
    if takes.probabilities is not None:
        take_probabilities(written, takes.floor, normalise=takes.normalise)
        if seen is not None:
            given = np.exp(seen)
            seen = np.log(np.maximum(given, np.float32(takes.floor)))
    return written, _compare(written, None, served, given, calibrator, seen)


def _sample(logits: Any) -> NDArray[np.float32]:
    """Return rows of logits to compare by, the first of those that are in a file."""
    if is_stored(logits):
        logits = logits[:_ROWS_OF_A_FILE]
    rows = np.asarray(logits, dtype=np.float32)
    return rows[:, np.newaxis] if rows.ndim == 1 else rows


def _compare(
    written: Any,
    original: Path | None,
    served: Served,
    inputs: Any,
    calibrator: Any,
    seen: NDArray[Any] | None,
) -> Served:
    """Run the model on all inputs, before it is saved; `calibrator` sees `seen`."""
    source = None if original is None else open_model(original)
    session = open_session(written, source)
    served = replace(served, inputs=[spec.name for spec in session.inputs])
    if inputs is None:
        return served
    expected = calibrator.predict_proba(seen)
    n_rows = inputs.shape[0]
    n_batches = -(-n_rows // _BATCH)
    batched = progress(
        batches(session.inputs, inputs, _BATCH), "Running the written model", n_batches
    )
    labels = labels_of_map(written, served.output)
    largest = largest_difference(
        session, served.output, served.meaning, batched, expected, labels
    )
    if not largest <= _LARGEST_EXPECTED:
        warn(
            f"{served.path} differs from Python by {largest:.1e} in a probability. "
            "Do not serve it before you know why."
        )
    return replace(served, n_compared=n_rows, largest_difference=largest)
