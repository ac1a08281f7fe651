"""The calibrators, one file a method."""

from skcalib.calibrators._beta import BetaCalibration
from skcalib.calibrators._platt import PlattScaling
from skcalib.calibrators._temperature import TemperatureScaling

__all__ = [
    "BetaCalibration",
    "PlattScaling",
    "TemperatureScaling",
]
