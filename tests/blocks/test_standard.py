"""Arrays of the array API standard are read where they lie, and such come out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from skcalib import (
    CalibratedClassifier,
    IsotonicCalibration,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.frozen import ClassifierLogits
from skcalib.metrics import expected_calibration_error

xp = pytest.importorskip("array_api_strict")
DEVICES = [xp.Device("CPU_DEVICE"), xp.Device("device1")]


def values(array):
    return np.from_dlpack(array)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "calibrator",
    [TemperatureScaling(), VectorScaling(), PlattScaling(), IsotonicCalibration()],
    ids=lambda calibrator: type(calibrator).__name__,
)
def test_a_fit_is_that_to_an_array_of_numpy(
    draw_calibration_set, calibrator, dtype, device
):
    logits, y = draw_calibration_set(n_samples=500)
    logits, weight = logits.astype(dtype), np.tile([1.0, 2.0], 250)
    expected = calibrator.fit(logits, y, weight)
    proba, score = expected.predict_proba(logits), expected.score(logits, y, weight)
    X, Y, W = (xp.asarray(part, device=device) for part in (logits, y, weight))
    found = calibrator.fit(X, Y, W)
    assert found.predict_proba(X).device == device
    assert_array_equal(values(found.predict_proba(X)), proba, strict=True)
    assert_array_equal(values(found.predict(X)), expected.predict(logits))
    assert found.score(X, Y, W) == score
    assert isinstance(found.predict_proba(logits), np.ndarray)
    assert expected_calibration_error(
        Y, found.predict_proba(X), sample_weight=W
    ) == expected_calibration_error(y, proba, sample_weight=weight)


def test_one_column_gives_two_and_texts_stay_texts_of_numpy():
    z, y = xp.asarray([-2.0, -1.0, 1.0, 2.0]), ["no", "yes", "no", "yes"]
    scaling = VennAbersCalibration().fit(z, y)
    assert scaling.predict_proba(z).shape == (4, 2)
    assert_array_equal(scaling.predict(z), scaling.predict(values(z)))
    out = np.empty((4, 2))
    assert scaling.predict_proba(z, out=out) is out


class OfADevice:
    """As an array looks that lies on a device with CUDA."""

    device, shape, ndim = "cuda:0", (4, 2), 2

    def __array_namespace__(self):
        raise NotImplementedError

    def __dlpack_device__(self):
        return 2, 0


def test_an_array_on_a_device_is_not_brought_here():
    with pytest.raises(TypeError, match=r"the device cuda:0, .* torch.from_dlpack"):
        TemperatureScaling().fit(OfADevice(), [0, 1, 0, 1])


@pytest.fixture
def dispatched(monkeypatch):
    """Let scikit-learn compute with the arrays that it is given."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with config_context(array_api_dispatch=True):
        yield


class Linear(LogisticRegression):
    """Gives scores of the kind of X, as scikit-learn's classifiers do if they can."""

    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None:
            assert type(sample_weight) is type(X)
            sample_weight = values(sample_weight)
        assert type(y) is type(X)
        with config_context(array_api_dispatch=False):
            super().fit(values(X), values(y), sample_weight)
        self.classes_ = xp.asarray(self.classes_, device=X.device)
        return self

    def decision_function(self, X):
        scores = values(X) @ self.coef_.T + self.intercept_
        return xp.asarray(scores, device=X.device)


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("names", [None, list("abcd")])
def test_a_classifier_of_such_arrays_is_given_such(dispatched, ensemble, names):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5))
    y = (features[:, :4] + rng.gumbel(size=(200, 4))).argmax(axis=1)
    X = xp.asarray(features, device=DEVICES[1])
    told = y if names is None else np.array(names)[y]
    classifier = CalibratedClassifier(Linear(), cv=3, ensemble=ensemble)
    classifier.fit(X, told, sample_weight=np.tile([1.0, 2.0], 100))
    proba = classifier.predict_proba(X)
    assert proba.device == DEVICES[1]
    assert_allclose(values(proba).sum(axis=1), 1)
    expected = values(proba).argmax(axis=1)
    predicted = classifier.predict(X)
    if names is None:
        assert_array_equal(values(predicted), expected)
    else:
        assert_array_equal(predicted, np.array(names)[expected])


def test_log_probabilities_of_such_arrays_are_such(dispatched):
    class Naive(Linear):
        decision_function = property()

        def predict_log_proba(self, X):
            return X - xp.log(xp.sum(xp.exp(X), axis=1, keepdims=True))

    X = xp.asarray(np.random.default_rng(0).normal(size=(50, 3)), device=DEVICES[1])
    naive = Naive().fit(X, xp.asarray(np.arange(50) % 3, device=DEVICES[1]))
    logits = ClassifierLogits(FrozenEstimator(naive)).transform(X)
    assert_allclose(values(logits), values(naive.predict_log_proba(X)))
