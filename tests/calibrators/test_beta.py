import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import expit, log_expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skcalib._numerics import log_odds
from skcalib.calibrators import BetaCalibration, PlattScaling

VARIANTS = ["abm", "am", "ab"]


def curve(beta, odds):
    """Logit of q for the one-vs-rest log-odds of every class."""
    return beta.a_ * log_expit(odds) - beta.b_ * log_expit(-odds) + beta.c_


def class_loss(u, hit):
    return np.mean(np.logaddexp(0, u) - hit * u)


def reference_loss(odds, hit, variant):
    """Minimise over a, b >= 0 and c with a general bounded solver."""
    log_p, log_rest = log_expit(odds), log_expit(-odds)

    def loss(x):
        a, b = (x[0], x[0]) if variant == "am" else (x[0], x[1])
        c = (a - b) * np.log(2) if variant == "ab" else x[-1]
        return class_loss(a * log_p - b * log_rest + c, hit)

    start = {"abm": [1, 1, 0.0], "am": [1, 0.0], "ab": [1, 1.0]}[variant]
    bounds = {
        "abm": [(0, None), (0, None), (None, None)],
        "am": [(0, None), (None, None)],
        "ab": [(0, None), (0, None)],
    }[variant]
    options = {"ftol": 1e-15, "gtol": 1e-10}
    return minimize(loss, start, bounds=bounds, options=options).fun


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_is_that_of_a_general_bounded_solver(calibration_set, variant):
    logits, y = calibration_set
    odds = log_odds(logits.copy())
    beta = BetaCalibration(prior=None, variant=variant).fit(logits, y)
    u = curve(beta, odds)
    for k in range(4):
        slow = reference_loss(odds[:, k], y == k, variant)
        assert class_loss(u[:, k], y == k) == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("anti", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_conditions_of_optimality_hold(calibration_set, variant, anti):
    # Reversed scores ask for negative coefficients, which the bounds hold at 0.
    logits, y = calibration_set
    X = -logits if anti else logits
    odds = log_odds(X.copy())
    beta = BetaCalibration(prior=None, variant=variant).fit(X, y)
    residual = expit(curve(beta, odds)) - np.eye(4)[y]
    of_a = (residual * log_expit(odds)).mean(axis=0)
    of_b = -(residual * log_expit(-odds)).mean(axis=0)
    of_c = residual.mean(axis=0)
    if variant == "am":
        pairs = [(beta.a_, of_a + of_b)]
    elif variant == "ab":
        half = np.log(2) * of_c
        pairs = [(beta.a_, of_a + half), (beta.b_, of_b - half)]
    else:
        pairs = [(beta.a_, of_a), (beta.b_, of_b)]
    if variant != "ab":
        assert_allclose(of_c, 0, atol=1e-7)
    for coefficient, slope in pairs:
        assert (coefficient >= 0).all()
        assert (slope >= -1e-6).all()
        assert_allclose(coefficient * slope, 0, atol=1e-6)
    if anti:
        assert any((coefficient == 0).any() for coefficient, _ in pairs)


def test_am_is_platt_scaling_on_the_log_odds(calibration_set):
    logits, y = calibration_set
    beta = BetaCalibration(prior=None, variant="am").fit(logits, y)
    platt = PlattScaling(prior=None, smooth_targets=False).fit(logits, y)
    assert_allclose(beta.a_, platt.coef_, rtol=1e-7)
    assert_allclose(beta.c_, platt.intercept_, rtol=1e-7)


def test_binary_fit_recovers_the_curve_that_drew_the_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(scale=2, size=100_000)
    u = 0.8 * log_expit(z) - 0.3 * log_expit(-z) + 0.5
    y = (rng.random(z.size) < expit(u)).astype(int)
    beta = BetaCalibration(prior=None).fit(z, y)
    assert beta.a_[1] == pytest.approx(0.8, abs=0.03)
    assert beta.b_[1] == pytest.approx(0.3, abs=0.03)
    assert beta.c_[1] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("variant", VARIANTS)
def test_binary_result_is_exactly_the_beta_curve(binary_calibration_set, variant):
    z, y = binary_calibration_set
    beta = BetaCalibration(prior=None, variant=variant).fit(z, y)
    u = beta.a_[1] * log_expit(z) - beta.b_[1] * log_expit(-z) + beta.c_[1]
    assert_allclose(beta.predict_proba(z)[:, 1], expit(u), rtol=1e-12)
    assert_allclose(beta.decision_function(z), u, atol=1e-12)


def test_ab_leaves_one_half_where_it_is(binary_calibration_set):
    z, y = binary_calibration_set
    beta = BetaCalibration(prior=None, variant="ab").fit(z, y)
    assert_allclose(beta.predict_proba([0.0]), [[0.5, 0.5]], atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_swapping_two_classes_swaps_the_columns(binary_calibration_set, variant):
    z, y = binary_calibration_set
    expected = BetaCalibration(prior=None, variant=variant).fit(z, y).predict_proba(z)
    swapped = (
        BetaCalibration(prior=None, variant=variant).fit(-z, 1 - y).predict_proba(-z)
    )
    assert_allclose(swapped[:, ::-1], expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_class_that_never_occurs_keeps_its_probability(variant):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 5))
    beta = BetaCalibration(prior=None, variant=variant).fit(
        logits, rng.integers(0, 4, 200)
    )
    assert (beta.a_[4], beta.b_[4], beta.c_[4]) == (1, 1, 0)
    assert_allclose(beta.predict_proba(logits).sum(axis=1), 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_separable_classes_warn_and_stay_finite(variant):
    z = np.array([-3.0, -2.0, 1.0, 2.0])
    beta = BetaCalibration(prior=None, variant=variant)
    with pytest.warns(ConvergenceWarning, match="without error"):
        beta.fit(z, [0, 0, 1, 1])
    assert np.isfinite([beta.a_, beta.b_, beta.c_]).all()
    assert (beta.predict_proba(z).max(axis=1) > 0.999).all()


@pytest.mark.parametrize("variant", ["abm", "am"])
def test_equal_logits_give_the_class_shares(variant):
    beta = BetaCalibration(prior=None, variant=variant)
    beta.fit(np.zeros((6, 3)), [0, 1, 1, 2, 1, 1])
    expected = [[1 / 6, 4 / 6, 1 / 6]]
    assert_allclose(beta.predict_proba(np.zeros((1, 3))), expected, atol=1e-9)


def test_a_logarithm_without_spread_is_not_used():
    # The last class has p near 1e-20 on every row: ln(1 - p) is 0 to rounding.
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3))
    logits[:, 2] -= 50
    y = rng.integers(0, 3, 300)
    beta = BetaCalibration(prior=None).fit(logits, y)
    assert beta.b_[2] == 0
    assert np.isfinite(beta.predict_proba([[0.0, 0.0, 1e5]])).all()


