"""Calibrated probabilities for trained classifiers, as scikit-learn estimators."""

from skcalib._validation import logits_from_proba
from skcalib.calibrators import (
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.meta import CalibratedClassifier

__version__ = "0.1.0.dev0"

__all__ = [
    "BetaCalibration",
    "CalibratedClassifier",
    "DirichletCalibration",
    "EnsembleTemperatureScaling",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "PlattScaling",
    "StructuredMatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
    "__version__",
    "logits_from_proba",
]
