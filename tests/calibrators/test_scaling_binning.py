import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows import normalise, require_top
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from skcalib.calibrators import (
    DirichletCalibration,
    HistogramBinning,
    IsotonicCalibration,
    OrderPreservingScaling,
    PlattScaling,
    ScalingBinning,
    StructuredMatrixScaling,
    TemperatureScaling,
)
from skcalib.model_selection import CalibratorSearch


def bin_means(proba, n_bins):
    """Mean of each of equally many sorted samples, given back to them."""
    result = np.empty_like(proba)
    for part in np.split(np.argsort(proba), n_bins):
        result[part] = proba[part].mean()
    return result


def test_binary_is_the_mean_of_a_logistic_regression(binary_calibration_set):
    z, y = binary_calibration_set
    logistic = LogisticRegression(C=1e10, tol=1e-10).fit(z[:, np.newaxis], y)
    expected = bin_means(logistic.predict_proba(z[:, np.newaxis])[:, 1], 15)
    platt = PlattScaling(prior=None)
    binning = ScalingBinning(platt, method="one_vs_rest").fit(z, y)
    proba = binning.predict_proba(z)
    assert_allclose(proba[:, 1], expected, atol=1e-6)
    assert_allclose(proba.sum(axis=1), 1, atol=1e-15)


def test_the_default_scaling_depends_on_the_number_of_classes(
    binary_calibration_set, calibration_set
):
    binary = ScalingBinning().fit(*binary_calibration_set).scaling_
    several = ScalingBinning().fit(*calibration_set).scaling_
    assert isinstance(binary, PlattScaling)
    assert isinstance(several, TemperatureScaling)


@pytest.mark.parametrize("scaling", [None, PlattScaling()])
def test_every_class_gets_the_mean_of_its_scaled_bin(calibration_set, scaling):
    logits, y = calibration_set
    fitted = (TemperatureScaling() if scaling is None else scaling).fit(logits, y)
    scaled = fitted.predict_proba(logits)
    expected = np.stack([bin_means(scaled[:, k], 12) for k in range(4)], axis=1)
    binning = ScalingBinning(scaling, n_bins=12, method="one_vs_rest").fit(logits, y)
    assert_allclose(binning.predict_proba(logits), normalise(expected), atol=1e-12)


def test_top_label_bins_the_scaled_confidence(calibration_set):
    logits, y = calibration_set
    scaled = StructuredMatrixScaling().fit(logits, y).predict_proba(logits)
    confidence = bin_means(scaled.max(axis=1), 10)
    binning = ScalingBinning(StructuredMatrixScaling(), n_bins=10).fit(logits, y)
    require_top(binning.predict_proba(logits), scaled, confidence)


def test_uniform_bins_have_equal_width_in_the_scaled_probability():
    z = np.log([1 / 9, 1 / 4, 1.5, 4.0, 9.0])
    scaling = TemperatureScaling()
    options = {"strategy": "uniform", "method": "one_vs_rest"}
    binning = ScalingBinning(scaling, n_bins=2, **options)
    proba = binning.fit(z, [0, 1, 0, 1, 1]).predict_proba(z)[:, 1]
    scaled = expit(z / scaling.fit(z, [0, 1, 0, 1, 1]).temperature_)
    expected = np.repeat([scaled[:2].mean(), scaled[2:].mean()], [2, 3])
    assert_allclose(proba, expected, atol=1e-12)


def test_the_means_vary_less_than_shares_of_hits():
    # The point of the method: the true probability of a bin, from few samples.
    rng = np.random.default_rng(0)
    options = {"n_bins": 10, "strategy": "quantile", "method": "one_vs_rest"}
    errors = {HistogramBinning: [], ScalingBinning: []}
    at = np.linspace(-3, 3, 61)
    for _ in range(20):
        z = rng.normal(scale=2, size=300)
        y = (rng.random(z.size) < expit(z / 2)).astype(int)
        for method, seen in errors.items():
            fitted = method(**options).fit(z, y)
            seen.append(fitted.predict_proba(at)[:, 1] - expit(at / 2))
    spread = {method: np.std(seen) for method, seen in errors.items()}
    assert spread[ScalingBinning] < 0.75 * spread[HistogramBinning]


