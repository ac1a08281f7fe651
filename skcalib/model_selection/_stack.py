"""Mixtures of calibrators in two rounds: what the default search fits.

First the candidates are mixed, then the finalists: the mixture as it is, the mixture
put right by one more map, and a few candidates alone. All that is learned of the
weights and the last map comes from predictions for rows that the candidates were not
fitted on, so that one which follows noise gets little weight.

Last, all of that is weighed against the probabilities as they came. A likelihood ratio
against what is right exceeds c with a probability of at most 1 / c (Markov's inequality
for e-values [Grunwald, de Heide & Koolen, Safe testing, 2024]), whatever is compared,
if it is judged on rows that it has not seen. So the untouched probabilities are taken
to be right with the odds EVIDENCE beforehand, and keep that share of the map that
Bayes' rule gives them. With more than two classes, what they keep is weighed once
more, against the simplest candidate alone: it has little to learn, and pays on fewer
rows than the rest.
"""

import time
from copy import copy
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.parallel import Parallel, delayed

from skcalib._base import ROUGH, BaseCalibrator, fit_checked
from skcalib._maps import CalibrationMap, Log, Softmax, WeightedSum, evaluate
from skcalib._numerics import PROBA_FLOOR, true_log_proba
from skcalib._sklearn_compat import Interval
from skcalib._solvers._mixture import fit_mixture
from skcalib._solvers._order_preserving import Knots, RankedRows, log_proba_of_own
from skcalib._solvers._ranks import Ranks
from skcalib._warnings import quiet
from skcalib.calibrators import OrderPreservingScaling
from skcalib.calibrators._order_preserving import fit_ranked

# Samples that each part of a mixture is thought to have been right for beforehand. For
# the first candidate, the simplest, it is so many over the number of samples a class.
# Chosen, with the form of the mixture, on the sets of `benchmarks/default_search.py`
# and for few samples with `--samples 250 --methods temperature`, so that its figures
# flatter the default a little (docs/choosing.rst).
PART_PRIOR = 1.0
OF_SIMPLEST = 50.0
# Odds beforehand that nothing is to be done: at most one set in so many, of those whose
# probabilities are right, is touched.
EVIDENCE = 50.0
# The same of more than two classes against the simplest candidate alone, where that is
# less sure than what came, as one that is fitted to a network most often is; where it
# is not they are EVIDENCE. Chosen, round, on 50 and 100 rows of networks, and on the
# tuning sets of `benchmarks/calarena.py`, of which no more are harmed by it. Two
# classes are left out: twice as many of the tuning sets were harmed there.
OF_SOFTER = 5.0
# In samples, of all that there are: the share of the uniform distribution in what is
# left untouched. A forest's 0 that no sample has tested costs 27 nats if it is wrong.
# Chosen on the tuning sets of `benchmarks/calarena.py`, round.
DOUBT = 0.1
# A part with less weight is left out. A round number: what it leaves out is too little
# to be seen in a loss, and each part makes predictions slower.
LEAST_WEIGHT = 0.01


