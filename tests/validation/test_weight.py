import time
from functools import partial

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, identify
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import log_loss

from skcalib._validation import check_weight
from skcalib._validation._weight import as_repetitions
from skcalib.calibrators import (
    BayesianBinning,
    IsotonicCalibration,
    SmoothingSplineCalibration,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.meta import GroupCalibration
from skcalib.metrics import (
    calibration_test,
    expected_calibration_error,
    squared_kernel_calibration_error,
)
from skcalib.model_selection import CalibratorSearch


@pytest.fixture
def three_classes():
    return make_logits(300, 3, random_state=0)


@pytest.mark.parametrize(
    "weight", [[1.0, 2.0, 0.0], [1e-9, 1e9, 3.0], [1e30, 1e-30, 5e-324]]
)
def test_ordinary_weights_stay_as_they_are(weight):
    assert_array_equal(check_weight(weight, [0, 1, 1]), weight)


@pytest.mark.parametrize("factor", [2.0**900, 2.0**-900])
def test_weights_beyond_all_counts_are_scaled_by_a_power_of_two(factor):
    weight = np.array([1.0, 1.7, 0.3])
    scaled = check_weight(factor * weight, [0, 1, 1])
    assert_array_equal(scaled / scaled[0], weight)
    assert 1e-31 < scaled.max() < 2e30
    assert np.isfinite((scaled * scaled.sum()) ** 2).all()


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=identify)
@pytest.mark.parametrize(
    "weight",
    [np.full(300, 1e307), 10.0 ** np.linspace(-12, 12, 300)],
    ids=["1e307", "24 orders"],
)
def test_no_weight_spoils_the_probabilities(three_classes, calibrator, weight):
    logits, y = three_classes
    proba = calibrator.fit(logits, y, sample_weight=weight).predict_proba(logits)
    assert (proba >= 0).all()
    assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "calibrator", [partial(TemperatureScaling, prior=None), IsotonicCalibration]
)
def test_equal_weights_of_any_size_are_no_weights(three_classes, calibrator):
    logits, y = three_classes
    expected = calibrator().fit(logits, y).predict_proba(logits)
    for size in (1e-310, 1e-200, 1e200, 1e307):
        weighted = calibrator().fit(logits, y, sample_weight=np.full(300, size))
        assert_allclose(weighted.predict_proba(logits), expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1 / 300, 0.5, 1.0, 1e3, 1e9, 1e-310])
def test_weights_that_were_normalised_are_no_fewer_samples(three_classes, scale):
    logits, y = three_classes
    times = np.random.default_rng(0).integers(500, 1500, 300) | 1
    weight = scale * times / 1024
    found = TemperatureScaling(prior=8).fit(logits, y, sample_weight=weight)
    # They amount to Kish's effective number of samples, whatever their scale.
    prior = 8 * (times**2).sum() / times.sum()
    expected = TemperatureScaling(prior=prior).fit(logits, y, sample_weight=times)
    rel = 1e-9 if scale > 1e-300 else 1e-4
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=rel)


@pytest.fixture
def propensity():
    """Weights of mean 1 that amount to 76 of 500 rows."""
    weight = np.exp(1.5 * np.random.default_rng(0).normal(size=500))
    return weight / weight.mean()


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=identify)
def test_weights_that_are_not_whole_count_alike_whatever_their_mean(
    calibrator, propensity
):
    logits, y = make_logits(500, 5, random_state=0)
    expected = calibrator.fit(logits, y, propensity).predict_proba(logits)
    found = calibrator.fit(logits, y, 1000 * propensity).predict_proba(logits)
    assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "calibrator",
    [StructuredMatrixScaling(), SmoothingSplineCalibration(), VectorScaling()],
    ids=identify,
)
@pytest.mark.parametrize("mean", [1, 1000])
def test_few_rows_in_effect_do_not_make_it_worse(calibrator, mean, propensity):
    logits, y = make_logits(20_500, 5, random_state=0)
    calibrator.fit(logits[:500], y[:500], mean * propensity)
    proba = calibrator.predict_proba(logits[500:])
    untouched = log_loss(y[500:], softmax(logits[500:], axis=1))
    assert log_loss(y[500:], proba) < untouched - 0.02


