"""A search of scikit-learn, whose calibrators are fitted behind a learned floor."""

from sklearn.base import clone

from skcalib._base import BaseCalibrator
from skcalib._blocks import open_source
from skcalib._maps import CalibrationMap, evaluate
from skcalib._validation import is_search
from skcalib._warnings import quiet
from skcalib.calibrators import ProbabilityFloor
from skcalib.calibrators._floor import floor_operations
from skcalib.exceptions import AbsentClassWarning, ProbabilitiesAsLogitsWarning


def takes_floor(calibrator):
    """Whether it, or what a search of scikit-learn fits, is a map of skcalib."""
    inner = calibrator.estimator if is_search(calibrator) else calibrator
    return isinstance(inner, BaseCalibrator) and hasattr(inner, "calibration_map")


def fit_behind_floor(search, classes, logits, y, **known):
    """Fit a search to logits raised to a floor, and put the floor before its choice."""
    if isinstance(search.estimator, ProbabilityFloor):
        return search.fit(logits, y, **known)
    # The search itself has told what the samples lack, or look like.
    with quiet(AbsentClassWarning, ProbabilitiesAsLogitsWarning):
        floor = ProbabilityFloor(classes=classes).fit(logits, y, **known).floor_
    if floor is None:
        return search.fit(logits, y, **known)
    raising = CalibrationMap(*floor_operations(floor))
    search.fit(evaluate(raising, open_source(logits)), y, **known)
    floored = ProbabilityFloor(clone(search.best_estimator_), classes=classes)
    with quiet(AbsentClassWarning, ProbabilitiesAsLogitsWarning):
        search.best_estimator_ = floored.fit(logits, y, **known)
    return search
