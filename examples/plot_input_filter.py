"""
A camera that has lost its contrast
===================================

A network reads images of a camera whose contrast is down to two fifths. A temperature
can only make it less sure of what it no longer recognises. One small filter of the
inputs, the same for all images and learned from a few hundred labelled ones, gives the
contrast back, and with it most predictions; the network stays as it is.
"""

# %%
# Before and after
# ----------------
#
# The demonstration network reads handwritten digits of 8 x 8 pixels, from an ONNX file;
# a node at its input makes it one for images with a channel, as cameras give them.
# :class:`~skcalib.NeuralClamping` chooses by cross-fitting whether inputs should be
# filtered at all, by how many taps, and how strong the penalty is. What reads the
# logits of the filtered images is chosen by the default search.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnx
import onnxruntime
from scipy.ndimage import correlate
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skcalib import (
    MatrixScaling,
    NeuralClamping,
    StructuredMatrixScaling,
    TemperatureScaling,
)
from skcalib.datasets import corrupt_images, load_demo
from skcalib.export import calibrate_onnx_model, save_onnx
from skcalib.frozen import OnnxLogits
from skcalib.metrics import calibration_report
from skcalib.model_selection import CalibratorSearch
from skcalib.plotting import ReliabilityDisplay, plot_perturbation

demo = load_demo()
model = onnx.load(demo.model)
(image,) = model.graph.input
squeeze = onnx.helper.make_node("Squeeze", ["pixels", "axis"], [image.name])
model.graph.node.insert(0, squeeze)
model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
model.graph.input.remove(image)
pixels = onnx.helper.make_tensor_value_info("pixels", 1, ["batch", 1, 8, 8])
model.graph.input.append(pixels)


def worse(images):
    return corrupt_images(images, "contrast", severity=3, channel_axis=1)


old_calibration, old_test = (
    demo.X_calibration[:, np.newaxis],
    demo.X_test[:, np.newaxis],
)
X_calibration, y_calibration = worse(old_calibration), demo.y_calibration
X_test, y_test = worse(old_test), demo.y_test

filtered = NeuralClamping(model, gamma=0, output_calibrator=CalibratorSearch())
filtered.fit(X_calibration, y_calibration)
print("perturbation:", filtered.perturbation_)
print("behind it:", filtered.output_calibrator_.best_name_)

network = OnnxLogits(model).fit(X_test)
raw = softmax(network.transform(X_test), axis=1)
figure, axes = plt.subplots(1, 3, figsize=(11, 4.4), layout="constrained")
for panel, title, proba in zip(
    axes, ("before", "after"), (raw, filtered.predict_proba(X_test)), strict=False
):
    accuracy = (proba.argmax(axis=1) == y_test).mean()
    name = f"{title}, accuracy {accuracy:.3f}"
    ReliabilityDisplay.from_predictions(
        y_test, proba, name=name, ax=panel, legend=title == "before"
    )
plot_perturbation(filtered, name="the filter", ax=axes[2])
plt.show()

# %%
# On the right, above, the weights :math:`w` of the filter, :math:`x' = x + w * x + b`,
# and below the factor by which it changes each frequency, slow ones in the middle.
#
# What the network sees
# ---------------------
#
# Digits as the network knows them, as the camera now takes them, and after the filter,
# all on one scale. A filter is linear and the same for all images: it does not bring
# back the old ones, but what the network needs of them.


def filter_of(images):
    change = correlate(images, filtered.filter_, mode="mirror")
    return images + change + filtered.delta_


rows = {"once": old_test, "now": X_test, "filtered": filter_of(X_test[:8])}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2), layout="constrained")
for panels, (title, images) in zip(axes, rows.items(), strict=True):
    panels[0].set_title(title, loc="left")
    for panel, image in zip(panels, images, strict=False):
        panel.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        panel.axis("off")
plt.show()

# %%
# What it gains, beside calibrators of the outputs
# ------------------------------------------------
#
# All are fitted on the same 600 images and judged on the same others. The last row is
# the control: no network at all, a logistic regression of the pixels.

fitted = {}
for title, calibrator in {
    "temperature": TemperatureScaling(),
    "structured matrix": StructuredMatrixScaling(),
    "matrix": MatrixScaling(),
    "CalibratorSearch()": CalibratorSearch(),
}.items():
    pipeline = make_pipeline(OnnxLogits(model), calibrator)
    fitted[title] = pipeline.fit(X_calibration, y_calibration)
alone = NeuralClamping(model, gamma=0).fit(X_calibration, y_calibration)
fitted |= {"filter, temperature": alone, "filter, CalibratorSearch()": filtered}
flatten = FunctionTransformer(lambda images: images.reshape(len(images), -1))
regression = make_pipeline(flatten, LogisticRegression(max_iter=1000))
fitted["logistic regression"] = regression.fit(X_calibration, y_calibration)


def judge(title, y, proba):
    report = calibration_report(
        y, proba, metrics=["accuracy", "nll", "ece"], random_state=0
    )
    print(f"{title:26}", *(f"{name} {report[name].value:.3f}" for name in report))


for title, estimator in fitted.items():
    judge(title, y_test, estimator.predict_proba(X_test))

# %%
# The filter and a temperature, some thirty numbers, do as much as the best calibrator
# of the outputs; with the search behind the filter the log-loss is the lowest of all.
# These digits are easy: six hundred labelled images are enough to learn them anew, as
# the accuracy of the last row shows. :doc:`/input_filter` has measurements on networks
# that could not be trained so.
#
# On the images of the old camera
# -------------------------------
#
# The filter belongs to the camera that it was learned for, and harms without it.

judge("old camera, network", demo.y_test, softmax(network.transform(old_test), axis=1))
judge("old camera, filter", demo.y_test, filtered.predict_proba(old_test))

# %%
# Deployed
# --------
#
# The filter is one convolution at the input of the ONNX model.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "filtered.onnx"
    served_model = calibrate_onnx_model(model, filtered)
    save_onnx(served_model, path)
    session = onnxruntime.InferenceSession(path)
    (served,) = session.run(None, {"pixels": X_test})
print([node.op_type for node in served_model.graph.node][:4])
print(
    f"largest difference: {np.abs(served - filtered.predict_proba(X_test)).max():.1e}"
)
