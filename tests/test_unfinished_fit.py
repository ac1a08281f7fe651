"""A fit that is refused or interrupted leaves the estimator as it was."""

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression

from skcalib import (
    BoostedCalibration,
    CalibratedClassifier,
    DenseCalibration,
    GroupCalibration,
    MatrixScaling,
    MultiLabelCalibration,
    OptionCalibration,
    PriorShift,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.model_selection import CalibratorSearch

LOGITS, Y = make_logits(120, 3, random_state=0)
GROUPS = np.arange(120) % 2

MORE = [
    BoostedCalibration(),
    CalibratedClassifier(LogisticRegression(), TemperatureScaling(), cv=2),
    CalibratorSearch([TemperatureScaling(), VectorScaling()], cv=2),
    DenseCalibration(TemperatureScaling()),
    OptionCalibration(),
    PriorShift(TemperatureScaling()),
]


class Stop(BaseException):
    """What no solver takes for the wish to keep the best point so far."""


def stopping(estimator):
    """Return a new estimator that stops once it has set `left` attributes more."""

    def set_and_count(self, name, value):
        object.__setattr__(self, name, value)
        kind.left -= 1
        if kind.left == 0:
            raise Stop

    members = {"__setattr__": set_and_count, "left": 0}
    kind = type("Stopping", (type(estimator),), members)
    return kind(**estimator.get_params(deep=False))


def state(estimator):
    return {name: id(value) for name, value in vars(estimator).items()}


def check_unfinished_fits(estimator, X, y, **known):
    """Stop fits at the first, a middle and the last attribute that they set."""
    fitted, new = stopping(estimator).fit(X, y, **known), stopping(estimator)
    kind = type(fitted)
    predict = getattr(fitted, "predict_proba", None) or fitted.transform
    kind.left = 0
    fitted.fit(X[::-1], y, **known)
    n_set = -kind.left
    before, results = state(fitted), predict(X, **known)
    for left in {1, n_set // 2, n_set}:
        kind.left = left
        with pytest.raises(Stop):
            fitted.fit(2 * X, y, **known)
        assert state(fitted) == before
        assert_array_equal(predict(X, **known), results)
        type(new).left, unfitted = left, state(new)
        with pytest.raises(Stop):
            new.fit(X, y, **known)
        assert state(new) == unfitted


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", CALIBRATORS + VARIANTS + MORE, ids=identify)
def test_an_unfinished_fit_changes_nothing(estimator):
    check_unfinished_fits(estimator, LOGITS, Y)


def test_an_unfinished_fit_to_groups_or_many_labels_changes_nothing():
    check_unfinished_fits(GroupCalibration(strength=1.0), LOGITS, Y, groups=GROUPS)
    labels = np.eye(3)[Y]
    check_unfinished_fits(MultiLabelCalibration(TemperatureScaling()), LOGITS, labels)


def test_an_unfinished_fit_of_a_network_changes_nothing():
    torch = pytest.importorskip("torch")
    from skcalib.clamping import NeuralClamping
    from skcalib.frozen import TorchLogits

    network, X = torch.nn.Linear(3, 3), LOGITS.astype(np.float32)
    options = {"penalty": 0.1, "perturbation": "full", "warm_start": True}
    check_unfinished_fits(NeuralClamping(network, **options), X, Y)
    check_unfinished_fits(TorchLogits(network), X, Y)


def test_unfinished_training_changes_nothing():
    pytest.importorskip("skorch")
    from skcalib.training import BilevelCalibratedClassifier, CLUEClassifier

    for kind in (BilevelCalibratedClassifier, CLUEClassifier):
        estimator = kind(hidden_layer_sizes=(4,), max_epochs=2, random_state=0)
        check_unfinished_fits(estimator, LOGITS, Y)


def test_what_is_refused_leaves_the_labels_of_the_former_fit():
    labels = np.array(["a", "b", "c"])[Y]
    for calibrator in (MatrixScaling(cv=2), CalibratedClassifier(LogisticRegression())):
        fitted = calibrator.fit(LOGITS, labels)
        proba, bad = fitted.predict_proba(LOGITS), LOGITS.copy()
        bad[0, 0] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            fitted.fit(bad, Y)
        assert fitted.classes_.tolist() == ["a", "b", "c"]
        assert_array_equal(fitted.predict_proba(LOGITS), proba)
