"""What the package shows to the world, and what importing it costs."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

NAMES = {
    "skcalib": [
        "TemperatureScaling",
        "EnsembleTemperatureScaling",
        "VectorScaling",
        "MatrixScaling",
        "DirichletCalibration",
        "DensityRatioCalibration",
        "StructuredMatrixScaling",
        "OrderPreservingScaling",
        "PlattScaling",
        "BetaCalibration",
        "IsotonicCalibration",
        "HistogramBinning",
        "VennAbersCalibration",
        "SplineCalibration",
        "ScalingBinning",
        "BayesianBinning",
        "CalibratedClassifier",
        "logits_from_proba",
        "save",
        "load",
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
        "sweep_calibration_error",
        "overconfidence_error",
        "underconfidence_error",
        "top_label_calibration_error",
        "kde_calibration_error",
        "squared_kernel_calibration_error",
        "calibration_loss",
        "refinement_loss",
        "neighbor_proximity",
        "proximity_calibration_error",
        "calibration_test",
        "compare_calibration",
        "calibration_report",
        "uncertainty_calibration_error",
        "expected_normalized_calibration_error",
        "interval_coverage",
        "interval_sharpness",
        "ood_auroc",
        "ood_fpr",
        "risk_coverage_curve",
        "area_under_risk_coverage_curve",
        "get_scorer",
        "get_scorer_names",
        "ece_scorer",
        "aece_scorer",
        "sce_scorer",
        "entropy_scorer",
    ],
    "skcalib.model_selection": ["CalibratorSearch", "compare_calibrators"],
    "skcalib.plotting": [
        "ReliabilityDisplay",
        "ClasswiseReliabilityDisplay",
        "SmoothReliabilityDisplay",
        "SimplexDisplay",
        "ProximityDisplay",
        "CalibratorComparisonDisplay",
        "PerturbationDisplay",
        "plot_perturbation",
    ],
    "skcalib.export": ["to_onnx", "to_torch", "calibrate_onnx_model"],
    "skcalib.datasets": [
        "make_overlapping_blobs",
        "make_spirals",
        "make_blood_alcohol",
        "make_logits",
        "load_demo",
    ],
    "skcalib.testing": ["check_calibrator"],
    "skcalib.extending": [
        "BaseCalibrator",
        "CalibrationData",
        "CalibrationMap",
        "installed_calibrators",
    ],
    "skcalib.training": [
        "CLUELoss",
        "mc_dropout",
        "CLUEClassifier",
        "CLUERegressor",
        "BilevelCalibratedClassifier",
        "hypergradient",
    ],
}
HEAVY = [
    "torch",
    "skorch",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "pandas",
    "typer",
    "rich",
]


# What the names of a module need, where it takes no more than the core to import it.
NEEDS = {"skcalib.training": ["torch", "skorch"]}


def import_with_needs(module):
    for package in NEEDS.get(module, []):
        pytest.importorskip(package)
    return importlib.import_module(module)


@pytest.mark.parametrize("module", NAMES)
def test_public_names_exist_and_are_documented(module):
    home = import_with_needs(module)
    for name in NAMES[module]:
        assert getattr(home, name).__doc__


@pytest.mark.torch
@pytest.mark.parametrize("name", ["NeuralClamping", "NeuralClampingCV"])
def test_names_that_need_torch_exist_with_it(name):
    pytest.importorskip("torch")
    skcalib = importlib.import_module("skcalib")
    assert getattr(skcalib, name).__doc__
    assert name in skcalib.__all__


@pytest.mark.parametrize("name", ["NeuralClamping", "NeuralClampingCV"])
def test_names_that_need_torch_say_so_without_it(name):
    code = (
        f"import importlib.util, sys\n"
        f"sys.modules['torch'] = None\n"
        f"import skcalib\n"
        f"try:\n"
        f"    skcalib.{name}\n"
        f"except ImportError as error:\n"
        f"    print(error)"
    )
    assert 'pip install "skcalib[torch]"' in run_python(code)


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("onnx", "onnx", "frozen.OnnxLogits(demo.model).fit(X)"),
        ("onnxruntime", "onnx", "frozen.OnnxLogits(demo.model).fit(X)"),
        ("onnx", "onnx", "export.to_onnx(fitted)"),
        ("onnx", "onnx", "export.calibrate_onnx_model(demo.model, fitted)"),
        ("torch", "torch", "export.to_torch(fitted)"),
        ("torch", "torch", "frozen.TorchLogits(len).fit(X)"),
        (
            "matplotlib",
            "plot",
            "plotting.ReliabilityDisplay.from_estimator(fitted, X, y)",
        ),
    ],
)
def test_a_call_without_its_package_names_the_extra(package, extra, call):
    code = (
        f"import sys\n"
        f"from importlib.machinery import PathFinder\n"
        f"class Without:\n"
        f"    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] != {package!r}:\n"
        f"            return PathFinder.find_spec(name, path, target)\n"
        f"sys.meta_path[sys.meta_path.index(PathFinder)] = Without()\n"
        f"from skcalib import TemperatureScaling, datasets, export, frozen, plotting\n"
        f"X, y = datasets.make_logits(random_state=0)\n"
        f"fitted = TemperatureScaling().fit(X, y)\n"
        f"demo = datasets.load_demo()\n"
        f"try:\n"
        f"    {call}\n"
        f"except ImportError as error:\n"
        f"    print(error)"
    )
    assert f'pip install "skcalib[{extra}]"' in run_python(code)


@pytest.mark.parametrize("module", NAMES)
def test_every_name_that_a_module_lists_exists(module):
    home = import_with_needs(module)
    assert sorted(set(NAMES[module]) - set(home.__all__)) == []
    assert all(hasattr(home, name) for name in home.__all__)


PLANTED = {
    "_numerics.py": "import torch",
    "exceptions.py": "import onnxruntime",
    "frozen/_base.py": "import onnx",
    "metrics/_report.py": "import pandas",
    "calibrators/_beta.py": "from matplotlib import pyplot",
    "new_room.py": "import skorch",
    "meta/_scores.py": "import skcalib.cli",
}


@pytest.fixture(scope="module")
def broken_contracts(tmp_path_factory):
    """What the import contracts say of a copy with an import planted in each file."""
    pytest.importorskip("importlinter")
    copy = tmp_path_factory.mktemp("planted")
    shutil.copytree(ROOT / "skcalib", copy / "skcalib")
    for file, line in PLANTED.items():
        with (copy / "skcalib" / file).open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
    code = (
        f"from importlinter.cli import lint_imports\n"
        f"lint_imports({str(ROOT / 'setup.cfg')!r}, no_cache=True)"
    )
    return run_python(code, cwd=copy)


@pytest.mark.parametrize("file", PLANTED)
def test_the_import_contracts_see_what_is_planted_in(file, broken_contracts):
    module = "skcalib." + file.removesuffix(".py").replace("/", ".")
    imported = PLANTED[file].split()[1]
    assert f"{module} -> {imported}" in broken_contracts


def test_the_import_contracts_ask_for_the_floor_of_a_new_room(broken_contracts):
    assert "not listed as layers:\n\n- skcalib.new_room" in broken_contracts


def run_python(code, cwd=None):
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
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
    # torch, which some names need, has filters of its own.
    code = (
        "import importlib.util, numpy, warnings, sklearn.calibration\n"
        "if importlib.util.find_spec('torch'): import torch\n"
        "before = numpy.geterr(), list(warnings.filters)\n"
        "from skcalib import *\n"
        "print((numpy.geterr(), list(warnings.filters)) == before)"
    )
    assert run_python(code).strip() == "True"
