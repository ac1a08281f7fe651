"""Any classifier with any calibrator, cross-fitted."""

from skcalib.meta._calibrated_classifier import CalibratedClassifier

__all__ = ["CalibratedClassifier"]
