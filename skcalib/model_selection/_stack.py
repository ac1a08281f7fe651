"""A mixture of calibrators, put right by one more map: what the default search fits.

All that the mixture learns, it learns from predictions for rows that the parts were not
fitted on, so that a part which follows noise gets little weight.
"""

import numpy as np
from sklearn.base import clone

from skcalib._base import BaseCalibrator
from skcalib._blocks import ArraySource
from skcalib._maps import CalibrationMap, Log, Mixture, Softmax, evaluate
from skcalib._solvers._mixture import fit_mixture
from skcalib.calibrators import OrderPreservingScaling, TemperatureScaling
from skcalib.model_selection._log_proba import true_log_proba

# Probabilities of the mixture below this are not told apart from 0.
FLOOR = 1e-12
# Samples that each part seems to have been right for; none ends with weight 0.
PRIOR = 0.5


class StackedCalibrator(BaseCalibrator):
    """The weighted mean of several calibrators' probabilities, then one more map.

    `fit` learns the parts; the weights and the last map, from logarithms of the mean to
    probabilities, are given.
    """

    _parameter_constraints: dict = {
        "calibrators": [list],
        "weights": ["array-like"],
        "last_map": [CalibrationMap],
        "classes": ["array-like", None],
    }

    def __init__(self, calibrators, weights, last_map, *, classes=None):
        self.calibrators = calibrators
        self.weights = weights
        self.last_map = last_map
        self.classes = classes

    def _fit_calibration(self, data):
        self.weights_ = np.array(self.weights, dtype=np.float64)
        logits, weight = data.logits, data.weight * data.total_weight
        columns = np.arange(data.n_classes)
        self.calibrators_ = [
            clone(part)
            .set_params(classes=columns)
            .fit(logits, data.codes, sample_weight=weight)
            for part in self.calibrators
        ]

    def _calibration_map(self):
        parts = tuple(part._calibration_map() for part in self.calibrators_)
        mixture = Mixture(tuple(self.weights_.tolist()), parts, FLOOR)
        return CalibrationMap(mixture, Log(), *self.last_map.operations)


class HeldOut:
    """Predictions of several calibrators for rows that they were not fitted on.

    `proba` holds an (n, K) array of each calibrator; `codes`, `weight` and `fold` say
    the class, the weight and the fold of each row.
    """

    def __init__(self, proba, codes, weight, fold):
        self.proba = proba
        self.codes = codes
        self.weight = weight
        self.fold = fold
        self._own = np.stack([true_log_proba(p, codes) for p in proba], axis=1)

    def stack(self):
        """Return the weights, the last map and the log-probability of each true class.

        The log-probabilities are those of weights and last maps fitted without the fold
        of the row. They also choose which kind of map comes last.
        """
        classes = np.arange(self.proba[0].shape[1])
        # A rough fit will do: the mixture is nearly calibrated.
        lasts = [
            None,
            TemperatureScaling(classes=classes),
            OrderPreservingScaling(classes=classes, tol=1e-6),
        ]
        scores = self._cross_fitted(lasts)
        chosen = int((scores @ self.weight).argmax())
        every = np.ones(self.codes.shape[0], dtype=bool)
        weights, logits = self._mixed(every)
        return weights, self._fitted(lasts[chosen], logits, every), scores[chosen]

    def _cross_fitted(self, lasts):
        scores = np.empty((len(lasts), self.codes.shape[0]))
        for k in np.unique(self.fold):
            inside = self.fold == k
            _, logits = self._mixed(~inside)
            for score, last in zip(scores, lasts, strict=True):
                fitted = self._fitted(last, logits, ~inside)
                proba = evaluate(fitted, ArraySource(logits[inside]))
                score[inside] = true_log_proba(proba, self.codes[inside])
        return scores

    def _mixed(self, rows):
        """Return weights fitted to some rows, and the logits of the mixture on all."""
        weights = fit_mixture(
            self._own[rows], self.weight[rows], prior=PRIOR, tol=1e-9, max_iter=100
        ).x
        total = np.full(self.proba[0].shape, FLOOR)
        for w, proba in zip(weights, self.proba, strict=True):
            total += w * proba
        return weights, np.log(total, out=total)

    def _fitted(self, last, logits, rows):
        """Return the map of a calibrator fitted to some rows; None is no calibrator."""
        if last is None:
            return CalibrationMap(Softmax())
        fitted = clone(last).fit(
            logits[rows], self.codes[rows], sample_weight=self.weight[rows]
        )
        return fitted._calibration_map()


def mean_and_error(values, weight):
    """Return weighted means and their standard errors; weights count repetitions."""
    total = weight.sum()
    mean = values @ weight / total
    square = (values - np.expand_dims(mean, -1)) ** 2 @ weight / total
    return mean, np.sqrt(square / max(total - 1, 1))
