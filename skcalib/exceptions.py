"""Errors and warnings with a meaning of their own in skcalib."""

from sklearn.exceptions import ConvergenceWarning


class ModelFormatError(ValueError):
    """A model file cannot be read, or holds no classifier that can be calibrated."""


class NotDifferentiableError(ModelFormatError):
    """A model has no gradient with respect to its input, or a wrong one."""


class AbsentClassWarning(UserWarning):
    """A calibration set has no sample of some classes, of which nothing is learned."""


class BaseRateWarning(UserWarning):
    """Calibrated probabilities are off the share of a class on average."""


class InterruptedWarning(ConvergenceWarning):
    """Ctrl-C ended a fit, which keeps the best point found so far.

    Made an error by ``warnings.simplefilter("error", InterruptedWarning)``, it ends the
    program around the fit as well.
    """


class OneColumnWarning(UserWarning):
    """A single column of scores may not mean what it is taken for."""


class ProbabilitiesAsLogitsWarning(UserWarning):
    """What is read as logits looks like probabilities."""


__all__ = [
    "AbsentClassWarning",
    "BaseRateWarning",
    "InterruptedWarning",
    "ModelFormatError",
    "NotDifferentiableError",
    "OneColumnWarning",
    "ProbabilitiesAsLogitsWarning",
]
