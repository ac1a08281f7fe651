"""A served calibration map and the calibrator that corrects it, as one calibrator."""

from sklearn.base import clone

from skcalib._base import BaseCalibrator, WrappingCalibrator, fit_checked
from skcalib._maps import CalibrationMap, evaluate_block, log_proba


class Recalibrated(WrappingCalibrator):
    """A calibrator of the log-probabilities that a map gives which is served already.

    What `CalibrationMonitor.recalibrate` returns where it knows the served calibrator:
    it takes the logits that one takes. A fit learns the correction anew.

    Parameters
    ----------
    served : CalibrationMap
        From logits to probabilities, as they are served.

    correction : estimator
        Calibrator from the logarithms of these to other probabilities.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits.

    Attributes
    ----------
    correction_ : estimator
        The fitted correction.
    """

    _parameter_constraints: dict = {
        "served": [CalibrationMap],
        "correction": [BaseCalibrator],
        "classes": ["array-like", None],
    }

    keeps_class = by_sums = False

    def __init__(self, served, correction, *, classes=None):
        self.served = served
        self.correction = correction
        self.classes = classes

    @classmethod
    def of(cls, served, correction):
        """Chain two fitted calibrators, of which the latter takes log-probabilities."""
        chain = cls(served.calibration_map(), clone(correction))
        chain.correction_ = correction
        chain.classes_ = served.classes_
        chain.n_features_in_ = served.n_features_in_
        return chain

    def _inner(self):
        return self.correction

    def fit_calibration(self, data):
        """Learn the correction from what the served map says."""
        front = CalibrationMap(*log_proba(self.served, data.n_classes))
        told = data.mapped(lambda block: evaluate_block(front, block))
        self.correction_ = fit_checked(clone(self.correction), told)

    def calibration_map(self):
        """Return the served map, then that of the correction."""
        front = log_proba(self.served, self.classes_.shape[0])
        return CalibrationMap(*front, *self.correction_.calibration_map().operations)
