"""Data with known answers, and the network of the demonstration."""

from skcalib.datasets._demo import load_demo
from skcalib.datasets._logits import make_logits

__all__ = ["load_demo", "make_logits"]
