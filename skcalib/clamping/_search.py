"""The search over exponents, spans and penalties, by linearised or true descents."""

from math import log

import numpy as np

from skcalib._solvers._result import INTERRUPTED
from skcalib.clamping._descent import descend
from skcalib.clamping._linearised import Linearised
from skcalib.clamping._selection import (
    Candidate,
    Table,
    check_by_network,
    hold_out,
    without_perturbation,
)
from skcalib.clamping._spans import columns_within

# In units of one over the variance of the inputs, so that their scale does not count.
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
# Candidates that the network judges again.
MAX_CHECKS = 8
TOLERANCE = 1e-6
# Epochs of one descent of a search by descents.
SEARCH_EPOCHS = 4


def penalties_to_try(penalty, problem):
    """Return the strengths to try, the strongest first."""
    if not isinstance(penalty, str):
        return [float(value) for value in np.atleast_1d(penalty)]
    return [strength / problem.input_variance for strength in PENALTIES]


class LinearPath:
    """Fits of every split on linearised logits, each started at the one before."""

    checked = False

    def __init__(self, problem, linear, log_temperature, splits):
        self._linear = linear
        self._splits = splits
        every = np.arange(problem.codes.shape[0])
        x = np.append(np.zeros(linear.dim), log_temperature)
        self._x = [x] * len(splits)
        total = linear.curvature(log_temperature, problem.weight, every)
        self._weights, self._hessians = [], []
        for train, _ in splits:
            weight = np.zeros(every.shape[0])
            weight[train] = problem.weight[train]
            rest = np.setdiff1d(every, train, assume_unique=True)
            out = linear.curvature(log_temperature, problem.weight, rest)
            self._weights.append(weight / weight.sum())
            self._hessians.append((total - out) / weight.sum())

    def fit(self, penalty):
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

    def __init__(self, problem, basis, splits, max_evaluations):
        self._problem = problem
        self._basis = basis
        self._splits = splits
        self._limit = max_evaluations
        self._theta = [np.zeros(basis.dim)] * len(splits)
        self._logits = [problem.logits[train] for train, _ in splits]

    def fit(self, penalty):
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
                max_evaluations=self._limit,
                tol=TOLERANCE,
            )
            if result.message == INTERRUPTED:
                # One fit of many: it is the search that ends.
                raise KeyboardInterrupt
            theta = result.x[:-1]
            self._theta[i], self._logits[i] = theta, logits
            delta = self._basis.expand(theta)
            values = np.empty_like(self._problem.logits)
            values[train] = logits
            values[test] = self._problem.objective.logits(delta, rows=test)
            fits.append((values, theta))
        return fits


def search_linearised(problems, spans, jacobian, penalties, settings):
    """Choose among all problems, spans and penalties on one Jacobian.

    Parameters
    ----------
    problems : list of Problem
        Alike but for the exponent of the loss.

    spans : list of (name, basis)
        Spans of perturbations by growing dimension.

    jacobian : ndarray of shape (n_samples, n_classes, dim)
        Derivatives of the logits by the coordinates of the last span.

    penalties : list of float
        Strengths from strong to weak.

    settings : Settings
        Splits, score and rule.

    Returns
    -------
    table : Table
        All candidates and their scores.

    chosen : Candidate
        The one to take.
    """
    paths = []
    for name, basis in spans:
        part = jacobian[:, :, columns_within(basis, spans[-1][1])]
        for problem in problems:
            temperature = problem.plain_temperature
            if not temperature.converged:
                # Without a best temperature the data cannot tell a perturbation.
                continue
            linear = Linearised(
                problem.logits, part, problem.codes, problem.loss, problem.gamma
            )
            path = LinearPath(problem, linear, log(temperature.x[0]), settings.splits)
            paths.append((problem, name, basis, path))
    return _search(problems, paths, penalties, settings, settings.splits)


def search_by_network(problems, name, basis, penalties, settings):
    """Choose among problems and penalties by descents on the first split."""
    splits = settings.splits[:1]
    paths = [
        (problem, name, basis, NetworkPath(problem, basis, splits, SEARCH_EPOCHS))
        for problem in problems
    ]
    return _search(problems, paths, penalties, settings, splits)


def _search(problems, paths, penalties, settings, splits):
    first = problems[0]
    table = Table(settings.score, first.codes, first.weight, splits)
    joint = first.temperature_objective == "joint"
    plain = [
        without_perturbation(p, splits) for p in (problems if joint else problems[:1])
    ]
    for candidate in plain:
        table.add(candidate)
    base = max(plain, key=table.mean)
    found = []
    for problem, name, basis, path in paths:
        for candidate in _follow(path, problem, name, basis, penalties, splits):
            table.add(candidate)
            settings.note(table.describe(candidate, base))
            found.append((candidate, problem))
            if table.helps(base, candidate):
                break  # weaker penalties fit the training part still closer
    promising = [pair for pair in found if table.helps(pair[0], base)]
    promising.sort(key=lambda pair: table.mean(pair[0]), reverse=True)
    for candidate, problem in promising[:MAX_CHECKS]:
        if not candidate.checked:
            check_by_network(candidate, problem, splits)
            table.add(candidate)
            settings.note(table.describe(candidate, base) + ", by the network")
    return table, table.choose(settings.rule)


def _follow(path, problem, name, basis, penalties, splits):
    for penalty in penalties:
        candidate = Candidate(problem.gamma, name, penalty, basis, checked=path.checked)
        if not hold_out(candidate, problem, splits, path.fit(penalty)):
            # It makes no error on what it was fitted to: the rows are too few to tell,
            # and weaker penalties fit them still closer.
            return
        yield candidate
