from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows import rest_log_odds
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from skcalib._numerics import log_odds
from skcalib.calibrators import PlattScaling

# Platt's own fit, of which the formulas below hold.
paper = partial(PlattScaling, smooth_targets=True, prior=None)


def reference_fit(score, target):
    """Minimise the cross-entropy to `target` over slope and intercept, slowly."""

    def loss(parameters):
        u = parameters[0] * score + parameters[1]
        return np.mean(np.logaddexp(0, u) - target * u)

    return minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9})


@pytest.mark.parametrize("fit_on", ["log_odds", "logits"])
def test_each_class_is_an_unpenalised_logistic_regression(calibration_set, fit_on):
    logits, y = calibration_set
    platt = paper(fit_on=fit_on, smooth_targets=False).fit(logits, y)
    scores = logits if fit_on == "logits" else rest_log_odds(logits)
    for k in range(4):
        reference = LogisticRegression(C=1e12, tol=1e-10, solver="newton-cholesky")
        reference.fit(scores[:, [k]], y == k)
        assert platt.coef_[k] == pytest.approx(reference.coef_[0, 0], rel=1e-6)
        assert platt.intercept_[k] == pytest.approx(reference.intercept_[0], rel=1e-6)


def test_smoothed_targets_are_those_of_the_paper(calibration_set):
    logits, y = calibration_set
    platt = paper().fit(logits, y)
    scores = rest_log_odds(logits)
    for k in range(4):
        n_own = np.sum(y == k)
        high, low = (n_own + 1) / (n_own + 2), 1 / (y.size - n_own + 2)
        best = reference_fit(scores[:, k], np.where(y == k, high, low)).x
        assert_allclose([platt.coef_[k], platt.intercept_[k]], best, atol=1e-5)


def test_binary_fit_recovers_the_logistic_that_drew_the_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(scale=3, size=40_000)
    y = (rng.random(z.size) < expit(0.4 * z - 1)).astype(int)
    platt = paper().fit(z, y)
    assert platt.coef_[1] == pytest.approx(0.4, abs=0.02)
    assert platt.intercept_[1] == pytest.approx(-1, abs=0.05)


def test_curves_have_the_right_mean_on_the_calibration_set(calibration_set):
    logits, y = calibration_set
    platt = paper(smooth_targets=False).fit(logits, y)
    scores = rest_log_odds(logits)
    residual = expit(platt.coef_ * scores + platt.intercept_) - np.eye(4)[y]
    assert_allclose(residual.mean(axis=0), 0, atol=1e-9)
    assert_allclose((residual * scores).mean(axis=0), 0, atol=1e-8)


def test_probabilities_are_the_normalised_sigmoids(calibration_set):
    logits, y = calibration_set
    platt = paper().fit(logits, y)
    q = expit(platt.coef_ * rest_log_odds(logits) + platt.intercept_)
    expected = q / q.sum(axis=1, keepdims=True)
    assert_allclose(platt.predict_proba(logits), expected, atol=1e-12)


def test_binary_result_is_exactly_the_logistic(binary_calibration_set):
    z, y = binary_calibration_set
    platt = paper().fit(z, y)
    expected = expit(platt.coef_[1] * z + platt.intercept_[1])
    assert_allclose(platt.predict_proba(z)[:, 1], expected, rtol=1e-12)
    assert_allclose(
        platt.decision_function(z), platt.coef_[1] * z + platt.intercept_[1], rtol=1e-9
    )


@pytest.mark.parametrize("fit_on", ["log_odds", "logits"])
def test_binary_shapes_mean_the_same(binary_calibration_set, fit_on):
    z, y = binary_calibration_set
    columns = np.column_stack([np.full_like(z, 5.0), z + 5.0])
    expected = paper(fit_on=fit_on).fit(z, y).predict_proba(z)
    for X in (z[:, np.newaxis], columns):
        platt = paper(fit_on=fit_on).fit(X, y)
        assert_allclose(platt.predict_proba(X), expected, atol=1e-10)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("fit_on", ["log_odds", "logits"])
def test_binary_slope_scales_with_the_units(binary_calibration_set, fit_on, factor):
    z, y = binary_calibration_set
    unit = paper(fit_on=fit_on).fit(z, y)
    scaled = paper(fit_on=fit_on).fit(factor * z, y)
    assert scaled.coef_[1] == pytest.approx(unit.coef_[1] / factor, rel=1e-6)
    assert scaled.intercept_[1] == pytest.approx(unit.intercept_[1], rel=1e-6)


def test_raw_logits_may_have_any_scale_and_origin(calibration_set):
    logits, y = calibration_set
    unit = paper(fit_on="logits").fit(logits, y).predict_proba(logits)
    moved = 1e7 * logits + 1e9
    platt = paper(fit_on="logits").fit(moved, y)
    assert_allclose(platt.predict_proba(moved), unit, atol=1e-6)


def test_log_odds_ignore_a_constant_added_to_a_row(calibration_set):
    logits, y = calibration_set
    shift = np.random.default_rng(0).normal(scale=10, size=(y.size, 1))
    expected = paper().fit(logits, y).predict_proba(logits)
    shifted = paper().fit(logits + shift, y).predict_proba(logits + shift)
    assert_allclose(shifted, expected, atol=1e-9)


