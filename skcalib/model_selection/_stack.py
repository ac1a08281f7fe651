"""Mixtures of calibrators in two rounds: what the default search fits.

First the candidates are mixed, then the finalists: the mixture as it is, the mixture
put right by each of two more maps, and a few candidates alone. All that is learned of
the weights and the last maps comes from predictions for rows that the candidates were
not fitted on, so that one which follows noise gets little weight.
"""

import numpy as np
from sklearn.base import clone

from skcalib._base import BaseCalibrator, fit_checked
from skcalib._blocks import ArraySource, CalibrationData
from skcalib._maps import CalibrationMap, Log, Softmax, WeightedSum, evaluate
from skcalib._numerics import true_log_proba
from skcalib._solvers._mixture import fit_mixture
from skcalib.calibrators import OrderPreservingScaling, TemperatureScaling

# Probabilities of a mixture below this are not told apart from 0.
FLOOR = 1e-12
# Samples that each part of a mixture is thought to have been right for beforehand. For
# the first candidate, the simplest, it is so many over the number of samples a class.
# Chosen, with the form of the mixture, on the sets of `benchmarks/default_search.py`
# and for few samples with `--samples 250 --methods temperature`, so that its figures
# flatter the default a little (docs/choosing.rst).
PRIOR = 1.0
OF_SIMPLEST = 50.0
# A part with less weight is left out. A round number: what it leaves out is too little
# to be seen in a loss, and each part makes predictions slower.
LEAST_WEIGHT = 0.01


class StackedCalibrator(BaseCalibrator):
    """Mix calibrators, then mix what several maps make of that with some of them alone.

    `fit` learns the calibrators. The rest is given: the weights of the first mixture;
    the last maps, from logarithms of the mixture to probabilities; which calibrators
    stand alone; and the weights of the second mixture, first those of the last maps.
    """

    _parameter_constraints: dict = {
        "calibrators": [list],
        "weights": ["array-like"],
        "last_maps": [list],
        "alone": [list],
        "final_weights": ["array-like"],
        "classes": ["array-like", None],
    }

    def __init__(
        self, calibrators, weights, last_maps, alone, final_weights, *, classes=None
    ):
        self.calibrators = calibrators
        self.weights = weights
        self.last_maps = last_maps
        self.alone = alone
        self.final_weights = final_weights
        self.classes = classes

    def fit_calibration(self, data):
        """Fit the calibrators that have a weight."""
        of_lasts, of_alone = self._split_final_weights()
        used = np.array(self.weights) * of_lasts.any()
        used[self.alone] += of_alone
        # Those without a weight are not fitted.
        self.calibrators_ = [
            fit_checked(clone(part), data, self.n_features_in_) if share > 0 else None
            for part, share in zip(self.calibrators, used, strict=True)
        ]

    def _split_final_weights(self):
        return np.split(np.array(self.final_weights), [len(self.last_maps)])

    def calibration_map(self):
        """Return the mixture of the finalists."""
        maps = [c if c is None else c.calibration_map() for c in self.calibrators_]
        of_lasts, of_alone = self._split_final_weights()
        finalists, shares = [maps[i] for i in self.alone], of_alone
        if of_lasts.any():
            last = _mixture(of_lasts, self.last_maps)
            stacked = CalibrationMap(_mixture(self.weights, maps), Log(), last)
            finalists, shares = [stacked, *finalists], [1.0, *of_alone]
        return CalibrationMap(_mixture(shares, finalists), Log(), Softmax())


def _mixture(weights, maps):
    used = [(float(w), part) for w, part in zip(weights, maps, strict=True) if w > 0]
    weights, parts = zip(*used, strict=True)
    return WeightedSum(weights, parts, FLOOR)


class HeldOut:
    """Predictions of several calibrators for rows that they were not fitted on.

    `proba` holds an (n, K) array of each calibrator; `mixed` says which of them are in
    the first mixture, and `codes`, `weight` and `fold` the class, the weight and the
    fold of each row.
    """

    def __init__(self, proba, mixed, codes, weight, fold):
        self.proba = proba
        self.mixed = mixed
        self.codes = codes
        self.weight = weight
        self.fold = fold
        self._own = np.stack([true_log_proba(p, codes) for p in proba], axis=1)
        self._prior = np.full(len(proba), PRIOR)
        self._prior[0] = OF_SIMPLEST * proba[0].shape[1] / weight.sum()

    def stack(self, alone):
        """Return what a stack needs, and the log-probability of each true class.

        That is the weights, the last maps and the final weights, with the calibrators
        `alone` among the finalists. The log-probabilities are those of weights and last
        maps fitted without the fold of the row.
        """
        every = np.ones(self.codes.shape[0], dtype=bool)
        of_lasts = self._cross_fitted()
        finalists = np.column_stack([of_lasts, self._own[:, alone]])
        prior = np.append(np.full(of_lasts.shape[1], PRIOR), self._prior[alone])
        scores = np.empty(self.codes.shape[0])
        for k in np.unique(self.fold):
            inside = self.fold == k
            share = self._weights(finalists, prior, ~inside)
            scores[inside] = np.log(np.exp(finalists[inside]) @ share)
        final_weights = self._weights(finalists, prior, every)
        weights, logits = self._mixed(every)
        last_maps = [
            self._fitted(last, logits, every) if share > 0 else None
            for last, share in zip(self._lasts(), final_weights, strict=False)
        ]
        return (weights, last_maps, final_weights), scores

    def _lasts(self):
        """Return what the mixture may go through; None is nothing."""
        # A rough fit will do: the mixture is nearly calibrated.
        return [None, TemperatureScaling(), OrderPreservingScaling(tol=1e-6)]

    def _cross_fitted(self):
        """Return log-probabilities of the true classes, one column a last map."""
        lasts = self._lasts()
        scores = np.empty((self.codes.shape[0], len(lasts)))
        for k in np.unique(self.fold):
            inside = self.fold == k
            _, logits = self._mixed(~inside)
            for score, last in zip(scores.T, lasts, strict=True):
                fitted = self._fitted(last, logits, ~inside)
                proba = evaluate(fitted, ArraySource(logits[inside]))
                score[inside] = true_log_proba(proba, self.codes[inside])
        return scores

    def _mixed(self, rows):
        """Return weights fitted to some rows, and the logits of the mixture on all."""
        weights = np.zeros(len(self.proba))
        own, prior = self._own[:, self.mixed], self._prior[self.mixed]
        weights[self.mixed] = self._weights(own, prior, rows)
        total = np.full(self.proba[0].shape, FLOOR)
        for i in np.flatnonzero(weights):
            total += weights[i] * self.proba[i]
        return weights, np.log(total, out=total)

    def _weights(self, log_proba, prior, rows):
        """Fit the weights of a mixture to some rows."""
        fitted = fit_mixture(
            log_proba[rows], self.weight[rows], prior=prior, tol=1e-9, max_iter=100
        )
        weights = np.where(fitted.x < LEAST_WEIGHT, 0, fitted.x)
        return weights / weights.sum()

    def _fitted(self, last, logits, rows):
        """Return the map of a calibrator fitted to some rows; None is no calibrator."""
        if last is None:
            return CalibrationMap(Softmax())
        source = ArraySource(logits[rows])
        data = CalibrationData(source, self.codes[rows], self.weight[rows])
        return fit_checked(clone(last), data).calibration_map()
