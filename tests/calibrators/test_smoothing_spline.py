import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.interpolate import CubicSpline
from scipy.linalg import null_space
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss

from skcalib import (
    CalibratorSearch,
    PlattScaling,
    SmoothingSplineCalibration,
    TemperatureScaling,
)
from skcalib._numerics import log_odds
from skcalib._solvers import _smoothing_spline
from skcalib.exceptions import AbsentClassWarning


def drawn(curve, n, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=scale, size=n)
    return z, (rng.random(n) < expit(curve(z))).astype(int)


def bent(z):
    return z / 2 + 2 * np.sin(z)


def reference_curve(s, y, penalty, prior, n_knots):
    """The same optimum by values at the knots, quadrature and BFGS."""
    u = np.arcsinh(s / np.median(np.abs(s)))
    place = (np.arange(s.size) + 0.5) / s.size
    knots = np.interp(np.linspace(0.01, 0.99, n_knots), place, np.sort(u))
    # Values of no line.
    free = null_space(np.stack([np.ones(n_knots), knots]))
    basis = CubicSpline(knots, free, bc_type="natural")
    gram = np.array(
        [
            [
                quad(
                    lambda t, i=i, j=j: basis(t, 2)[i] * basis(t, 2)[j],
                    knots[0],
                    knots[-1],
                    points=knots,
                    limit=200,
                )[0]
                for i in range(n_knots - 2)
            ]
            for j in range(n_knots - 2)
        ]
    )
    inside = np.clip(u, knots[0], knots[-1])
    design = basis(inside) + (u - inside)[:, None] * basis(inside, 1)

    def curve(x):
        return x[0] * s + x[1] + design @ x[2:]

    def objective(x):
        loss = np.logaddexp(0, np.where(y == 1, -1, 1) * curve(x)).sum()
        bends = u.std() ** 3 * x[2:] @ gram @ x[2:]
        return loss + prior * ((x[0] - 1) ** 2 + x[1] ** 2) + penalty / 2 * bends

    start = np.append([1.0, 0.0], np.zeros(n_knots - 2))
    return curve(minimize(objective, start, options={"gtol": 1e-7}).x)


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_one_penalty_gives_the_optimum_of_penalised_likelihood(monkeypatch, penalty):
    monkeypatch.setattr(_smoothing_spline, "PENALTIES", np.array([penalty]))
    z, y = drawn(bent, 300)
    spline = SmoothingSplineCalibration(prior=0.5, n_knots=6).fit(z, y)
    s = z / spline.temperature_
    expected = expit(reference_curve(s, y, penalty, 0.5, 6))
    # Between the points of its table the curve is straight.
    assert_allclose(spline.predict_proba(z)[:, 1], expected, atol=2e-4)


def test_the_evidence_of_a_penalty_is_the_probability_of_the_hits_under_it(monkeypatch):
    penalties = np.array([10.0, 1.0])
    monkeypatch.setattr(_smoothing_spline, "PENALTIES", penalties)
    z, y = drawn(bent, 60)
    spline = SmoothingSplineCalibration(prior=20.0, n_knots=3).fit(z, y)
    s = z / spline.temperature_
    rows = _smoothing_spline._pooled(s, y == 1, np.ones(z.size))
    bend = _smoothing_spline._Spline(rows, 3).features(s)[:, 0]
    rng = np.random.default_rng(0)
    # The prior of a line is a Gaussian of variance 1 / (2 prior) about the temperature.
    line = rng.normal(scale=np.sqrt(1 / 40), size=(2, 20_000))
    standard = rng.normal(size=20_000)
    probability = []
    for penalty in penalties:
        c = standard / np.sqrt(penalty)
        curves = s[:, None] * (1 + line[0]) + line[1] + bend[:, None] * c
        own = -np.logaddexp(0, np.where(y == 1, -1, 1)[:, None] * curves)
        probability.append(np.exp(own.sum(axis=0) + 30).mean())
    expected = np.array(probability) / np.sum(probability)
    assert_allclose(spline.shares_[0], expected, atol=0.03)


def test_a_curve_bends_where_many_samples_say_so():
    z, y = drawn(bent, 4000)
    spline = SmoothingSplineCalibration().fit(z, y)
    grid = np.linspace(-6, 6, 100)
    error = spline.predict_proba(grid)[:, 1] - expit(bent(grid))
    assert np.abs(error).max() < 0.1
    test_z, test_y = drawn(bent, 20_000, seed=1)
    of_line = log_loss(test_y, PlattScaling().fit(z, y).predict_proba(test_z))
    assert log_loss(test_y, spline.predict_proba(test_z)) < of_line - 0.02


