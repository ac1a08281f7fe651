import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skcalib import (
    EnsembleTemperatureScaling,
    IsotonicCalibration,
    OrderPreservingScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    logits_from_proba,
)
from skcalib.metrics import expected_calibration_error


def true_proba(logits):
    """Sure rows are less right than they say, unsure ones more."""
    u = log_softmax(logits, axis=1)
    h = -np.sum(np.exp(u) * u, axis=1, keepdims=True)
    return softmax(np.interp(h, [0.1, 1.2], [0.4, 1.3]) * u, axis=1)


def draw_bent_set(n_samples, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.uniform(0.5, 6, (n_samples, 1)), size=(n_samples, 4))
    noise = rng.gumbel(size=logits.shape)
    return logits, (np.log(true_proba(logits)) + noise).argmax(axis=1)


@pytest.fixture
def bent_set():
    return draw_bent_set(1500)


def scores_by_formula(op, logits, scales, slopes):
    u = log_softmax(logits / op.temperature_, axis=1)
    h = -np.sum(np.exp(u) * u, axis=1, keepdims=True)
    ends = [-np.inf, *op.log_proba_knots_, 0.0]
    g = sum(
        slope * (np.clip(u, a, b) - b)
        for slope, a, b in zip(slopes, ends[:-1], ends[1:], strict=True)
    )
    return np.interp(h, op.entropy_knots_, scales) * u + g


def objective(x, op, logits, y):
    scales, slopes = np.split(x, [len(op.scales_)])
    log_q = log_softmax(scores_by_formula(op, logits, scales, slopes), axis=1)
    penalty = np.sum(np.diff(scales) ** 2) + np.sum(np.diff(slopes) ** 2)
    penalty += 0.01 * (np.sum((scales - 1) ** 2) + np.sum(slopes**2))
    return -log_q[np.arange(len(y)), y].mean() + op.smoothness / len(y) * penalty


def test_the_fit_comes_near_the_truth():
    X, y = draw_bent_set(20_000)
    new, _ = draw_bent_set(1000, seed=1)
    calibrators = OrderPreservingScaling(prior=None), TemperatureScaling(prior=None)
    errors = [
        np.abs(c.fit(X, y).predict_proba(new) - true_proba(new)).mean()
        for c in calibrators
    ]
    assert errors[0] < 0.01 < 0.03 < errors[1]


def test_labels_that_follow_a_temperature_give_that_temperature(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=20_000)
    op = OrderPreservingScaling(prior=None).fit(logits, y)
    assert_allclose(op.predict_proba(logits), softmax(logits / 2, axis=1), atol=0.05)


def test_a_strong_pull_leaves_temperature_scaling(bent_set):
    X, y = bent_set
    op = OrderPreservingScaling(prior=None, smoothness=1e9).fit(X, y)
    expected = TemperatureScaling(prior=None).fit(X, y).predict_proba(X)
    assert_allclose(op.predict_proba(X), expected, atol=1e-4)


def test_prediction_follows_the_formula(bent_set):
    X, y = bent_set
    op = OrderPreservingScaling(prior=None).fit(X, y)
    scores = scores_by_formula(op, X, op.scales_, op.slopes_)
    assert_allclose(op.predict_proba(X), softmax(scores, axis=1), atol=1e-12)
    assert_allclose(softmax(op.decision_function(X), axis=1), op.predict_proba(X))
    assert op.temperature_ == TemperatureScaling(prior=None).fit(X, y).temperature_


def test_loss_is_the_minimum_that_a_slow_search_finds():
    X, y = draw_bent_set(300)
    op = OrderPreservingScaling(prior=None, tol=1e-12).fit(X, y)
    x = np.concatenate([op.scales_, op.slopes_])
    assert objective(x, op, X, y) == pytest.approx(op.loss_, abs=1e-12)
    found = minimize(
        objective,
        np.concatenate([np.ones_like(op.scales_), np.zeros_like(op.slopes_)]),
        args=(op, X, y),
        method="L-BFGS-B",
        bounds=[(1e-3, None)] * len(op.scales_) + [(0, None)] * len(op.slopes_),
        options={"maxfun": 50_000, "ftol": 1e-14, "gtol": 1e-9},
    )
    assert op.loss_ <= found.fun + 1e-10
    assert op.loss_ == pytest.approx(found.fun, abs=1e-6)


def test_rows_keep_their_order_ties_included(bent_set):
    X, y = bent_set
    X = X.copy()
    X[::3] = X[::3].round()
    op = OrderPreservingScaling(prior=None).fit(X, y)
    proba = op.predict_proba(X)
    order = np.argsort(X, axis=1)
    assert (np.diff(np.take_along_axis(proba, order, axis=1), axis=1) >= 0).all()
    equal = np.diff(np.take_along_axis(X, order, axis=1), axis=1) == 0
    gaps = np.diff(np.take_along_axis(proba, order, axis=1), axis=1)
    assert equal.any()
    assert (gaps[equal] == 0).all()
    assert_array_equal(op.predict(X), X.argmax(axis=1))


