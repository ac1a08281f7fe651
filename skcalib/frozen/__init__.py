"""Frozen networks as transformers: from inputs to logits."""

from skcalib.frozen._onnx import OnnxLogits

__all__ = ["OnnxLogits"]