class StackedCalibrator(BaseCalibrator):
    """Mix calibrators, then mix what several maps make of that with some of them alone.

    `fit` learns the calibrators. The rest is given: the weights of the first mixture;
    the last maps, from logarithms of the mixture to probabilities; which calibrators
    stand alone; the weights of the second mixture, first those of the last maps; and
    the share of the probabilities as they came, and what of that is `uniform`.
    """

    _parameter_constraints: dict = {
        "calibrators": [list],
        "weights": ["array-like"],
        "last_maps": [list],
        "alone": [list],
        "final_weights": ["array-like"],
        "untouched": [Interval(Real, 0, 1, closed="both")],
        "uniform": [Interval(Real, 0, 1, closed="both")],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        calibrators,
        weights,
        last_maps,
        alone,
        final_weights,
        *,
        untouched=0.0,
        uniform=0.0,
        classes=None,
    ):
        self.calibrators = calibrators
        self.weights = weights
        self.last_maps = last_maps
        self.alone = alone
        self.final_weights = final_weights
        self.untouched = untouched
        self.uniform = uniform
        self.classes = classes

    @property
    def takes_unused(self):
        return any(part.takes_unused for part in self.calibrators)

    def fit_calibration(self, data):
        """Fit the calibrators that have a weight."""
        # Those without a weight are not fitted.
        self.calibrators_ = [
            fit_checked(clone(part), data, self.n_features_in_) if share > 0 else None
            for part, share in zip(self.calibrators, self._shares(), strict=True)
        ]

    def take(self, fitted, data):
        """Take calibrators that are fitted to these data already."""
        self.classes_, self.n_features_in_ = data.classes, data.n_classes
        used = self._shares() > 0
        self.calibrators_ = [
            part if is_used else None
            for part, is_used in zip(fitted, used, strict=True)
        ]
        return self

    def _shares(self):
        """Return how much of each calibrator is in the stack, in some units."""
        of_lasts, of_alone = self._split_final_weights()
        used = np.array(self.weights) * of_lasts.any()
        used[self.alone] += of_alone
        return used * (self.untouched < 1)

    def _split_final_weights(self):
        return np.split(np.array(self.final_weights), [len(self.last_maps)])

    def calibration_map(self):
        """Return the mixture of the finalists, and of what came."""
        finalists, shares = self._finalists() if self.untouched < 1 else ([], [])
        finalists.append(CalibrationMap(Softmax()))
        came = self.untouched * (1 - self.uniform)
        shares = [*((1 - self.untouched) * np.array(shares)), came]
        uniform = self.untouched * self.uniform / len(self.classes_)
        mixture = _mixture(shares, finalists, max(uniform, PROBA_FLOOR))
        return CalibrationMap(mixture, Log(), Softmax())

    def _finalists(self):
        maps = [c if c is None else c.calibration_map() for c in self.calibrators_]
        of_lasts, of_alone = self._split_final_weights()
        finalists, shares = [maps[i] for i in self.alone], of_alone
        if of_lasts.any():
            last = _mixture(of_lasts, self.last_maps)
            stacked = CalibrationMap(_mixture(self.weights, maps), Log(), last)
            finalists, shares = [stacked, *finalists], [1.0, *of_alone]
        return finalists, shares


def _mixture(weights, maps, constant=PROBA_FLOOR):
    used = [(float(w), part) for w, part in zip(weights, maps, strict=True) if w > 0]
    weights, parts = zip(*used, strict=True)
    return WeightedSum(weights, parts, constant)


class _Fold(NamedTuple):
    """What the candidates say of rows that they were not fitted on."""

    # Log-probability of the true class as it came.
    untouched: NDArray[np.float64]
    # What the first candidate adds to the largest probability.
    surer: NDArray[np.float64]
    # The same after each candidate, one column each.
    own: NDArray[np.float64]
    # The rank that the true class is of, in the order of the logits.
    rank: NDArray[np.intp]
    # Probabilities of the ranks, one array a candidate.
    proba: list[NDArray[np.float32]]

    def beside(self, other):
        """Take in what other candidates say of the same rows."""
        own = np.column_stack([self.own, other.own])
        return self._replace(own=own, proba=self.proba + other.proba)


