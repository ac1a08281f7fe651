"""Any classifier with any calibrator, cross-fitted; calibrators for new base rates."""

from skcalib.meta._calibrated_classifier import CalibratedClassifier
from skcalib.meta._prior_shift import PriorShift

__all__ = ["CalibratedClassifier", "PriorShift"]
