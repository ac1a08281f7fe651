"""Public names mean the same everywhere, as docs/glossary.rst says."""

from dataclasses import is_dataclass
from pathlib import Path

import pytest
from public_names import MODULES, import_public, signatures

GLOSSARY = Path(__file__).parent.parent / "docs" / "glossary.rst"

# What was decided against, and the name that is used.
INSTEAD = {
    **dict.fromkeys(["seed", "rng", "generator"], "random_state"),
    **dict.fromkeys(["bins", "num_bins", "n_bin"], "n_bins"),
    **dict.fromkeys(["n_boot", "n_bootstraps", "n_iterations"], "n_bootstrap"),
    **dict.fromkeys(["level", "conf_level"], "confidence_level"),
    **dict.fromkeys(["y_prob", "y_probs", "probs", "probas"], "y_proba or proba"),
    **dict.fromkeys(["target_names", "class_names", "label"], "classes or labels"),
    **dict.fromkeys(["weights", "sample_weights", "weight"], "sample_weight"),
    **dict.fromkeys(["verbosity", "progress"], "verbose"),
    **dict.fromkeys(["network", "net", "base_estimator"], "model"),
    **dict.fromkeys(["criterion", "loss_fn"], "objective"),
    **dict.fromkeys(["jobs", "num_workers"], "n_jobs"),
    **dict.fromkeys(["n_folds", "folds"], "cv"),
    **dict.fromkeys(["filename", "file", "output_path"], "path"),
    **dict.fromkeys(["force", "exist_ok"], "overwrite"),
}
# Names that mean one thing, and where.
ONLY_IN = {
    # What is measured is a loss; what a fit minimises is its objective.
    "loss": (
        "calibration_loss",
        "refinement_loss",
        "score_decomposition",
        "LossMonitor",
    ),
    "module": ("TorchLogits", "CLUE", "BilevelCalibratedClassifier", "mc_dropout"),
    "gammas": ("NeuralClampingCV",),
    "penalties": ("NeuralClampingCV",),
}
DEFAULTS = {
    "random_state": 0,
    "verbose": 0,
    "n_bins": 15,
    "n_proximity_bins": 15,
    "confidence_level": 0.95,
    "sample_weight": None,
    "groups": None,
    "classes": None,
    "labels": None,
    "pos_label": None,
    "class_": None,
    "n_jobs": None,
    "metrics": None,
    "device": "auto",
    "overwrite": False,
}
DIFFERENT = {
    # Ten bins of confidence times ten of proximity.
    "DensityRatioCalibration(n_bins)": 10,
    # Those that a picture of three panels has room for.
    "CalibratorComparisonDisplay.from_comparison(metrics)": ("nll", "brier", "ece"),
    "CalibratorComparisonDisplay.from_predictions(metrics)": ("nll", "brier", "ece"),
}


# What the library makes: nobody else calls their constructors.
MADE = (
    "Calibrated",
    "CalibrationData",
    "CalibrationReport",
    "CalibratorComparison",
    "MultiLabelReport",
)


def parameters(module_name):
    """Yield the name of a callable with each of its parameters."""
    module = import_public(module_name)
    for public_name in module.__all__:
        public = getattr(module, public_name)
        is_made = is_dataclass(public) or public_name in MADE
        for name, _, signature in signatures(public_name, public):
            if name == public_name and is_made:
                continue
            for parameter in signature.parameters.values():
                yield name, parameter


@pytest.mark.parametrize("module_name", MODULES)
def test_no_parameter_has_a_name_that_was_decided_against(module_name):
    wrong = {
        f"{name}({parameter.name})": INSTEAD[parameter.name]
        for name, parameter in parameters(module_name)
        if parameter.name in INSTEAD
    }
    assert wrong == {}


@pytest.mark.parametrize("module_name", MODULES)
def test_a_name_means_the_same_everywhere(module_name):
    wrong = [
        f"{name}({parameter.name})"
        for name, parameter in parameters(module_name)
        if parameter.name in ONLY_IN and not name.startswith(ONLY_IN[parameter.name])
    ]
    assert wrong == []


@pytest.mark.parametrize("module_name", MODULES)
def test_a_parameter_has_the_same_default_everywhere(module_name):
    # Data are drawn anew by each call, as by scikit-learn's own makers.
    drawn = {"random_state": None} if module_name == "skcalib.datasets" else {}
    expected = {**DEFAULTS, **drawn}
    wrong = {}
    for name, parameter in parameters(module_name):
        call = f"{name}({parameter.name})"
        if parameter.name in expected and parameter.default is not parameter.empty:
            default = DIFFERENT.get(call, expected[parameter.name])
            if parameter.default != default:
                wrong[call] = parameter.default
    assert wrong == {}


@pytest.mark.parametrize("module_name", MODULES)
def test_labels_name_columns_in_metrics_and_classes_in_estimators(module_name):
    in_metrics = module_name in ("skcalib.metrics", "skcalib.plotting")
    wrong = [
        f"{name}({parameter.name})"
        for name, parameter in parameters(module_name)
        if parameter.name == ("classes" if in_metrics else "labels")
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [*DEFAULTS, *ONLY_IN])
def test_the_glossary_explains(name):
    assert f"``{name}``" in GLOSSARY.read_text(encoding="utf-8")
