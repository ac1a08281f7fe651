"""The note in an ONNX model's metadata that says how it was calibrated."""

import json
import math
from typing import Any

import numpy as np

import skcalib
from skcalib._learned import learned

METADATA_KEY = "skcalib.calibration"
# Longer arrays among the parameters are named by their shape.
_LONGEST = 10


def record(model: Any, calibrator: Any, **more: Any) -> None:
    """Note in the metadata of `model` how the calibration was made.

    `more` is added to what stands in the note, in place of entries of the same name.
    """
    content = {
        "method": type(calibrator).__name__,
        "params": calibrator.get_params(deep=False),
        "learned": {f"{name}_": value for name, value in learned(calibrator).items()},
        "classes": np.asarray(calibrator.classes_).tolist(),
        "skcalib_version": skcalib.__version__,
        **more,
    }
    for entry in list(model.metadata_props):
        if entry.key == METADATA_KEY:
            model.metadata_props.remove(entry)
    text = json.dumps(_plain(content))
    model.metadata_props.add(key=METADATA_KEY, value=text)


def recorded(model: Any) -> dict[str, Any]:
    """Return the note that `record` left."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    content: dict[str, Any] = json.loads(entries[METADATA_KEY])
    return content


def recorded_outputs(model: Any) -> set[str]:
    """Name the outputs that an earlier calibration of `model` wrote, if there was one.

    Those of probabilities and of scores say the same, whichever they are made of.
    """
    if all(entry.key != METADATA_KEY for entry in model.metadata_props):
        return set()
    outputs = recorded(model).get("outputs", {})
    return {outputs[name] for name in ("scores", "probabilities") if outputs.get(name)}


def _plain(value: Any) -> Any:
    """Write NumPy values as lists and numbers, and what JSON lacks as text.

    Of numbers it has no infinity and no NaN, which become null.
    """
    if isinstance(value, np.ndarray) and value.size > _LONGEST:
        return f"array of shape {value.shape}"
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else repr(value)
