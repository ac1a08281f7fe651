"""Calibrations written for deployment: ONNX and torch."""

from skcalib.export._calibrate import calibrate_onnx_model
from skcalib.export._save import save_onnx
from skcalib.export._to_onnx import to_onnx
from skcalib.export._to_torch import to_torch

__all__ = ["calibrate_onnx_model", "save_onnx", "to_onnx", "to_torch"]
