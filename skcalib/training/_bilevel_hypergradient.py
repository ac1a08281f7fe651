"""The derivative of an outer loss through the solution of an inner problem."""

from typing import Any, Literal

import torch
from sklearn.exceptions import ConvergenceWarning

from skcalib._validation import check_whole
from skcalib._warnings import warn

METHODS = ("one_step", "neumann", "cg")
# Products that find the largest curvature, where no step is given.
_POWER_ITERATIONS = 10
# A residual this small, relative to the right-hand side, ends the solution.
_CG_TOLERANCE = 1e-6
# One so large is told of.
_CG_TOLD = 1e-3


def hypergradient(
    inner_loss: Any,
    outer_loss: Any,
    parameters: Any,
    hyperparameters: Any,
    *,
    method: Literal["cg", "neumann", "one_step"] = "cg",
    n_products: int = 10,
    damping: float = 0.0,
    step: float | None = None,
) -> Any:
    r"""Differentiate an outer loss by what shapes the inner problem.

    Parameters :math:`\theta` minimise the inner loss :math:`L(\theta, w)`, and the
    outer loss :math:`F(\theta, w)` judges them. By the implicit function theorem

    .. math:: \frac{dF}{dw} = \frac{\partial F}{\partial w}
        - \frac{\partial^2 L}{\partial w \, \partial \theta} H^{-1}
        \frac{\partial F}{\partial \theta}, \qquad
        H = \frac{\partial^2 L}{\partial \theta^2}

    The Hessian :math:`H` is never formed, only multiplied with vectors.

    Parameters
    ----------
    inner_loss : Tensor of shape ()
        The inner loss at its minimum, or near it.

    outer_loss : Tensor of shape ()
        The outer loss at the same parameters.

    parameters : iterable of Tensor
        What the inner loss is minimised over; those that are frozen
        (``requires_grad=False``) count as constants.

    hyperparameters : iterable of Tensor
        What to differentiate by, such as a weight a sample.

    method : {"cg", "neumann", "one_step"}, default="cg"
        How to apply the inverse of the Hessian: by conjugate gradients; by the
        truncated series :math:`\eta \sum_k (I - \eta H)^k` [1]_; or as the identity
        times `step`, which is the derivative through one step of gradient descent.

    n_products : int, default=10
        Largest number of products with the Hessian, for "neumann" and "cg".

    damping : float, default=0
        Added to the diagonal of the Hessian, for "cg". It costs accuracy at a minimum,
        and steadies the solution where the parameters are not at one yet.

    step : float, default=None
        :math:`\eta`; None is for "one_step" the length of steepest descent, found with
        one product (1 where the curvature is not positive), and for "neumann" the
        inverse of the largest curvature, found by power iteration with ten.

    Returns
    -------
    gradients : tuple of Tensor
        One for each of `hyperparameters`, of its shape.

    Raises
    ------
    ValueError
        If `method` is none of the three, `n_products` no positive whole number, or all
        parameters are frozen.

    TypeError
        If `parameters` or `hyperparameters` is a single tensor.

    Warns
    -----
    ConvergenceWarning
        If conjugate gradients stop with a residual above a thousandth.

    Notes
    -----
    On a logistic inner problem of four parameters, with default settings, "cg" is exact
    but for rounding, "neumann" is off by 1e-7 of the exact norm, and "one_step", which
    takes a single product, by 14 %, with a cosine of 0.991. At the minimum of a
    perceptron, whose Hessian is ill-conditioned, only "cg" comes near; the guide has
    the figures. `BilevelCalibratedClassifier`, which never waits for a minimum, does as
    well with "one_step".

    The losses are differentiated twice, which the quick kernels of torch's attention
    cannot be: compute both within
    ``torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)``.

    Networks are not convex: conjugate gradients end where the curvature along their
    direction is not positive, with what they have found so far; in the first direction
    that is the gradient of the outer loss itself, with a step of 1.

    References
    ----------
    .. [1] Lorraine, Vicol & Duvenaud. "Optimizing Millions of Hyperparameters by
       Implicit Differentiation", AISTATS 2020. https://arxiv.org/abs/1911.02590

    Examples
    --------
    The best penalty on the size of a single number:

    >>> import torch
    >>> from skcalib.training import hypergradient
    >>> penalty = torch.tensor(1.0, requires_grad=True)
    >>> theta = torch.tensor(1.0, requires_grad=True)
    >>> inner_loss = (theta - 2) ** 2 + penalty * theta**2    # least at theta = 1
    >>> outer_loss = (theta - 1.5) ** 2
    >>> hypergradient(inner_loss, outer_loss, [theta], [penalty])
    (tensor(0.5000),)
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is none of {', '.join(METHODS)}.")
    check_whole("n_products", n_products)
    gradients, problem = solve_hypergradient(
        inner_loss,
        outer_loss,
        _listed("parameters", parameters),
        _listed("hyperparameters", hyperparameters),
        method=method,
        n_products=n_products,
        damping=damping,
        step=step,
    )
    if problem:
        warn(problem, ConvergenceWarning)
    return gradients


def _listed(name, tensors):
    if isinstance(tensors, torch.Tensor):
        raise TypeError(
            f"{name} is a single tensor of shape {tuple(tensors.shape)}; a list of "
            f"tensors is needed, such as [{name}]."
        )
    return list(tensors)


def solve_hypergradient(
    inner_loss,
    outer_loss,
    parameters,
    hyperparameters,
    *,
    method,
    n_products=10,
    damping=0.0,
    step=None,
):
    """Return the hypergradient, and in words how far it is from exact, or None."""
    parameters = [p for p in parameters if p.requires_grad]
    if not parameters:
        raise ValueError(
            "There is nothing that the inner loss is minimised over: parameters holds "
            "no tensor with requires_grad=True."
        )
    both = _gradients(outer_loss, [*parameters, *hyperparameters], retain_graph=True)
    right = _flat(both[: len(parameters)])
    gradient = _flat(_gradients(inner_loss, parameters, create_graph=True))
    problem = None

    def product(vector):
        return _flat(_gradients(gradient, parameters, vector, retain_graph=True))

    if method == "one_step" and step is None:
        solution, _ = _conjugate_gradients(product, right, 1, damping=0.0)
    elif method == "one_step":
        solution = step * right
    elif method == "neumann":
        solution = _neumann(product, right, n_products, step)
    else:
        solution, problem = _conjugate_gradients(product, right, n_products, damping)
    mixed = _gradients(gradient, hyperparameters, solution, retain_graph=True)
    direct = both[len(parameters) :]
    return tuple(d - m for d, m in zip(direct, mixed, strict=True)), problem


def _gradients(value, inputs, vector=None, **options):
    return torch.autograd.grad(
        value, inputs, vector, allow_unused=True, materialize_grads=True, **options
    )


def _flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _neumann(product, right, n_products, step):
    if step is None:
        step = 1 / _largest_curvature(product, right)
    term, total = right, right.clone()
    for _ in range(n_products):
        term = term - step * product(term)
        total += term
    return step * total


def _largest_curvature(product, start):
    """Return the largest absolute eigenvalue, by power iteration."""
    vector, curvature = start, 1.0
    for _ in range(_POWER_ITERATIONS):
        norm = vector.norm()
        if norm == 0:
            break
        vector = product(vector / norm)
        curvature = float(vector.norm())
    return curvature or 1.0


def _conjugate_gradients(product, right, n_products, damping):
    """Return the solution, and in words how far it is from exact, or None."""
    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    square = start = residual @ residual
    for k in range(n_products):
        if square <= _CG_TOLERANCE**2 * start:
            break
        bent = product(direction) + damping * direction
        curvature = direction @ bent
        if curvature <= 0:
            problem = (
                f"Conjugate gradients met a curvature of {float(curvature):.2g} in "
                f"direction {k + 1}: the inner loss is at no minimum. The result is "
                f"made of {'the steps before' if k else 'a step of length 1'}. "
                "Minimise the inner loss further, or raise damping."
            )
            return (solution if k else right), problem
        length = square / curvature
        solution += length * direction
        residual -= length * bent
        before, square = square, residual @ residual
        direction = residual + square / before * direction
    if square <= _CG_TOLD**2 * start:
        return solution, None
    return solution, (
        f"Conjugate gradients stopped at n_products={n_products} with a residual of "
        f"{float((square / start).sqrt()):.2g} of the right-hand side. Raise "
        "n_products, or damping."
    )
