"""Which perturbation, how strongly penalised: chosen by cross-fitting.

Every candidate is fitted on the training part of each split, on linearised logits, and
judged on the other part. Those that seem to help are judged again by the network
itself, one forward epoch each, every row at the perturbation of the split that held it
out. The simplest within one standard error of the best wins, and no perturbation at all
is the simplest.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from skcalib._numerics import choose, mean_and_error, softmax_
from skcalib._solvers._focal_brier import log_losses


@dataclass
class Candidate:
    """A loss exponent, a span of perturbations and a penalty, with its held-out fits.

    `logits` and `temperature` are held out, in the order of the rows of the splits'
    test parts. ``penalty=inf`` means no perturbation.
    """

    gamma: float
    perturbation: Any
    penalty: float
    basis: Any = None
    logits: np.ndarray | None = None
    temperature: np.ndarray | None = None
    thetas: list = field(default_factory=list)
    checked: bool = False


class LogLossScore:
    """Minus the log-loss of every held-out row."""

    by_row = True

    def __call__(self, candidate, codes, weight, splits):
        """Return one score a row."""
        return -log_losses(candidate.logits, codes, candidate.temperature)


class ScorerScore:
    """The score of every split, by a scorer that calls an estimator."""

    by_row = False

    def __init__(self, scorer, classes):
        self.scorer = scorer
        self.classes = classes

    def __call__(self, candidate, codes, weight, splits):
        """Return one score a split."""
        scores = candidate.logits / candidate.temperature[:, np.newaxis]
        proba = softmax_(scores.astype(np.float64))
        stand_in = Probabilities(self.classes, proba)
        ends = np.cumsum([test.shape[0] for _, test in splits])[:-1]
        parts = np.split(np.arange(codes.shape[0]), ends)
        y = self.classes[codes]
        even = np.ptp(weight) == 0
        given = [{} if even else {"sample_weight": weight[rows]} for rows in parts]
        return np.array(
            [
                self.scorer(stand_in, rows, y[rows], **extra)
                for rows, extra in zip(parts, given, strict=True)
            ]
        )


class Probabilities(ClassifierMixin, BaseEstimator):
    """Stands for a classifier whose probabilities are known: X are row numbers."""

    def __init__(self, classes, proba):
        self.classes_ = classes
        self._proba = proba

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        """Do nothing; scorers look for the method."""
        return self

    def predict_proba(self, X):
        """Return the rows of these numbers."""
        return self._proba[X]

    def predict(self, X):
        """Return the most probable class of the rows of these numbers."""
        return self.classes_[self._proba[X].argmax(axis=1)]


def without_perturbation(problem, splits):
    """Return the candidate that leaves the inputs alone."""
    candidate = Candidate(problem.gamma, "none", np.inf, checked=True)
    hold_out(candidate, problem, splits, [(problem.logits, None)] * len(splits))
    return candidate


def hold_out(candidate, problem, splits, fits):
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


def check_by_network(candidate, problem, splits):
    """Replace the held-out linearised logits by the network's: one forward epoch."""
    parts = [
        problem.objective.logits(candidate.basis.expand(theta), rows=test)
        for (_, test), theta in zip(splits, candidate.thetas, strict=True)
    ]
    candidate.logits = np.concatenate(parts)
    candidate.checked = True


class Table:
    """Scores of candidates on the same held-out units, compared pair by pair."""

    def __init__(self, score, codes, weight, splits):
        rows = np.concatenate([test for _, test in splits])
        self._score = score
        self._codes = codes[rows]
        self._splits = splits
        self._row_weight = weight[rows]
        self._weight = weight[rows] if score.by_row else np.ones(len(splits))
        self._candidates = []
        self._scores = []

    def add(self, candidate):
        """Score a candidate, anew if it was here before."""
        scores = self._score(candidate, self._codes, self._row_weight, self._splits)
        if any(candidate is other for other in self._candidates):
            self._scores[self._position(candidate)] = scores
        else:
            self._candidates.append(candidate)
            self._scores.append(scores)

    def mean(self, candidate):
        """Return the mean score."""
        scores = self._scores[self._position(candidate)]
        return float(scores @ self._weight / self._weight.sum())

    def gain(self, candidate, other):
        """Return the mean of `candidate` less that of `other`, and its error."""
        scores = (self._scores[self._position(c)] for c in (candidate, other))
        mean, error = mean_and_error(np.subtract(*scores), self._weight)
        return float(mean), float(error)

    def helps(self, candidate, other):
        """Whether `candidate` is better than `other` by more than a standard error."""
        mean, error = self.gain(candidate, other)
        return mean > error

    def describe(self, candidate, base):
        """Say in a line how a candidate compares with `base`."""
        mean, error = self.gain(candidate, base)
        return (
            f"gamma={candidate.gamma:g}, perturbation={candidate.perturbation}, "
            f"penalty={candidate.penalty:.3g}: gain {mean:.5f} +- {error:.5f}"
        )

    def choose(self, rule="one_standard_error"):
        """Return the first checked candidate that the best checked does not beat."""
        checked = [c for c in self._candidates if c.checked]
        scores = np.array([self._scores[self._position(c)] for c in checked])
        return checked[choose(scores, self._weight, one_standard_error=rule != "best")]

    def _position(self, candidate):
        return next(i for i, c in enumerate(self._candidates) if c is candidate)

    def results(self, chosen):
        """Return the table as a dict of lists and arrays."""
        pairs = [self.gain(c, self._candidates[0]) for c in self._candidates]
        means = np.array([self.mean(c) for c in self._candidates])
        return {
            "gamma": np.array([c.gamma for c in self._candidates]),
            "perturbation": [c.perturbation for c in self._candidates],
            "penalty": np.array([c.penalty for c in self._candidates]),
            "mean_test_score": means,
            "gain": np.array([mean for mean, _ in pairs]),
            "standard_error": np.array([error for _, error in pairs]),
            "rank_test_score": 1 + np.array([(means > m).sum() for m in means]),
            "by_network": np.array([c.checked for c in self._candidates]),
            "chosen": np.array([c is chosen for c in self._candidates]),
        }
