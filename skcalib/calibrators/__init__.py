"""The calibrators, one file a method."""

from skcalib.calibrators._temperature import TemperatureScaling

__all__ = ["TemperatureScaling"]
