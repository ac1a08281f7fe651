"""Solvers that end at an optimum: linearised, L-BFGS, and no descent at all."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import CONVERGED, INTERRUPTED
from skcalib.clamping._descent import NetworkLoss, descend
from skcalib.clamping._linearised import LARGEST_CHANGE, inverse, linearise
from skcalib.clamping._objective import jacobian_passes
from skcalib.clamping._problem import Outcome
from skcalib.clamping._search import (
    penalties_to_try,
    search_by_network,
    search_linearised,
)
from skcalib.clamping._selection import Candidate, LogLossScore
from skcalib.clamping._spans import canonical, columns_within, spans_to_try

# Numbers in the largest Jacobian that is kept.
JACOBIAN_ELEMENTS = 1 << 28
# Backward passes of single rows that a Jacobian may take, the rows it takes at least,
# and the largest number of passes a row.
JACOBIAN_PASSES = 50_000
JACOBIAN_ROWS = 1000
PASSES_PER_ROW = 128
# Epochs of the descent that mends what the linearisation leaves.
REFINEMENTS = 4
# Epochs of a descent.
EPOCHS = 20


@dataclass
class Settings:
    """What the user asked for, and how candidates are compared."""

    perturbation: Any
    penalty: Any
    splits: list
    max_iter: int | None
    tol: float
    report: Any = None
    score: Any = field(default_factory=LogLossScore)
    rule: str = "one_standard_error"
    random_state: Any = None
    groups: Any = None

    def note(self, text):
        """Tell the user, if asked to, what is going on."""
        if self.report is not None:
            self.report.note(text)


def solve_fixed(problem, settings, start):
    """Keep the perturbation where it starts."""
    name = canonical(settings.perturbation) if start.any() else "none"
    name = "full" if name == "auto" else name
    penalty = 0.0 if settings.penalty == "auto" else settings.penalty
    logits = problem.objective.logits(start) if start.any() else problem.logits
    return Outcome(start, logits, penalty, name)


def solve_linearised(problem, settings, start):
    """Choose span and penalty on one Jacobian, then descend on the network."""
    decided = settings.perturbation != "auto" and settings.penalty != "auto"
    if start.any() or decided:
        return solve_lbfgs(problem, settings, start)
    return search_and_refine([problem], settings)[0]


def search_and_refine(problems, settings):
    """Choose among problems, spans and penalties; return outcome and problem."""
    first = problems[0]
    penalties = penalties_to_try(settings.penalty, first)
    every = spans_to_try(settings.perturbation, first.shape)
    n_classes = first.logits.shape[1]
    spans = [(name, basis) for name, basis in every if affordable(n_classes, basis)]
    few, of_few = problems, settings
    try:
        if not spans:
            table, chosen = search_by_network(problems, *every[0], penalties, settings)
        else:
            few, of_few = _some_rows(problems, settings, spans[-1][1])
            settings.note(
                f"deriving the logits of {few[0].codes.shape[0]} samples by "
                f"{spans[-1][1].dim} coordinates"
            )
            jacobian = few[0].objective.jacobian(spans[-1][1])
            table, chosen = search_linearised(few, spans, jacobian, penalties, of_few)
    except KeyboardInterrupt:
        outcome = unperturbed(first)
        outcome.message = INTERRUPTED
        return outcome, first
    place = next(i for i, p in enumerate(problems) if p.gamma == chosen.gamma)
    problem = problems[place]
    if chosen.basis is None:
        return unperturbed(problem, table, chosen), problem
    if spans:
        part = jacobian[:, :, columns_within(chosen.basis, spans[-1][1])]
        outcome = refine(problem, few[place], settings, part, chosen)
    else:
        start = np.zeros(chosen.basis.dim)
        outcome = descend_from(problem, settings, chosen, start)
    outcome.selection = table.results(chosen)
    return outcome, problem


def affordable(n_classes, basis):
    """Whether enough rows can have a Jacobian, by its numbers and its passes."""
    return (
        JACOBIAN_ROWS * n_classes * basis.dim <= JACOBIAN_ELEMENTS
        and jacobian_passes(n_classes, basis.dim) <= PASSES_PER_ROW
    )


def _some_rows(problems, settings, basis):
    """Leave out rows that would make the Jacobian too dear; all fits use the rest."""
    n_samples, n_classes = problems[0].logits.shape
    n_rows = min(
        max(JACOBIAN_ROWS, JACOBIAN_PASSES // jacobian_passes(n_classes, basis.dim)),
        JACOBIAN_ELEMENTS // (n_classes * basis.dim),
    )
    if n_rows >= n_samples:
        return problems, settings
    rows = np.linspace(0, n_samples - 1, n_rows).astype(np.intp)
    place = np.full(n_samples, -1)
    place[rows] = np.arange(n_rows)
    splits = [
        tuple(place[part][place[part] >= 0] for part in pair)
        for pair in settings.splits
    ]
    if not all(part.size for pair in splits for part in pair):
        return problems, settings
    few = [problem.within(rows) for problem in problems]
    return few, replace(settings, splits=splits)


def unperturbed(problem, table=None, chosen=None):
    """Return the outcome that leaves the inputs alone."""
    outcome = Outcome(np.zeros(problem.shape), problem.logits, np.inf, "none")
    if table is not None:
        outcome.selection = table.results(chosen)
    return outcome


def refine(problem, few, settings, jacobian, chosen):
    """Fit the chosen candidate on the linear model, and from there on the network.

    `few` is the problem on the rows of `jacobian`: all of them, or some.
    """
    basis, penalty = chosen.basis, chosen.penalty
    linear, x, weight, hessian = linearise(few, jacobian)
    first = start = None
    if few is problem:
        # At theta = 0 the linearised loss and its gradient are the network's own.
        first = linear.evaluate(x, weight, penalty)
        start = (first[0], problem.logits)
    loss = NetworkLoss(problem, basis, penalty, start=start)
    try:
        target = linear.fit(x, weight, penalty, hessian, tol=settings.tol).x
        first = loss(x) if first is None else first
    except KeyboardInterrupt:
        outcome = unperturbed(problem)
        outcome.message = INTERRUPTED
        return outcome
    curve = [first[0]]
    result = minimize(
        loss,
        x,
        first=first,
        step=target - x,
        precondition=inverse(hessian, penalty),
        max_evaluations=settings.max_iter or REFINEMENTS,
        last_limit=LARGEST_CHANGE,
        tol=settings.tol,
        report=_recorder(curve, settings),
    )
    # A few epochs are the plan; running out of them is not a failure.
    message = result.message if result.message == INTERRUPTED else CONVERGED
    delta = basis.expand(result.x[:-1])
    name = chosen.perturbation
    return Outcome(delta, loss.logits, penalty, name, curve, result.n_iter, message)


def solve_lbfgs(problem, settings, start):
    """Descend on the network by L-BFGS; a held-out part may choose the penalty."""
    wanted = settings.perturbation
    wanted = "full" if wanted == "auto" else wanted
    ((name, basis),) = spans_to_try(wanted, problem.shape)
    theta = np.asarray(basis.reduce(start), dtype=np.float64)
    if settings.penalty != "auto":
        chosen = Candidate(problem.gamma, name, float(settings.penalty), basis)
        return descend_from(problem, settings, chosen, theta)
    penalties = penalties_to_try("auto", problem)
    try:
        table, chosen = search_by_network([problem], name, basis, penalties, settings)
    except KeyboardInterrupt:
        outcome = unperturbed(problem)
        outcome.message = INTERRUPTED
        return outcome
    if chosen.basis is None:
        return unperturbed(problem, table, chosen)
    outcome = descend_from(problem, settings, chosen, theta)
    outcome.selection = table.results(chosen)
    return outcome


def descend_from(problem, settings, chosen, theta):
    """Descend on the network from the coordinates `theta`."""
    basis = chosen.basis
    logits = problem.logits
    if theta.any():
        logits = problem.objective.logits(basis.expand(theta))
    curve = []
    result, logits = descend(
        problem,
        basis,
        chosen.penalty,
        theta,
        logits,
        max_evaluations=settings.max_iter or EPOCHS,
        tol=settings.tol,
        report=_recorder(curve, settings),
    )
    delta = basis.expand(result.x[:-1])
    name, penalty = chosen.perturbation, chosen.penalty
    return Outcome(delta, logits, penalty, name, curve, len(curve), result.message)


def _recorder(curve, settings):
    def report(value):
        curve.append(float(value))
        if settings.report is not None:
            settings.report(value)

    return report
