import numpy as np
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import softmax

from skcalib._solvers._mixture import PRIOR, fit_mixture_weights


def draw(n_samples=400, seed=0):
    rng = np.random.default_rng(seed)
    return np.log(rng.uniform(0.05, 1, (n_samples, 3)) * [0.6, 1.0, 0.9])


def test_the_weights_are_those_of_the_penalised_likelihood():
    log_proba, weight = draw(), np.linspace(0, 2, 400)

    def objective(w):
        loss = -np.log(np.exp(log_proba) @ w) @ weight
        return loss - PRIOR * np.log(w).sum()

    found = fit_mixture_weights(log_proba, weight)
    reference = minimize(
        lambda t: objective(softmax(t)), np.zeros(3), options={"gtol": 1e-6}
    )
    assert_allclose(found, softmax(reference.x), atol=2e-3)
    assert objective(found) <= reference.fun + 1e-3


def test_parts_that_say_the_same_share_the_weight():
    log_proba = np.repeat(draw()[:, :1], 4, axis=1)
    assert_allclose(fit_mixture_weights(log_proba, np.ones(400)), 0.25)


def test_a_part_that_is_never_right_keeps_half_a_sample():
    log_proba = np.column_stack([np.zeros(99), np.full(99, -1e30)])
    weights = fit_mixture_weights(log_proba, np.ones(99))
    assert_allclose(weights, [0.995, 0.005])


def test_the_units_of_a_row_do_not_matter():
    log_proba = draw()
    shift = np.random.default_rng(1).normal(scale=100, size=(400, 1))
    expected = fit_mixture_weights(log_proba, np.ones(400))
    assert_allclose(fit_mixture_weights(log_proba + shift, np.ones(400)), expected)
