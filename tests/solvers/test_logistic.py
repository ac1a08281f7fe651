import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from skcalib._blocks import CalibrationData, open_source
from skcalib._solvers import _logistic
from skcalib._solvers._beta import fit_beta
from skcalib._solvers._platt import fit_platt
from skcalib.datasets import make_logits

FITS = {
    "beta": fit_beta,
    "am": lambda data: fit_beta(data, variant="am"),
    "Platt": lambda data: fit_platt(data, on_log_odds=False, smooth_targets=True),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("kept", ["none", "the last few"])
def test_features_kept_in_memory_change_nothing(monkeypatch, fit, kept):
    # With few samples a class the problems converge one after the other.
    logits, y = make_logits(200, 10, random_state=0)
    data = CalibrationData(open_source(logits), y, np.ones(200))
    everything = fit(data)
    limit = 0 if kept == "none" else 200 * 10
    monkeypatch.setattr(_logistic, "KEPT_ELEMENTS", limit)
    other = fit(data)
    assert other.n_iter == everything.n_iter
    assert other.loss == pytest.approx(everything.loss, rel=1e-12)
    # Classes with hardly a miss have flat directions, along which rounding leads far.
    assert_allclose(other.x, everything.x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_step_minimises_the_quadratic_model_under_the_bounds(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(5, 3, 3))
    hessian = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(3)
    gradient = rng.normal(size=(5, 3))
    theta = np.abs(rng.normal(size=(5, 3))) * rng.integers(0, 2, size=(5, 3))
    model = _logistic.LogisticModel(
        None, 2, intercept=True, non_negative=True, low=np.zeros(5), high=np.ones(5)
    )
    steps, gain = _logistic._newton_step(theta, gradient, hessian, model)
    assert_allclose(gain, -np.einsum("ki,ki->k", gradient, steps))
    for k in range(5):

        def value(step, k=k):
            return gradient[k] @ step + step @ hessian[k] @ step / 2

        reference = minimize(
            value,
            np.zeros(3),
            jac=lambda step, k=k: gradient[k] + hessian[k] @ step,
            bounds=[(-theta[k, 0], None), (-theta[k, 1], None), (None, None)],
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        assert value(steps[k]) <= reference.fun + 1e-8
        assert (theta[k, :2] + steps[k, :2] >= -1e-12).all()
