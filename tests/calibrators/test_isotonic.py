import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rows import normalise, require_top
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from skcalib._blocks import CalibrationData, open_source
from skcalib._blocks._scores import one_vs_rest
from skcalib._numerics import log_odds
from skcalib._solvers import _isotonic
from skcalib.calibrators import IsotonicCalibration, TemperatureScaling

METHODS = ["one_vs_rest", "strict", "strict_temperature", "shared", "top_label"]


def reference_curve(proba, hit, weight=None):
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return model.fit(proba, hit, sample_weight=weight).predict(proba)


def reference_curves(logits, y, weight=None):
    """Isotonic regression of every class against the rest, on probabilities."""
    proba = softmax(logits, axis=1)
    columns = range(logits.shape[1])
    return np.stack([reference_curve(proba[:, k], y == k, weight) for k in columns], 1)


def test_one_vs_rest_is_isotonic_regression_on_the_probabilities(calibration_set):
    logits, y = calibration_set
    expected = normalise(reference_curves(logits, y))
    isotonic = IsotonicCalibration().fit(logits, y)
    assert_allclose(isotonic.predict_proba(logits), expected, atol=1e-12)


def test_binary_is_isotonic_regression_on_the_log_odds(binary_calibration_set):
    z, y = binary_calibration_set
    isotonic = IsotonicCalibration().fit(z, y)
    assert_allclose(isotonic.predict_proba(z)[:, 1], reference_curve(z, y), atol=1e-12)
    # Also between the calibration samples, where both are linear in the log-odds.
    between = np.linspace(z.min() - 1, z.max() + 1, 500)
    model = IsotonicRegression(out_of_bounds="clip").fit(z, y)
    proba = isotonic.predict_proba(between)[:, 1]
    assert_allclose(proba, model.predict(between), atol=1e-12)


def test_strict_adds_a_share_of_the_probabilities(calibration_set):
    logits, y = calibration_set
    strict = reference_curves(logits, y) + 1e-9 * softmax(logits, axis=1)
    isotonic = IsotonicCalibration(method="strict").fit(logits, y)
    assert_allclose(isotonic.predict_proba(logits), normalise(strict), atol=1e-12)
    assert (isotonic.predict_proba(logits) > 0).all()


def test_strict_temperature_works_on_the_scaled_logits(calibration_set):
    logits, y = calibration_set
    isotonic = IsotonicCalibration(method="strict_temperature").fit(logits, y)
    temperature = TemperatureScaling().fit(logits, y).temperature_
    assert isotonic.temperature_ == temperature
    scaled = IsotonicCalibration(method="strict").fit(logits / temperature, y)
    expected = scaled.predict_proba(logits / temperature)
    assert_allclose(isotonic.predict_proba(logits), expected, atol=1e-9)


