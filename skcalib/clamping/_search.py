"""The search over exponents, spans and penalties by cross-fitting.

Every candidate is fitted on the training part of each split and judged on the other
part: on linearised logits (`_linearised.py`), or by descents on the network where a
Jacobian is too dear. Penalties go from strong to weak, each fit started at the one
before (a warm-started regularisation path). Linearised candidates that seem to help are
judged again by the network itself, one forward epoch each, every row at the
perturbation of the split that held it out.

Tang, Chen & Ho ("Neural Clamping", TMLR 2024) take a tenth of the initial loss for
lambda, or the lambda and gamma of the least calibration error on the calibration set.
"""

from collections.abc import Iterator, Sequence
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._result import INTERRUPTED
from skcalib.clamping._candidates import Candidate, ScoreTable, Splits
from skcalib.clamping._descent import descend
from skcalib.clamping._linearised import Linearised
from skcalib.clamping._perturbation import Basis
from skcalib.clamping._pools import Jacobian
from skcalib.clamping._problem import Problem, Settings
from skcalib.clamping._spans import Name, Span

# In units of one over the variance of the inputs, so that their scale does not count.
# For images in [0, 1] that is about 0.1 to 0.0001; what helped had 0.001 to 0.0001
# (python -m benchmarks run neural_clamping --parts shift).
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
# Candidates that the network judges again, a forward epoch each.
MAX_CHECKS = 8
# Standard errors by which a perturbation has to be better than nothing: there are
# several, and on inputs like those of training the best is better by one by chance.
ERRORS = 2.0
# Of a fit of the search, in nats: far below the standard errors that decide.
TOLERANCE = 1e-6
# Epochs of one descent of a search by descents; the next penalty goes on from there.
SEARCH_EPOCHS = 4

Fit = tuple[NDArray[Any], NDArray[np.float64]]


def penalties_to_try(penalty: Any, problem: Problem) -> list[float]:
    """Return the strengths to try, the strongest first."""
    if not isinstance(penalty, str):
        return [float(value) for value in np.atleast_1d(penalty)]
    return [strength / problem.input_variance for strength in PENALTIES]


class LinearPath:
    """Fits of every split on linearised logits, each started at the one before."""

    checked = False

    def __init__(
        self,
        problem: Problem,
        linear: Linearised,
        log_temperature: float,
        splits: Splits,
    ) -> None:
        self._linear = linear
        every = np.arange(problem.codes.shape[0])
        x = np.append(np.zeros(linear.dim), log_temperature)
        self._x = [x] * len(splits)
        total = linear.curvature(log_temperature, problem.weight)
        self._weights: list[NDArray[np.float64]] = []
        self._hessians: list[NDArray[np.float64]] = []
        for train, _ in splits:
            weight = np.zeros(every.shape[0])
            weight[train] = problem.weight[train]
            rest = np.setdiff1d(every, train, assume_unique=True)
            out = linear.curvature(log_temperature, problem.weight, rest)
            self._weights.append(weight / weight.sum())
            self._hessians.append((total - out) / weight.sum())

    def fit(self, penalty: float) -> list[Fit]:
        """Return the logits of all rows and theta, for each split."""
        fits = []
        for i, weight in enumerate(self._weights):
            result = self._linear.fit(
                self._x[i], weight, penalty, self._hessians[i], tol=TOLERANCE
            )
            self._x[i] = result.x
            theta = result.x[:-1]
            fits.append((self._linear.logits(theta), theta))
        return fits


class NetworkPath:
    """Fits of every split on the network, each started at the one before."""

    checked = True

    def __init__(self, problem: Problem, basis: Basis, splits: Splits) -> None:
        self._problem = problem
        self._basis = basis
        self._splits = splits
        self._theta = [np.zeros(basis.dim)] * len(splits)
        self._logits = [problem.logits[train] for train, _ in splits]

    def fit(self, penalty: float) -> list[Fit]:
        """Return the logits of all rows that count and theta, for each split."""
        fits = []
        for i, (train, test) in enumerate(self._splits):
            result, logits = descend(
                self._problem,
                self._basis,
                penalty,
                self._theta[i],
                self._logits[i],
                rows=train,
                max_evaluations=SEARCH_EPOCHS,
                tol=TOLERANCE,
            )
            if result.message == INTERRUPTED:
                # One fit of many: it is the search that ends.
                raise KeyboardInterrupt
            theta = result.x[:-1]
            self._theta[i], self._logits[i] = theta, logits
            delta = self._basis.at(theta)
            values = np.empty_like(self._problem.logits)
            values[train] = logits
            values[test] = self._problem.perturbed_logits(delta, test)
            fits.append((values, theta))
        return fits


