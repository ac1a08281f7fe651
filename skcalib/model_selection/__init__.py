"""Choosing between calibrators, and comparing them."""

from skcalib.model_selection._compare import CalibratorComparison, compare_calibrators
from skcalib.model_selection._search import CalibratorSearch

__all__ = ["CalibratorComparison", "CalibratorSearch", "compare_calibrators"]
