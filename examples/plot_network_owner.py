"""
The best calibrator for a torch network
=======================================

You have a trained torch module and labelled samples that it was not trained on. This
example caches its logits, compares calibrators on them with error bars, and puts the
chosen one behind the module.
"""

# %%
# A network that is too sure
# --------------------------
#
# A small network learns 400 handwritten digits by heart. Of the other digits, 700 are
# for calibration, the rest for judging.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skcalib import (
    BetaCalibration,
    HistogramBinning,
    IsotonicCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
)
from skcalib.export import to_torch
from skcalib.frozen import TorchLogits
from skcalib.metrics import calibration_report
from skcalib.model_selection import CalibratorSearch, compare_calibrators
from skcalib.plotting import ReliabilityDisplay

digits = load_digits()
images = (digits.images / 16).astype(np.float32)
X_train, X_rest, y_train, y_rest = train_test_split(
    images, digits.target, train_size=400, stratify=digits.target, random_state=0
)
X_calibration, X_test, y_calibration, y_test = train_test_split(
    X_rest, y_rest, train_size=700, stratify=y_rest, random_state=0
)


def train(images, labels, n_steps=300):
    """Train a small network, with a tenth of the labels wrong."""
    torch.manual_seed(0)
    wrong = torch.rand(len(labels)) < 0.1
    labels = torch.where(wrong, torch.randint(10, (len(labels),)), labels)
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(n_steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    return network


network = train(torch.from_numpy(X_train), torch.from_numpy(y_train))

# %%
# Logits, once
# ------------
#
# :class:`~skcalib.frozen.TorchLogits` runs the module in batches and leaves it as it
# is. What it returns may be saved and used from here on without torch.

frozen = TorchLogits(network).fit(X_calibration)
logits, test_logits = frozen.transform(X_calibration), frozen.transform(X_test)

# %%
# A table of methods
# ------------------
#
# Each method is fitted on the calibration samples and judged on the test samples;
# standard deviations come from bootstrap samples of the latter. Compare the columns NLL
# and Brier first: they cannot be improved by giving up information.

compare_calibrators(
    {
        "temperature": TemperatureScaling(),
        "structured vector": StructuredMatrixScaling(structure="vector"),
        "structured matrix": StructuredMatrixScaling(),
        "beta": BetaCalibration(),
        "isotonic": IsotonicCalibration(),
        "histogram": HistogramBinning(),
    },
    logits,
    y_calibration,
    X_test=test_logits,
    y_test=y_test,
)

# %%
# Choosing without the test set
# -----------------------------
#
# Picking the best row of the table above would use up the test set. A search mixes the
# calibrators by cross-validation on the calibration samples instead, and the test set
# stays honest.

search = CalibratorSearch().fit(logits, y_calibration)
for name, weight in search.weights_.items():
    print(f"{weight:.2f} {name}")

# %%
# The test set then gives figures with intervals, before and after.

before = softmax(test_logits, axis=1)
after = search.predict_proba(test_logits)
for title, proba in {"before": before, "after": after}.items():
    report = calibration_report(
        y_test, proba, metrics=["accuracy", "nll", "brier", "ece"], random_state=0
    )
    print(f"{title.capitalize()}. {report}\n")

# %%
# Reliability diagrams
# --------------------

ReliabilityDisplay.compare(y_test, {"before": before, "after": after})
plt.show()

# %%
# Behind the module
# -----------------
#
# A calibrator becomes a module too, which can follow the network on any device.

calibrated = torch.nn.Sequential(network, to_torch(search))
with torch.no_grad():
    proba = calibrated(torch.from_numpy(X_test)).numpy()
print(f"largest difference: {np.abs(proba - after).max():.1e}")
