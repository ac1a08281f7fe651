"""Data with known answers, corruptions of images, and the demonstration's network."""

from skcalib.datasets._corruptions import corrupt_images
from skcalib.datasets._demo import load_demo
from skcalib.datasets._logits import make_logits

__all__ = ["corrupt_images", "load_demo", "make_logits"]