def test_iteration_limit_warns_and_keeps_the_best_point(calibration_set):
    logits, y = calibration_set
    beta = BetaCalibration(prior=None, max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        beta.fit(logits, y)
    assert log_loss(y, beta.predict_proba(logits)) < np.log(4)


def test_unknown_variant_is_refused(calibration_set):
    with pytest.raises(ValueError, match="variant"):
        BetaCalibration(prior=None, variant="bm").fit(*calibration_set)


def test_more_parameters_never_raise_the_loss_of_a_class(cifar100):
    odds = log_odds(cifar100.X_cal.astype(np.float64))
    losses = {}
    for variant in VARIANTS:
        beta = BetaCalibration(prior=None, variant=variant).fit(
            cifar100.X_cal, cifar100.y_cal
        )
        u = curve(beta, odds)
        hit = cifar100.y_cal[:, np.newaxis] == np.arange(100)
        losses[variant] = np.mean(np.logaddexp(0, u) - hit * u, axis=0)
    assert (losses["abm"] <= losses["am"] + 1e-10).all()
    assert (losses["abm"] <= losses["ab"] + 1e-10).all()


def test_it_calibrates_a_real_network(cifar10):
    beta = BetaCalibration(prior=None).fit(cifar10.X_cal, cifar10.y_cal)
    logits = cifar10.X_test.astype(np.float64)
    before = log_loss(cifar10.y_test, softmax(logits, axis=1))
    assert log_loss(cifar10.y_test, beta.predict_proba(logits)) < before - 0.03