def search_linearised(
    problems: list[Problem],
    spans: Sequence[Span],
    whole: Basis,
    jacobian: Jacobian,
    penalties: list[float],
    settings: Settings,
) -> tuple[ScoreTable, Candidate]:
    """Choose among all problems, spans and penalties on one Jacobian.

    Parameters
    ----------
    problems : list of Problem
        Alike but for the exponent of the loss.

    spans : list of (name, basis)
        Spans of perturbations by growing dimension.

    whole : Basis
        What all spans lie within.

    jacobian : Jacobian
        Derivatives by its coordinates.

    penalties : list of float
        Strengths from strong to weak.

    settings : Settings
        Splits, score and rule.

    Returns
    -------
    table : ScoreTable
        All candidates and their scores.

    chosen : Candidate
        The one to take.
    """
    paths = []
    for name, basis in spans:
        part = jacobian.of(whole.columns_of(basis))
        for problem in problems:
            temperature = problem.plain_temperature
            if not temperature.converged:
                # Without a best temperature the data cannot tell a perturbation.
                continue
            linear = Linearised.of(problem, part)
            path = LinearPath(problem, linear, log(temperature.x[0]), settings.splits)
            paths.append((problem, name, basis, path))
    return _search(problems, paths, penalties, settings, settings.splits)


def search_by_network(
    problems: list[Problem],
    name: Name,
    basis: Basis,
    penalties: list[float],
    settings: Settings,
) -> tuple[ScoreTable, Candidate]:
    """Choose among problems and penalties by descents on the first split.

    A score of whole splits takes them all: the error of one is unknown.
    """
    splits = settings.splits[:1] if settings.score.by_row else settings.splits
    paths = [
        (problem, name, basis, NetworkPath(problem, basis, splits))
        for problem in problems
    ]
    return _search(problems, paths, penalties, settings, splits)


Path = tuple[Problem, Name, Basis, LinearPath | NetworkPath]


def _search(
    problems: list[Problem],
    paths: Sequence[Path],
    penalties: list[float],
    settings: Settings,
    splits: Splits,
) -> tuple[ScoreTable, Candidate]:
    first = problems[0]
    table = ScoreTable(settings.score, first.codes, first.weight, splits)
    joint = first.temperature_objective == "joint"
    plain = [
        without_perturbation(p, splits) for p in (problems if joint else problems[:1])
    ]
    for candidate in plain:
        table.add(candidate)
    base = max(plain, key=table.mean)
    found = []
    for path in paths:
        for candidate in _follow(*path, penalties, splits):
            table.add(candidate)
            settings.progress.note(table.describe(candidate, base))
            found.append((candidate, path))
            if table.helps(base, candidate):
                break  # weaker penalties fit the training part still closer
    errors = 0.0 if settings.rule == "best" else ERRORS
    promising = [pair for pair in found if table.helps(pair[0], base, errors)]
    promising.sort(key=lambda pair: table.mean(pair[0]), reverse=True)
    helpful = list(plain)
    for candidate, (problem, _, basis, _) in promising[:MAX_CHECKS]:
        if not candidate.checked:
            check_by_network(candidate, basis, problem, splits)
            table.add(candidate)
            settings.progress.note(table.describe(candidate, base) + ", by the network")
        if table.helps(candidate, base, errors):
            helpful.append(candidate)
    return table, table.choose(helpful, settings.rule)


def _follow(
    problem: Problem,
    name: Name,
    basis: Basis,
    path: LinearPath | NetworkPath,
    penalties: list[float],
    splits: Splits,
) -> Iterator[Candidate]:
    for penalty in penalties:
        candidate = Candidate(problem.gamma, name, penalty, basis, checked=path.checked)
        if not hold_out(candidate, problem, splits, path.fit(penalty)):
            # It makes no error on what it was fitted to: the rows are too few to tell,
            # and weaker penalties fit them still closer.
            return
        yield candidate


def without_perturbation(problem: Problem, splits: Splits) -> Candidate:
    """Return the candidate that leaves the inputs alone."""
    candidate = Candidate(problem.gamma, "none", np.inf, checked=True)
    hold_out(candidate, problem, splits, [(problem.logits, np.empty(0))] * len(splits))
    return candidate


def hold_out(
    candidate: Candidate, problem: Problem, splits: Splits, fits: Sequence[Fit]
) -> bool:
    """Set the held-out logits and temperatures from each split's logits and theta.

    Returns whether every split has a best temperature.
    """
    logits, temperature, converged = [], [], True
    for (train, test), (values, theta) in zip(splits, fits, strict=True):
        result = problem.served_temperature(values[train], train)
        converged &= result.converged
        logits.append(values[test])
        temperature.append(np.full(test.shape[0], result.x[0]))
        candidate.thetas.append(theta)
    candidate.logits = np.concatenate(logits)
    candidate.temperature = np.concatenate(temperature)
    return converged


def check_by_network(
    candidate: Candidate, basis: Basis, problem: Problem, splits: Splits
) -> None:
    """Replace the held-out linearised logits by the network's: one forward epoch."""
    parts = [
        problem.perturbed_logits(basis.at(theta), test)
        for (_, test), theta in zip(splits, candidate.thetas, strict=True)
    ]
    candidate.logits = np.concatenate(parts)
    candidate.checked = True
