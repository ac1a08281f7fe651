import numpy as np
import pytest

from skcalib import (
    DenseCalibration,
    MatrixScaling,
    ProbabilityFloor,
    TemperatureScaling,
)
from skcalib._maps import CalibrationMap, LogSigmoid, Scale, Softmax
from skcalib.testing import _checks_fit, check_calibrator


class IgnoresWeights(TemperatureScaling):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


class NotNormalised(TemperatureScaling):
    def predict_proba(self, X):
        return 0.9 * super().predict_proba(X)


class LosesFloat32(TemperatureScaling):
    def predict_proba(self, X):
        return super().predict_proba(X).astype(np.float64)


class GuessesProbabilities(TemperatureScaling):
    def predict_proba(self, X):
        X = np.asarray(X)
        if X.ndim == 2 and (X > 0).all() and np.allclose(X.mean(axis=1), 1 / 3):
            X = np.log(X)
        return super().predict_proba(X)


class NotANumberForLargeLogits(TemperatureScaling):
    def predict_proba(self, X):
        proba = super().predict_proba(X)
        if np.ndim(X) == 2:
            proba[np.abs(X).max(axis=1) > 1e20] = np.nan
        return proba


class WritesIntoWeights(TemperatureScaling):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        if sample_weight is not None:
            sample_weight /= sample_weight.sum()
        return self


class IgnoresClasses(TemperatureScaling):
    def fit(self, X, y, sample_weight=None):
        classes, self.classes = self.classes, None
        try:
            return super().fit(X, y, sample_weight)
        finally:
            self.classes = classes


class IgnoresMissingClasses(TemperatureScaling):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.classes_ = np.unique(y)
        return self


class ExportsAnotherMap(TemperatureScaling):
    has_logits = False

    def calibration_map(self):
        return CalibrationMap(Scale(1.0), Softmax())

    def predict_proba(self, X):
        proba = super().predict_proba(X) ** 2
        return proba / proba.sum(axis=1, keepdims=True)


class AcceptsNaN(TemperatureScaling):
    def fit(self, X, y, sample_weight=None):
        return super().fit(np.nan_to_num(X), y, sample_weight)


class Crashes(TemperatureScaling):
    def calibration_map(self):
        return CalibrationMap(LogSigmoid(), object())


class Random(TemperatureScaling):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.temperature_ *= 1 + 1e-9 * np.random.default_rng().uniform()
        return self


@pytest.mark.parametrize(
    ("calibrator", "message"),
    [
        (IgnoresWeights(), "check_weights_equal_repetition"),
        (NotNormalised(), "check_probabilities: .* sums to 1 with an error of 0.1"),
        (LosesFloat32(), "check_float32: .* dtype float64"),
        (GuessesProbabilities(), "check_row_alone"),
        (NotANumberForLargeLogits(), "check_extreme_logits: .* NaN"),
        (WritesIntoWeights(), "check_inputs_unchanged: sample_weight was overwritten"),
        (IgnoresClasses(), "check_classes_parameter"),
        (IgnoresMissingClasses(), "check_column_numbers: classes_ is"),
        (ExportsAnotherMap(), "check_calibration_map: map and predict_proba"),
        (AcceptsNaN(), "check_non_finite_logits: nan at fit: .* nothing was raised"),
        (Crashes(), "raised TypeError: A map is made of"),
        (Random(), "check_deterministic"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_promise_is_found_and_named(calibrator, message):
    name = type(calibrator).__name__
    with pytest.raises(AssertionError, match=f"^{name} fails .*({message})"):
        check_calibrator(calibrator)


@pytest.mark.parametrize("wrap", [ProbabilityFloor, DenseCalibration])
def test_folds_of_a_calibrator_in_another_follow_its_rows(wrap):
    _checks_fit.check_order_of_rows(wrap(MatrixScaling()))
    _checks_fit.check_weights_equal_repetition(wrap(MatrixScaling()))
    _checks_fit.check_zero_weights_equal_removal(wrap(MatrixScaling()))


def test_the_calibrator_itself_is_not_fitted():
    calibrator = TemperatureScaling()
    check_calibrator(calibrator)
    assert not hasattr(calibrator, "temperature_")
