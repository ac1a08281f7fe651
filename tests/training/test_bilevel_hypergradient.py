"""Hypergradients against closed forms, finite differences and unrolled steps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

torch = pytest.importorskip("torch")

from skcalib.training import hypergradient  # noqa: E402

pytestmark = pytest.mark.torch
PENALTY = 0.1


def draw(n=40, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X, X_outer = rng.normal(size=(2, n, d))
    y, y_outer = (
        part @ np.arange(1, d + 1) + rng.normal(size=n) for part in (X, X_outer)
    )
    scores = rng.normal(size=n)
    return [torch.as_tensor(part) for part in (X, y, X_outer, y_outer, scores)]


class Ridge:
    """Weighted ridge regression: a quadratic inner problem with a closed form."""

    def inner(self, theta, scores, X, y):
        shares = 2 * torch.sigmoid(scores)
        return (shares * (X @ theta - y) ** 2).mean() + PENALTY * theta @ theta

    def solve(self, scores, X, y):
        shares = 2 * torch.sigmoid(scores)
        n, d = X.shape
        hessian = (X.T * shares) @ X / n + PENALTY * torch.eye(d, dtype=X.dtype)
        return torch.linalg.solve(hessian, (X.T * shares) @ y / n)

    def outer(self, theta, X, y):
        return ((X @ theta - y) ** 2).mean()


class Logistic(Ridge):
    """Weighted logistic regression of the sign; Newton's method solves it exactly."""

    def inner(self, theta, scores, X, y):
        shares = 2 * torch.sigmoid(scores)
        losses = torch.nn.functional.softplus(-torch.sign(y) * (X @ theta))
        return (shares * losses).mean() + PENALTY * theta @ theta

    def solve(self, scores, X, y):
        theta = torch.zeros(X.shape[1], dtype=X.dtype)
        # Differentiable, so that autograd sees through the last steps.
        for _ in range(12):
            signs = torch.sign(y)
            proba = torch.sigmoid(-signs * (X @ theta))
            shares = 2 * torch.sigmoid(scores)
            n, d = X.shape
            gradient = -X.T @ (shares * signs * proba) / n + 2 * PENALTY * theta
            curvature = shares * proba * (1 - proba)
            hessian = (X.T * curvature) @ X / n
            hessian = hessian + 2 * PENALTY * torch.eye(d, dtype=X.dtype)
            theta = theta - torch.linalg.solve(hessian, gradient)
        return theta

    def outer(self, theta, X, y):
        return torch.nn.functional.softplus(-torch.sign(y) * (X @ theta)).mean()


def at_solution(problem, **options):
    X, y, X_outer, y_outer, scores = draw()
    scores.requires_grad_()
    theta = problem.solve(scores, X, y).detach().requires_grad_()
    inner = problem.inner(theta, scores, X, y)
    outer = problem.outer(theta, X_outer, y_outer)
    return hypergradient(inner, outer, [theta], [scores], **options)[0].numpy()


def exact(problem):
    """The derivative of the outer loss through the closed form itself."""
    X, y, X_outer, y_outer, scores = draw()
    scores.requires_grad_()
    problem.outer(problem.solve(scores, X, y), X_outer, y_outer).backward()
    return scores.grad.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("problem", [Ridge(), Logistic()], ids=["ridge", "logistic"])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "cg", "damping": 0.0},
        {"method": "neumann", "n_products": 400},
        {"method": "neumann", "n_products": 2000, "step": 0.1},
    ],
    ids=["cg", "neumann", "neumann with a step"],
)
def test_solvers_find_the_exact_hypergradient(problem, options):
    assert_allclose(at_solution(problem, **options), exact(problem), rtol=1e-5)


def test_the_exact_hypergradient_is_that_of_finite_differences():
    # Solves the inner problem anew at shifted scores: no derivative is used at all.
    X, y, X_outer, y_outer, scores = draw()
    problem = Logistic()
    found = at_solution(problem, method="cg", damping=0.0)
    for row in (0, 7, 21):
        shift = torch.zeros_like(scores)
        shift[row] = 1e-4
        above, below = (
            float(problem.outer(problem.solve(moved, X, y), X_outer, y_outer))
            for moved in (scores + shift, scores - shift)
        )
        assert found[row] == pytest.approx((above - below) / 2e-4, rel=1e-5)


