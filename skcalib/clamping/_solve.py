"""Solvers that end at an optimum: linearised, L-BFGS, and no descent at all."""

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from skcalib.clamping._descent import NetworkLoss, descend
from skcalib.clamping._lbfgs import INTERRUPTED, minimize
from skcalib.clamping._linearised import Linearised, inverse
from skcalib.clamping._problem import Outcome
from skcalib.clamping._search import (
    penalties_to_try,
    search_by_network,
    search_linearised,
)
from skcalib.clamping._selection import LogLossScore
from skcalib.clamping._spans import canonical, columns_within, spans_to_try

# Numbers in the largest Jacobian that is kept, and its passes of the network.
JACOBIAN_ELEMENTS = 1 << 28
JACOBIAN_PASSES = 64
# Epochs of the descent that mends what the linearisation leaves.
REFINEMENTS = 4
# Epochs of one descent, and of one in a search by descents.
EPOCHS = 20
SEARCH_EPOCHS = 4


@dataclass
class Settings:
    """What the user asked for."""

    perturbation: Any
    penalty: Any
    splits: list
    max_iter: int | None
    tol: float
    report: Any = None


def solve_fixed(problem, settings, start):
    """Keep the perturbation where it starts."""
    name = canonical(settings.perturbation) if start.any() else "none"
    name = "full" if name == "auto" else name
    penalty = 0.0 if settings.penalty == "auto" else settings.penalty
    logits = problem.objective.logits(start) if start.any() else problem.logits
    return Outcome(start, logits, penalty, name)


def solve_linearised(problem, settings, start):
    """Choose span and penalty on one Jacobian, then descend on the network."""
    spans = spans_to_try(settings.perturbation, problem.shape)
    spans = affordable(spans, problem.logits.shape)
    decided = settings.perturbation != "auto" and settings.penalty != "auto"
    if start.any() or decided or not spans:
        return solve_lbfgs(problem, settings, start)
    try:
        jacobian = problem.objective.jacobian(spans[-1][1])
        table, chosen = search_linearised(
            [problem],
            spans,
            jacobian,
            penalties_to_try(settings.penalty, problem),
            settings.splits,
            LogLossScore(),
        )
    except KeyboardInterrupt:
        outcome = unperturbed(problem)
        outcome.message = INTERRUPTED
        return outcome
    return refine(problem, settings, spans, jacobian, table, chosen)


def affordable(spans, shape):
    """Keep the spans whose Jacobian is small enough in memory and in passes."""
    n_samples, n_classes = shape
    return [
        (name, basis)
        for name, basis in spans
        if n_samples * n_classes * basis.dim <= JACOBIAN_ELEMENTS
        and min(n_classes, basis.dim) <= JACOBIAN_PASSES
    ]


def unperturbed(problem, table=None, chosen=None):
    """Return the outcome that leaves the inputs alone."""
    outcome = Outcome(np.zeros(problem.shape), problem.logits, np.inf, "none")
    if table is not None:
        outcome.selection = table.results(chosen)
    return outcome


def refine(problem, settings, spans, jacobian, table, chosen):
    """Fit the chosen candidate on everything and descend on the network from there."""
    if chosen.basis is None:
        return unperturbed(problem, table, chosen)
    basis, penalty = chosen.basis, chosen.penalty
    part = jacobian[:, :, columns_within(basis, spans[-1][1])]
    linear = Linearised(
        problem.logits, part, problem.codes, problem.loss, problem.gamma
    )
    weight = problem.weight / problem.weight.sum()
    log_temperature = log(problem.joint_temperature(problem.logits).x[0])
    x = np.append(np.zeros(basis.dim), log_temperature)
    every = np.arange(weight.shape[0])
    hessian = linear.curvature(log_temperature, weight, every)
    # At theta = 0 the linearised loss and its gradient are the network's own.
    first = linear.evaluate(x, weight, penalty)
    target = linear.fit(x, weight, penalty, hessian, tol=settings.tol).x
    loss = NetworkLoss(problem, basis, penalty, start=(first[0], problem.logits))
    curve = [first[0]]
    result = minimize(
        loss,
        x,
        first=first,
        step=target - x,
        precondition=inverse(hessian, penalty),
        max_evaluations=settings.max_iter or REFINEMENTS,
        tol=settings.tol,
        report=_recorder(curve, settings),
    )
    # A few epochs are the plan; running out of them is not a failure.
    message = result.message if result.message == INTERRUPTED else "converged"
    return Outcome(
        basis.expand(result.x[:-1]),
        loss.logits,
        penalty,
        chosen.perturbation,
        curve,
        result.n_iter,
        message,
        table.results(chosen),
    )


def solve_lbfgs(problem, settings, start):
    """Descend on the network by L-BFGS; the penalty may be chosen on a held-out part."""
    fallback = settings.perturbation == "auto" and not start.any()
    wanted = settings.perturbation
    wanted = "full" if start.any() and wanted == "auto" else wanted
    spans = spans_to_try(wanted, problem.shape)
    name, basis = spans[0] if fallback else spans[-1]
    theta = np.asarray(basis.reduce(start), dtype=np.float64)
    table = chosen = None
    penalty = settings.penalty
    if penalty == "auto":
        table, chosen = search_by_network(
            problem,
            basis,
            name,
            penalties_to_try(penalty, problem),
            settings.splits[:1],
            LogLossScore(),
            SEARCH_EPOCHS,
        )
        if chosen.basis is None:
            return unperturbed(problem, table, chosen)
        penalty = chosen.penalty
    delta = basis.expand(theta)
    logits = problem.objective.logits(delta) if theta.any() else problem.logits
    curve = []
    result, logits = descend(
        problem,
        basis,
        penalty,
        theta,
        logits,
        max_evaluations=settings.max_iter or EPOCHS,
        tol=settings.tol,
        report=_recorder(curve, settings),
    )
    outcome = Outcome(basis.expand(result.x[:-1]), logits, penalty, name, curve)
    outcome.n_iter = len(curve)
    outcome.message = result.message
    outcome.selection = None if table is None else table.results(chosen)
    return outcome


def _recorder(curve, settings):
    def report(value):
        curve.append(float(value))
        if settings.report is not None:
            settings.report(value)

    return report