def test_integer_weights_equal_repetition(bent_set):
    X, y = bent_set
    weight = np.random.default_rng(0).integers(0, 4, y.size)
    weighted = OrderPreservingScaling(prior=None).fit(X, y, sample_weight=weight)
    repeated = OrderPreservingScaling(prior=None)
    repeated.fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_array_equal(weighted.entropy_knots_, repeated.entropy_knots_)
    assert_array_equal(weighted.log_proba_knots_, repeated.log_proba_knots_)
    assert_allclose(weighted.scales_, repeated.scales_, atol=1e-6)
    assert_allclose(weighted.slopes_, repeated.slopes_, atol=1e-6)


def test_a_scaling_comes_first_and_its_order_stays(bent_set):
    X, y = bent_set
    X = X + np.array([0.8, 0.0, -0.8, 0.0])
    op = OrderPreservingScaling(StructuredMatrixScaling(prior=None), prior=None).fit(
        X, y
    )
    scaling = StructuredMatrixScaling(prior=None).fit(X, y)
    scaled = scaling.decision_function(X)
    expected = OrderPreservingScaling(prior=None).fit(scaled, y).predict_proba(scaled)
    assert_allclose(op.predict_proba(X), expected, atol=1e-9)
    assert_array_equal(op.predict(X), scaling.predict(X))
    assert (op.predict(X) != X.argmax(axis=1)).any()
    assert_allclose(op.scaling_.coef_, scaling.coef_)
    alone = OrderPreservingScaling(prior=None).fit(X, y).predict_proba(X)
    loss = log_loss(y, op.predict_proba(X))
    assert loss < log_loss(y, alone) - 0.02
    assert loss < log_loss(y, scaling.predict_proba(X)) - 0.005


@pytest.mark.parametrize("scaling", [EnsembleTemperatureScaling, IsotonicCalibration])
def test_a_scaling_without_logits_is_refused(bent_set, scaling):
    with pytest.raises(ValueError, match=f"{scaling.__name__}.. has no decision_func"):
        OrderPreservingScaling(scaling(), prior=None).fit(*bent_set)


def test_knots_ascend_and_are_no_more_than_asked_for(bent_set):
    op = OrderPreservingScaling(prior=None, n_knots=3).fit(*bent_set)
    for knots in (op.entropy_knots_, op.log_proba_knots_):
        assert knots.size <= 3
        assert (np.diff(knots) > 0).all()
    assert op.log_proba_knots_[-1] < 0
    assert op.scales_.size == op.entropy_knots_.size
    assert op.slopes_.size == op.log_proba_knots_.size + 1


@pytest.mark.slow
def test_hundreds_of_knots_do_no_harm(bent_set):
    X, y = bent_set
    op = OrderPreservingScaling(prior=None, n_knots=900, tol=1e-12).fit(X, y)
    assert op.slopes_.size > 130
    assert objective(np.concatenate([op.scales_, op.slopes_]), op, X, y) == (
        pytest.approx(op.loss_, abs=1e-10)
    )
    assert op.gradient_norm_ < 1e-6


@pytest.mark.parametrize("value", [-1e5, -1e30, np.finfo(np.float64).min])
def test_masked_logits_spoil_nothing(bent_set, mask_others, value):
    X, y = bent_set
    masked, _ = mask_others(X, y, value)
    op = OrderPreservingScaling(prior=None).fit(masked, y)
    proba = op.predict_proba(masked)
    assert np.isfinite(proba).all()
    before = log_loss(
        y, TemperatureScaling(prior=None).fit(masked, y).predict_proba(masked)
    )
    assert log_loss(y, proba) <= before


def test_rows_that_are_all_sure_leave_one_knot():
    X = 1e4 * np.eye(3)[np.arange(60) % 3]
    y = np.arange(60) % 3
    y[0] = 1
    op = OrderPreservingScaling(prior=None).fit(X, y)
    assert np.isfinite(op.predict_proba(X)).all()
    assert op.entropy_knots_.size == 1


def test_the_iteration_limit_warns_and_keeps_the_best_point(bent_set):
    op = OrderPreservingScaling(prior=None, max_iter=1, tol=1e-12)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        op.fit(*bent_set)
    assert op.loss_ < log_loss(
        bent_set[1],
        TemperatureScaling(prior=None).fit(*bent_set).predict_proba(bent_set[0]),
    )


@pytest.mark.parametrize("params", [{"n_knots": 0}, {"smoothness": 0.0}])
def test_a_user_mistake_is_named(bent_set, params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        OrderPreservingScaling(prior=None, **params).fit(*bent_set)


def test_on_a_wide_network_it_beats_one_temperature_by_far(data_dir):
    with np.load(data_dir / "logits" / "wideresnet-16-4-cifar-100.npz") as arrays:
        X = logits_from_proba(arrays["predictions"].astype(np.float64))
        y = arrays["ground_truth"].ravel().astype(int)
    cal = np.random.default_rng(0).permutation(len(y)) < 5000
    losses, errors = [], []
    for calibrator in (
        TemperatureScaling(prior=None),
        OrderPreservingScaling(prior=None),
    ):
        proba = calibrator.fit(X[cal], y[cal]).predict_proba(X[~cal])
        losses.append(log_loss(y[~cal], proba))
        errors.append(expected_calibration_error(y[~cal], proba))
    assert losses[1] < losses[0] - 0.025
    assert errors[1] < errors[0] - 0.015
