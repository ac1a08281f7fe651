import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from skcalib import (
    CalibratedClassifier,
    CalibratorSearch,
    MultiLabelCalibration,
    PlattScaling,
    TemperatureScaling,
)
from skcalib.exceptions import AbsentClassWarning, BaseRateWarning
from skcalib.meta._base_rate import warn_of_base_rates

RARE = make_classification(2000, weights=[0.95], flip_y=0.02, random_state=0)


def test_class_weights_under_the_default_are_warned_of():
    X, y = RARE
    names = np.array(["ok", "fraud"])[y]
    weighted = LogisticRegression(class_weight="balanced")
    with pytest.warns(BaseRateWarning, match=r"of '(ok|fraud)' is 0\..* its share 0\."):
        fitted = CalibratedClassifier(weighted).fit(X, names)
    assert fitted.predict_proba(X)[:, 0].mean() > 1.5 * (names == "fraud").mean()


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), CalibratorSearch()])
def test_a_calibrator_that_was_chosen_is_not_warned_of(calibrator):
    X, y = RARE
    weighted = LogisticRegression(class_weight="balanced")
    CalibratedClassifier(weighted, calibrator).fit(X, y)


def draw_rare_labels(n=6000):
    """Return features, and three labels that are rarely set."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, (rng.random((n, 3)) < expit(X - [3.5, 3.5, 0])).astype(int)


@pytest.mark.parametrize("shared", [False, True])
def test_class_weights_under_the_default_of_several_labels_are_warned_of(shared):
    X, Y = draw_rare_labels()
    weighted = OneVsRestClassifier(LogisticRegression(class_weight="balanced"))
    weighted.fit(X, Y)
    default = MultiLabelCalibration(shared=shared)
    said = "'any label'" if shared else r"[01] is 0\..* its share 0\.0.*; 2 of 3 labels"
    frozen = FrozenEstimator(weighted)
    with pytest.warns(BaseRateWarning, match=said):
        fitted = CalibratedClassifier(frozen, default).fit(X, Y)
    assert fitted.predict_proba(X)[:, 0].mean() > 3 * Y[:, 0].mean()
    for chosen in (PlattScaling(), TemperatureScaling()):
        chosen = MultiLabelCalibration(chosen, shared=shared)
        CalibratedClassifier(frozen, chosen).fit(X, Y)


def test_labels_that_are_calibrated_or_not_known_are_not_warned_of():
    X, Y = draw_rare_labels()
    logits = X - [3.5, 3.5, 0]
    MultiLabelCalibration().fit(logits, Y)
    logits[::2, 1] += 3
    Y[::2, 1] = -1
    MultiLabelCalibration().fit(logits, Y)
    Y[:, 0] = -1
    with pytest.warns(AbsentClassWarning):
        MultiLabelCalibration().fit(logits, Y)


def test_sample_weights_count_in_the_shares():
    X, y = RARE
    weight = np.where(y == 1, 10.0, 1.0)
    CalibratedClassifier(LogisticRegression()).fit(X, y, sample_weight=weight)


class Given:
    """Probabilities as they come."""

    def __init__(self, n_classes):
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X):
        return X


@pytest.mark.parametrize(("n_rows", "spread"), [(200, 2), (1000, 8), (3000, 30)])
def test_calibrated_probabilities_are_never_warned_of(n_rows, spread):
    rng = np.random.default_rng(0)
    for _ in range(200):
        proba = softmax(spread * rng.normal(size=(n_rows, 5)) - [0, 1, 2, 4, 8], axis=1)
        y = (rng.random((n_rows, 1)) > proba[:, :-1].cumsum(axis=1)).sum(axis=1)
        warn_of_base_rates(Given(5), proba, y, None)


def test_an_error_that_does_not_matter_is_not_warned_of():
    proba = np.tile([0.52, 0.48], (100_000, 1))
    y = np.arange(100_000) % 2
    warn_of_base_rates(Given(2), proba, y, None)
    with pytest.warns(BaseRateWarning, match=r"of 0 is 0\.5600"):
        warn_of_base_rates(Given(2), np.tile([0.56, 0.44], (100_000, 1)), y, None)
