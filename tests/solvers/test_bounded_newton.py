import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from skcalib._solvers._bounded_newton import minimize_bounded


def poisson_like(n=6, seed=0):
    """A smooth convex loss whose free minimum lies partly below the bounds."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(40, n))
    target = rng.normal(size=40)

    def expand(x):
        rate = np.exp(design @ x / 2)
        loss = float(np.sum(rate - target * (design @ x)) + x @ x)
        gradient = design.T @ (rate / 2 - target) + 2 * x
        hessian = design.T @ (design * (rate / 4)[:, np.newaxis]) + 2 * np.eye(n)
        return loss, gradient, hessian

    return expand


@pytest.mark.parametrize("seed", range(5))
def test_the_minimum_over_the_bounds_is_found(seed):
    expand = poisson_like(seed=seed)
    lower = np.full(6, -0.05)
    result = minimize_bounded(expand, np.ones(6), lower, tol=1e-12, max_iter=50)
    reference = minimize(
        lambda x: expand(x)[0],
        np.ones(6),
        jac=lambda x: expand(x)[1],
        method="L-BFGS-B",
        bounds=[(-0.05, None)] * 6,
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    assert result.converged
    assert (result.x == lower).any()
    assert (result.x >= lower).all()
    assert_allclose(result.x, reference.x, atol=1e-6)
    assert result.loss == pytest.approx(reference.fun, abs=1e-9)
    assert result.gradient_norm < 1e-5


@pytest.mark.parametrize("rounding", [0.0, 1e-15, -1e-15])
def test_a_loss_without_curvature_in_a_direction_is_minimised(rounding):
    def expand(x):
        away = x[0] - 2
        return away**2, np.array([2 * away, 0.0]), np.diag([2.0, rounding])

    result = minimize_bounded(expand, np.zeros(2), np.zeros(2), tol=1e-12, max_iter=9)
    assert result.converged
    assert result.x[0] == pytest.approx(2)


def test_the_limit_of_steps_is_reported():
    expand = poisson_like()
    result = minimize_bounded(
        expand, np.full(6, 3.0), np.full(6, -9.0), tol=1e-14, max_iter=1
    )
    assert not result.converged
    assert result.message == "max_iter=1 was reached"
    assert result.loss < expand(np.full(6, 3.0))[0]
