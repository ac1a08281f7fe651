"""Forward passes only: differences of the logits stand in for their derivatives.

Minimises what `_linearised.py` does, with central differences (secants) of the logits
along each coordinate in the place of the Jacobian: two forward passes a coordinate,
hence few coordinates. Ours; Tang, Chen & Ho ("Neural Clamping", TMLR 2024) ask for the
gradient by the inputs. As the network may be flat or broken into steps, the optimum of
the linear model counts only where a forward pass confirms it: backtracking without
slopes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skcalib._solvers._result import INTERRUPTED
from skcalib._warnings import warn
from skcalib.clamping._linearised import linearise
from skcalib.clamping._perturbation import Basis
from skcalib.clamping._pools import Jacobian, Pools
from skcalib.clamping._problem import Outcome, Problem, Settings, unperturbed
from skcalib.clamping._search import penalties_to_try, search_linearised
from skcalib.clamping._spans import Name, Span, spans_to_try, together

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
    spans = _affordable(settings.perturbation, problem, budget)
    if not spans:
        return unperturbed(problem)
    whole = together(spans)
    try:
        settings.progress.note(f"running {2 * whole.dim} forward passes")
        return _fit(problem, settings, spans, whole, secants(problem, whole))
    except KeyboardInterrupt:
        return unperturbed(problem, message=INTERRUPTED)


def _affordable(perturbation: Name, problem: Problem, budget: int) -> list[Span]:
    """Return what is asked for, as far as two passes a coordinate allow."""
    if perturbation != "auto":
        spans = spans_to_try(perturbation, problem)
        ((_, basis),) = spans
        if 2 * basis.dim <= budget:
            return spans
        raise ValueError(
            f"perturbation={perturbation!r} has {basis.dim} coordinates; each takes "
            f"two forward passes of the calibration set, of which max_iter={budget} "
            f"are allowed. Raise max_iter to {2 * basis.dim} or choose fewer cosines."
        )
    features = len(problem.shape) == 1
    kept: list[Span] = []
    for name in ("full", "gain") if features else (4, 3, 2, 1, "gain", "filter"):
        if isinstance(name, int) and kept:
            continue  # as many cosines as there can be
        try:
            (span,) = spans_to_try(name, problem)
        except ValueError:  # the filter does not fit
            continue
        more = sorted([*kept, span], key=lambda span: span[1].dim)
        if 2 * together(more).dim <= budget:
            kept = more
    return kept


def secants(problem: Problem, basis: Basis) -> Jacobian:
    """Return the differences of the logits per coordinate; each class has its slot."""
    proba = softmax(problem.logits.astype(np.float64), axis=1)
    pools = Pools(proba, problem.codes, problem.weight, lost=0)
    length = STEP * np.sqrt(problem.input_variance * np.prod(problem.shape))
    out = np.empty((pools.n_slots, basis.dim), dtype=np.float32)
    for j, (above, below) in enumerate(
        zip(basis.units(length), basis.units(-length), strict=True)
    ):
        difference = problem.perturbed_logits(above) - problem.perturbed_logits(below)
        out[:, j] = pools.mean_change(difference / (2 * length))
    return Jacobian(out, pools)


def _fit(
    problem: Problem,
    settings: Settings,
    spans: list[Span],
    whole: Basis,
    jacobian: Jacobian,
) -> Outcome:
    penalties = penalties_to_try(settings.penalty, problem)
    table, chosen = search_linearised(
        [problem], spans, whole, jacobian, penalties, settings
    )
    selection = table.results(chosen)
    best = unperturbed(problem, selection)
    if chosen.basis is None:
        return best
    basis, name = chosen.basis, chosen.perturbation
    part = jacobian.of(whole.columns_of(basis))
    theta = _linear_optimum(problem, part, chosen.penalty, settings.tol)
    lowest = problem.joint_loss(problem.logits)
    curve = [lowest]
    for share in SHARES:
        point = basis.at(share * theta)
        logits = problem.perturbed_logits(point)
        loss = problem.joint_loss(logits)
        loss += chosen.penalty * float(point.theta @ point.theta)
        if loss < lowest:
            lowest = loss
            best = Outcome(point, logits, chosen.penalty, name, selection=selection)
        curve.append(float(lowest))
    best.loss_curve, best.n_iter = curve, 2 * whole.dim + len(SHARES)
    return best


def _linear_optimum(
    problem: Problem, jacobian: Jacobian, penalty: float, tol: float
) -> NDArray[np.float64]:
    linear, x, weight, hessian = linearise(problem, jacobian)
    return linear.fit(x, weight, penalty, hessian, tol=tol).x[:-1]
