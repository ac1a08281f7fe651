import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib._solvers._newton_cg import Expansion, minimize


def quadratic(hessian, optimum, precondition):
    def loss(x):
        return 0.5 * (x - optimum) @ hessian @ (x - optimum)

    def expand(x, curvature):
        gradient = hessian @ (x - optimum)
        return Expansion(loss(x), gradient, lambda d: hessian @ d, precondition)

    return expand, loss


@pytest.fixture
def problem():
    """A badly scaled quadratic and its optimum."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) * 10.0 ** np.arange(-2, 4)
    return root.T @ root + np.eye(6), rng.normal(size=6)


def test_an_exact_inverse_takes_one_step(problem):
    hessian, optimum = problem
    inverse = np.linalg.inv(hessian)
    expand, loss = quadratic(hessian, optimum, lambda r: inverse @ r)
    result = minimize(expand, loss, np.zeros(6), tol=1e-10, max_iter=20)
    assert result.converged
    assert result.n_iter <= 2
    assert_allclose(result.x, optimum, atol=1e-5)


def test_no_preconditioner_reaches_the_same_optimum(problem):
    hessian, optimum = problem
    expand, loss = quadratic(hessian, optimum, lambda r: r.copy())
    result = minimize(expand, loss, np.zeros(6), tol=1e-12, max_iter=50)
    assert result.converged
    assert result.loss < 1e-11


def test_steps_that_are_too_long_are_shortened():
    # Newton's step for log cosh overshoots beyond |x| = 1.09.
    def loss(x):
        return float(np.logaddexp(x, -x).sum())

    def expand(x, curvature):
        curvature = 1 / np.cosh(x) ** 2
        return Expansion(
            loss(x), np.tanh(x), lambda d: curvature * d, lambda r: r / curvature
        )

    result = minimize(expand, loss, np.array([3.0]), tol=1e-12, max_iter=50)
    assert result.converged
    assert result.x[0] == pytest.approx(0, abs=1e-5)


def test_far_too_long_a_step_is_shortened_in_a_few_trials():
    # Newton's step from 20 is 8,000 long.
    trials = []

    def loss(x):
        trials.append(x[0])
        return float(np.hypot(1, x).sum())

    def expand(x, curvature):
        curvature = np.hypot(1, x) ** -3
        gradient = x / np.hypot(1, x)
        value = float(np.hypot(1, x).sum())
        return Expansion(value, gradient, lambda d: curvature * d, lambda r: 8e3 * r)

    result = minimize(expand, loss, np.array([20.0]), tol=1e-12, max_iter=1)
    assert result.loss < 20
    # Halving takes nine.
    assert len(trials) < 7


def test_the_iteration_limit_is_reported(problem):
    hessian, optimum = problem
    expand, loss = quadratic(hessian, optimum, lambda r: r.copy())
    result = minimize(expand, loss, np.zeros(6), tol=1e-14, max_iter=1)
    assert not result.converged
    assert result.message == "max_iter=1 was reached"
    assert result.loss < loss(np.zeros(6))


def test_a_loss_that_never_falls_is_reported():
    def expand(x, curvature):
        # The gradient is wrong in sign.
        return Expansion(float(x @ x), -2 * x, lambda d: 2 * d, lambda r: r / 2)

    result = minimize(
        expand, lambda x: float(x @ x), np.array([1.0]), tol=1e-10, max_iter=9
    )
    assert not result.converged
    assert result.message == "no descent along Newton's step"
    assert result.x == [1.0]
