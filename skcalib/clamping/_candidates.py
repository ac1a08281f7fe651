"""What may be chosen, the scores of its held-out rows, and the choice.

No perturbation at all wins unless one is better by more than two standard errors
(`_search.py`); among those that are, the simplest within one standard error of the best
(the one standard error rule, `_numerics.choose`). Tang,
Chen & Ho ("Neural Clamping", TMLR 2024) take the exponent of the least calibration
error on the set that it was fitted to. Scores of held-out rows are ours: a perturbation
of many numbers learns its rows by heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from skcalib._numerics import choose, mean_and_error, softmax_
from skcalib._solvers._focal_brier import log_losses
from skcalib.clamping._perturbation import Basis

Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


@dataclass
class Candidate:
    """A loss exponent, a span of perturbations and a penalty, with its held-out fits.

    `logits` and `temperature` are held out, in the order of the rows of the splits'
    test parts. ``penalty=inf`` means no perturbation.
    """

    gamma: float
    perturbation: Any
    penalty: float
    basis: Basis | None = None
    logits: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))
    temperature: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    thetas: list[NDArray[np.float64]] = field(default_factory=list)
    checked: bool = False


class LogLossScore:
    """Minus the log-loss of every held-out row."""

    by_row = True

    def __call__(
        self,
        candidate: Candidate,
        codes: NDArray[np.intp],
        weight: NDArray[np.float64],
        splits: Splits,
    ) -> NDArray[np.float64]:
        """Return one score a row."""
        return -log_losses(candidate.logits, codes, candidate.temperature)


class ScorerScore:
    """The score of every split, by a scorer that calls an estimator."""

    by_row = False

    def __init__(self, scorer: Any, classes: NDArray[Any]) -> None:
        self.scorer = scorer
        self.classes = classes

    def __call__(
        self,
        candidate: Candidate,
        codes: NDArray[np.intp],
        weight: NDArray[np.float64],
        splits: Splits,
    ) -> NDArray[np.float64]:
        """Return one score a split."""
        scores = candidate.logits / candidate.temperature[:, np.newaxis]
        proba = softmax_(scores.astype(np.float64))
        stand_in = Probabilities(self.classes, proba)
        ends = np.cumsum([test.shape[0] for _, test in splits])[:-1]
        parts = np.split(np.arange(codes.shape[0]), ends)
        y = self.classes[codes]
        even = np.ptp(weight) == 0
        given: list[dict[str, Any]] = [
            {} if even else {"sample_weight": weight[rows]} for rows in parts
        ]
        return np.array(
            [
                self.scorer(stand_in, rows, y[rows], **extra)
                for rows, extra in zip(parts, given, strict=True)
            ]
        )


class Probabilities(ClassifierMixin, BaseEstimator):
    """Stands for a classifier whose probabilities are known: X are row numbers."""

    def __init__(self, classes: NDArray[Any], proba: NDArray[np.float64]) -> None:
        self.classes_ = classes
        self._proba = proba

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any) -> "Probabilities":
        """Do nothing; scorers look for the method."""
        return self

    def predict_proba(self, X: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the rows of these numbers."""
        return self._proba[X]

    def predict(self, X: NDArray[np.intp]) -> NDArray[Any]:
        """Return the most probable class of the rows of these numbers."""
        return self.classes_[self._proba[X].argmax(axis=1)]


Score = LogLossScore | ScorerScore


class ScoreTable:
    """Scores of candidates on the same held-out units, compared pair by pair."""

    def __init__(
        self,
        score: Score,
        codes: NDArray[np.intp],
        weight: NDArray[np.float64],
        splits: Splits,
    ) -> None:
        rows = np.concatenate([test for _, test in splits])
        self._score = score
        self._codes = codes[rows]
        self._splits = splits
        self._row_weight = weight[rows]
        self._weight = weight[rows] if score.by_row else np.ones(len(splits))
        self._candidates: list[Candidate] = []
        self._scores: list[NDArray[np.float64]] = []

    def add(self, candidate: Candidate) -> None:
        """Score a candidate, anew if it was here before."""
        scores = self._score(candidate, self._codes, self._row_weight, self._splits)
        if any(candidate is other for other in self._candidates):
            self._scores[self._position(candidate)] = scores
        else:
            self._candidates.append(candidate)
            self._scores.append(scores)

    def mean(self, candidate: Candidate) -> float:
        """Return the mean score."""
        scores = self._scores[self._position(candidate)]
        return float(scores @ self._weight / self._weight.sum())

    def gain(self, candidate: Candidate, other: Candidate) -> tuple[float, float]:
        """Return the mean of `candidate` less that of `other`, and its error."""
        scores = (self._scores[self._position(c)] for c in (candidate, other))
        mean, error = mean_and_error(np.subtract(*scores), self._weight)
        return float(mean), float(error)

    def helps(
        self, candidate: Candidate, other: Candidate, errors: float = 1.0
    ) -> bool:
        """Whether `candidate` is better than `other` by more than so many errors."""
        mean, error = self.gain(candidate, other)
        # An error may be infinite; none of it is 0.
        return mean > (errors * error if errors else 0.0)

    def describe(self, candidate: Candidate, base: Candidate) -> str:
        """Say in a line how a candidate compares with `base`."""
        mean, error = self.gain(candidate, base)
        return (
            f"gamma={candidate.gamma:g}, perturbation={candidate.perturbation}, "
            f"penalty={candidate.penalty:.3g}: gain {mean:.5f} +- {error:.5f}"
        )

    def choose(
        self, among: Sequence[Candidate], rule: str = "one_standard_error"
    ) -> Candidate:
        """Return the first of some candidates that the best of them does not beat."""
        ordered = sorted(among, key=self._position)
        scores = np.array([self._scores[self._position(c)] for c in ordered])
        return ordered[choose(scores, self._weight, one_standard_error=rule != "best")]

    def _position(self, candidate: Candidate) -> int:
        return next(i for i, c in enumerate(self._candidates) if c is candidate)

    def results(self, chosen: Candidate) -> dict[str, Any]:
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
