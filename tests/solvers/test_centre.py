import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from skcalib import (
    BetaCalibration,
    CalibratorSearch,
    PlattScaling,
    SmoothingSplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib._blocks import ArraySource, CalibrationData
from skcalib._solvers._centre import OF_OFFSETS, fit_centre
from skcalib.datasets import make_logits


def moved_set(offsets, n_samples, temperature=1.0, seed=0):
    """Draw logits, and classes by softmax(logits / temperature + offsets)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2 * temperature, size=(n_samples, len(offsets)))
    scores = logits / temperature + offsets
    return logits, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def data_of(logits, y):
    return CalibrationData(ArraySource(logits), y, np.ones(len(y)))


@pytest.mark.parametrize("max_dense", [300, 2])
@pytest.mark.parametrize("prior", [1.0, 8.0])
def test_temperature_and_offsets_have_the_least_penalised_loss(
    monkeypatch, prior, max_dense
):
    monkeypatch.setattr("skcalib._solvers._centre.MAX_DENSE_CLASSES", max_dense)
    X, y = moved_set([0.0, -2.0, 1.5], 400, temperature=2.0)

    def loss(x):
        u = log_softmax(np.exp(x[0]) * X + x[1:], axis=1)
        pull = 2 * np.log(np.cosh(x[0] / 2)) + OF_OFFSETS * (x[1:] @ x[1:])
        return -u[np.arange(len(y)), y].mean() + prior / len(y) * pull

    best = minimize(loss, np.zeros(4), tol=1e-10).x
    centre = fit_centre(data_of(X, y), prior)
    assert_allclose(centre.temperature, np.exp(-best[0]), rtol=0.01)
    assert_allclose(centre.offsets, best[1:] - best[1:].mean(), atol=0.01)


@pytest.mark.parametrize("n_classes", [2, 3, 10, 100])
def test_offsets_that_are_not_evident_are_none(n_classes):
    found = 0
    for seed in range(50):
        X, y = make_logits(300, n_classes, random_state=seed, class_bias=0)
        centre = fit_centre(data_of(X, y), 8.0)
        alone = TemperatureScaling(classes=np.arange(n_classes)).fit(X, y)
        found += centre.offsets.any()
        if not centre.offsets.any():
            assert_allclose(centre.temperature, alone.temperature_)
    assert found <= 2


def test_without_a_prior_the_centre_is_a_temperature():
    X, y = moved_set([0.0, -4.0], 1000)
    centre = fit_centre(data_of(X, y), None)
    assert not centre.offsets.any()
    alone = TemperatureScaling(prior=None).fit(X, y)
    assert_allclose(centre.temperature, alone.temperature_)


def test_offsets_of_two_classes_are_one_offset_of_their_log_odds():
    centre = fit_centre(data_of(*moved_set([0.0, -4.0], 1000)), 8.0)
    difference = centre.offsets[1] - centre.offsets[0]
    assert_allclose(centre.of_odds, [-difference, difference])
    assert_allclose(difference, -4, atol=0.6)


def test_classes_that_do_not_occur_have_no_offset():
    X, y = moved_set([0.0, -2.0, 2.0], 400)
    wider = np.column_stack([X, np.full(400, -5.0)])
    centre = fit_centre(data_of(wider, y), 8.0)
    assert centre.offsets[3] == 0
    assert_allclose(centre.offsets.sum(), 0, atol=1e-12)


def excess(calibrator, offsets, n_samples):
    """Test log-loss above that of the truth."""
    X, y = moved_set(offsets, n_samples + 20_000)
    calibrator.set_params(classes=np.arange(len(offsets)))
    proba = calibrator.fit(X[:n_samples], y[:n_samples]).predict_proba(X[n_samples:])
    truth = log_softmax(X[n_samples:] + offsets, axis=1)
    u = truth[np.arange(20_000), y[n_samples:]]
    return log_loss(y[n_samples:], proba) + u.mean()


@pytest.mark.parametrize("n_samples", [300, 3000])
@pytest.mark.parametrize(
    "calibrator",
    [
        PlattScaling(),
        BetaCalibration(),
        VectorScaling(),
        StructuredMatrixScaling(structure="vector"),
        StructuredMatrixScaling(),
        CalibratorSearch(),
    ],
)
def test_a_prior_gives_way_to_base_rates_that_have_moved(calibrator, n_samples):
    # A number that is learned costs about half a nat, all samples together.
    assert excess(calibrator, [0.0, -6.0], n_samples) < 6 / n_samples


@pytest.mark.parametrize("n_samples", [300, 3000])
@pytest.mark.parametrize(
    "calibrator",
    [VectorScaling(), StructuredMatrixScaling(structure="vector"), CalibratorSearch()],
)
def test_it_gives_way_for_every_class(calibrator, n_samples):
    assert excess(calibrator, [0.0, -4.0, -5.0, 1.0], n_samples) < 12 / n_samples


@pytest.mark.parametrize("calibrator", [PlattScaling(), BetaCalibration()])
def test_curves_of_several_classes_come_near_those_without_a_prior(calibrator):
    offsets = [0.0, -4.0, -5.0, 1.0]
    drawn = excess(calibrator, offsets, 3000)
    free = excess(calibrator.set_params(prior=None), offsets, 3000)
    assert drawn < free + 0.001


def excess_of_columns(calibrator, factors, n_samples, shift=0.0):
    """Test log-loss above that of the truth, where columns have other units."""
    X, y = moved_set(np.zeros(len(factors)), n_samples + 20_000)
    truth = log_softmax(X[n_samples:], axis=1)[np.arange(20_000), y[n_samples:]]
    calibrator.set_params(classes=np.arange(len(factors)))
    X = X * factors + shift
    calibrator.fit(X[:n_samples], y[:n_samples])
    proba = calibrator.predict_proba(X[n_samples:])
    return log_loss(y[n_samples:], proba) + truth.mean()


@pytest.mark.parametrize(
    ("shift", "n_samples"), [([0.0, 0.0], 10_000), ([0.0, 20.0], 1000)]
)
@pytest.mark.parametrize(
    "calibrator",
    [
        PlattScaling(),
        VectorScaling(),
        SmoothingSplineCalibration(),
        StructuredMatrixScaling(),
        CalibratorSearch(),
    ],
)
def test_a_prior_gives_way_to_scores_that_fall_with_their_class(
    calibrator, shift, n_samples
):
    excess = excess_of_columns(calibrator, [-1.0, -1.0], n_samples, shift)
    assert excess < 6 / n_samples


@pytest.mark.parametrize("n_samples", [1000, 10_000])
def test_a_prior_gives_way_to_a_column_in_other_units(n_samples):
    factors = [1.0, 1.0, 1.0, 30.0]
    assert excess_of_columns(VectorScaling(), factors, n_samples) < 30 / n_samples


@pytest.mark.parametrize("n_classes", [2, 5])
def test_weak_scores_keep_the_unit_of_their_temperature(n_classes):
    found = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        scores = 0.2 * rng.normal(size=(100, n_classes))
        y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        found += fit_centre(data_of(5 * scores, y), 8.0).is_flat
    assert found <= 1