class Trial:
    """Candidates that are fitted to all rows, and judged by the splits.

    ``tell(text)`` tells how it goes. The fits, with as much for each split, may take
    `max_time` seconds.
    """

    def __init__(self, data, n_features_in, splits, max_time, n_jobs, tell):
        self._data, self._n_features_in = data, n_features_in
        self._splits, self._max_time = splits, max_time
        self._n_jobs, self._tell = n_jobs, tell
        self.fitted: dict[str, BaseCalibrator] = {}
        self.seconds: list[float] = []
        self.folds: list[_Fold] = []

    def run(self, candidates, waiting):
        """Try candidates, by name, until time is up; the first always is.

        Each of `waiting` has the names of two others, and is tried after them if the
        first is judged to be better than the second.
        """
        self._try({k: v for k, v in candidates.items() if k not in waiting})
        for name, pair in waiting.items():
            if self._is_better(*pair):
                self._try({name: candidates[name]})

    def _try(self, candidates):
        known = len(self.fitted)
        self._fit(candidates)
        new = list(self.fitted.values())[known:]
        if new:
            folds = self._judge(new)
            self.folds = list(map(_Fold.beside, self.folds, folds)) or folds

    def _is_better(self, name, other):
        names = list(self.fitted)
        if name not in names:  # Time was up.
            return False
        i, j = names.index(name), names.index(other)
        gain = 0.0
        for (_, test), fold in zip(self._splits, self.folds, strict=True):
            gain += self._data.sample_weight[test] @ (fold.own[:, i] - fold.own[:, j])
        return gain > 0

    def _fit(self, candidates):
        # What fits of the same rows share is kept as long as this object.
        every, n_splits = copy(self._data), len(self._splits)
        for name, candidate in candidates.items():
            started = time.perf_counter()
            found = _fitted(candidate, every, self._n_features_in)
            spent = time.perf_counter() - started
            self._tell(f"{name}: fitted to all rows in {spent:.1f} s")
            needed = sum(self.seconds, spent) * (1 + n_splits)
            if self.fitted and needed > self._max_time:
                end = f"max_time={self._max_time:g} s ends here"
                self._tell(f"{end}: without {name} and the rest")
                break
            self.fitted[name] = found
            self.seconds.append(spent)

    def _judge(self, fitted):
        """Fit anew for each split, from where the fits to all rows ended."""
        n_splits = len(self._splits)
        spent = sum(self.seconds[-len(fitted) :])
        self._tell(f"up to {n_splits * spent:.0f} s more for {n_splits} folds")
        ranks = Ranks(self._data.n_classes)
        folds = Parallel(n_jobs=self._n_jobs, return_as="generator")(
            delayed(_judge)(fitted, self._data, split, ranks) for split in self._splits
        )
        kept = []
        for fold in folds:
            kept.append(fold)
            self._tell(f"fold {len(kept)} of {n_splits}")
        return kept


def _fitted(calibrator, data, n_features_in=None, near=None):
    # One that stopped early is judged by what it says, like any other.
    with quiet(ConvergenceWarning):
        return fit_checked(clone(calibrator), data, n_features_in, near=near)


def _judge(fitted, data, split, ranks):
    train, test = map(data.subset, split)
    order = ranks.order_of(test.logits)
    of_classes = evaluate(CalibrationMap(Softmax()), test.source)
    untouched = true_log_proba(of_classes, test.codes)
    own, largest, proba = [], [of_classes.max(axis=1)], []
    for near in fitted:
        calibrator = _fitted(near, train, near=near)
        of_classes = calibrator.predict_proba(test.logits)
        own.append(true_log_proba(of_classes, test.codes))
        largest.append(of_classes.max(axis=1))
        proba.append(ranks.sums(of_classes, order))
    surer = largest[1] - largest[0]
    rank = ranks.own_of(order, test.codes)
    return _Fold(untouched, surer, np.stack(own, axis=1), rank, proba)


