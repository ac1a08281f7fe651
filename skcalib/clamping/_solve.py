"""The solvers of neural clamping by name, and those that end at an optimum.

Minimised is equation (9) of Tang, Chen & Ho ("Neural Clamping", TMLR 2024) with a mean
in the place of the sum. "auto" chooses on one linearisation (`_search.py`) and goes on
from its optimum by a few steps of L-BFGS on the network itself, preconditioned by the
Gauss-Newton Hessian of the linear model; "lbfgs" descends on the network from the start
(`_descent.py`); "fixed_delta" leaves the perturbation where it starts, the paper's
untrained variant. "sgd" (`_sgd.py`) is the published way, "gradient_free"
(`_gradient_free.py`) asks for no gradient.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from skcalib._solvers._lbfgs import minimize
from skcalib._solvers._result import CONVERGED, EXHAUSTED, INTERRUPTED, Result
from skcalib.clamping._candidates import Candidate
from skcalib.clamping._descent import NetworkLoss, descend
from skcalib.clamping._gradient_free import solve_gradient_free
from skcalib.clamping._linearised import (
    Model,
    inverse,
    linearise,
    linearise_again,
)
from skcalib.clamping._objective import passes_per_row
from skcalib.clamping._perturbation import Basis
from skcalib.clamping._problem import (
    LARGEST_CHANGE,
    Outcome,
    Problem,
    Settings,
    unperturbed,
)
from skcalib.clamping._search import (
    penalties_to_try,
    search_by_network,
    search_linearised,
)
from skcalib.clamping._sgd import solve_sgd
from skcalib.clamping._spans import (
    Span,
    is_filter,
    open_basis,
    spans_to_try,
    together,
)

# Numbers in the largest Jacobian that is kept: 1 GiB in single precision.
JACOBIAN_ELEMENTS = 1 << 28
# Backward passes of single rows that a Jacobian may take, the rows it takes at least,
# and the largest number of passes a row. They bound the cost where there are many rows
# or classes: 5,000 rows of ten classes have a whole Jacobian. A fit of 8 cosines a side
# has 192 coordinates, which a thousand rows of several logits each determine. The last
# holds for each of the spans that are tried.
JACOBIAN_PASSES = 50_000
JACOBIAN_ROWS = 1000
PASSES_PER_ROW = 128
# Epochs of the descent that mends what the linearisation leaves: its optimum is nearly
# that of the network where little is added. A filter goes far, and its few numbers
# still gain after as many.
REFINEMENTS = 4
# The fall of the loss, in nats, at which the descent of a filter ends: an epoch that
# brings less is not worth its while beside standard errors of thousandths.
ENOUGH = 5e-4
# Epochs of a filter after which the network is linearised again, where it has gone on.
AGAIN = 6
# Epochs of a descent: fewer lead L-BFGS to within 0.001 of the published recipes of a
# hundred (python -m benchmarks run neural_clamping --parts speed).
EPOCHS = 20


def needs_gradient(solver: str, start: Any) -> bool:
    """Whether a solver, or the start it is given, asks for input gradients."""
    if solver in ("auto", "lbfgs", "sgd"):
        return True
    return isinstance(start, str) and start in ("data_driven", "theorem")


def solve_fixed(problem: Problem, settings: Settings) -> Outcome:
    """Keep the perturbation where it starts: any tensor, or that of the last fit."""
    start, is_first = settings.start, settings.temperature is None
    name = "full" if is_first else settings.perturbation
    penalty = 0.0 if settings.penalty == "auto" else settings.penalty
    basis = open_basis(name, problem)
    kept = basis.at(basis.coordinates(start))
    if not start.any():
        return Outcome(kept, problem.logits, penalty, "none")
    return Outcome(kept, problem.perturbed_logits(kept), penalty, name)


def solve_linearised(problem: Problem, settings: Settings) -> Outcome:
    """Choose span and penalty on one Jacobian, then descend on the network."""
    decided = settings.perturbation != "auto" and settings.penalty != "auto"
    if settings.start.any() or decided:
        return solve_lbfgs(problem, settings)
    return search_and_refine([problem], settings)[0]


def search_and_refine(
    problems: list[Problem], settings: Settings, *, by_network: bool = False
) -> tuple[Outcome, Problem]:
    """Choose among problems, spans and penalties; return outcome and problem.

    On one Jacobian, if it can be paid, or else on the network and of the first span.
    """
    first = problems[0]
    penalties = penalties_to_try(settings.penalty, first)
    every = spans_to_try(settings.perturbation, first)
    spans: list[Span] = []
    if not by_network:
        slots = slots_per_row(first)
        spans = [span for span in every if affordable(slots, span[1].dim)]
    few, of_few = problems, settings
    try:
        if not spans:
            table, chosen = search_by_network(problems, *every[0], penalties, settings)
        else:
            whole = together(spans)
            few, of_few = _some_rows(problems, settings, slots, whole.dim)
            settings.progress.note(
                f"deriving the logits of {few[0].codes.shape[0]} samples by "
                f"{whole.dim} coordinates"
            )
            jacobian = few[0].jacobian(whole)
            table, chosen = search_linearised(
                few, spans, whole, jacobian, penalties, of_few
            )
    except KeyboardInterrupt:
        return unperturbed(first, message=INTERRUPTED), first
    place = next(i for i, p in enumerate(problems) if p.gamma == chosen.gamma)
    problem = problems[place]
    selection, basis = table.results(chosen), chosen.basis
    if basis is None:
        return unperturbed(problem, selection), problem
    if spans:
        part = jacobian.of(whole.columns_of(basis))
        model = linearise(few[place], part)
        outcome = refine(problem, settings, model, chosen, basis)
    else:
        outcome = descend_from(problem, settings, chosen, basis)
    outcome.selection = selection
    return outcome, problem


def slots_per_row(problem: Problem) -> float:
    """Return the mean number of slots, of a thousand rows if there are more."""
    n_samples = problem.codes.shape[0]
    if n_samples > JACOBIAN_ROWS:
        rows = np.linspace(0, n_samples - 1, JACOBIAN_ROWS).astype(np.intp)
        problem = problem.within(rows)
    return problem.pools.n_slots / problem.codes.shape[0]


def affordable(slots: float, dim: int) -> bool:
    """Whether enough rows can have a Jacobian, by its numbers and its passes."""
    return (
        JACOBIAN_ROWS * slots * dim <= JACOBIAN_ELEMENTS
        and passes_per_row(slots, dim) <= PASSES_PER_ROW
    )


def _some_rows(
    problems: list[Problem], settings: Settings, slots: float, dim: int
) -> tuple[list[Problem], Settings]:
    """Leave out rows that would make the Jacobian too dear; all fits use the rest."""
    n_samples = problems[0].codes.shape[0]
    n_rows = min(
        max(JACOBIAN_ROWS, int(JACOBIAN_PASSES / passes_per_row(slots, dim))),
        int(JACOBIAN_ELEMENTS / (slots * dim)),
    )
    if n_rows >= n_samples:
        return problems, settings
    rows = np.linspace(0, n_samples - 1, n_rows).astype(np.intp)
    place = np.full(n_samples, -1)
    place[rows] = np.arange(n_rows)
    left = place >= 0
    splits = [
        (place[train[left[train]]], place[test[left[test]]])
        for train, test in settings.splits
    ]
    if not all(part.size for pair in splits for part in pair):
        return problems, settings
    few = [problem.within(rows) for problem in problems]
    return few, replace(settings, splits=splits)


def refine(
    problem: Problem, settings: Settings, model: Model, chosen: Candidate, basis: Basis
) -> Outcome:
    """Fit the chosen candidate on the linear model, and from there on the network.

    The model is what `linearise` gives of all rows of the problem, or of some.
    """
    name, penalty = chosen.perturbation, chosen.penalty
    epochs = settings.max_iter or (EPOCHS if is_filter(name) else REFINEMENTS)
    descent = _Descent(problem, settings, chosen, basis)
    soon = AGAIN if is_filter(name) and descent.may_repeat(model, epochs) else epochs
    try:
        result = descent.along(model, soon)
    except KeyboardInterrupt:
        return unperturbed(problem, message=INTERRUPTED)
    if result.message == EXHAUSTED and soon < epochs:
        # A filter that goes far has left the linear model behind.
        try:
            model = linearise_again(problem, basis, result.x, descent.loss.logits)
            result = descent.along(model, epochs - soon)
        except KeyboardInterrupt:
            result = replace(result, message=INTERRUPTED)
    # A few epochs are the plan; running out of them is not a failure.
    message = result.message if result.message == INTERRUPTED else CONVERGED
    found, curve = basis.at(result.x[:-1]), descent.curve
    n_iter = len(curve) - 1
    return Outcome(found, descent.loss.logits, penalty, name, curve, n_iter, message)


class _Descent:
    """Descents of one candidate on the network, each along a linear model of it."""

    def __init__(
        self, problem: Problem, settings: Settings, chosen: Candidate, basis: Basis
    ) -> None:
        self.loss = NetworkLoss(problem, basis, chosen.penalty)
        self.curve: list[float] = []
        self._problem, self._settings, self._chosen = problem, settings, chosen

    def may_repeat(self, model: Model, epochs: int) -> bool:
        """Whether a second linearisation costs no more than half of what is left."""
        linear, n_samples = model[0], self._problem.codes.shape[0]
        slots = linear.pools.n_slots / linear.codes.shape[0]
        few = n_samples * slots * linear.dim <= JACOBIAN_ELEMENTS
        return few and slots <= epochs - AGAIN

    def along(self, model: Model, epochs: int) -> Result:
        """Go to the optimum of the linear model, and on from there."""
        linear, x, weight, hessian = model
        penalty, tol = self._chosen.penalty, self._settings.tol
        target = linear.fit(x, weight, penalty, hessian, tol=tol).x
        if linear.codes.shape[0] == self._problem.codes.shape[0]:
            # At its point the linearised loss and its gradient are the network's own;
            # the gradient nearly so where the slots come from another loss.
            first = linear.evaluate(x, weight, penalty)
            self.loss.take(first[0], linear.here)
        else:
            first = self.loss(x)
        self.curve = self.curve or [float(first[0])]
        lowest = self.curve[-1]
        record = _recorder(self.curve, self._settings)
        return minimize(
            self.loss,
            x,
            first=first,
            step=target - x,
            precondition=inverse(hessian, penalty),
            max_evaluations=epochs,
            last_limit=LARGEST_CHANGE,
            tol=max(tol, ENOUGH) if is_filter(self._chosen.perturbation) else tol,
            report=lambda value: record(min(value, lowest)),
        )


def solve_lbfgs(problem: Problem, settings: Settings) -> Outcome:
    """Descend on the network by L-BFGS; a held-out part may choose the penalty."""
    if settings.perturbation == "auto":
        settings = replace(settings, perturbation="full")
    if settings.penalty == "auto":
        return search_and_refine([problem], settings, by_network=True)[0]
    ((name, basis),) = spans_to_try(settings.perturbation, problem)
    chosen = Candidate(problem.gamma, name, float(settings.penalty), basis)
    return descend_from(problem, settings, chosen, basis)


def descend_from(
    problem: Problem, settings: Settings, chosen: Candidate, basis: Basis
) -> Outcome:
    """Descend on the network from the start."""
    theta, logits = basis.coordinates(settings.start), problem.logits
    if theta.any():
        logits = problem.perturbed_logits(basis.at(theta))
    curve: list[float] = []
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
    found = basis.at(result.x[:-1])
    name, penalty = chosen.perturbation, chosen.penalty
    return Outcome(found, logits, penalty, name, curve, len(curve), result.message)


def _recorder(curve: list[float], settings: Settings) -> Callable[[float], None]:
    def report(value: float) -> None:
        curve.append(float(value))
        settings.progress.epoch(value)

    return report


SOLVERS: dict[str, Callable[[Problem, Settings], Outcome]] = {
    "auto": solve_linearised,
    "lbfgs": solve_lbfgs,
    "sgd": solve_sgd,
    "gradient_free": solve_gradient_free,
    "fixed_delta": solve_fixed,
}
