"""
Pixels and tokens
=================

Networks that classify every pixel of an image or predict every token of a text have
logits with more than two axes. This example trains a small network of each kind,
calibrates it with :class:`~skcalib.DenseCalibration`, and writes the calibration into
the segmentation network's ONNX file.
"""

# %%
# A segmentation network
# ----------------------
#
# Discs and squares under noise, and a network of three convolutions that is trained
# too long on too few images. The pixels at the edges of a shape belong to neither side;
# they are labelled 255.

import io
import warnings

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy.special import softmax
from sklearn import datasets
from sklearn.model_selection import cross_val_score
from torch import nn

from skcalib import DenseCalibration, StructuredMatrixScaling, as_rows
from skcalib.metrics import ece_scorer, expected_calibration_error

SIZE, IGNORED = 32, 255


def draw_images(n, seed):
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIZE, :SIZE]
    x = rng.normal(0, 1.2, (n, 1, SIZE, SIZE)).astype(np.float32)
    y = np.zeros((n, SIZE, SIZE), dtype=np.int64)
    for i in range(n):
        for shape in (1, 2):
            centre, radius = rng.integers(8, SIZE - 8, 2), rng.integers(4, 8)
            gap = np.abs([row - centre[0], column - centre[1]])
            distance = np.hypot(*gap) if shape == 1 else gap.max(axis=0)
            x[i, 0] += distance <= radius
            y[i][distance <= radius] = shape
            y[i][np.abs(distance - radius) < 0.6] = IGNORED
    return x, y


def train(net, x, y, ignored, n_steps):
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    for _ in range(n_steps):
        optimiser.zero_grad()
        loss(net(x), y).backward()
        optimiser.step()
    return net.eval()


torch.manual_seed(0)
layers = nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 12, 5, padding=2)
segmenter = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(12, 3, 5, padding=2))
x, y = map(torch.from_numpy, draw_images(4, seed=0))
train(segmenter, x, y, IGNORED, 200)
x_cal, y_cal = draw_images(100, seed=1)
x_test, y_test = draw_images(100, seed=2)
with torch.no_grad():
    cal, test = (segmenter(torch.from_numpy(x)).numpy() for x in (x_cal, x_test))
print("logits of", cal.shape)

# %%
# The calibrator reads the pixels as rows, without a copy of the array, and gives
# probabilities in the shape of the logits. Metrics take the rows from
# :func:`~skcalib.as_rows`.

dense = DenseCalibration(
    StructuredMatrixScaling(structure="vector"), class_axis=1, ignore_index=IGNORED
).fit(cal, y_cal)
before, after = softmax(test, axis=1), dense.predict_proba(test)
for name, proba in (("before", before), ("after", after)):
    rows, labels = as_rows(proba, y_test, class_axis=1, ignore_index=IGNORED)
    print(f"{name}: ECE {100 * expected_calibration_error(labels, rows):.2f} %")

# %%
# Where the network is sure, and where it should be:

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
maps = {
    "image": x_test[0, 0],
    "classes": np.where(y_test[0] == IGNORED, np.nan, y_test[0]),
    "confidence before": before[0].max(axis=0),
    "confidence after": after[0].max(axis=0),
}
for ax, (title, values) in zip(axes, maps.items(), strict=True):
    limits = {"vmin": 1 / 3, "vmax": 1} if "confidence" in title else {}
    ax.imshow(values, cmap="gray" if title == "image" else "viridis", **limits)
    ax.set_title(title, fontsize="medium")
    ax.set_axis_off()

# %%
# In the model file
# -----------------
#
# The calibrated model has the outputs of the original, with the same shapes. It takes
# images of any size, as the original does.

try:
    import onnx
    import onnxruntime

    from skcalib.export import calibrate_onnx_model
except ImportError:
    onnx = None

if onnx is not None:
    file = io.BytesIO()
    sizes = {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings(action="ignore"):  # It is called legacy.
        torch.onnx.export(
            segmenter,
            torch.from_numpy(x_test[:1]),
            file,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": sizes, "logits": sizes},
            dynamo=False,
        )
    calibrated = calibrate_onnx_model(file.getvalue(), dense)
    session = onnxruntime.InferenceSession(calibrated.SerializeToString())
    (served,) = session.run(["logits"], {"image": x_test})
    largest = np.abs(softmax(served, axis=1) - after).max()
    print(f"largest difference to Python: {largest:.1e}")

# %%
# A language model
# ----------------
#
# Characters of the descriptions that come with scikit-learn's data sets, one line a
# sequence, padded to 72 characters. The classes lie along the last axis, (n, T, K), and
# -100 labels the padding. Folds, outside the calibrator and in it, never cut a line.

names = ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud")
text = "\n".join(getattr(datasets, f"load_{name}")().DESCR for name in names)
lines = [line[:72] for line in text.splitlines() if len(line) > 20]
letters = sorted(set("".join(lines)))
tokens = np.zeros((len(lines), 73), dtype=np.int64)
following = np.full((len(lines), 73), -100)
for i, line in enumerate(lines):
    code = [letters.index(letter) for letter in line]
    tokens[i, 1 : len(code) + 1] = code
    following[i, : len(code)] = code


class LanguageModel(nn.Module):
    def __init__(self, n_tokens):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, 24)
        self.recurrent = nn.GRU(24, 48, batch_first=True)
        self.head = nn.Linear(48, n_tokens)

    def forward(self, tokens):
        return self.head(self.recurrent(self.embedding(tokens))[0]).transpose(1, 2)


order = np.random.default_rng(0).permutation(len(lines))
fitted, held_out = order[: len(lines) // 2], order[len(lines) // 2 :]
model = LanguageModel(len(letters))
pairs = torch.from_numpy(tokens[fitted]), torch.from_numpy(following[fitted])
train(model, *pairs, -100, 200)
with torch.no_grad():
    logits = model(torch.from_numpy(tokens[held_out])).transpose(1, 2).numpy()
print("logits of", logits.shape)

of_tokens = DenseCalibration(class_axis=-1, ignore_index=-100)
y = following[held_out]
rows, labels = as_rows(softmax(logits, axis=-1), y, class_axis=-1, ignore_index=-100)
print(f"before: ECE {100 * expected_calibration_error(labels, rows):.2f} %")
errors = -cross_val_score(of_tokens, logits, y, cv=2, scoring=ece_scorer)
print(f"after, on lines not fitted to: ECE {100 * errors.mean():.2f} %")
print(f"temperature {of_tokens.fit(logits, y).calibrator_.temperature_:.2f}")
