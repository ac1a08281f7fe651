"""Writing the calibrated model, and running what was written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from skcalib._backends._onnx_inputs import InputSpec, batches
from skcalib._optional import import_optional
from skcalib._warnings import warn
from skcalib.cli._console import progress
from skcalib.cli._scores import Scores
from skcalib.export import calibrate_onnx_model, save_onnx, to_onnx
from skcalib.export._clamping import perturbs_inputs
from skcalib.export._verify import largest_difference

# Rows a run of the written model.
_BATCH = 256
# Half precision rounds probabilities by up to 5e-4.
_LARGEST_EXPECTED = 1e-3


@dataclass(frozen=True)
class Served:
    """A model file as a runtime sees it, and how closely it follows Python.

    `output` holds the calibrated probabilities; it is None where the model serves
    labels only, and `largest_difference` is None where nothing could be compared.
    """

    path: Path
    inputs: list[str]
    output: str | None
    n_compared: int = 0
    largest_difference: float | None = None

    @property
    def difference_text(self) -> str:
        """The largest difference as text."""
        return f"{self.largest_difference:.1e}" if self.largest_difference else "0"


def write_model(
    calibrator: Any,
    scores: Scores,
    model: Path | None,
    path: Path,
    *,
    model_output: str | None = None,
    keep_original: bool = False,
    overwrite: bool = False,
) -> Served:
    """Write `calibrator` into `model`, or alone if there is none, and run it."""
    if model is None:
        save_onnx(to_onnx(calibrator), path, overwrite=overwrite)
        # What the model takes: Python must see the same numbers.
        logits = scores.logits.astype(np.float32)
        expected = calibrator.predict_proba(logits)
        return _run_written(path, "probabilities", logits, expected)
    network = scores.network
    fitted = calibrator
    if network is not None and not perturbs_inputs(calibrator):
        fitted = Pipeline([("logits", network), ("calibrator", calibrator)])
    calibrated = calibrate_onnx_model(
        str(model), fitted, output=model_output, keep_original=keep_original
    )
    folder = model.absolute().parent
    save_onnx(calibrated, path, overwrite=overwrite, data_folder=folder)
    output = None if network is None else network.readout_.output
    if output is not None and keep_original:
        output += "_calibrated"
    expected = calibrator.predict_proba(scores.seen_by(calibrator))
    return _run_written(path, output, scores.inputs, expected)


def _run_written(
    path: Path,
    output: str | None,
    inputs: NDArray[Any] | None,
    expected: NDArray[Any],
) -> Served:
    runtime = import_optional("onnxruntime", "Running the written model")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, not logged
    session = runtime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    specs = [InputSpec.of(argument) for argument in session.get_inputs()]
    names = [spec.name for spec in specs]
    if inputs is None or output is None:
        return Served(path, names, output)
    n_batches = -(-len(inputs) // _BATCH)
    batched = progress(
        batches(specs, inputs, _BATCH), "Running the written model", n_batches
    )
    largest = largest_difference(session, output, batched, expected)
    if not largest <= _LARGEST_EXPECTED:
        warn(
            f"{path} differs from Python by {largest:.1e} in a probability. Do not "
            "serve it before you know why."
        )
    return Served(path, names, output, len(inputs), largest)