@pytest.mark.parametrize("problem", [Ridge(), Logistic()], ids=["ridge", "logistic"])
def test_one_step_is_the_derivative_through_a_step_of_gradient_descent(problem):
    X, y, X_outer, y_outer, scores = draw()
    scores.requires_grad_()
    # At the inner minimum the step goes nowhere, but its derivative does.
    theta = problem.solve(scores, X, y).detach().requires_grad_()
    inner = problem.inner(theta, scores, X, y)
    (gradient,) = torch.autograd.grad(inner, [theta], create_graph=True)
    outer = problem.outer(theta - 0.3 * gradient, X_outer, y_outer)
    (unrolled,) = torch.autograd.grad(outer, [scores])
    found = at_solution(problem, method="one_step", step=0.3)
    assert_allclose(found, unrolled.numpy(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("method", "error", "cosine"),
    [("one_step", 0.138, 0.991), ("cg", 0.0, 1.0), ("neumann", 0.0, 1.0)],
)
def test_the_documented_error_of_each_method(method, error, cosine):
    # As the docs have it: with default settings, relative to the exact norm.
    found, right = at_solution(Logistic(), method=method), exact(Logistic())
    length = np.linalg.norm(right)
    measured = np.linalg.norm(found - right) / length
    assert measured == pytest.approx(error, abs=0.005 if error else 1e-6)
    angle = found @ right / length / np.linalg.norm(found)
    assert angle == pytest.approx(cosine, abs=0.0005)


@pytest.mark.filterwarnings("ignore:Conjugate gradients stopped")
@pytest.mark.parametrize("method", ["one_step", "neumann", "cg"])
def test_few_products_point_downhill(method):
    found = at_solution(Logistic(), method=method, n_products=3)
    cosine = found @ exact(Logistic()) / np.linalg.norm(found)
    assert cosine > 0.8 * np.linalg.norm(exact(Logistic()))


def test_damping_is_added_to_the_diagonal_of_the_hessian():
    X, y, X_outer, y_outer, scores = draw()
    found = at_solution(Ridge(), method="cg", damping=0.5)
    shares = 2 * torch.sigmoid(scores)
    hessian = 2 * ((X.T * shares) @ X / len(y) + PENALTY * torch.eye(4))
    theta = Ridge().solve(scores, X, y)
    right = 2 * X_outer.T @ (X_outer @ theta - y_outer) / len(y)
    solution = torch.linalg.solve(hessian + 0.5 * torch.eye(4), right)
    slope = shares * (1 - shares / 2)
    expected = -slope * 2 * (X @ theta - y) * (X @ solution) / len(y)
    assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_a_direct_dependence_and_unused_tensors_count():
    theta = torch.tensor(2.0, requires_grad=True)
    w, idle = (torch.tensor(v, requires_grad=True) for v in (3.0, 1.0))
    inner, outer = (theta - w) ** 2, theta * w
    found = hypergradient(inner, outer, [theta], [w, idle], damping=0.0)
    # d theta / d w = 1: dF/dw = theta + w.
    assert [float(part) for part in found] == pytest.approx([5.0, 0.0])


def test_negative_curvature_ends_conjugate_gradients_with_what_was_found():
    theta = torch.tensor([1.0, 1.0], requires_grad=True)
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    inner = (theta * w).sum() - (theta**2).sum()
    with pytest.warns(ConvergenceWarning, match="of -4 in direction 1: .* length 1"):
        (found,) = hypergradient(inner, theta.sum(), [theta], [w], damping=0.0)
    # No direction curves upwards: the right-hand side itself, as for "one_step".
    assert_allclose(found, [-1.0, -1.0])


def test_too_few_products_are_told_with_the_residual():
    with pytest.warns(ConvergenceWarning, match="n_products=2 with a residual of 0.0"):
        at_solution(Ridge(), n_products=2)


def test_frozen_parameters_are_constants():
    theta, w = (torch.tensor(v, requires_grad=True) for v in (2.0, 3.0))
    frozen = torch.tensor(5.0)
    inner, outer = (theta - w * frozen) ** 2, theta**2
    (found,) = hypergradient(inner, outer, [theta, frozen], [w])
    assert float(found) == pytest.approx(20.0)
    with pytest.raises(ValueError, match="no tensor with requires_grad=True"):
        hypergradient(inner, outer, [frozen], [w])


def test_a_tensor_in_place_of_a_list_is_refused():
    theta, w = torch.ones(2, 2, requires_grad=True)
    inner, outer = (theta * w).square().sum(), theta.sum()
    with pytest.raises(
        TypeError, match=r"parameters is a single tensor of shape \(2,\)"
    ):
        hypergradient(inner, outer, theta, [w])
    with pytest.raises(TypeError, match="hyperparameters is a single tensor"):
        hypergradient(inner, outer, [theta], w)


@pytest.mark.parametrize("n_products", [0, -1, 2.5])
def test_products_that_are_no_number_are_refused(n_products):
    theta = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match=f"n_products={n_products} is not"):
        hypergradient(theta**2, theta, [theta], [theta], n_products=n_products)


def test_an_unknown_method_is_refused():
    theta = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match="method='newton' is none of one_step"):
        hypergradient(theta**2, theta, [theta], [theta], method="newton")
