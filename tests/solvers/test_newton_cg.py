import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib._solvers._newton_cg import Expansion, _bfgs_updated, minimize


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


@pytest.mark.parametrize("distance", [0.0, 1e-290])
def test_at_the_optimum_nothing_is_left_to_do(distance):
    expand, loss = quadratic(np.eye(6), np.zeros(6), lambda r: r.copy())
    start = np.full(6, distance)
    result = minimize(expand, loss, start, tol=1e-12, max_iter=9)
    assert result.converged
    assert (result.x == start).all()
    assert result.n_iter == 1


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
    assert result.message.startswith("no descent along Newton's step")
    assert result.x == [1.0]


def test_a_loss_that_rounding_hides_is_no_convergence():
    # The loss is known to a millionth only, while a hundredth is left.
    def loss(x):
        return float(np.floor(1e6 * (x @ x)) / 1e6 + 1)

    def expand(x, curvature):
        return Expansion(loss(x), np.array([1.0]), lambda d: 2 * d, lambda r: 1e-9 * r)

    result = minimize(expand, loss, np.array([0.1]), tol=1e-10, max_iter=9)
    assert not result.converged
    assert "up to 5.0e-01 nats to be gained" in result.message


@pytest.mark.parametrize("flat", [1e-3, 1e-6, 1e-9])
def test_convergence_means_that_no_more_than_tol_is_left(flat):
    # The inverse takes one of the directions for steeper than it is.
    hessian = np.diag([flat, 1.0, 2.0])
    optimum = np.array([1e-5 / flat**0.5, 1.0, -1.0])
    expand, loss = quadratic(hessian, optimum, lambda r: r.copy())
    result = minimize(expand, loss, np.zeros(3), tol=1e-12, max_iter=50)
    assert result.converged
    assert result.loss <= 1e-12


def test_an_exact_inverse_finds_what_a_wrong_one_hides():
    # Along the first direction 5e-4 nats are left, where the gradient is 1e-9.
    hessian = np.diag([1e-15, 1.0])
    optimum = np.array([1e6, 1.0])
    expand, loss = quadratic(hessian, optimum, lambda r: r.copy())
    start = np.array([0.0, 1.0])

    def with_exact(x, curvature):
        inverse = np.array([1e15, 1.0])
        point = expand(x, curvature)
        return Expansion(
            point.loss,
            point.gradient,
            point.hessian_product,
            point.precondition,
            lambda: lambda r: inverse * r,
        )

    found = minimize(with_exact, loss, start, tol=1e-9, max_iter=9)
    assert found.converged
    assert found.loss <= 1e-9


def quadratic_with_a_wrong_inverse():
    """Return a quadratic whose inverse is wrong along the way to its optimum."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    hessian = axes @ np.diag([1.0, 2.0, 3.0, 4.0, 5.0]) @ axes.T
    wrong = axes @ np.diag([0.8, 1 / 2, 1 / 3, 1 / 4, 1 / 5]) @ axes.T
    return hessian, axes[:, 0], wrong


def test_an_inverse_learns_from_its_steps():
    hessian, optimum, wrong = quadratic_with_a_wrong_inverse()

    def precondition(r):
        return wrong @ r

    def loss(x):
        return 0.5 * (x - optimum) @ hessian @ (x - optimum)

    def expand(x, curvature):
        known = precondition if curvature is None else curvature.precondition
        return Expansion(loss(x), hessian @ (x - optimum), None, known)

    result = minimize(expand, loss, np.zeros(5), tol=1e-12, max_iter=20)
    assert result.converged
    # The first step leaves 0.2 of the way, the second one nothing. Without what the
    # first has shown, each step would leave 0.2 of what there was.
    assert result.n_iter <= 3
    assert result.loss < 1e-20


def test_what_an_inverse_learns_is_the_bfgs_update():
    hessian, optimum, wrong = quadratic_with_a_wrong_inverse()
    rng = np.random.default_rng(1)

    def at(x, precondition):
        return Expansion(0.0, hessian @ (x - optimum), None, precondition)

    old = at(np.zeros(5), lambda r: wrong @ r)
    expected, x = wrong, np.zeros(5)
    for _ in range(2):
        step = rng.normal(size=5)
        x = x + step
        old = _bfgs_updated(old, at(x, old.precondition), step)
        change = hessian @ step
        # Nocedal & Wright, Numerical Optimization, (6.17).
        left = np.eye(5) - np.outer(step, change) / (step @ change)
        expected = left @ expected @ left.T + np.outer(step, step) / (step @ change)
        # The secant equation.
        assert_allclose(old.precondition(change), step, rtol=1e-10)
    columns = np.column_stack([old.precondition(unit) for unit in np.eye(5)])
    assert_allclose(columns, expected, atol=1e-12)


def test_where_the_loss_overflows_the_step_is_cut_to_a_twentieth_and_stays_forward():
    tried = []

    def loss(x):
        tried.append(float(x[0]))
        return float(np.inf if x[0] > 0.1 else (x[0] - 0.08) ** 2)

    def expand(x, curvature):
        # Newton's step from 0 is 1 long.
        gradient = np.full(1, -0.16)
        return Expansion(loss(x), gradient, lambda d: 0.16 * d, lambda r: r / 0.16)

    result = minimize(expand, loss, np.zeros(1), tol=1e-12, max_iter=1)
    assert tried[1:3] == pytest.approx([1.0, 0.05])
    assert result.x[0] == pytest.approx(0.05)
