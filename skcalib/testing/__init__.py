"""Checks that every calibrator passes, for those who write one."""

from skcalib.testing._check_calibrator import check_calibrator

__all__ = ["check_calibrator"]