def test_as_many_values_as_bins(binary_calibration_set):
    z, y = binary_calibration_set
    binning = ScalingBinning(n_bins=7, method="one_vs_rest").fit(z, y)
    at = np.random.default_rng(0).normal(scale=9, size=1000)
    assert np.unique(binning.predict_proba(at)[:, 1]).size == 7


def test_a_scaling_with_given_splits_counts_rows_of_weight_0(calibration_set):
    logits, y = calibration_set
    weight = (np.arange(y.size) % 5 != 0).astype(float)
    fold = np.arange(y.size) % 3
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    scaling = DirichletCalibration(cv=splits, intercept_penalty=1.0)
    binning = ScalingBinning(scaling, method="one_vs_rest")
    binning.fit(logits, y, sample_weight=weight)
    expected = scaling.fit(logits, y, sample_weight=weight)
    assert_allclose(binning.scaling_.coef_, expected.coef_, atol=1e-12)
    kept = weight > 0
    scaled = expected.predict_proba(logits[kept])
    means = np.stack([bin_means(scaled[:, k], 15) for k in range(4)], axis=1)
    proba = binning.predict_proba(logits[kept])
    assert_allclose(proba, normalise(means), atol=1e-9)


def test_the_given_scaling_stays_unfitted(calibration_set):
    scaling = TemperatureScaling(classes=["not", "these"])
    labels = np.array(["a", "b", "c", "d"])
    logits, y = calibration_set
    binning = ScalingBinning(scaling, classes=labels).fit(logits, labels[y])
    assert not hasattr(scaling, "temperature_")
    assert_array_equal(binning.scaling_.predict(logits), labels[logits.argmax(axis=1)])


def test_parameters_of_the_scaling_are_set_through(calibration_set):
    binning = ScalingBinning(TemperatureScaling())
    binning.set_params(scaling__objective="brier")
    fitted = binning.fit(*calibration_set)
    expected = TemperatureScaling(objective="brier").fit(*calibration_set)
    assert fitted.scaling_.temperature_ == expected.temperature_


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scaling": LogisticRegression()}, "scaling"),
        ({"scaling": TemperatureScaling(tol=-1.0)}, "tol"),
        ({"n_bins": 0}, "n_bins"),
        ({"strategy": "kmeans"}, "strategy"),
        ({"method": "shared"}, "method"),
    ],
)
def test_wrong_parameters_are_refused(calibration_set, options, name):
    with pytest.raises(ValueError, match=name):
        ScalingBinning(**options).fit(*calibration_set)


@pytest.mark.parametrize("owner", [ScalingBinning, OrderPreservingScaling])
def test_a_search_is_a_scaling_if_its_choice_has_logits(calibration_set, owner):
    X, y = calibration_set
    search = CalibratorSearch([TemperatureScaling(), PlattScaling()])
    fitted = owner(search).fit(X, y)
    alone = owner(clone(search).fit(X, y).best_calibrator_).fit(X, y)
    assert_array_equal(fitted.predict_proba(X), alone.predict_proba(X))
    with pytest.raises(ValueError, match=r"CalibratorSearch.* no decision_function"):
        owner(CalibratorSearch([IsotonicCalibration()])).fit(X, y)


def test_a_scaling_without_calibrated_logits_is_refused(calibration_set):
    with pytest.raises(ValueError, match=r"IsotonicCalibration.* no decision_function"):
        ScalingBinning(IsotonicCalibration()).fit(*calibration_set)


def test_it_calibrates_a_real_network(cifar10):
    X = cifar10.X_test.astype(np.float64)
    before = log_loss(cifar10.y_test, softmax(X, axis=1))
    binning = ScalingBinning().fit(cifar10.X_cal, cifar10.y_cal)
    assert log_loss(cifar10.y_test, binning.predict_proba(X)) < before
