import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import softmax

from skcalib._solvers._mixture import fit_mixture

PRIOR = 0.5


def draw(n_samples=400, seed=0):
    rng = np.random.default_rng(seed)
    return np.log(rng.uniform(0.05, 1, (n_samples, 3)) * [0.6, 1.0, 0.9])


def weights_of(log_proba, weight, prior=PRIOR):
    result = fit_mixture(log_proba, weight, prior=prior, tol=1e-10, max_iter=100)
    assert result.converged
    return result.x


def test_the_weights_are_those_of_the_penalised_likelihood():
    log_proba, weight = draw(), np.linspace(0, 2, 400)

    def objective(w):
        loss = -np.log(np.exp(log_proba) @ w) @ weight
        return loss - PRIOR * np.log(w).sum()

    found = weights_of(log_proba, weight)
    reference = minimize(
        lambda t: objective(softmax(t)), np.zeros(3), options={"gtol": 1e-6}
    )
    assert_allclose(found, softmax(reference.x), atol=1e-5)
    assert objective(found) <= reference.fun + 1e-8


def test_without_a_prior_a_part_that_only_harms_ends_at_zero():
    log_proba = draw()
    log_proba[:, 0] = log_proba[:, 1:].min(axis=1) - 1
    result = fit_mixture(log_proba, np.ones(400), tol=1e-10, max_iter=100)
    assert result.converged
    assert result.x[0] == 0
    mixed = np.exp(log_proba) @ result.x
    assert result.loss == pytest.approx(-np.log(mixed).mean(), abs=1e-12)
    gain = (np.exp(log_proba) / mixed[:, np.newaxis]).mean(axis=0)
    assert_allclose(gain[1:], 1, atol=1e-4)
    assert result.gradient_norm == pytest.approx(gain.max() - 1, abs=1e-12)


def test_a_row_that_one_part_alone_explains_keeps_that_part():
    log_proba = np.column_stack([np.full(5000, -0.1), np.full(5000, -3.0)])
    log_proba[0, 0] = -800.0
    result = fit_mixture(log_proba, np.ones(5000), tol=1e-10, max_iter=100)
    assert result.converged
    # One row gains from it; the others have exp(-2.9) of what they lose.
    assert_allclose(result.x[1], 1 / 5000 / (1 - np.exp(-2.9)), rtol=1e-3)


def test_parts_that_say_the_same_share_the_weight():
    log_proba = np.repeat(draw()[:, :1], 4, axis=1)
    assert_allclose(weights_of(log_proba, np.ones(400)), 0.25)


def test_a_prior_may_differ_by_part():
    log_proba = draw()
    seen = np.full((6, 3), -700.0)
    seen[:, 1] = 0
    found = weights_of(log_proba, np.ones(400), prior=np.array([0.0, 6.0, 0.0]))
    expected = weights_of(np.vstack([log_proba, seen]), np.ones(406), prior=0.0)
    assert_allclose(found, expected, atol=1e-6)


def test_a_part_that_is_never_right_keeps_half_a_sample():
    log_proba = np.column_stack([np.zeros(99), np.full(99, -1e30)])
    assert_allclose(weights_of(log_proba, np.ones(99)), [0.995, 0.005], atol=1e-6)


def test_the_units_of_a_row_do_not_matter():
    log_proba = draw()
    shift = np.random.default_rng(1).normal(scale=100, size=(400, 1))
    expected = weights_of(log_proba, np.ones(400))
    assert_allclose(weights_of(log_proba + shift, np.ones(400)), expected, atol=1e-9)
