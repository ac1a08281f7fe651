"""Data with known answers, corruptions of images, and the demonstration's network."""

from skcalib.datasets._blood_alcohol import make_blood_alcohol
from skcalib.datasets._corruptions import corrupt_images
from skcalib.datasets._demo import load_demo
from skcalib.datasets._logits import make_logits
from skcalib.datasets._two_dimensional import make_overlapping_blobs, make_spirals

__all__ = [
    "corrupt_images",
    "load_demo",
    "make_blood_alcohol",
    "make_logits",
    "make_overlapping_blobs",
    "make_spirals",
]
