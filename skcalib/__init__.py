"""Calibrated probabilities for trained classifiers, as scikit-learn estimators."""

from skcalib._validation import logits_from_proba
from skcalib.calibrators import TemperatureScaling

__version__ = "0.1.0.dev0"

__all__ = ["TemperatureScaling", "__version__", "logits_from_proba"]
