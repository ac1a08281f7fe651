"""What the package shows to the world, and what importing it costs."""

import importlib
import subprocess
import sys

import pytest

NAMES = {
    "skcalib": [
        "TemperatureScaling",
        "EnsembleTemperatureScaling",
        "VectorScaling",
        "MatrixScaling",
        "DirichletCalibration",
        "StructuredMatrixScaling",
        "PlattScaling",
        "BetaCalibration",
        "IsotonicCalibration",
        "HistogramBinning",
        "CalibratedClassifier",
        "logits_from_proba",
    ],
    "skcalib.frozen": ["TorchLogits", "OnnxLogits", "ClassifierLogits"],
    "skcalib.metrics": [
        "expected_calibration_error",
        "adaptive_expected_calibration_error",
        "static_calibration_error",
        "predictive_entropy",
        "maximum_calibration_error",
        "root_mean_squared_calibration_error",
        "ks_calibration_error",
        "smooth_calibration_error",
        "calibration_report",
        "get_scorer",
        "get_scorer_names",
        "ece_scorer",
        "aece_scorer",
        "sce_scorer",
        "entropy_scorer",
    ],
    "skcalib.model_selection": ["CalibratorSearch", "compare_calibrators"],
    "skcalib.plotting": ["ReliabilityDisplay"],
    "skcalib.export": ["to_onnx", "to_torch", "calibrate_onnx_model"],
    "skcalib.datasets": ["make_logits", "load_demo"],
    "skcalib.testing": ["check_calibrator"],
}
HEAVY = ["torch", "onnx", "onnxruntime", "matplotlib", "pandas", "typer", "rich"]


@pytest.mark.parametrize("module", NAMES)
def test_public_names_exist_and_are_documented(module):
    for name in NAMES[module]:
        value = getattr(importlib.import_module(module), name)
        assert value.__doc__


@pytest.mark.parametrize("module", NAMES)
def test_every_name_that_a_module_lists_exists(module):
    listed = importlib.import_module(module).__all__
    assert sorted(set(NAMES[module]) - set(listed)) == []
    assert all(hasattr(importlib.import_module(module), name) for name in listed)


def run_python(code):
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_loads_no_optional_package_that_scikit_learn_does_not():
    code = (
        f"import sys, sklearn.calibration, sklearn.model_selection\n"
        f"before = set(sys.modules)\n"
        f"import {', '.join(NAMES)}\n"
        f"print([m for m in {HEAVY} if m in set(sys.modules) - before])"
    )
    assert run_python(code).strip() == "[]"


def test_importing_touches_no_global_state():
    run_python(
        "import numpy, warnings, sklearn.calibration\n"
        "before = numpy.geterr(), list(warnings.filters)\n"
        "from skcalib import *\n"
        "assert (numpy.geterr(), list(warnings.filters)) == before"
    )
