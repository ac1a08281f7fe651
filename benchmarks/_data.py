"""Scores of real networks and of tabular classifiers."""

import os
from pathlib import Path

import numpy as np

from skcalib import logits_from_proba

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = Path(os.environ.get("SKCALIB_DATA", BESIDE_REPOSITORY))

CIFAR10 = "cifar10/cifar10_logits.npz"
CIFAR10_JPEG = "cifar10/cifar10_jpeg_logits.npz"
CIFAR100 = "cifar100/cifar100_logits.npz"
SAVED_SOFTMAX = ["predictions"], ["ground_truth"]
HALVES = ["cal_logits", "test_logits"], ["cal_y", "test_y"]

# Name: title, file, the arrays of scores and of labels, and what the scores are.
SETS = {
    "cifar10-resnet8d": (
        "CIFAR-10, ResNet-8d",
        (CIFAR10, ["resnet8d"], ["y"], "logits"),
    ),
    "cifar10-resnet20": (
        "CIFAR-10, ResNet-20",
        (CIFAR10, ["resnet20"], ["y"], "logits"),
    ),
    "cifar10-resnet32": (
        "CIFAR-10, ResNet-32",
        (CIFAR10, ["resnet32"], ["y"], "logits"),
    ),
    "cifar100-resnet8": (
        "CIFAR-100, ResNet-8",
        (CIFAR100, ["resnet8"], ["y"], "logits"),
    ),
    "cifar100-resnet20": (
        "CIFAR-100, ResNet-20",
        (CIFAR100, ["resnet20"], ["y"], "logits"),
    ),
    "cifar100-wrn": (
        "CIFAR-100, WRN-16-4",
        ("logits/wideresnet-16-4-cifar-100.npz", *SAVED_SOFTMAX, "probabilities"),
    ),
    "fashion-mnist": (
        "Fashion-MNIST, CNN",
        ("fashion_mnist/logits.npz", *HALVES, "logits"),
    ),
    "orientation": (
        "text orientation (K = 4)",
        ("logits/orientation_probs.npz", ["probs"], ["y"], "probabilities"),
    ),
    "cifar10-wrn": (
        "CIFAR-10, WRN-16-4",
        ("logits/wideresnet-16-4-cifar-10.npz", *SAVED_SOFTMAX, "probabilities"),
    ),
    "cifar10-jpeg-resnet20": (
        "CIFAR-10 as JPEG, ResNet-20",
        (CIFAR10_JPEG, ["resnet20"], ["y"], "logits"),
    ),
    "cifar100-lenet": (
        "CIFAR-100, LeNet-5",
        ("logits/lenet-5-cifar-100.npz", *SAVED_SOFTMAX, "probabilities"),
    ),
    "langid": (
        "languages (K = 140)",
        ("logits/langid_140.npz", ["logits"], ["y"], "logits"),
    ),
}

# Probabilities of small classifiers on tabular data, split for calibration and test.
TABULAR = "logits/tabular_probs.npz"
TABLES = [
    "digits",
    "letter",
    "magic",
    "mnist5k",
    "optdigits",
    "penbased",
    "satimage",
    "texture",
]
CLASSIFIERS = ["mlp", "gnb", "rf"]


def load_tabular(table, classifier):
    """Return logits and labels to calibrate on, and to judge by."""
    with np.load(DATA / TABULAR) as arrays:
        proba = [arrays[f"{table}__{classifier}__{part}_p"] for part in ("cal", "test")]
        y = [arrays[f"{table}__{part}_y"].astype(int) for part in ("cal", "test")]
    X = [logits_from_proba(p.astype(np.float64)) for p in proba]
    return X[0], y[0], X[1], y[1]


def load_set(name):
    """Return logits and labels; rows without a label (-1) are left out."""
    file, scores, labels, kind = SETS[name][1]
    with np.load(DATA / file) as arrays:
        X = np.concatenate([arrays[key] for key in scores])
        y = np.concatenate([arrays[key].ravel() for key in labels]).astype(int)
    X, y = X[y >= 0], y[y >= 0]
    return (X if kind == "logits" else logits_from_proba(X.astype(np.float64))), y
