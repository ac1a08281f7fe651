"""Any classifier with any calibrator; new base rates, groups, features, many labels."""

from skcalib.meta._boosted_calibration import BoostedCalibration
from skcalib.meta._calibrated_classifier import CalibratedClassifier
from skcalib.meta._dense import DenseCalibration
from skcalib.meta._group_calibration import GroupCalibration
from skcalib.meta._multi_label import MultiLabelCalibration
from skcalib.meta._options import OptionCalibration
from skcalib.meta._prior_shift import PriorShift

__all__ = [
    "BoostedCalibration",
    "CalibratedClassifier",
    "DenseCalibration",
    "GroupCalibration",
    "MultiLabelCalibration",
    "OptionCalibration",
    "PriorShift",
]
