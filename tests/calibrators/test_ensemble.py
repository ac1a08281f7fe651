import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from skcalib.calibrators import EnsembleTemperatureScaling, TemperatureScaling


@pytest.fixture
def noisy_set(draw_calibration_set):
    """Labels of which three in ten are drawn blindly, so that all parts matter."""
    logits, y = draw_calibration_set(n_samples=2000, temperature=0.5)
    rng = np.random.default_rng(1)
    return logits, np.where(rng.random(y.size) < 0.3, rng.integers(0, 4, y.size), y)


def parts_of(logits, y, temperature):
    """Probability of the true class under each of the three parts."""
    rows = np.arange(len(y))
    scaled = softmax(logits / temperature, axis=1)[rows, y]
    original = softmax(logits, axis=1)[rows, y]
    return np.stack([scaled, original, np.full(len(y), 1 / logits.shape[1])], axis=1)


def log_loss_of(w, parts):
    return -np.log(parts @ w).mean()


@pytest.fixture(params=["noisy", "plain"])
def any_set(request, noisy_set, calibration_set):
    return noisy_set if request.param == "noisy" else calibration_set


def test_weights_meet_the_conditions_of_an_optimum(any_set):
    logits, y = any_set
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    w = ensemble.weights_
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)
    parts = parts_of(logits, y, ensemble.temperature_)
    gain = (parts / (parts @ w)[:, np.newaxis]).mean(axis=0)
    assert gain.max() <= 1 + 1e-6
    assert_allclose(w * (gain - 1), 0, atol=1e-5)
    assert ensemble.gradient_norm_ == pytest.approx(gain.max() - 1, abs=1e-9)


def test_loss_is_at_or_below_that_of_a_slow_search(any_set):
    logits, y = any_set
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    parts = parts_of(logits, y, ensemble.temperature_)
    reference = minimize(
        log_loss_of,
        np.full(3, 1 / 3),
        args=(parts,),
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    found = log_loss_of(ensemble.weights_, parts)
    assert found == pytest.approx(ensemble.loss_, abs=1e-12)
    assert found <= reference.fun + 1e-6


def test_prediction_is_the_mixture(noisy_set):
    logits, y = noisy_set
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    w = ensemble.weights_
    expected = w[0] * softmax(logits / ensemble.temperature_, axis=1)
    expected += w[1] * softmax(logits, axis=1) + w[2] / 4
    assert_allclose(ensemble.predict_proba(logits), expected, atol=1e-14)
    assert (
        ensemble.temperature_
        == TemperatureScaling(prior=None).fit(logits, y).temperature_
    )
    assert not hasattr(ensemble, "decision_function")


def test_blind_labels_are_found_out(noisy_set):
    logits, y = noisy_set
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    assert ensemble.weights_[2] > 0.03
    assert ensemble.loss_ < TemperatureScaling(prior=None).fit(logits, y).loss_ - 1e-4


def test_labels_of_the_model_leave_nothing_to_the_uniform_part(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=20_000)
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    assert ensemble.weights_[2] < 0.02
    truth = softmax(logits / 2, axis=1)
    assert_allclose(ensemble.predict_proba(logits), truth, atol=0.05)


def test_the_class_is_kept_ties_included(noisy_set):
    logits, y = noisy_set
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    assert_array_equal(ensemble.predict(logits), logits.argmax(axis=1))
    close = [[0.0, 1e-17, 0.0, 0.0], [2.0, 1.0, 2.0, 0.0]]
    assert_array_equal(ensemble.predict(close), [1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_logits_spoil_nothing(noisy_set, mask_others, dtype):
    logits, y = noisy_set
    weights = []
    for value in (-1e5, -1e30, np.finfo(dtype).min):
        X, _ = mask_others(logits.astype(dtype), y, value)
        ensemble = EnsembleTemperatureScaling(prior=None).fit(X, y)
        assert np.isfinite(ensemble.predict_proba(X)).all()
        weights.append(ensemble.weights_)
    assert_allclose(weights[1:], weights[:1] * 2, atol=1e-6)


def test_confident_mistakes_give_the_uniform_part_weight():
    # The mistake has probability 0 under both softmaxes.
    logits = np.tile([[2000.0, 0.0, -1000.0]], (50, 1))
    y = np.zeros(50, dtype=int)
    y[0] = 1
    ensemble = EnsembleTemperatureScaling(prior=None).fit(logits, y)
    assert np.isfinite(ensemble.loss_)
    assert np.isfinite(ensemble.predict_proba(logits)).all()


def test_the_iteration_limit_warns_and_keeps_the_best_point(noisy_set):
    ensemble = EnsembleTemperatureScaling(prior=None, max_iter=1, tol=1e-12)
    with pytest.warns(ConvergenceWarning, match=r"the gap is .* nats, not 1e-12"):
        ensemble.fit(*noisy_set)
    assert ensemble.weights_.sum() == pytest.approx(1)
