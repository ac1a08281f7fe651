"""L-BFGS finds minima in few evaluations and keeps the best point."""

import numpy as np
from numpy.testing import assert_allclose

from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import CONVERGED, EXHAUSTED, INTERRUPTED


def quadratic(n=20, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    hessian = root @ root.T + 0.1 * np.eye(n)
    optimum = rng.normal(size=n)

    def evaluate(x):
        gradient = hessian @ (x - optimum)
        return float((x - optimum) @ gradient / 2), gradient

    return evaluate, hessian, optimum


def rosenbrock(x):
    value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    slope = -400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0])
    return value, np.array([slope, 200 * (x[1] - x[0] ** 2)])


def test_the_exact_hessian_needs_one_step():
    evaluate, hessian, optimum = quadratic()
    result = minimize(
        evaluate,
        np.zeros(20),
        precondition=lambda v: np.linalg.solve(hessian, v),
        max_evaluations=10,
        tol=1e-12,
    )
    assert_allclose(result.x, optimum, atol=1e-8)
    assert result.n_iter == 2
    assert result.converged


def test_a_curved_valley_is_followed():
    result = minimize(
        rosenbrock,
        np.array([-1.2, 1.0]),
        precondition=lambda v: v / 200,
        max_evaluations=200,
        tol=1e-14,
    )
    assert result.message == CONVERGED
    assert_allclose(result.x, [1, 1], atol=1e-5)


def test_what_is_known_is_not_evaluated():
    evaluate, _, optimum = quadratic()
    x = np.zeros(20)
    result = minimize(
        evaluate,
        x,
        precondition=lambda v: v,
        max_evaluations=10,
        tol=1e-12,
        first=evaluate(x),
        step=optimum,
    )
    assert result.n_iter == 1
    assert_allclose(result.x, optimum)


def test_the_best_point_survives_an_empty_budget():
    seen = []
    result = minimize(
        rosenbrock,
        np.array([-1.2, 1.0]),
        precondition=lambda v: v / 200,
        max_evaluations=7,
        tol=1e-14,
        report=seen.append,
    )
    assert not result.converged
    assert result.message == EXHAUSTED
    assert result.n_iter == len(seen) == 7
    assert result.loss == min(seen) == rosenbrock(result.x)[0]
    assert seen == sorted(seen, reverse=True)


def test_an_interrupt_keeps_the_best_point():
    calls = []

    def evaluate(x):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(rosenbrock(x)[0])
        return rosenbrock(x)

    result = minimize(
        evaluate,
        np.array([-1.2, 1.0]),
        precondition=lambda v: v / 200,
        max_evaluations=50,
        tol=1e-14,
    )
    assert result.message == INTERRUPTED
    assert result.loss == min(calls)


def test_a_step_into_infinity_is_cut():
    def evaluate(x):
        wall = np.inf if abs(x[0]) > 3 else 0.0
        return float((x[0] - 1) ** 2 + wall), 2 * (x - 1)

    result = minimize(
        evaluate,
        np.array([-2.0]),
        precondition=lambda v: 100 * v,
        max_evaluations=50,
        tol=1e-10,
    )
    assert_allclose(result.x, 1, atol=1e-4)
