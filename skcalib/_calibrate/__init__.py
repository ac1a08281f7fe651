"""From what people have to a calibrated model, figures and a file, in one call."""

from skcalib._calibrate._calibrate import calibrate
from skcalib._calibrate._calibrated import Calibrated

__all__ = ["Calibrated", "calibrate"]