@pytest.mark.parametrize("fit_on", ["log_odds", "logits"])
def test_weights_that_round_all_others_to_nothing_stay_finite(calibration_set, fit_on):
    logits, y = calibration_set
    weight = np.where(y == 0, 1e20, 1.0)
    platt = paper(fit_on=fit_on)
    with pytest.warns(ConvergenceWarning, match="max_iter=100 was reached"):
        platt.fit(logits, y, sample_weight=weight)
    proba = platt.predict_proba(logits)
    assert_allclose(proba.sum(axis=1), 1)
    assert (proba.argmax(axis=1) == 0).all()


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("smooth_targets", [True, False])
def test_a_class_that_never_occurs_gets_a_small_constant(smooth_targets):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 5))
    y = rng.integers(0, 4, 200)
    platt = paper(smooth_targets=smooth_targets).fit(logits, y)
    assert platt.coef_[4] == 0
    assert expit(platt.intercept_[4]) == pytest.approx(1 / 202)


def test_separable_classes_without_smoothing_warn_and_stay_finite():
    z = np.array([-3.0, -2.0, 1.0, 2.0])
    platt = paper(smooth_targets=False)
    with pytest.warns(ConvergenceWarning, match="without error"):
        platt.fit(z, [0, 0, 1, 1])
    assert np.isfinite(platt.coef_).all()
    assert platt.predict_proba(z)[2, 1] > 0.999


def test_separable_classes_with_smoothing_have_an_optimum():
    z = np.array([-2.0, -2.0, 2.0, 2.0])
    platt = paper().fit(z, [0, 0, 1, 1])
    # One score per class, so the curve meets the targets 1/4 and 3/4.
    assert_allclose(platt.predict_proba(z)[:, 1], [0.25, 0.25, 0.75, 0.75], atol=1e-6)


def test_equal_logits_give_the_class_shares():
    y = [0, 1, 1, 0, 1, 1]
    platt = paper(smooth_targets=False).fit(np.zeros((6, 2)), y)
    assert_allclose(platt.predict_proba([[0.0, 0.0]]), [[1 / 3, 2 / 3]], atol=1e-9)
    assert platt.coef_[1] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("prior", [None, 8.0])
@pytest.mark.parametrize("row", [[0, 1.5], [0, 1.5, 3, 4.5]])
def test_log_odds_that_differ_by_rounding_are_constants(row, prior, dtype):
    rng = np.random.default_rng(0)
    logits, y = np.tile(row, (200, 1)), rng.integers(0, len(row), 200)
    shifted = (logits + rng.normal(size=(200, 1))).astype(dtype)
    equal = PlattScaling(prior=prior).fit(logits, y)
    platt = PlattScaling(prior=prior).fit(shifted, y)
    assert_array_equal(platt.coef_, 0)
    assert_allclose(platt.intercept_, equal.intercept_, rtol=1e-10)


def test_one_huge_logit_in_the_calibration_set_does_no_harm_to_finiteness():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(100, 3))
    logits[0, 0] = 1e300
    platt = paper().fit(logits, rng.integers(0, 3, 100))
    assert np.isfinite(platt.coef_).all()
    assert np.isfinite(platt.predict_proba(logits)).all()


def test_slopes_may_be_negative():
    rng = np.random.default_rng(0)
    z = rng.normal(size=500)
    y = (rng.random(500) < expit(-z)).astype(int)
    assert paper().fit(z, y).coef_[1] < -0.5


def test_iteration_limit_warns_and_keeps_the_best_point(calibration_set):
    logits, y = calibration_set
    platt = paper(max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        platt.fit(logits, y)
    assert log_loss(y, platt.predict_proba(logits)) < np.log(4)


def test_unknown_input_is_refused(calibration_set):
    with pytest.raises(ValueError, match="fit_on"):
        paper(fit_on="margin").fit(*calibration_set)


def test_loss_on_a_real_network_is_at_or_below_that_of_scikit_learn(cifar10):
    logits, y = cifar10.X_cal.astype(np.float64), cifar10.y_cal
    platt = paper(fit_on="logits", smooth_targets=False).fit(logits, y)
    for k in range(10):
        rival = LogisticRegression(C=1e10, tol=1e-8).fit(logits[:, [k]], y == k)
        theirs = log_loss(y == k, rival.predict_proba(logits[:, [k]]))
        q = expit(platt.coef_[k] * logits[:, k] + platt.intercept_[k])
        assert log_loss(y == k, q) <= theirs + 1e-9


def test_log_odds_calibrate_a_real_network_and_raw_logits_do_not(cifar100):
    raw = log_loss(cifar100.y_test, softmax(cifar100.X_test.astype(np.float64), axis=1))
    losses = {}
    for fit_on in ("log_odds", "logits"):
        platt = paper(fit_on=fit_on).fit(cifar100.X_cal, cifar100.y_cal)
        proba = platt.predict_proba(cifar100.X_test.astype(np.float64))
        losses[fit_on] = log_loss(cifar100.y_test, proba)
    assert losses["log_odds"] < raw < losses["logits"]


def test_library_log_odds_agree_with_the_formula(calibration_set):
    logits, _ = calibration_set
    assert_allclose(log_odds(logits.copy()), rest_log_odds(logits), atol=1e-12)
