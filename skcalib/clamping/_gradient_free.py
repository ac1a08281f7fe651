"""Forward passes only: differences of the logits stand in for their derivatives."""

import numpy as np

from skcalib._solvers._result import INTERRUPTED
from skcalib._warnings import warn
from skcalib.clamping._linearised import linearise
from skcalib.clamping._problem import Outcome
from skcalib.clamping._search import penalties_to_try, search_linearised
from skcalib.clamping._solve import unperturbed
from skcalib.clamping._spans import canonical, open_basis

MAX_PASSES = 200
# Length of a difference's step, in standard deviations of an entry. Trees and integer
# networks are flat over short steps.
STEP = 0.1
# Shares of the step to the linearised optimum that the network is asked about.
SHARES = (1.0, 0.5, 0.25)


def solve_gradient_free(problem, settings):
    """Fit few coordinates on secants of the logits and judge them by the network."""
    warn(
        "Without gradients only a few coordinates of a perturbation can be tried, and "
        "the temperature alone is usually as good."
    )
    budget = settings.max_iter or MAX_PASSES
    name, basis = _largest(settings.perturbation, problem.shape, budget)
    if basis is None:
        return unperturbed(problem)
    try:
        settings.note(f"running {2 * basis.dim} forward passes")
        jacobian = secants(problem, basis)
        return _fit(problem, settings, name, basis, jacobian)
    except KeyboardInterrupt:
        outcome = unperturbed(problem)
        outcome.message = INTERRUPTED
        return outcome


def _largest(perturbation, shape, budget):
    """Return the largest span asked for that two passes a coordinate allow."""
    if perturbation != "auto":
        names = [canonical(perturbation)]
    elif len(shape) == 1:
        names = ["full"]
    else:
        names = [4, 3, 2, 1]
    for name in names:
        basis = open_basis(name, shape)
        if 2 * basis.dim <= budget:
            return name, basis
    if perturbation != "auto":
        raise ValueError(
            f"perturbation={perturbation!r} has {basis.dim} coordinates; each takes "
            f"two forward passes of the calibration set, of which max_iter={budget} "
            f"are allowed. Raise max_iter to {2 * basis.dim} or choose fewer cosines."
        )
    return "none", None


def secants(problem, basis):
    """Return the differences of the logits per coordinate: (n, K, dim) float32."""
    length = STEP * np.sqrt(problem.input_variance * np.prod(problem.shape))
    out = np.empty((*problem.logits.shape, basis.dim), dtype=np.float32)
    for j, theta in enumerate(length * np.eye(basis.dim)):
        above = problem.objective.logits(basis.expand(theta))
        below = problem.objective.logits(basis.expand(-theta))
        out[:, :, j] = (above - below) / (2 * length)
    return out


def _fit(problem, settings, name, basis, jacobian):
    table, chosen = search_linearised(
        [problem],
        [(name, basis)],
        jacobian,
        penalties_to_try(settings.penalty, problem),
        settings,
    )
    if chosen.basis is None:
        return unperturbed(problem, table, chosen)
    theta = _linear_optimum(problem, jacobian, chosen.penalty, settings.tol)
    best = unperturbed(problem, table, chosen)
    lowest = problem.joint_loss(problem.logits)
    best.loss_curve = [lowest]
    for share in SHARES:
        delta = basis.expand(share * theta)
        logits = problem.objective.logits(delta)
        loss = problem.joint_loss(logits) + chosen.penalty * (delta**2).sum()
        if loss < lowest:
            lowest = loss
            best = Outcome(delta, logits, chosen.penalty, name, best.loss_curve)
            best.selection = table.results(chosen)
        best.loss_curve.append(float(lowest))
    best.n_iter = 2 * basis.dim + len(SHARES)
    return best


def _linear_optimum(problem, jacobian, penalty, tol):
    linear, x, weight, hessian = linearise(problem, jacobian)
    return linear.fit(x, weight, penalty, hessian, tol=tol).x[:-1]
