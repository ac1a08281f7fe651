"""
A thousand classes, from a loader to an ONNX file
=================================================

A job of the shape of ImageNet: a torch network of 1,000 classes, a ``DataLoader`` that
holds images and labels, and an ONNX file that has to be served with probabilities that
mean what they say. The images are drawn by a formula, so that the example needs no
download and runs in seconds; nothing else is different with your own loader.
"""

# %%
# A network and its loaders
# -------------------------
#
# A hundred kinds of things, ten of each kind that are easily confused. A small network
# learns 15 images of each for a few epochs, and becomes too sure of what it learned by
# heart. Five images a class are for calibration, five for judging.

import io
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import softmax
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import skcalib
from skcalib import OrderPreservingScaling, StructuredMatrixScaling, TemperatureScaling
from skcalib.frozen import TorchLogits
from skcalib.metrics import calibration_report
from skcalib.model_selection import compare_calibrators
from skcalib.plotting import ReliabilityDisplay

N_CLASSES, SIDE = 1000, 12
rng = np.random.default_rng(0)
kinds = np.repeat(rng.normal(0, 0.8, (100, SIDE, SIDE)), 10, axis=0)
pictures = kinds + rng.normal(0, 0.5, (N_CLASSES, SIDE, SIDE))


def draw(n_each, seed):
    """Return noisy pictures, as many of each class, and their classes."""
    y = np.repeat(np.arange(N_CLASSES), n_each)
    noise = np.random.default_rng(seed).normal(0, 1.8, (len(y), SIDE, SIDE))
    X = (pictures[y] + noise)[:, np.newaxis].astype(np.float32)
    return TensorDataset(torch.from_numpy(X), torch.from_numpy(y))


def train(data, n_epochs=8):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE**2, 256), nn.ReLU(), nn.Linear(256, N_CLASSES)
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.003)
    for _ in range(n_epochs):
        for X, y in DataLoader(data, batch_size=256, shuffle=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(X), y).backward()
            optimiser.step()
    return network.eval()


network = train(draw(15, seed=1))
calibration = DataLoader(draw(5, seed=2), batch_size=256)
test = DataLoader(draw(5, seed=3), batch_size=256)

# %%
# Logits, once
# ------------
#
# The loader is read in its order; one that shuffles is refused, as its labels would
# belong to other rows. 5,000 rows of 1,000 classes take 20 MB in single precision.

frozen = TorchLogits(network).fit(calibration)
logits, test_logits = frozen.transform(calibration), frozen.transform(test)
y, y_test = (loader.dataset.tensors[1].numpy() for loader in (calibration, test))
print(logits.shape, logits.dtype, f"{logits.nbytes / 1e6:.0f} MB")

# %%
# Which calibrator
# ----------------
#
# Five rows a class say little of a class and much of all together. Of what has few
# parameters, folds of the calibration rows tell the better one, and the test set stays
# out of it. A matrix of 1,000 by 1,000 numbers is not among them; where there are many
# more rows, :class:`~skcalib.CalibratorSearch` tries more, and takes its time.

compare_calibrators(
    {
        "temperature": TemperatureScaling(),
        "order-preserving": OrderPreservingScaling(),
        "structured vector": StructuredMatrixScaling(structure="vector"),
    },
    logits,
    y,
)

# %%
# From the loader to a judged model
# ---------------------------------
#
# :func:`~skcalib.calibrate` takes the module and the loader as they are. Its figures
# are those of rows that a fold was not fitted to.

result = skcalib.calibrate(
    network, calibration, calibrator=OrderPreservingScaling(), n_bootstrap=200
)
print(result)

# %%
# What came of it, on images that neither network nor calibrator has seen. The classwise
# error is an average over a thousand classes, and small by that alone: compare it with
# itself only.

before = softmax(test_logits.astype(np.float64), axis=1)
after = result.predict_proba(test)
names = ["accuracy", "nll", "brier", "ece", "smooth_ece", "sce"]
for title, proba in {"before": before, "after": after}.items():
    report = calibration_report(y_test, proba, metrics=names, random_state=0)
    print(f"{title.capitalize()}. {report}\n")

# %%
ReliabilityDisplay.compare(y_test, {"before": before, "after": after})
plt.show()

# %%
# The file to deploy
# ------------------
#
# A torch module is no ONNX file, and ``result.save("calibrated.onnx")`` would say so.
# torch exports it, and the calibration is written into what it made: inputs, outputs
# and their names stay, and the outputs are calibrated logits, whose softmax is served.

exported = io.BytesIO()
with warnings.catch_warnings(action="ignore"):  # It is called legacy.
    torch.onnx.export(
        network,
        torch.zeros(1, 1, SIDE, SIDE),
        exported,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        dynamo=False,
    )
try:
    import onnxruntime
except ImportError:
    onnxruntime = None

if onnxruntime is not None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibrated.onnx"
        result.save(path, model=exported.getvalue())
        session = onnxruntime.InferenceSession(path.read_bytes())
        print(f"{len(exported.getvalue()):,} bytes, calibrated {path.stat().st_size:,}")
    X_test = test.dataset.tensors[0].numpy()
    (served,) = session.run(["logits"], {"image": X_test})
    largest = np.abs(softmax(served, axis=1) - after).max()
    print(f"largest difference to Python: {largest:.1e}")