@pytest.mark.parametrize("n", [30, 300, 3000])
def test_a_line_costs_next_to_nothing_where_a_line_is_right(n):
    of_spline, of_line = [], []
    for seed in range(5):
        z, y = drawn(lambda z: z / 2, n, seed)
        test_z, test_y = drawn(lambda z: z / 2, 5000, seed + 100)
        for found, method in [
            (of_spline, SmoothingSplineCalibration()),
            (of_line, TemperatureScaling()),
        ]:
            found.append(log_loss(test_y, method.fit(z, y).predict_proba(test_z)))
    assert np.mean(of_spline) - np.mean(of_line) < 1.5 / n + 1e-4


def test_the_curves_of_two_classes_are_one():
    z, y = drawn(bent, 500)
    spline = SmoothingSplineCalibration().fit(z, y)
    swapped = SmoothingSplineCalibration().fit(-z, 1 - y)
    assert_allclose(swapped.predict_proba(-z), spline.predict_proba(z)[:, ::-1])
    odds = np.interp(z / spline.temperature_, spline.knots_[1], spline.values_[1])
    assert_allclose(spline.predict_proba(z)[:, 1], expit(odds), atol=1e-12)


def test_rows_of_several_classes_are_divided_by_their_sum(calibration_set):
    logits, y = calibration_set
    spline = SmoothingSplineCalibration().fit(logits, y)
    score = log_odds(logits / spline.temperature_)
    curves = zip(score.T, spline.knots_, spline.values_, strict=True)
    q = np.stack([expit(np.interp(*curve)) for curve in curves], axis=1)
    expected = q / q.sum(axis=1, keepdims=True)
    assert_allclose(spline.predict_proba(logits), expected, atol=1e-12)


def test_pooled_neighbours_say_what_all_rows_say(monkeypatch):
    z, y = drawn(bent, 20_000)
    pooled = SmoothingSplineCalibration().fit(z, y).predict_proba(z)
    monkeypatch.setattr(_smoothing_spline, "MOST_GROUPS", 10**9)
    assert_allclose(
        pooled, SmoothingSplineCalibration().fit(z, y).predict_proba(z), atol=1e-3
    )


def test_separable_scores_do_not_run_away():
    z = np.linspace(-3, 3, 40)
    spline = SmoothingSplineCalibration().fit(z, (z > 0).astype(int))
    proba = spline.predict_proba(z)[:, 1]
    assert (np.diff(proba) > 0).all()
    assert 1e-3 < proba.min() < 0.1


def test_the_curve_goes_on_beyond_the_scores_that_it_was_fitted_to():
    # Other inputs, of which the same scores say the same.
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(-1.5, 0.5, 3000), rng.normal(2, 1, 5000)])
    y = (rng.random(8000) < expit(z)).astype(int)
    spline = SmoothingSplineCalibration().fit(1.3 * z[:3000], y[:3000])
    proba = spline.predict_proba(1.3 * z[3000:])
    assert log_loss(y[3000:], proba) < log_loss(y[3000:], expit(z[3000:])) + 0.03
    assert (np.diff(spline.predict_proba([2.0, 4.0, 8.0])[:, 1]) > 0.02).all()
    default = CalibratorSearch().fit(1.3 * z[:3000], y[:3000])
    assert default.predict_proba([8.0])[0, 1] > 0.75  # Venn-Abers says 0.63.


def test_scores_without_a_curve_keep_a_line():
    y = (np.arange(2000) % 4 == 0).astype(int)
    two = np.repeat([-1.0, 1.0], 1000)
    for z in (np.zeros(2000), two):
        spline = SmoothingSplineCalibration().fit(z, y)
        assert_allclose(spline.predict_proba(z)[:, 1], 0.25, atol=0.01)


def test_an_absent_class_keeps_the_curve_of_the_temperature(calibration_set):
    logits, y = calibration_set
    seen = y < 3
    with pytest.warns(AbsentClassWarning, match="3"):
        spline = SmoothingSplineCalibration().fit(logits[seen], y[seen])
    score = log_odds(logits / spline.temperature_)
    curves = zip(score.T, spline.knots_, spline.values_, strict=True)
    q = np.stack([expit(np.interp(*curve)) for curve in curves], axis=1)
    assert_allclose(q[:, 3], expit(score[:, 3]), atol=1e-12)
    expected = q / q.sum(axis=1, keepdims=True)
    assert_allclose(spline.predict_proba(logits), expected, atol=1e-12)


@pytest.mark.parametrize("options", [{"prior": 0}, {"n_knots": 2}])
def test_wrong_parameters_are_refused(calibration_set, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SmoothingSplineCalibration(**options).fit(*calibration_set)


def test_a_real_network_gains_on_its_temperature(cifar10):
    def loss(method):
        fitted = method.fit(cifar10.X_cal, cifar10.y_cal)
        return log_loss(cifar10.y_test, fitted.predict_proba(cifar10.X_test))

    assert loss(SmoothingSplineCalibration()) < loss(TemperatureScaling())