def test_weights_that_sum_to_one_do_not_silence_the_search(three_classes):
    logits, y = three_classes
    logits = 3 * logits
    plain = CalibratorSearch().fit(logits, y)
    normalised = CalibratorSearch().fit(logits, y, sample_weight=np.full(300, 1 / 300))
    assert normalised.final_weights_["uncalibrated"] < 0.01
    assert_allclose(
        normalised.predict_proba(logits), plain.predict_proba(logits), atol=1e-9
    )


def test_whole_weights_are_repetitions_however_unequal():
    weight = np.array([1.0, 1.0, 1e6, 3.0])
    assert as_repetitions(weight) is weight


@pytest.mark.parametrize("small", [3.0, 1e60])
def test_whole_weights_beyond_all_counts_stay_repetitions(small):
    weight = check_weight([2.0**300, 2.0**300, small], [0, 1, 1])
    assert as_repetitions(weight).sum() == 2.0**51


def test_shares_of_repetitions_are_counted_once_where_fits_are_nested(three_classes):
    logits, y = three_classes
    shares = 0.7 * np.eye(3)[y] + 0.1
    search = CalibratorSearch([TemperatureScaling()], rule="best")
    outer = GroupCalibration(search).fit(logits, shares, np.full(300, 5.0))
    expected = TemperatureScaling().fit(logits, shares, np.full(300, 5.0))
    found = outer.calibrator_.best_calibrator_
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-9)


def test_a_spline_bends_alike_where_rows_weigh_nothing(three_classes):
    # The rows of weight 1e-17 take the curve's value, but do not move it.
    logits, y = three_classes
    weight = np.where(np.arange(300) < 6, 1e-17, 1.0)
    most = SplineCalibration().fit(logits[6:], y[6:]).predict_proba(logits)
    proba = SplineCalibration().fit(logits, y, weight).predict_proba(logits)
    assert_allclose(proba[6:], most[6:], atol=1e-3)


@pytest.mark.parametrize("size", [1e6, 1e12, 1e300])
def test_bayesian_binning_costs_the_same_whatever_the_weights(three_classes, size):
    logits, y = three_classes
    start = time.process_time()
    binning = BayesianBinning().fit(logits, y, sample_weight=np.full(300, size))
    assert time.process_time() - start < 2
    # At most as if every score had occurred a hundred times.
    assert binning.n_bins_[-1] == np.ceil(10 * np.cbrt(300 * 100))


def test_bayesian_binning_counts_up_to_a_hundred_repetitions(three_classes):
    logits, y = three_classes
    weighted = BayesianBinning().fit(logits, y, sample_weight=np.full(300, 150.0))
    repeated = BayesianBinning().fit(logits.repeat(150, axis=0), y.repeat(150))
    assert_array_equal(weighted.n_bins_, repeated.n_bins_)
    assert_allclose(
        weighted.predict_proba(logits), repeated.predict_proba(logits), atol=1e-9
    )


@pytest.mark.parametrize(
    "metric", [expected_calibration_error, squared_kernel_calibration_error]
)
@pytest.mark.parametrize("size", [1e160, 1e307])
def test_metrics_of_huge_weights_are_those_of_many_rows(three_classes, metric, size):
    logits, y = three_classes
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = metric(y, proba, sample_weight=np.full(300, 1e9))
    found = metric(y, proba, sample_weight=np.full(300, size))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1e14, 1e307])
def test_more_repetitions_than_memory_holds_are_refused(three_classes, size):
    logits, y = three_classes
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weight = np.full(300, size)
    message = "adds up to .* rows, more than the memory holds"
    with pytest.raises(ValueError, match=message):
        calibration_test(y, proba, sample_weight=weight)
    with pytest.raises(ValueError, match=message):
        squared_kernel_calibration_error(
            y, proba, sample_weight=weight, estimator="block"
        )
