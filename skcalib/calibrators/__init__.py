"""The calibrators, one file a method."""

from skcalib.calibrators._bayesian_binning import BayesianBinning
from skcalib.calibrators._beta import BetaCalibration
from skcalib.calibrators._density_ratio import DensityRatioCalibration
from skcalib.calibrators._dirichlet import DirichletCalibration
from skcalib.calibrators._ensemble import EnsembleTemperatureScaling
from skcalib.calibrators._floor import ProbabilityFloor
from skcalib.calibrators._histogram import HistogramBinning
from skcalib.calibrators._isotonic import IsotonicCalibration
from skcalib.calibrators._matrix import MatrixScaling
from skcalib.calibrators._order_preserving import OrderPreservingScaling
from skcalib.calibrators._platt import PlattScaling
from skcalib.calibrators._scaling_binning import ScalingBinning
from skcalib.calibrators._smoothing_spline import SmoothingSplineCalibration
from skcalib.calibrators._spline import SplineCalibration
from skcalib.calibrators._structured import StructuredMatrixScaling
from skcalib.calibrators._temperature import TemperatureScaling
from skcalib.calibrators._vector import VectorScaling
from skcalib.calibrators._venn_abers import VennAbersCalibration

__all__ = [
    "BayesianBinning",
    "BetaCalibration",
    "DensityRatioCalibration",
    "DirichletCalibration",
    "EnsembleTemperatureScaling",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "OrderPreservingScaling",
    "PlattScaling",
    "ProbabilityFloor",
    "ScalingBinning",
    "SmoothingSplineCalibration",
    "SplineCalibration",
    "StructuredMatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
    "VennAbersCalibration",
]
