"""Forward passes only: differences of the logits stand in for their derivatives.

Minimises what `_linearised.py` does, with central differences (secants) of the logits
along each coordinate in the place of the Jacobian: two forward passes a coordinate,
hence few coordinates. Ours; Tang, Chen & Ho ("Neural Clamping", TMLR 2024) ask for the
gradient by the inputs. As the network may be flat or broken into steps, the optimum of
the linear model counts only where a forward pass confirms it: backtracking without
slopes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._result import INTERRUPTED
from skcalib._warnings import warn
from skcalib.clamping._linearised import linearise
from skcalib.clamping._perturbation import Basis, canonical, open_basis
from skcalib.clamping._problem import Outcome, Problem, Settings, unperturbed
from skcalib.clamping._search import penalties_to_try, search_linearised

# Two for each of 100 coordinates: 4 cosines a side of an image with three channels have
# 48, 6 have 108.
MAX_PASSES = 200
# Length of a difference's step, in standard deviations of an entry. Trees and integer
# networks are flat over short steps.
STEP = 0.1
# Shares of the step to the linearised optimum that the network is asked about.
SHARES = (1.0, 0.5, 0.25)


def solve_gradient_free(problem: Problem, settings: Settings) -> Outcome:
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
        settings.progress.note(f"running {2 * basis.dim} forward passes")
        jacobian = secants(problem, basis)
        return _fit(problem, settings, name, basis, jacobian)
    except KeyboardInterrupt:
        return unperturbed(problem, message=INTERRUPTED)


def _largest(
    perturbation: str | int, shape: tuple[int, ...], budget: int
) -> tuple[str | int, Basis | None]:
    """Return the largest span asked for that two passes a coordinate allow."""
    names: list[str | int]
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


def secants(problem: Problem, basis: Basis) -> NDArray[np.float32]:
    """Return the differences of the logits per coordinate: (n, K, dim) float32."""
    length = STEP * np.sqrt(problem.input_variance * np.prod(problem.shape))
    out = np.empty((*problem.logits.shape, basis.dim), dtype=np.float32)
    for j, theta in enumerate(length * np.eye(basis.dim)):
        above = problem.perturbed_logits(basis.expand(theta))
        below = problem.perturbed_logits(basis.expand(-theta))
        out[:, :, j] = (above - below) / (2 * length)
    return out


def _fit(
    problem: Problem,
    settings: Settings,
    name: str | int,
    basis: Basis,
    jacobian: NDArray[Any],
) -> Outcome:
    table, chosen = search_linearised(
        [problem],
        [(name, basis)],
        jacobian,
        penalties_to_try(settings.penalty, problem),
        settings,
    )
    selection = table.results(chosen)
    best = unperturbed(problem, selection)
    if chosen.basis is None:
        return best
    theta = _linear_optimum(problem, jacobian, chosen.penalty, settings.tol)
    lowest = problem.joint_loss(problem.logits)
    curve = [lowest]
    for share in SHARES:
        delta = basis.expand(share * theta)
        logits = problem.perturbed_logits(delta)
        loss = problem.joint_loss(logits) + chosen.penalty * (delta**2).sum()
        if loss < lowest:
            lowest = loss
            best = Outcome(delta, logits, chosen.penalty, name, selection=selection)
        curve.append(float(lowest))
    best.loss_curve, best.n_iter = curve, 2 * basis.dim + len(SHARES)
    return best


def _linear_optimum(
    problem: Problem, jacobian: NDArray[Any], penalty: float, tol: float
) -> NDArray[np.float64]:
    linear, x, weight, hessian = linearise(problem, jacobian)
    return linear.fit(x, weight, penalty, hessian, tol=tol).x[:-1]
