"""
From model.onnx to calibrated.onnx
==================================

An ONNX classifier is served as a file. This example writes a calibration into the file,
runs it in onnxruntime, and compares with Python.
"""

# %%
# The model and the calibration samples
# -------------------------------------
#
# The demonstration network ends in a softmax, as most served models do.
# :class:`~skcalib.frozen.OnnxLogits` finds the logits before it.

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.pipeline import make_pipeline

from skcalib import TemperatureScaling
from skcalib.datasets import load_demo
from skcalib.export import calibrate_onnx_model, save_onnx
from skcalib.frozen import OnnxLogits
from skcalib.metrics import calibration_report
from skcalib.plotting import ReliabilityDisplay

demo = load_demo()
pipeline = make_pipeline(OnnxLogits(demo.model), TemperatureScaling())
pipeline.fit(demo.X_calibration, demo.y_calibration)
print(f"found: {pipeline[0].readout_}")
print(f"temperature: {pipeline[-1].temperature_:.3f}")

# %%
# The calibrated model
# --------------------
#
# It has the inputs and outputs of the original, and they mean the same. The file is
# written whole or not at all, and never over another one unless told to.

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "calibrated.onnx"
save_onnx(calibrate_onnx_model(demo.model, pipeline), path)

original = onnxruntime.InferenceSession(demo.model)
calibrated = onnxruntime.InferenceSession(path)
for title, session in {"original": original, "calibrated": calibrated}.items():
    inputs = [(value.name, value.shape) for value in session.get_inputs()]
    outputs = [(value.name, value.shape) for value in session.get_outputs()]
    print(f"{title}: {inputs} -> {outputs}")

# %%
# Served and in Python
# --------------------

(before,) = original.run(None, {"image": demo.X_test})
(after,) = calibrated.run(None, {"image": demo.X_test})
in_python = pipeline.predict_proba(demo.X_test)
print(f"largest difference to Python: {np.abs(after - in_python).max():.1e}")
print(f"changed classes: {(before.argmax(axis=1) != after.argmax(axis=1)).sum()}")

# %%
# What it gains
# -------------

for title, proba in {"original": before, "calibrated": after}.items():
    report = calibration_report(
        demo.y_test, proba, metrics=["accuracy", "nll", "ece"], random_state=0
    )
    print(f"{title.capitalize()} model. {report}\n")

# %%
displays = ReliabilityDisplay.compare(
    demo.y_test, {"model.onnx": before, "calibrated.onnx": after}
)

# %%
# What it costs
# -------------
#
# A few nodes on ten numbers a row. The demonstration network is tiny, so the share of
# the calibration is at its largest here.


def seconds(session, n_runs=200):
    """Return the median time of a run on a single image."""
    image = {"image": demo.X_test[:1]}
    times = []
    for _ in range(n_runs):
        start = time.perf_counter()
        session.run(None, image)
        times.append(time.perf_counter() - start)
    return np.median(times)


print(f"original   {1e6 * seconds(original):.0f} microseconds")
print(f"calibrated {1e6 * seconds(calibrated):.0f} microseconds")
folder.cleanup()
