"""Calibrated probabilities for trained classifiers, as scikit-learn estimators.

The names are imported when they are first used, so that ``import skcalib`` is quick.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BayesianBinning": "skcalib.calibrators",
    "BetaCalibration": "skcalib.calibrators",
    "CalibratedClassifier": "skcalib.meta",
    "CalibratorSearch": "skcalib.model_selection",
    "DensityRatioCalibration": "skcalib.calibrators",
    "DirichletCalibration": "skcalib.calibrators",
    "EnsembleTemperatureScaling": "skcalib.calibrators",
    "GroupCalibration": "skcalib.meta",
    "HistogramBinning": "skcalib.calibrators",
    "IsotonicCalibration": "skcalib.calibrators",
    "MatrixScaling": "skcalib.calibrators",
    "NeuralClamping": "skcalib.clamping",
    "NeuralClampingCV": "skcalib.clamping",
    "OrderPreservingScaling": "skcalib.calibrators",
    "PlattScaling": "skcalib.calibrators",
    "PriorShift": "skcalib.meta",
    "ProbabilityFloor": "skcalib.calibrators",
    "ScalingBinning": "skcalib.calibrators",
    "SplineCalibration": "skcalib.calibrators",
    "StructuredMatrixScaling": "skcalib.calibrators",
    "TemperatureScaling": "skcalib.calibrators",
    "VectorScaling": "skcalib.calibrators",
    "VennAbersCalibration": "skcalib.calibrators",
    "load": "skcalib._saving",
    "logits_from_proba": "skcalib._validation",
    "save": "skcalib._saving",
}

__all__ = ["__version__", *_HOME]
if find_spec("torch") is None:
    # So that `from skcalib import *` works; by name, they say what is missing.
    __all__ = [name for name in __all__ if not name.startswith("NeuralClamping")]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'skcalib' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
