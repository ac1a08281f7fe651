"""CalibratorSearch: the calibrator that cross-validation prefers."""

import time
from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed

from skcalib._base import BaseCalibrator
from skcalib._sklearn_compat import StrOptions, fit_context
from skcalib._validation import (
    check_calibration_set,
    check_logits,
    check_weight,
    encode_labels,
    make_splits,
)
from skcalib.metrics import get_scorer
from skcalib.model_selection._candidates import named_candidates
from skcalib.model_selection._log_proba import true_log_proba


class CalibratorSearch(BaseCalibrator):
    """Choose a calibrator by cross-validation on the calibration set.

    Every candidate is fitted on all folds but one and judged on that one; the chosen
    one is fitted again on everything. By default the simplest candidate wins whose
    log-loss is within one standard error of the smallest: with few samples that keeps
    the choice from following chance [1]_.

    Parameters
    ----------
    calibrators : list of calibrators or dict from name to calibrator, default=None
        The candidates, from simple to complex. None tries temperature scaling,
        ensemble temperature scaling, Platt scaling, beta calibration, structured
        vector scaling, vector scaling, structured matrix scaling and strict isotonic
        regression.

    scoring : str or callable, default="neg_log_loss"
        What is maximised: a name known to `skcalib.metrics.get_scorer`, or a scorer.

    cv : int, cross-validation generator or iterable, default=5
        How to split: anything that scikit-learn takes. An integer gives that many
        stratified folds of shuffled rows, None 5.

    rule : {"one_standard_error", "best"}, default="one_standard_error"
        Take the first candidate within one standard error of the best, or the best.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling for an integer `cv`.

    n_jobs : int, default=None
        Number of fits at the same time; None is 1, -1 all processors.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default integer labels in
        ``range(n_columns)`` are column numbers; other labels are matched to the
        columns in sorted order.

    Attributes
    ----------
    best_calibrator_ : calibrator
        The chosen calibrator, fitted on everything.

    best_name_ : str
        Its name: the key of the dict, or the class and its changed parameters.

    best_index_ : int
        Its place among the candidates.

    cv_results_ : dict of lists and arrays
        One entry a candidate: `name`; `mean_test_score`; `difference_to_best`, its
        mean score less that of the best; `standard_error`, that of this difference;
        `rank_test_score`; `mean_fit_time` in seconds. Takes the form of a table in
        ``pandas.DataFrame(search.cv_results_)``.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    compare_calibrators : A table of all metrics instead of a choice.

    Notes
    -----
    The standard error is that of the mean difference to the best candidate, which
    both judge on the same rows: over rows for the log-loss, over folds for any other
    score. Log-losses use probabilities of at least 2.2e-16. All logits are read into
    memory.

    The score of the winner in `cv_results_` is a little optimistic, as it was chosen
    for it. Judge the search itself on data it has not seen, or by
    `~sklearn.model_selection.cross_val_score`.

    References
    ----------
    .. [1] Hastie, Tibshirani & Friedman. "The Elements of Statistical Learning",
       2nd edition, section 7.10. Springer, 2009.

    Examples
    --------
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.model_selection import CalibratorSearch
    >>> logits, y = make_logits(random_state=0)
    >>> search = CalibratorSearch().fit(logits, y)
    >>> search.best_name_
    'TemperatureScaling'
    >>> search.predict_proba(logits).shape == logits.shape
    True
    """

    _parameter_constraints: dict = {
        "calibrators": [list, tuple, dict, None],
        "scoring": [str, callable],
        "cv": ["cv_object"],
        "rule": [StrOptions({"one_standard_error", "best"})],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        calibrators=None,
        *,
        scoring="neg_log_loss",
        cv=5,
        rule="one_standard_error",
        random_state=0,
        n_jobs=None,
        classes=None,
    ):
        self.calibrators = calibrators
        self.scoring = scoring
        self.cv = cv
        self.rule = rule
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.classes = classes

    # The candidates validate their own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Choose a calibrator and fit it on everything.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples. A single column is the log-odds of the second
            class.

        y : array-like of shape (n_samples,)
            True classes; see the parameter `classes`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows. They are used
            in the fits and in the scores.

        Returns
        -------
        self : object
            The fitted search.
        """
        candidates = named_candidates(self.calibrators)
        self.classes_, _ = check_calibration_set(
            self, X, y, sample_weight, self.classes
        )
        source = check_logits(self, X, reset=False)
        logits = source.read(slice(0, source.shape[0]))
        _, codes = encode_labels(self, y, source.shape[1], self.classes)
        weight = check_weight(sample_weight, codes)
        results = self._cross_validate(candidates, logits, codes, weight)
        self.cv_results_, self.best_index_ = _summarise(
            list(candidates), *results, one_standard_error=self.rule != "best"
        )
        self.best_name_, best = list(candidates.items())[self.best_index_]
        self.best_calibrator_ = clone(best).set_params(classes=self.classes_)
        self.best_calibrator_.fit(logits, self.classes_[codes], sample_weight=weight)
        return self

    def _cross_validate(self, candidates, logits, codes, weight):
        """Return scores (candidates, units), the units' weights and the fit seconds.

        A unit is a row for the log-loss and a fold for any other score.
        """
        splits = make_splits(self.cv, logits, codes, weight, self.random_state)
        by_row = self.scoring == "neg_log_loss"
        score = _row_scores if by_row else _FoldScore(get_scorer(self.scoring))
        data = (self.classes_, logits, codes, weight)
        outcomes = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_and_score)(clone(calibrator), *data, rows, score)
            for calibrator in candidates.values()
            for rows in splits
        )
        n_splits = len(splits)
        per_candidate = [
            outcomes[i : i + n_splits] for i in range(0, len(outcomes), n_splits)
        ]
        scores = np.array(
            [np.concatenate([s for s, _ in folds]) for folds in per_candidate]
        )
        seconds = np.array([np.mean([t for _, t in folds]) for folds in per_candidate])
        if by_row:
            unit_weight = np.concatenate([weight[test] for _, test in splits])
        else:
            unit_weight = np.ones(n_splits)
        return scores, unit_weight, seconds

    def _calibration_map(self):
        return self.best_calibrator_._calibration_map()

    @property
    def _has_logits(self):
        return self.best_calibrator_._has_logits

    @property
    def _keeps_class(self):
        return self.best_calibrator_._keeps_class


class _FoldScore:
    """One score for a fold, by a scorer."""

    def __init__(self, scorer):
        self.scorer = scorer

    def __call__(self, calibrator, X, codes, weight):
        y = calibrator.classes_[codes]
        return np.array([self.scorer(calibrator, X, y, sample_weight=weight)])


def _row_scores(calibrator, X, codes, weight):
    """One score for a row, the log-probability of its class."""
    return true_log_proba(calibrator.predict_proba(X), codes)


def _fit_and_score(calibrator, classes, logits, codes, weight, rows, score):
    """Return the scores of one fold and the seconds of the fit."""
    train, test = rows
    calibrator.set_params(classes=classes)
    started = time.perf_counter()
    calibrator.fit(logits[train], classes[codes[train]], sample_weight=weight[train])
    seconds = time.perf_counter() - started
    return score(calibrator, logits[test], codes[test], weight[test]), seconds


def _summarise(names, scores, weight, seconds, *, one_standard_error):
    """Return `cv_results_` and the index of the chosen candidate."""
    mean = scores @ weight / weight.sum()
    best = int(mean.argmax())
    difference = scores - scores[best]
    mean_difference = mean - mean[best]
    # Weights count repetitions, so this is the error of the repeated rows.
    squares = (difference - mean_difference[:, np.newaxis]) ** 2 @ weight
    error = np.sqrt(squares / weight.sum() / max(weight.sum() - 1, 1))
    within = mean_difference >= -error
    chosen = int(within.argmax()) if one_standard_error else best
    results = {
        "name": names,
        "mean_test_score": mean,
        "difference_to_best": mean_difference,
        "standard_error": error,
        "rank_test_score": 1 + np.array([(mean > m).sum() for m in mean]),
        "mean_fit_time": seconds,
    }
    return results, chosen
