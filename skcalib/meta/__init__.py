"""Any classifier with any calibrator, cross-fitted; for new base rates; by group."""

from skcalib.meta._calibrated_classifier import CalibratedClassifier
from skcalib.meta._group_calibration import GroupCalibration
from skcalib.meta._prior_shift import PriorShift

__all__ = ["CalibratedClassifier", "GroupCalibration", "PriorShift"]
