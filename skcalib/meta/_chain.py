"""A served calibration map and the calibrator that corrects it, as one calibrator."""

from copy import copy

import numpy as np
from sklearn.base import clone

from skcalib._base import (
    BaseCalibrator,
    WrappingCalibrator,
    check_maps_logits,
    fit_checked,
)
from skcalib._maps import (
    CalibrationMap,
    Clip,
    LogSoftmax,
    Softmax,
    evaluate_block,
    log_proba,
)
from skcalib._numerics import PROBA_FLOOR, some_logits
from skcalib._validation import check_search, chosen, is_search, name_classes
from skcalib.calibrators._floor import floor_operations


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
    has_logits = property(
        lambda self: getattr(self, "correction_", self.correction).has_logits
    )

    def __init__(self, served, correction, *, classes=None):
        self.served = served
        self.correction = correction
        self.classes = classes

    @classmethod
    def of(cls, served, correction):
        """Chain two fitted calibrators, of which the latter takes log-probabilities."""
        return cls._of_map(served.calibration_map(), correction, served)

    @classmethod
    def _of_map(cls, served, correction, first):
        chain = cls(served, clone(correction), classes=first.classes_)
        chain.correction_ = correction
        chain.classes_ = first.classes_
        chain.n_features_in_ = first.n_features_in_
        for name in ("feature_names_in_", "_numbered_columns"):
            if hasattr(first, name):
                setattr(chain, name, getattr(first, name))
        return chain

    @classmethod
    def after_floor(cls, floor, correction):
        """Chain probabilities raised to a floor and what was fitted to their logs."""
        served = CalibrationMap(*floor_operations(floor), Softmax())
        return cls._of_map(served, correction, correction)

    def _inner(self):
        return self.correction

    def fit_calibration(self, data):
        """Learn the correction from what the served map says."""
        front = log_proba(self.served, data.n_classes)
        told = data.mapped(lambda block: evaluate_block(front, block))
        self.correction_ = fit_checked(clone(self.correction), told)

    def calibration_map(self):
        """Return the served map, then that of the correction."""
        front = log_proba(self.served, self.classes_.shape[0])
        correction = self.correction_.calibration_map()
        return CalibrationMap(*front.operations, *correction.operations)


def without_names(calibrator):
    """Return a copy that takes rows whose columns have no names, without a warning."""
    nameless = copy(calibrator)
    vars(nameless).pop("feature_names_in_", None)
    return nameless


def notices_constant(calibrator):
    """Whether a constant added to a row of logits changes what a calibrator says."""
    width = calibrator.n_features_in_
    if width == 1:
        return False
    rows = some_logits(5, width)
    nameless = without_names(calibrator)
    told = [nameless.predict_proba(rows + constant) for constant in (0, 10)]
    return bool(np.abs(told[0] - told[1]).max() > 1e-6)


def of_log_proba(calibrator, floor=PROBA_FLOOR):
    """Return what was fitted to logarithms of probabilities, for any of their logits.

    One that would notice a constant comes with a map in front that takes it away, and
    so does one of a floor other than the usual one. None is put before what has no map.
    """
    if not hasattr(calibrator, "calibration_map"):
        return calibrator
    if floor == PROBA_FLOOR and not notices_constant(calibrator):
        return calibrator
    return Recalibrated.after_floor(floor, calibrator)


def fit_next(calibrator, served, log_proba, labels, classes):
    """Fit a clone to what is served, and chain it to what serves that, if it is known.

    Of a search of scikit-learn it is what the search chooses.
    """
    check_search(calibrator)
    if served is not None:
        inner = calibrator.estimator if is_search(calibrator) else calibrator
        check_maps_logits("recalibrate", inner)
    named = name_classes(clone(calibrator), classes)
    fitted = chosen(named.fit(log_proba, labels))
    return of_log_proba(fitted) if served is None else Recalibrated.of(served, fitted)


def held_log_floor(calibrator):
    """Return the logarithm to which a map first raises others, None without one."""
    if not hasattr(calibrator, "calibration_map"):
        return None
    front = calibrator.calibration_map().operations[:2]
    if [type(operation) for operation in front] != [LogSoftmax, Clip]:
        return None
    return front[1].lower
