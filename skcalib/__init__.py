"""Calibrated probabilities for trained classifiers, as scikit-learn estimators.

The names are imported when they are first used, so that ``import skcalib`` is quick.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # What a type checker and an editor see of the names below.
    from skcalib import datasets as datasets
    from skcalib import exceptions as exceptions
    from skcalib import export as export
    from skcalib import extending as extending
    from skcalib import frozen as frozen
    from skcalib import metrics as metrics
    from skcalib import model_selection as model_selection
    from skcalib import monitoring as monitoring
    from skcalib import plotting as plotting
    from skcalib import testing as testing
    from skcalib import training as training
    from skcalib._calibrate import Calibrated as Calibrated
    from skcalib._calibrate import calibrate as calibrate
    from skcalib._saving import load as load
    from skcalib._saving import save as save
    from skcalib._trusted_types import trusted_types as trusted_types
    from skcalib._validation import as_rows as as_rows
    from skcalib._validation import logits_from_proba as logits_from_proba
    from skcalib._validation import logits_from_top_logprobs as logits_from_top_logprobs
    from skcalib._validation import pad_options as pad_options
    from skcalib.calibrators import BayesianBinning as BayesianBinning
    from skcalib.calibrators import BetaCalibration as BetaCalibration
    from skcalib.calibrators import DensityRatioCalibration as DensityRatioCalibration
    from skcalib.calibrators import DirichletCalibration as DirichletCalibration
    from skcalib.calibrators import (
        EnsembleTemperatureScaling as EnsembleTemperatureScaling,
    )
    from skcalib.calibrators import HistogramBinning as HistogramBinning
    from skcalib.calibrators import IsotonicCalibration as IsotonicCalibration
    from skcalib.calibrators import MatrixScaling as MatrixScaling
    from skcalib.calibrators import OrderPreservingScaling as OrderPreservingScaling
    from skcalib.calibrators import PlattScaling as PlattScaling
    from skcalib.calibrators import ProbabilityFloor as ProbabilityFloor
    from skcalib.calibrators import ScalingBinning as ScalingBinning
    from skcalib.calibrators import (
        SmoothingSplineCalibration as SmoothingSplineCalibration,
    )
    from skcalib.calibrators import SplineCalibration as SplineCalibration
    from skcalib.calibrators import StructuredMatrixScaling as StructuredMatrixScaling
    from skcalib.calibrators import TemperatureScaling as TemperatureScaling
    from skcalib.calibrators import VectorScaling as VectorScaling
    from skcalib.calibrators import VennAbersCalibration as VennAbersCalibration
    from skcalib.clamping import NeuralClamping as NeuralClamping
    from skcalib.clamping import NeuralClampingCV as NeuralClampingCV
    from skcalib.meta import BoostedCalibration as BoostedCalibration
    from skcalib.meta import CalibratedClassifier as CalibratedClassifier
    from skcalib.meta import DenseCalibration as DenseCalibration
    from skcalib.meta import GroupCalibration as GroupCalibration
    from skcalib.meta import MultiLabelCalibration as MultiLabelCalibration
    from skcalib.meta import OptionCalibration as OptionCalibration
    from skcalib.meta import PriorShift as PriorShift
    from skcalib.model_selection import CalibratorSearch as CalibratorSearch

_HOME = {
    "BayesianBinning": "skcalib.calibrators",
    "BetaCalibration": "skcalib.calibrators",
    "BoostedCalibration": "skcalib.meta",
    "Calibrated": "skcalib._calibrate",
    "CalibratedClassifier": "skcalib.meta",
    "CalibratorSearch": "skcalib.model_selection",
    "DenseCalibration": "skcalib.meta",
    "DensityRatioCalibration": "skcalib.calibrators",
    "DirichletCalibration": "skcalib.calibrators",
    "EnsembleTemperatureScaling": "skcalib.calibrators",
    "GroupCalibration": "skcalib.meta",
    "HistogramBinning": "skcalib.calibrators",
    "IsotonicCalibration": "skcalib.calibrators",
    "MatrixScaling": "skcalib.calibrators",
    "MultiLabelCalibration": "skcalib.meta",
    "NeuralClamping": "skcalib.clamping",
    "NeuralClampingCV": "skcalib.clamping",
    "OptionCalibration": "skcalib.meta",
    "OrderPreservingScaling": "skcalib.calibrators",
    "PlattScaling": "skcalib.calibrators",
    "PriorShift": "skcalib.meta",
    "ProbabilityFloor": "skcalib.calibrators",
    "ScalingBinning": "skcalib.calibrators",
    "SmoothingSplineCalibration": "skcalib.calibrators",
    "SplineCalibration": "skcalib.calibrators",
    "StructuredMatrixScaling": "skcalib.calibrators",
    "TemperatureScaling": "skcalib.calibrators",
    "VectorScaling": "skcalib.calibrators",
    "VennAbersCalibration": "skcalib.calibrators",
    "as_rows": "skcalib._validation",
    "calibrate": "skcalib._calibrate",
    "load": "skcalib._saving",
    "logits_from_proba": "skcalib._validation",
    "logits_from_top_logprobs": "skcalib._validation",
    "pad_options": "skcalib._validation",
    "save": "skcalib._saving",
    "trusted_types": "skcalib._trusted_types",
}

__all__ = ["__version__", *_HOME]
if find_spec("torch") is None:
    # So that `from skcalib import *` works; by name, they say what is missing.
    __all__ = [name for name in __all__ if not name.startswith("NeuralClamping")]


# Public modules, which `import skcalib` alone makes reachable as well.
_MODULES = [
    "datasets",
    "exceptions",
    "export",
    "extending",
    "frozen",
    "metrics",
    "model_selection",
    "monitoring",
    "plotting",
    "testing",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"skcalib.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'skcalib' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
