"""Probability floor: how small a probability still says something, learned."""

from functools import partial
from typing import Any

import numpy as np

from skcalib._base import BaseCalibrator, WrappingCalibrator
from skcalib._maps import CalibrationMap, Clip, LogSoftmax
from skcalib._numerics import log_softmax_
from skcalib._solvers._matrix import is_large
from skcalib._solvers._temperature import fit_temperature, subsample
from skcalib.calibrators._temperature import TemperatureScaling

# What a float32 can hold; below 1e-12, where zeros are put by default; round numbers
# down to the half of the share of one tree among a hundred.
FLOORS = (float(np.finfo(np.float32).tiny), 1e-20, 1e-12, 1e-7, 1e-4, 1e-3, 5e-3)
# Those that logits of a network, which may be far apart, can do with.
DEEP_FLOORS = FLOORS[:3]
# In units of the probability of a class when all are alike. Higher floors level what is
# likely, too.
HIGHEST = 0.1
# Sums of losses that differ by less, in nats, are alike.
ALIKE = 0.5


def learn_floor(data, floors=FLOORS, least=1.0):
    """Return the floor after which one temperature fits best; None for no floor.

    Of floors that fit alike it is the highest, since what lies below a floor can cost
    any number of nats once its class comes. None are tried if no probability is below
    `least`.
    """
    sample = subsample(data)
    reach = sample.rows(_extent).max() + np.log(data.n_classes)
    if -reach >= np.log(least):
        return None
    smallest = sample.rows(_lowest).min()
    if smallest >= np.log(least):
        return None
    highest = HIGHEST / data.n_classes
    tried = [f for f in floors if smallest < np.log(f) and f <= highest]
    if not tried:
        return None

    def loss(data):
        return fit_temperature(data, tol=1e-3).loss

    plain = loss(sample)
    losses = {floor: loss(raised_to(floor, sample)) for floor in tried}
    bound = min(plain, *losses.values()) + ALIKE / sample.total_weight
    return max((f for f in tried if losses[f] <= bound), default=None)


def _extent(logits, codes, weight):
    z = logits.astype(np.float64, copy=False)
    return z.max(axis=1) - z.min(axis=1)


def _lowest(logits, codes, weight):
    return log_softmax_(logits.astype(np.float64)).min(axis=1)


def floor_operations(floor):
    """Return what raises the probabilities of logits to the floor."""
    return () if floor is None else (LogSoftmax(), Clip(float(np.log(floor)), 0.0))


def raised_to(floor, data):
    """Return the data after `floor_operations`."""
    if floor is None:
        return data
    return data.mapped(partial(_raised, np.log(floor)), keep_type=is_large(data))


def _raised(log_floor, block):
    return np.maximum(log_softmax_(block), log_floor, out=block)


class ProbabilityFloor(WrappingCalibrator):
    r"""Raise small probabilities to a learned floor, then calibrate.

    A random forest says 0 where it means "fewer than one tree in a hundred", and naive
    Bayes :math:`10^{-40}` where it means "unlikely". Logarithms make a lot of such
    differences: a few rows of them decide a temperature. This calibrator learns how
    small a probability may be, hands the logarithms of what is left to another, and
    writes both into one map.

    Parameters
    ----------
    calibrator : calibrator, default=None
        Any calibrator; None is `TemperatureScaling`. Its `classes` hold where there are
        none here.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    floor_ : float or None
        The floor; None if the logits are better left as they are.

    calibrator_ : calibrator
        The fitted `calibrator`.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    skcalib.logits_from_proba : Its floor tells zeros from the smallest probability.

    Notes
    -----
    The floors tried are the smallest normal number of single precision, 1e-20, 1e-12,
    1e-7, 1e-4, 1e-3 and 5e-3, up to a tenth of 1/K for K classes, and none. Taken is
    the highest of those after which temperature scaling has the least log-loss, but
    for half a nat over the number of samples: what lies below a floor can cost any
    number of nats once its class comes. The floor changes no predicted class. Neither a
    constant added to a row nor what else is in a batch matters, and an exported model
    holds the floor.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skcalib import ProbabilityFloor, logits_from_proba
    >>> X, y = load_digits(return_X_y=True)
    >>> forest = RandomForestClassifier(50, random_state=0).fit(X[:900], y[:900])
    >>> logits = logits_from_proba(forest.predict_proba(X[900:]))
    >>> ProbabilityFloor().fit(logits, y[900:]).floor_
    0.005
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "classes": ["array-like", None],
    }

    by_sums = False

    def __init__(self, calibrator: Any = None, *, classes: Any = None) -> None:
        self.calibrator = calibrator
        self.classes = classes

    def _inner(self):
        return TemperatureScaling() if self.calibrator is None else self.calibrator

    def fit_calibration(self, data: Any) -> None:
        """Choose the floor, then fit the calibrator."""
        self.floor_ = learn_floor(data.used())
        self.calibrator_ = self._fit_inner(raised_to(self.floor_, data))

    def calibration_map(self) -> Any:
        """Return the floor and the calibrator's map."""
        inner = self.calibrator_.calibration_map()
        return CalibrationMap(*floor_operations(self.floor_), *inner.operations)
