import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from skcalib import CalibratedClassifier, CalibratorSearch, TemperatureScaling
from skcalib.exceptions import BaseRateWarning
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