def test_shared_is_one_regression_on_all_pairs(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    hit = np.eye(4)[y]
    curve = reference_curve(proba.ravel(), hit.ravel()).reshape(proba.shape)
    isotonic = IsotonicCalibration(method="shared").fit(logits, y)
    expected = normalise(curve + 1e-9 * proba)
    assert_allclose(isotonic.predict_proba(logits), expected, atol=1e-12)


def test_top_label_is_the_regression_of_hits_on_the_confidence(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    expected = reference_curve(proba.max(axis=1), proba.argmax(axis=1) == y)
    isotonic = IsotonicCalibration(method="top_label").fit(logits, y)
    require_top(isotonic.predict_proba(logits), proba, expected)


def test_curves_have_the_right_mean_on_the_calibration_set(calibration_set):
    logits, y = calibration_set
    isotonic = IsotonicCalibration().fit(logits, y)
    odds = log_odds(logits.copy())
    for k in range(4):
        q = np.interp(odds[:, k], isotonic.knots_[k], isotonic.values_[k])
        assert q.mean() == pytest.approx(np.mean(y == k), abs=1e-12)


def test_probabilities_within_rounding_of_1_are_told_apart():
    z = np.array([38.0, 39.0, 40.0, 41.0, 42.0, 43.0])
    isotonic = IsotonicCalibration().fit(z, [0, 0, 0, 1, 1, 1])
    assert expit(40.0) == expit(41.0) == 1
    proba = isotonic.predict_proba([40.0, 40.5, 41.0])[:, 1]
    assert_allclose(proba, [0, 0.5, 1], atol=1e-90)


def test_equal_scores_share_their_hits():
    z = [0.0, 0.0, 0.0, 1.0]
    isotonic = IsotonicCalibration().fit(z, [0, 1, 0, 1])
    assert_allclose(isotonic.predict_proba(z)[:, 1], [1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_scores_equal_up_to_rounding_share_their_hits(rounded_set):
    isotonic = IsotonicCalibration().fit(*rounded_set)
    assert_allclose(isotonic.values_[0], 0.25, atol=1e-12)


def test_interior_points_of_flat_pieces_are_not_knots():
    z = np.arange(100.0)
    isotonic = IsotonicCalibration().fit(z, (z >= 50).astype(int))
    assert_array_equal(isotonic.knots_[1], [0, 49, 50, 99])
    assert_array_equal(isotonic.values_[1], [0, 0, 1, 1])


@given(
    scores=st.lists(st.integers(-6, 6), min_size=2, max_size=40),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_any_ties_and_weights_agree_with_scikit_learn(scores, data):
    n = len(scores)
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    weight = np.array(data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)))
    y[:2] = [0, 1]
    z = np.array(scores, dtype=float)
    isotonic = IsotonicCalibration().fit(z, y, sample_weight=weight)
    expected = reference_curve(z, y, weight)
    assert_allclose(isotonic.predict_proba(z)[:, 1], expected, atol=1e-12)
    knots, values = isotonic.knots_[1], isotonic.values_[1]
    assert (np.diff(knots) > 0).all()
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_added_to_a_row_does_not_matter(calibration_set, method):
    logits, y = calibration_set
    isotonic = IsotonicCalibration(method=method).fit(logits, y)
    new = np.random.default_rng(0).normal(scale=3, size=(50, 4))
    expected = isotonic.predict_proba(new)
    assert_allclose(isotonic.predict_proba(new + 3.7), expected, atol=1e-9)


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_of_rows_do_not_change_the_curves(calibration_set, monkeypatch, shared):
    logits, y = calibration_set
    data = CalibrationData(open_source(logits), y, np.ones(y.size))
    whole = _isotonic.fit_isotonic(data, one_vs_rest, shared=shared)
    monkeypatch.setattr(_isotonic, "BLOCK_ELEMENTS", 28)
    pieces = _isotonic.fit_isotonic(data, one_vs_rest, shared=shared)
    for one, other in zip(whole, pieces, strict=True):
        assert_array_equal(one.knots, other.knots)
        assert_allclose(one.values, other.values, atol=1e-14)


def test_shared_keeps_the_predicted_class_ties_included(calibration_set):
    logits, y = calibration_set
    isotonic = IsotonicCalibration(method="shared").fit(logits, y)
    rng = np.random.default_rng(0)
    new = rng.integers(-3, 3, size=(500, 4)).astype(float)
    assert_array_equal(isotonic.predict(new), new.argmax(axis=1))
    proba = isotonic.predict_proba(new)
    assert_array_equal(proba.argmax(axis=1), new.argmax(axis=1))


def test_one_vs_rest_may_change_the_predicted_class():
    # Where the second class looks sure it is the first.
    logits = np.array([[0.0, 3.0]] * 4 + [[3.0, 0.0]] * 4)
    isotonic = IsotonicCalibration().fit(logits, [0, 0, 0, 1, 0, 0, 0, 1])
    assert_array_equal(isotonic.predict(logits), [0] * 8)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_class_that_never_occurs_keeps_its_probability_before_the_division():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(100, 4))
    isotonic = IsotonicCalibration().fit(logits, rng.integers(0, 3, 100))
    curve = np.interp(log_odds(logits)[:, 3], isotonic.knots_[3], isotonic.values_[3])
    assert_allclose(curve, softmax(logits, axis=1)[:, 3], rtol=0.01)
    assert_allclose(isotonic.predict_proba(logits).sum(axis=1), 1)


def test_a_row_that_all_curves_send_to_0_keeps_its_probabilities():
    # Every class hits from log-odds 0.1 on and misses up to -0.1.
    logits = [[0.1, 0.0, -9.0], [-9.0, 0.1, 0.0], [0.0, -9.0, 0.1]]
    isotonic = IsotonicCalibration().fit(logits, [0, 1, 2])
    row = np.array([[-0.1, 0.0, 0.05]])
    for odds, knots, values in zip(
        log_odds(row.copy())[0], isotonic.knots_, isotonic.values_, strict=True
    ):
        assert np.interp(odds, knots, values) == 0
    assert_allclose(isotonic.predict_proba(row), softmax(row, axis=1), rtol=1e-12)


def test_no_hit_among_the_predicted_classes_is_no_error():
    logits = np.array([[0.0, 1.0], [1.0, 0.0]])
    isotonic = IsotonicCalibration(method="top_label").fit(logits, [0, 1])
    assert_allclose(isotonic.predict_proba(logits), [[1, 0], [0, 1]])


@pytest.mark.parametrize("method", [m for m in METHODS if m != "strict_temperature"])
def test_equal_logits_give_the_class_shares(method):
    isotonic = IsotonicCalibration(method=method)
    isotonic.fit(np.zeros((6, 2)), [0, 0, 0, 1, 1, 1])
    assert_allclose(isotonic.predict_proba([[0.0, 0.0]]), [[0.5, 0.5]])


def test_without_a_best_temperature_a_warning_says_so():
    isotonic = IsotonicCalibration(method="strict_temperature")
    with pytest.warns(ConvergenceWarning, match="IsotonicCalibration stopped early"):
        isotonic.fit(np.zeros((3, 2)), [0, 1, 1])
    assert np.isfinite(isotonic.predict_proba([[0.0, 1.0]])).all()


def test_unknown_method_is_refused(calibration_set):
    with pytest.raises(ValueError, match="method"):
        IsotonicCalibration(method="one_vs_one").fit(*calibration_set)


def test_there_are_no_calibrated_logits(calibration_set):
    isotonic = IsotonicCalibration().fit(*calibration_set)
    assert not hasattr(isotonic, "decision_function")


def test_one_vs_rest_on_a_real_network_agrees_with_scikit_learn(cifar10):
    logits = cifar10.X_cal.astype(np.float64)
    # Log-odds as scores: probabilities of this network are often 1 to rounding.
    odds = log_odds(logits.copy())
    curves = [reference_curve(odds[:, k], cifar10.y_cal == k) for k in range(10)]
    expected = normalise(np.stack(curves, axis=1))
    isotonic = IsotonicCalibration().fit(logits, cifar10.y_cal)
    assert_allclose(isotonic.predict_proba(logits), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["strict_temperature", "shared", "top_label"])
def test_it_calibrates_a_real_network(cifar10, method):
    isotonic = IsotonicCalibration(method=method).fit(cifar10.X_cal, cifar10.y_cal)
    proba = isotonic.predict_proba(cifar10.X_test.astype(np.float64))
    top = proba.argmax(axis=1)
    gap = proba.max(axis=1).mean() - np.mean(top == cifar10.y_test)
    assert abs(gap) < 0.015
    if method == "shared":
        before = softmax(cifar10.X_test.astype(np.float64), axis=1)
        after = log_loss(cifar10.y_test, proba)
        assert after < log_loss(cifar10.y_test, before)


def test_log_probabilities_serve_as_logits(calibration_set):
    logits, y = calibration_set
    log_proba = np.log(softmax(logits, axis=1))
    expected = IsotonicCalibration().fit(logits, y)
    isotonic = IsotonicCalibration().fit(log_proba, y)
    for k in range(4):
        assert_allclose(isotonic.knots_[k], expected.knots_[k], atol=1e-12)
        assert_allclose(isotonic.values_[k], expected.values_[k], atol=1e-12)