class HeldOut:
    """Predictions of several calibrators for rows that they were not fitted on.

    `folds` hold them; `mixed` says which of the calibrators are in the first mixture,
    and `weight` is the weight of each row.
    """

    def __init__(self, folds, mixed, weight, n_classes):
        self.fold = np.repeat(np.arange(len(folds)), [len(fold.own) for fold in folds])
        self.mixed = mixed
        self.weight = weight
        self.ranks = Ranks(n_classes)
        self.untouched = np.concatenate([fold.untouched for fold in folds])
        surer = weight @ np.concatenate([fold.surer for fold in folds])
        odds = OF_SOFTER if surer < 0 else EVIDENCE
        self._odds_of_simplest = odds if n_classes > 2 else np.inf
        self.own = np.concatenate([fold.own for fold in folds])
        self.rank = np.concatenate([fold.rank for fold in folds])
        parts = zip(*(fold.proba for fold in folds), strict=True)
        self.proba = [np.concatenate(part) for part in parts]
        self._prior = np.full(len(mixed), PART_PRIOR)
        self._prior[0] = OF_SIMPLEST * n_classes / weight.sum()
        self.uniform = DOUBT / (DOUBT + weight.sum())
        came = (1 - self.uniform) * np.exp(self.untouched)
        self._doubted = np.log(came + self.uniform / n_classes)

    def stack(self, alone):
        """Return what a stack needs, and the log-probability of each true class.

        That is the weights, the last maps, the final weights, with the calibrators
        `alone`, the first one included, among the finalists, and the share of the
        untouched probabilities. The log-probabilities are those of weights and last
        maps fitted without the fold of the row; the knots of the last map are those of
        all rows.
        """
        every = np.ones(self.weight.shape[0], dtype=bool)
        weights, mixture = self._mixed(every)
        last = self._last(mixture, every)
        of_mixture = self._cross_fitted(last)
        finalists = np.column_stack([of_mixture, self.own[:, alone]])
        prior = np.append(np.full(of_mixture.shape[1], PART_PRIOR), self._prior[alone])
        scores = np.empty(self.weight.shape[0])
        for k in np.unique(self.fold):
            inside = self.fold == k
            share = self._weights(finalists, prior, ~inside)
            scores[inside] = np.log(np.exp(finalists[inside]) @ share)
        final_weights = self._weights(finalists, prior, every)
        maps = [CalibrationMap(Softmax()), last.calibration_map()]
        shares = self._shares(scores)
        outcomes = np.column_stack([self._doubted, self.own[:, 0], scores])
        scores = np.log(np.exp(outcomes) @ shares)
        untouched, simplest, rest = shares
        if untouched < 1:
            final_weights *= rest
            final_weights[of_mixture.shape[1] + alone.index(0)] += simplest
            final_weights /= 1 - untouched
        return (weights, maps, final_weights, float(untouched)), scores

    def _shares(self, scores):
        """Return the probabilities of three outcomes, by Bayes' rule.

        That nothing is to be done; that only the simplest candidate is right; and what
        has the log-probabilities `scores`. The second takes of the first alone.
        """
        nothing = self._belief(EVIDENCE, scores)
        less = self._belief(self._odds_of_simplest, self.own[:, 0])
        shares = np.array([nothing * less, nothing * (1 - less), 1 - nothing])
        shares[shares < LEAST_WEIGHT] = 0
        return shares / shares.sum()

    def _belief(self, odds, scores):
        """Return the probability of what came, of `odds` to 1 against `scores`."""
        gain = self.weight @ (scores - self.untouched)
        return float(expit(np.log(odds) - gain))

    def _cross_fitted(self, near):
        """Return log-probabilities of the true classes: mixture, and what follows it.

        `near` is what follows it where no fold is left out.
        """
        scores = np.empty((self.weight.shape[0], 2))
        for k in np.unique(self.fold):
            inside = self.fold == k
            _, mixture = self._mixed(~inside)
            last = self._last(mixture, ~inside, near)
            scores[inside, 0] = mixture[1][inside]
            x = np.concatenate([last.scales_, last.slopes_])
            knots = Knots(last.entropy_knots_, last.log_proba_knots_)
            scores[inside, 1] = log_proba_of_own(x, self._rows(mixture, inside), knots)
        return scores

    def _mixed(self, rows):
        """Return weights fitted to some rows, and the mixture of all rows.

        That is the logarithms of the mean probability in each rank, and of that of the
        true class.
        """
        weights = np.zeros(len(self.proba))
        own, prior = self.own[:, self.mixed], self._prior[self.mixed]
        weights[self.mixed] = self._weights(own, prior, rows)
        total = np.full(self.proba[0].shape, PROBA_FLOOR)
        for i in np.flatnonzero(weights):
            total += weights[i] * self.proba[i]
        total /= self.ranks.sizes
        own_total = np.exp(self.own) @ weights + PROBA_FLOOR
        return weights, (np.log(total, out=total), np.log(own_total))

    def _last(self, mixture, rows, near=None):
        """Fit what the mixture may go through to some rows."""
        # A rough fit will do: the mixture is nearly calibrated.
        last = OrderPreservingScaling(tol=ROUGH)
        last.scaling_, last.temperature_ = None, 1.0
        fit_ranked(last, self._rows(mixture, rows), near)
        return last

    def _rows(self, mixture, rows):
        u, own_u = mixture
        return RankedRows.of_ranks(
            self.ranks, u[rows], self.rank[rows], own_u[rows], self.weight[rows]
        )

    def _weights(self, log_proba, prior, rows):
        """Fit the weights of a mixture to some rows."""
        fitted = fit_mixture(
            log_proba[rows], self.weight[rows], prior=prior, tol=1e-9, max_iter=100
        )
        weights = np.where(fitted.x < LEAST_WEIGHT, 0, fitted.x)
        return weights / weights.sum()
