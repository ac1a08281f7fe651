import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skcalib.calibrators import TemperatureScaling
from skcalib.datasets import make_logits

OBJECTIVES = ["log_loss", "focal", "brier", "ece"]


def loss_at(temperature, logits, y, objective="log_loss", gamma=1.0, weight=None):
    """Compute the objective by its formula, all rows at once."""
    log_p = log_softmax(logits / temperature, axis=1)
    own = np.take_along_axis(log_p, y[:, np.newaxis], axis=1)[:, 0]
    if objective == "log_loss":
        loss = -own
    elif objective == "focal":
        loss = -((1 - np.exp(own)) ** gamma) * own
    else:
        loss = ((np.exp(log_p) - np.eye(logits.shape[1])[y]) ** 2).sum(axis=1)
    return np.average(loss, weights=weight)


def ece_at(temperature, logits, y, weight):
    """Expected calibration error in 15 bins, closed on the right, by its formula."""
    proba = softmax(logits / temperature, axis=1)
    confidence, hit = proba.max(axis=1), logits.argmax(axis=1) == y
    bins = np.searchsorted(np.arange(1, 15) / 15, confidence, side="left")
    sums = np.bincount(bins, weight * (confidence - hit), 15)
    return np.abs(sums).sum() / weight.sum()


def slow_minimum(logits, y, **options):
    """Search log T over six decades, first on a grid, then within its best cell."""

    def loss(log_t):
        return loss_at(np.exp(log_t), logits, y, **options)

    grid = np.linspace(np.log(1e-3), np.log(1e3), 150)
    best = int(np.argmin([loss(u) for u in grid]))
    bounds = grid[best - 1], grid[best + 1]
    found = minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )
    return np.exp(found.x), found.fun


def test_temperature_recovers_the_one_that_drew_the_labels(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=50_000)
    assert TemperatureScaling(prior=None).fit(logits, y).temperature_ == pytest.approx(
        2, rel=0.02
    )


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 30.0])
def test_log_loss_agrees_with_a_slow_search(draw_calibration_set, temperature):
    logits, y = draw_calibration_set(temperature=temperature)
    ts = TemperatureScaling(prior=None).fit(logits, y)
    best, lowest = slow_minimum(logits, y)
    assert ts.temperature_ == pytest.approx(best, rel=1e-6)
    assert ts.loss_ == pytest.approx(lowest, abs=1e-12)


def test_the_mean_of_the_true_logit_is_that_of_the_model(calibration_set):
    logits, y = calibration_set
    ts = TemperatureScaling(prior=None).fit(logits, y)
    expected = (softmax(logits / ts.temperature_, axis=1) * logits).sum(axis=1)
    # The derivative of the log-loss by 1 / T.
    slope = np.mean(expected - logits[np.arange(y.size), y])
    assert slope == pytest.approx(0, abs=1e-9)
    assert ts.gradient_norm_ < 1e-4


@pytest.mark.parametrize("objective", ["focal", "brier"])
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_focal_and_brier_agree_with_a_slow_search(
    draw_calibration_set, objective, temperature
):
    logits, y = draw_calibration_set(temperature=temperature)
    ts = TemperatureScaling(prior=None, objective=objective, gamma=2.0).fit(logits, y)
    best, lowest = slow_minimum(logits, y, objective=objective, gamma=2.0)
    assert ts.temperature_ == pytest.approx(best, rel=1e-5)
    assert ts.loss_ == pytest.approx(lowest, abs=1e-10)
    assert 0 < ts.gradient_norm_ < 1e-6


def test_focal_loss_without_exponent_is_the_log_loss(calibration_set):
    plain = TemperatureScaling(prior=None).fit(*calibration_set)
    focal = TemperatureScaling(prior=None, objective="focal", gamma=0).fit(
        *calibration_set
    )
    tiny = TemperatureScaling(prior=None, objective="focal", gamma=1e-9).fit(
        *calibration_set
    )
    assert focal.temperature_ == plain.temperature_
    assert tiny.temperature_ == pytest.approx(plain.temperature_, rel=1e-6)


def test_a_larger_gamma_gives_a_smaller_confidence_penalty(calibration_set):
    # Down-weighting easy rows asks for softer probabilities of the hard ones.
    temperatures = [
        TemperatureScaling(prior=None, objective="focal", gamma=gamma)
        .fit(*calibration_set)
        .temperature_
        for gamma in (0, 1, 3)
    ]
    assert temperatures == sorted(temperatures)


