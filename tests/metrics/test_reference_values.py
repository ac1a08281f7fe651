"""Values on real networks, computed by others."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from skcalib.metrics import (
    adaptive_expected_calibration_error,
    calibration_report,
    expected_calibration_error,
    predictive_entropy,
    static_calibration_error,
)

NAMES = [
    *(
        f"cifar10/{net} all rows@{bins}"
        for net in ("resnet8d", "resnet20", "resnet32")
        for bins in (10, 15, 30)
    ),
    "cifar10/resnet20 test_idx@15",
    "cifar10/resnet20 test_idx, logits / 2.3@15",
    "cifar100/resnet8 all rows@15",
    "cifar100/resnet20 all rows@15",
    "logits/wideresnet-16-4-cifar-100 log(predictions)@15",
    "fashion_mnist/test_logits@15",
]


@pytest.fixture(scope="module")
def reference(data_dir):
    with open(data_dir / "reference_metrics.json") as file:
        return json.load(file)["values"]


def load(data_dir, name):
    """Labels and float64 probabilities of the rows that a reference name speaks of."""
    source, _, rows = name.partition("@")[0].partition(" ")
    folder, _, network = source.partition("/")
    if folder == "logits":
        with np.load(data_dir / f"{source}.npz") as arrays:
            y, logits = arrays["ground_truth"], np.log(arrays["predictions"])
    elif folder == "fashion_mnist":
        with np.load(data_dir / folder / "logits.npz") as arrays:
            y, logits = arrays["test_y"], arrays["test_logits"]
    else:
        with np.load(data_dir / folder / f"{folder}_logits.npz") as arrays:
            y, logits, test = arrays["y"], arrays[network], arrays["test_idx"]
        if rows.startswith("test_idx"):
            y, logits = y[test], logits[test]
    scale = 2.3 if rows.endswith("/ 2.3") else 1.0
    proba = softmax(logits.astype(np.float64) / scale, axis=1)
    return np.ravel(y).astype(int), proba


@pytest.mark.parametrize("name", NAMES)
def test_published_evaluation_code_gives_these_values(name, data_dir, reference):
    expected = reference[name]
    y, proba = load(data_dir, name)
    n_bins = expected["n_bins"]
    ece = expected_calibration_error(y, proba, n_bins=n_bins)
    sce = static_calibration_error(y, proba, n_bins=n_bins)
    aece = adaptive_expected_calibration_error(y, proba, n_bins=n_bins)
    assert ece == pytest.approx(expected["ece"], abs=1e-6)
    assert sce == pytest.approx(expected["sce"], abs=1e-6)
    assert predictive_entropy(y, proba) == pytest.approx(expected["entropy"], abs=1e-6)
    assert aece == pytest.approx(expected["aece_interpolated_edges"], abs=3e-4)
    if "aece_equal_mass" in expected:
        assert aece == pytest.approx(expected["aece_equal_mass"], abs=1e-9)


def test_the_report_agrees_too(data_dir, reference):
    name = "cifar10/resnet20 test_idx@15"
    report = calibration_report(*load(data_dir, name), n_bootstrap=0)
    for metric in ("ece", "sce", "entropy", "accuracy", "nll"):
        assert report[metric].value == pytest.approx(reference[name][metric], abs=1e-6)


def test_single_precision_changes_little(data_dir):
    y, proba = load(data_dir, "cifar100/resnet20 all rows@15")
    double = calibration_report(y, proba, n_bootstrap=0)
    single = calibration_report(y, proba.astype(np.float32), n_bootstrap=0)
    for metric in ("accuracy", "nll", "brier", "entropy", "aece", "sce", "ks"):
        assert single[metric].value == pytest.approx(double[metric].value, rel=2e-5)
