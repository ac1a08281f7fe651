"""The calibrators, one file a method."""

from skcalib.calibrators._beta import BetaCalibration
from skcalib.calibrators._histogram import HistogramBinning
from skcalib.calibrators._isotonic import IsotonicCalibration
from skcalib.calibrators._platt import PlattScaling
from skcalib.calibrators._temperature import TemperatureScaling

__all__ = [
    "BetaCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "PlattScaling",
    "TemperatureScaling",
]
