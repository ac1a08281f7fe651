"""The weak priors: few samples harm nobody, many do not notice."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skcalib import (
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib._numerics import log_odds
from skcalib.datasets import make_logits

STRENGTHS = {"off_diagonal_penalty": 1.0, "intercept_penalty": 1.0}
SCALINGS = [
    TemperatureScaling(),
    EnsembleTemperatureScaling(),
    VectorScaling(),
    MatrixScaling(**STRENGTHS),
    DirichletCalibration(**STRENGTHS),
    StructuredMatrixScaling(),
    StructuredMatrixScaling(structure="vector"),
    OrderPreservingScaling(),
    PlattScaling(),
    BetaCalibration(),
]
# Without a prior, their published forms do not run away either, or slowly.
TAME = (StructuredMatrixScaling,)
every_scaling = pytest.mark.parametrize("calibrator", SCALINGS, ids=repr)


def draw(n_samples, n_classes=4, seed=0, temperature=1.0):
    """Draw labels from softmax(z / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n_samples, n_classes))
    noise = temperature * rng.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(axis=1)


def draw_sure(n_samples, n_classes, seed=0):
    """Draw from a calibrated network with an error in about a hundred rows."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n_samples, n_classes))
    logits[np.arange(n_samples), rng.integers(0, n_classes, n_samples)] += 12
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def draw_without_error(n_samples, n_classes, seed=0):
    """Draw from that network, and leave out the rows in error."""
    logits, y = draw_sure(2 * n_samples, n_classes, seed)
    rows = np.flatnonzero(logits.argmax(axis=1) == y)[:n_samples]
    return logits[rows], y[rows]


@every_scaling
@pytest.mark.parametrize(("n_samples", "n_classes"), [(10, 2), (40, 4), (400, 4)])
def test_a_set_without_error_does_not_make_a_network_certain(
    calibrator, n_samples, n_classes
):
    harm = []
    for seed in range(8):
        logits, y = draw_without_error(n_samples, n_classes, seed)
        if np.unique(y).size < n_classes:
            continue
        fitted = clone(calibrator).fit(logits, y)
        test, y_test = draw_sure(2000, n_classes, seed=100 + seed)
        loss = log_loss(y_test, fitted.predict_proba(test), labels=range(n_classes))
        harm.append(loss - log_loss(y_test, softmax(test, axis=1)))
    assert len(harm) >= 5
    # Ten samples leave structured scaling a share of 1/11 for the uniform.
    assert np.mean(harm) < 0.04


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@every_scaling
def test_the_published_fit_runs_away_on_a_set_without_error(calibrator):
    if isinstance(calibrator, TAME):
        pytest.skip("it is held by penalties of its own")
    logits, y = draw_without_error(40, 4)
    test, y_test = draw_sure(2000, 4, seed=100)
    losses = [
        log_loss(y_test, c.fit(logits, y).predict_proba(test))
        for c in (clone(calibrator).set_params(prior=None), clone(calibrator))
    ]
    assert losses[0] > 2 * losses[1]


@every_scaling
def test_with_plenty_of_samples_the_prior_costs_nothing(calibrator):
    logits, y = draw(20_000, temperature=2.0)
    test, y_test = draw(20_000, seed=1, temperature=2.0)
    losses = [
        log_loss(y_test, c.fit(logits, y).predict_proba(test))
        for c in (clone(calibrator).set_params(prior=None), clone(calibrator))
    ]
    assert losses[1] <= losses[0] + 1e-4


def test_the_temperature_has_the_least_sum_of_log_loss_and_prior():
    logits, y = draw(30, temperature=3.0)

    def objective(u):
        log_p = log_softmax(np.exp(u) * logits, axis=1)
        return -log_p[np.arange(30), y].mean() + 2 * 5 / 30 * np.log(np.cosh(u / 2))

    found = minimize_scalar(objective, bracket=(-2, 0), options={"xtol": 1e-9})
    scaling = TemperatureScaling(prior=5.0).fit(logits, y)
    assert scaling.temperature_ == pytest.approx(np.exp(-found.x), rel=1e-6)
    assert scaling.loss_ == pytest.approx(found.fun, abs=1e-12)


@pytest.mark.parametrize("factor", [1e-320, 1e-12, 1e-3, 1e3, 1e12, 1e30])
def test_units_of_the_logits_move_the_temperature_by_the_bounded_pull_only(factor):
    logits, y = draw(500, temperature=2.0)
    plain = TemperatureScaling(prior=None).fit(logits, y).temperature_
    moved = TemperatureScaling().fit(factor * logits, y)
    # The derivative by log T may be off by 8 / 500, with a curvature of about 0.2.
    if factor > 1e-300:
        assert abs(np.log(moved.temperature_ / factor / plain)) < 0.12
    loss = log_loss(y, moved.predict_proba(factor * logits))
    assert loss < log_loss(y, softmax(logits / plain, axis=1)) + 2e-3


CURVES = [PlattScaling, BetaCalibration, partial(BetaCalibration, variant="ab")]


@pytest.mark.parametrize("curves", CURVES)
@pytest.mark.parametrize("factor", [1e-60, 1e-9, 1e-2])
def test_curves_in_small_units_are_no_worse_than_the_temperature(curves, factor):
    logits, y = make_logits(4000, 10, random_state=0)
    logits *= factor
    fit, test = slice(2000), slice(2000, None)
    plain = TemperatureScaling().fit(logits[fit], y[fit]).predict_proba(logits[test])
    fitted = curves().fit(logits[fit], y[fit])
    loss = log_loss(y[test], fitted.predict_proba(logits[test]))
    assert loss < log_loss(y[test], plain) + 2e-3


def test_curves_in_small_units_have_the_least_sum_of_log_loss_and_prior():
    logits, y = make_logits(200, 5, random_state=0)
    logits /= 100
    platt = PlattScaling(prior=5.0).fit(logits, y)
    temperature = TemperatureScaling(prior=5.0).fit(logits, y).temperature_
    assert platt.unit_ == pytest.approx(temperature)
    score = log_odds(logits / temperature)
    for k in range(5):

        def objective(x, score=score[:, k], hit=y == k):
            u = x[0] * score + x[1]
            away = (x[0] - 1) ** 2 + x[1] ** 2
            return np.mean(np.logaddexp(0, u) - hit * u) + 5 / 200 * away

        found = minimize(objective, [1, 0], options={"gtol": 1e-8}).x
        assert_allclose([platt.coef_[k], platt.intercept_[k]], found, atol=1e-4)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_an_absent_class_in_small_units_has_the_curve_of_the_temperature():
    logits, y = make_logits(500, 5, random_state=0)
    seen = y != 3
    platt = PlattScaling().fit(logits[seen] / 100, y[seen])
    assert_allclose([platt.coef_[3], platt.intercept_[3]], [1, 0], atol=1e-12)
    beta = BetaCalibration().fit(logits[seen] / 100, y[seen])
    assert_allclose([beta.a_[3], beta.b_[3], beta.c_[3]], [1, 1, 0], atol=1e-12)


@pytest.mark.parametrize("curves", CURVES)
def test_a_weight_is_a_repetition_in_small_units(curves):
    logits, y = make_logits(100, 4, random_state=0)
    logits /= 100
    weight = np.random.default_rng(0).integers(0, 4, 100)
    rows = np.repeat(np.arange(100), weight)
    weighted = curves().fit(logits, y, sample_weight=weight).predict_proba(logits)
    repeated = curves().fit(logits[rows], y[rows]).predict_proba(logits)
    assert_allclose(weighted, repeated, atol=1e-6)


@pytest.mark.parametrize("curves", CURVES)
def test_curves_divide_by_no_temperature_without_prior_or_above_one(curves):
    logits, y = make_logits(500, 5, random_state=0)
    assert curves(prior=None).fit(logits / 100, y).unit_ == 1
    assert TemperatureScaling().fit(5 * logits, y).temperature_ > 1
    assert curves().fit(5 * logits, y).unit_ == 1


@pytest.mark.parametrize("curves", CURVES)
def test_two_classes_have_one_curve_of_the_log_odds_in_any_units(curves):
    logits, y = make_logits(500, 2, random_state=0)
    fitted = curves().fit(logits / 100, y)
    assert fitted.unit_ == 1
    plain = TemperatureScaling().fit(logits / 100, y).predict_proba(logits / 100)
    assert log_loss(y, fitted.predict_proba(logits / 100)) < log_loss(y, plain) + 1e-4


@pytest.mark.parametrize("sign", [1, -1])
def test_samples_that_all_agree_or_all_disagree_have_a_temperature(sign):
    # Neither warns: the prior makes the optimum finite at both ends.
    logits = np.repeat(sign * np.array([[5.0, 0.0], [0.0, 5.0]]), 3, axis=0)
    fitted = TemperatureScaling().fit(logits, [0, 0, 0, 1, 1, 1])
    assert 0.2 < fitted.temperature_ < 20


def test_a_stronger_prior_is_nearer_to_no_calibration():
    logits, y = draw(50, temperature=3.0)
    temperatures = [
        TemperatureScaling(prior=prior).fit(logits, y).temperature_
        for prior in (None, 1.0, 8.0, 1e6)
    ]
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[-1] == pytest.approx(1, abs=1e-3)


def test_a_class_with_few_samples_stays_near_the_temperature():
    X, y = make_logits(2000, 5, random_state=0)
    few = np.flatnonzero(y == 4)[3:]
    X, y = np.delete(X, few, axis=0), np.delete(y, few)
    test, y_test = make_logits(4000, 5, random_state=1)
    for calibrator in (VectorScaling, BetaCalibration):
        held = calibrator().fit(X, y).predict_proba(test)
        free = calibrator(prior=None).fit(X, y).predict_proba(test)
        assert log_loss(y_test, held) < log_loss(y_test, free)


def test_a_prior_of_no_strength_is_refused():
    logits, y = draw(20)
    with pytest.raises(ValueError, match="'prior' parameter"):
        TemperatureScaling(prior=0).fit(logits, y)


@pytest.mark.parametrize(
    "calibrator", [EnsembleTemperatureScaling, OrderPreservingScaling]
)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("equal", "logits of each row are equal"),
        ("separable", "classified without error"),
        ("turned", "do not point at the true classes"),
    ],
)
@pytest.mark.filterwarnings("ignore:In the first 256 rows of X the logit of the true")
def test_without_a_best_temperature_a_warning_says_so(calibrator, kind, message):
    logits = np.random.default_rng(0).normal(size=(50, 3))
    y = (-logits if kind == "turned" else logits).argmax(axis=1)
    if kind == "equal":
        logits = np.zeros((50, 3))
    with pytest.warns(ConvergenceWarning, match=message):
        calibrator(prior=None).fit(logits, y)


def test_a_structured_matrix_warns_only_where_its_temperature_leaves_nothing():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    structured = StructuredMatrixScaling(prior=None)
    with pytest.warns(ConvergenceWarning, match="do not point at the true classes"):
        structured.fit(-logits, logits.argmax(axis=1))
    structured.fit(logits, logits.argmax(axis=1))
    assert structured.predict_proba(logits).max() < 0.999
    shares = structured.fit(np.zeros((6, 3)), [0, 0, 0, 1, 1, 2]).predict_proba
    assert (np.diff(shares(np.zeros((1, 3)))) < 0).all()