def test_ece_is_the_smallest_over_all_five_thousand_temperatures(
    draw_calibration_set,
):
    logits, y = draw_calibration_set(n_samples=150)
    weight = np.random.default_rng(0).integers(1, 4, y.size).astype(float)
    ts = TemperatureScaling(prior=None, objective="ece").fit(
        logits, y, sample_weight=weight
    )
    grid = np.arange(1, 5001) / 1000
    errors = [ece_at(temperature, logits, y, weight) for temperature in grid]
    assert ts.temperature_ == grid[np.argmin(errors)]
    assert ts.loss_ == pytest.approx(min(errors), abs=1e-6)
    assert np.isnan(ts.gradient_norm_)


def test_the_first_of_equal_errors_is_taken():
    # The confidences are 1 within rounding at small T, and all are right.
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    ts = TemperatureScaling(prior=None, objective="ece").fit(logits, [0, 1])
    assert ts.temperature_ == 0.001
    assert ts.loss_ == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", ["log_loss", "focal", "brier"])
@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e12])
def test_temperature_scales_with_the_units_of_the_logits(
    calibration_set, objective, factor
):
    logits, y = calibration_set
    unit = (
        TemperatureScaling(prior=None, objective=objective).fit(logits, y).temperature_
    )
    scaled = TemperatureScaling(prior=None, objective=objective).fit(factor * logits, y)
    assert scaled.temperature_ == pytest.approx(factor * unit, rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_constants_and_order_do_not_matter(calibration_set, objective):
    logits, y = calibration_set
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(y.size), rng.permutation(4)
    moved = (logits + rng.normal(scale=10, size=(y.size, 1)))[rows][:, columns]
    ts = TemperatureScaling(prior=None, objective=objective).fit(logits, y)
    other = TemperatureScaling(prior=None, objective=objective)
    other.fit(moved, np.argsort(columns)[y[rows]])
    assert other.temperature_ == pytest.approx(ts.temperature_, rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_integer_weights_equal_repetition(calibration_set, objective):
    logits, y = calibration_set
    weight = np.random.default_rng(0).integers(0, 4, y.size)
    weighted = TemperatureScaling(prior=None, objective=objective)
    weighted.fit(logits, y, sample_weight=weight)
    repeated = TemperatureScaling(prior=None, objective=objective)
    repeated.fit(np.repeat(logits, weight, axis=0), np.repeat(y, weight))
    assert weighted.temperature_ == pytest.approx(repeated.temperature_, rel=1e-6)
    assert weighted.loss_ == pytest.approx(repeated.loss_, abs=1e-9)


def test_binary_log_odds_mean_the_columns_zero_and_z(binary_calibration_set):
    z, y = binary_calibration_set
    expected = TemperatureScaling(prior=None).fit(
        np.column_stack([np.zeros_like(z), z]), y
    )
    for X in (z, z[:, np.newaxis]):
        ts = TemperatureScaling(prior=None).fit(X, y)
        assert ts.temperature_ == expected.temperature_
        assert_array_equal(
            ts.predict_proba(X),
            expected.predict_proba(np.column_stack([np.zeros_like(z), z])),
        )
        assert_allclose(ts.decision_function(X), z / ts.temperature_, rtol=1e-12)


@pytest.mark.parametrize("objective", ["log_loss", "focal", "brier"])
def test_samples_without_error_warn_and_stay_finite(objective):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 3))
    ts = TemperatureScaling(prior=None, objective=objective)
    with pytest.warns(ConvergenceWarning, match="classified without error"):
        ts.fit(logits, logits.argmax(axis=1))
    assert 0 < ts.temperature_ < 1
    assert_allclose(ts.predict_proba(logits).sum(axis=1), 1)


@pytest.mark.parametrize("options", [{}, {"max_iter": 1}])
def test_the_loss_of_a_search_that_stops_early_is_that_at_its_temperature(
    calibration_set, options
):
    separable = np.array([[4.0, 0], [3, 1], [0, 4], [1, 2]]), np.array([0, 0, 1, 1])
    logits, y = calibration_set if options else separable
    with pytest.warns(ConvergenceWarning, match="stopped early"):
        ts = TemperatureScaling(prior=None, **options).fit(logits, y)
    expected = log_loss(y, ts.predict_proba(logits))
    assert ts.loss_ == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:In the first 256 rows of X the logit of the true")
def test_the_loss_at_an_end_of_the_search_is_that_of_all_rows():
    logits = np.random.default_rng(0).normal(size=(100_000, 4))
    y = logits.argmin(axis=1)
    ts = TemperatureScaling(prior=None, objective="brier")
    with pytest.warns(ConvergenceWarning, match="do not point at the true classes"):
        ts.fit(logits, y)
    squares = (ts.predict_proba(logits) - np.eye(4)[y]) ** 2
    assert ts.loss_ == pytest.approx(squares.sum(axis=1).mean(), rel=1e-9)


