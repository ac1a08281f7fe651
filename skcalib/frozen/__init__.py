"""Frozen networks as transformers: from inputs to logits."""

from skcalib.frozen._classifier import ClassifierLogits
from skcalib.frozen._onnx import OnnxLogits
from skcalib.frozen._torch import TorchLogits

__all__ = ["ClassifierLogits", "OnnxLogits", "TorchLogits"]