@pytest.mark.parametrize("objective", ["log_loss", "brier"])
def test_logits_that_point_away_from_the_truth_warn_and_stay_finite(objective):
    logits = np.random.default_rng(0).normal(size=(50, 3))
    ts = TemperatureScaling(prior=None, objective=objective)
    with pytest.warns(ConvergenceWarning, match="do not point at the true classes"):
        ts.fit(logits, logits.argmin(axis=1))
    assert 100 < ts.temperature_ < np.inf
    assert_allclose(ts.predict_proba(logits), 1 / 3, atol=0.01)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_equal_logits_warn_and_keep_temperature_one(objective):
    ts = TemperatureScaling(prior=None, objective=objective)
    with pytest.warns(ConvergenceWarning, match="logits of each row are equal"):
        ts.fit(np.full((6, 3), 7.0), [0, 1, 2, 0, 1, 2])
    assert ts.temperature_ == 1
    assert np.isfinite(ts.loss_)
    assert_allclose(ts.predict_proba(np.zeros((1, 3))), 1 / 3)


def test_the_iteration_limit_warns_and_keeps_the_point(calibration_set):
    ts = TemperatureScaling(prior=None, max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        ts.fit(*calibration_set)
    assert np.isfinite(ts.temperature_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_masked_logits_do_not_disturb_the_temperature(
    calibration_set, objective, dtype
):
    logits, y = calibration_set
    logits = np.hstack([logits, logits[:, :2]]).astype(dtype)
    rng = np.random.default_rng(0)
    masked = rng.random(logits.shape) < 0.3
    masked[np.arange(y.size), y] = False
    temperatures = []
    for value in (-1e5, -1e30, np.finfo(dtype).min):
        ts = TemperatureScaling(prior=None, objective=objective)
        ts.fit(np.where(masked, dtype(value), logits), y)
        temperatures.append(ts.temperature_)
    assert_allclose(temperatures, temperatures[0], rtol=1e-6)
    if objective != "ece":
        without = np.where(masked, -np.inf, logits.astype(float))
        reference = without - without.max(axis=1, keepdims=True)
        reference[masked] = -1e4
        options = {} if objective == "brier" else {"gamma": 1.0}
        best, _ = slow_minimum(reference, y, objective=objective, **options)
        assert temperatures[0] == pytest.approx(best, rel=1e-4)


def test_a_single_row_far_out_does_not_hide_the_optimum(calibration_set):
    logits, y = calibration_set
    logits = logits.copy()
    logits[0, y[0]] = 1e8
    best, _ = slow_minimum(logits, y)
    ts = TemperatureScaling(prior=None).fit(logits, y)
    assert ts.temperature_ == pytest.approx(best, rel=1e-6)


def test_float32_agrees_with_float64(cifar10):
    single = TemperatureScaling(prior=None).fit(cifar10.X_cal, cifar10.y_cal)
    double = TemperatureScaling(prior=None).fit(
        cifar10.X_cal.astype(float), cifar10.y_cal
    )
    assert single.temperature_ == pytest.approx(double.temperature_, rel=1e-6)
    assert single.predict_proba(cifar10.X_test).dtype == np.float32
    assert_allclose(
        single.predict_proba(cifar10.X_test),
        double.predict_proba(cifar10.X_test.astype(float)),
        atol=1e-6,
    )


def test_a_real_network_is_solved_to_its_optimum(cifar100):
    logits, y = cifar100.X_cal.astype(float), cifar100.y_cal
    ts = TemperatureScaling(prior=None).fit(cifar100.X_cal, y)
    found = minimize_scalar(
        loss_at, bounds=(0.5, 5), args=(logits, y), options={"xatol": 1e-9}
    )
    assert ts.temperature_ == pytest.approx(found.x, rel=1e-5)
    assert loss_at(ts.temperature_, logits, y) <= found.fun + 1e-9


@pytest.mark.parametrize("objective", ["log_loss", "focal", "brier"])
def test_a_start_from_a_subsample_ends_at_the_same_optimum(
    draw_calibration_set, monkeypatch, objective
):
    logits, y = draw_calibration_set(n_samples=5000)
    direct = TemperatureScaling(prior=None, objective=objective).fit(logits, y)
    monkeypatch.setattr("skcalib._solvers._temperature.SUBSAMPLE_ELEMENTS", 1 << 10)
    # 256 rows, which put the Brier optimum in another cell of the grid than all rows.
    fast = TemperatureScaling(prior=None, objective=objective).fit(logits, y)
    assert fast.temperature_ == pytest.approx(direct.temperature_, rel=1e-6)


def test_a_large_fit_takes_no_more_than_three_passes(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=300_000)
    assert logits.size > 1 << 20
    ts = TemperatureScaling(prior=None).fit(logits, y)
    assert ts.n_iter_ <= 3
    assert ts.gradient_norm_ < 1e-5


def test_predict_keeps_the_class_where_rounding_makes_a_tie(calibration_set):
    ts = TemperatureScaling(prior=None).fit(*calibration_set)
    close = np.array([[0.0, 1e-17, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0 + 2.3e-16]])
    tied = ts.predict_proba(close)
    assert (tied[0] == tied[0, 0]).all()
    assert_array_equal(ts.predict(close), [1, 3])


def test_equal_logits_are_given_to_the_first_class(calibration_set):
    ts = TemperatureScaling(prior=None).fit(*calibration_set)
    assert_array_equal(ts.predict([[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]]), [1, 0])


def test_a_row_is_mapped_alike_alone_and_in_a_batch():
    # The first row looks like a probability vector; it is still a row of logits.
    logits = np.array([[0.3, 0.7], [2.0, -1.0], [-1.0, 0.5], [0.0, 1.0]])
    ts = TemperatureScaling(prior=None).fit(logits, [1, 0, 0, 1])
    alone = np.vstack([ts.predict_proba(row[np.newaxis]) for row in logits])
    assert_allclose(alone, ts.predict_proba(logits), rtol=1e-12)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("objective", "nll"), ("gamma", -1.0), ("tol", 0.0), ("max_iter", 0)],
)
def test_parameters_outside_their_range_are_refused(calibration_set, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter"):
        TemperatureScaling(prior=None, **{parameter: value}).fit(*calibration_set)


@pytest.mark.parametrize("objective", ["log_loss", "brier", "focal"])
@pytest.mark.parametrize("factor", [1e-310, 1e-300, 1e-237])
def test_the_temperature_of_tiny_logits_scales_with_them(
    calibration_set, objective, factor
):
    logits, y = calibration_set
    unit = TemperatureScaling(prior=None, objective=objective).fit(logits, y)
    tiny = TemperatureScaling(prior=None, objective=objective).fit(factor * logits, y)
    assert tiny.temperature_ == pytest.approx(factor * unit.temperature_, rel=1e-6)
    expected = unit.predict_proba(logits)
    assert_allclose(tiny.predict_proba(factor * logits), expected, atol=1e-6)


@pytest.mark.parametrize("objective", ["brier", "focal"])
def test_float32_finds_the_same_minimum_of_a_flat_loss(calibration_set, objective):
    logits, y = calibration_set
    single = logits.astype(np.float32)
    double = TemperatureScaling(prior=None, objective=objective).fit(
        single.astype(float), y
    )
    found = TemperatureScaling(prior=None, objective=objective).fit(single, y)
    assert found.temperature_ == pytest.approx(double.temperature_, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_the_focal_loss_is_flat_at_its_temperature(calibration_set, gamma):
    logits, y = calibration_set

    def loss(log_t):
        own = softmax(logits / np.exp(log_t), axis=1)[np.arange(len(y)), y]
        return -((1 - own) ** gamma * np.log(own)).mean()

    scaling = TemperatureScaling(prior=None, objective="focal", gamma=gamma).fit(
        logits, y
    )
    log_t, h = np.log(scaling.temperature_), 1e-4
    slope = (loss(log_t + h) - loss(log_t - h)) / (2 * h)
    curvature = (loss(log_t + h) - 2 * loss(log_t) + loss(log_t - h)) / h**2
    # The third derivative leaves a little of the difference quotient.
    assert abs(slope / curvature) < 1e-7


def test_logits_that_mislead_are_divided_by_a_thousand_of_their_median_gaps():
    logits = np.array([[3.0, 0.0, 1.0], [0.0, 2.0, -1.0], [1.0, 0.0, 5.0]])
    with pytest.warns(ConvergenceWarning, match="do not point at the true classes"):
        ts = TemperatureScaling(prior=None).fit(logits, [1, 2, 0])
    assert ts.temperature_ == pytest.approx(1000 * 2, rel=1e-6)


@pytest.mark.parametrize("objective", ["log_loss", "focal", "brier", "ece"])
def test_no_objective_goes_to_zero_on_rows_without_an_error(objective):
    logits, y = make_logits(3000, 5, random_state=0)
    right = np.flatnonzero(logits.argmax(axis=1) == y)[:200]
    fitted = TemperatureScaling(objective=objective).fit(logits[right], y[right])
    assert fitted.temperature_ > 0.1
