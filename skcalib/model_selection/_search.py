"""CalibratorSearch: the calibrator, or the stack, that cross-validation prefers."""

import time
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.parallel import delayed

from skcalib._base import BaseCalibrator, fit_checked
from skcalib._numerics import choose, mean_and_error
from skcalib._progress import Progress
from skcalib._sklearn_compat import Interval, StrOptions, fit_context
from skcalib._validation import (
    check_calibration_set,
    grouped,
    is_dask,
    lone_class,
    refuse_dask,
    splits_of,
)
from skcalib._warnings import warn
from skcalib.calibrators import OrderPreservingScaling
from skcalib.metrics import get_scorer
from skcalib.metrics._scorers import is_log_loss
from skcalib.model_selection._candidates import (
    common_calibrators,
    default_candidates,
    named_candidates,
    run_told,
    waiting,
)
from skcalib.model_selection._elsewhere import cross_validate
from skcalib.model_selection._fold_scores import (
    fit_and_score,
    fold_score,
    mean_by_row,
    row_scores,
)
from skcalib.model_selection._stack import (
    HeldOut,
    StackedCalibrator,
    Trial,
)

STACK = "stack"
UNTOUCHED = "uncalibrated"
# The finalists of a stack that are made of its first mixture.
REMAPPED = ("mixture", "mixture, then OrderPreservingScaling")


class CalibratorSearch(BaseCalibrator):
    """Choose a calibrator, or stack several, by cross-validation.

    Every candidate is fitted on all folds but one and judged on that one; what is
    chosen is fitted again on everything.

    Without arguments, this is the calibrator for those who do not want to choose: it
    stacks [2]_ a few candidates that learn different things, in two rounds. Their
    probabilities for rows that they were not fitted on are mixed, with the weights of
    highest likelihood. Then the finalists are mixed in the same way: the mixture as it
    is, and after order-preserving scaling; order-preserving scaling of the logits
    themselves, which is not in the first mixture; the simplest candidate; and the one
    that would be chosen as below. Weights are shrunk: each part is taken to have been
    right alone for one more sample, the simplest for 50 over the number of samples a
    class, so that it has most of the weight where samples are few. Parts with less than
    a hundredth are left out.

    Doing nothing is weighed against all that: the probabilities as they came have odds
    of 50 to 1 beforehand, which the likelihood of rows that were not fitted on has to
    outweigh (by 3.9 nats, all rows together); and so it may, with more than two
    classes, for the simplest candidate alone, at 5 to 1 where that is less sure. What
    is served as it came has 0.1 over the number of samples of the uniform distribution.

    With a list of candidates, the simplest one wins whose log-loss is within one
    standard error of the smallest: with few samples that keeps the choice from
    following chance [1]_.

    Parameters
    ----------
    calibrators : list of calibrators or dict from name to calibrator, default=None
        The candidates, from simple to complex; a list may hold pairs of name and
        calibrator. Each is a map of logits, which `DensityRatioCalibration` is not.
        None stacks ensemble temperature scaling, order-preserving scaling, structured
        vector scaling, and structured matrix scaling with its own penalties and, below
        300 classes, with a hundredth of them (from 50 on if the matrix is better than
        the vector); of two classes ensemble temperature scaling, smoothing splines and
        Venn-Abers calibration. With another `rule`, None chooses among the calibrators
        that `compare_calibrators` compares.

    scoring : str or callable, default="neg_log_loss"
        What is maximised: a name known to `skcalib.metrics.get_scorer`, or a scorer.

    cv : int, cross-validation generator or iterable, default=5
        How to split: anything that scikit-learn takes. An integer gives that many
        stratified folds of shuffled rows, None 5, in which equal rows of a class stay
        together. Splitters are used as they are: `KFold` and its like part equal rows.

    rule : {"one_standard_error", "best", "stack"}, default=None
        Take the first candidate within one standard error of the best, or the best,
        or stack them all. None is "stack" where no candidates are given and
        "one_standard_error" otherwise.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling for an integer `cv`.

    n_jobs : int, default=None
        Number of fits at the same time; None is 1, -1 all processors.

    max_time : float, default=None
        Seconds that a stack may take, about. Once the candidates fitted so far, with as
        much for each split, would take longer, the rest is not tried; the first one
        always is. None tries all.

    verbose : int, default=0
        Whether to report progress: of a choice each candidate that is done, of a stack
        what each took, what the splits will take at most, and each of them.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    best_calibrator_ : calibrator
        The chosen calibrator, or the stack, fitted on everything.

    best_name_ : str
        Its name: the key of the dict, or the class and its changed parameters; "stack"
        for the stack.

    best_index_ : int
        Its place in `cv_results_`.

    cv_results_ : dict of lists and arrays
        One entry a candidate: `name`; `mean_test_score`; `difference_to_best`, its
        mean score less that of the best; `standard_error`, that of this difference;
        `rank_test_score`; `mean_fit_time` in seconds. Takes the form of a table in
        ``pandas.DataFrame(search.cv_results_)``. With a stack, the first entry is
        "uncalibrated", doing nothing, the last the stack with the time that its own
        parameters take, and the other times are those of fits to all rows.

    weights_ : dict from str to float
        Weight of each candidate in the first mixture, by name. Only of a stack.

    final_weights_ : dict from str to float
        Weight of each finalist in the second mixture, by name, and of "uncalibrated",
        the probabilities as they came. Only of a stack.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    compare_calibrators : A table of all metrics instead of a choice.

    Notes
    -----
    The standard error is that of the mean difference to the best candidate, which both
    judge on the same rows: over rows for the log-loss, over folds for any other score.
    That of one fold is unknown, and infinite: only `rule` "best" chooses. Log-losses
    use probabilities of at least 2.2e-16. All logits are read into memory; a stack
    keeps the held-out probabilities of every candidate besides, of many classes by
    groups of them. Those of Dask collections stay where they are: there is no stack of
    them, but a choice among calibrators that fit there, by log-loss, on as many folds
    as `cv` says. A hash of each row and its class tells its fold.

    The parameters of a stack, for its entry in `cv_results_`, are fitted without the
    fold that they are judged on. So are its candidates, but roughly: from what they
    learned of all rows, by a step of Newton's method or two. One that stops early is
    judged by what it says, without a warning.

    Where a split leaves rows of one class only to fit on, no candidate can be judged: a
    warning says so, the first candidate is taken and its scores are NaN.

    The score of the winner in `cv_results_` is a little optimistic, as it was chosen
    for it. Judge the search itself on data it has not seen, or by
    `~sklearn.model_selection.cross_val_score`.

    References
    ----------
    .. [1] Hastie, Tibshirani & Friedman. "The Elements of Statistical Learning",
       2nd edition, section 7.10. Springer, 2009.
    .. [2] Wolpert. "Stacked generalization", Neural Networks 5, 1992.

    Examples
    --------
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.model_selection import CalibratorSearch
    >>> logits, y = make_logits(random_state=0)
    >>> search = CalibratorSearch().fit(logits, y)
    >>> search.best_name_
    'stack'
    >>> search.predict_proba(logits).shape == logits.shape
    True
    """

    best_calibrator_: Any
    takes_unused = True

    _parameter_constraints: dict = {
        "calibrators": [list, tuple, dict, None],
        "scoring": [str, callable],
        "cv": ["cv_object"],
        "rule": [StrOptions({"one_standard_error", "best", STACK}), None],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "verbose": ["verbose"],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        calibrators: Any = None,
        *,
        scoring: Any = "neg_log_loss",
        cv: Any = 5,
        rule: Literal["one_standard_error", "best", "stack"] | None = None,
        random_state: Any = 0,
        n_jobs: int | None = None,
        max_time: float | None = None,
        verbose: int = 0,
        classes: Any = None,
    ) -> None:
        self.calibrators = calibrators
        self.scoring = scoring
        self.cv = cv
        self.rule = rule
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.max_time = max_time
        self.verbose = verbose
        self.classes = classes

    # The candidates validate their own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Choose a calibrator and fit it on everything.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples. A single column is the log-odds of the second
            class.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes; see the parameter `classes`. Or shares of all classes, such as
            those of several annotators: a row is then one of each class, weighted.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows. They are used
            in the fits and in the scores.

        groups : array-like of shape (n_samples,), default=None
            Rows that belong together, such as frames of one video or augmentations of
            one image: a group stays on one side of each split. A splitter given as `cv`
            decides for itself; `~sklearn.model_selection.GroupKFold` and its like need
            them. Folds that a candidate draws itself keep them together, too, unless it
            is fitted to one group alone.

        Returns
        -------
        self : object
            The fitted search.
        """
        if is_dask(X):
            self._refuse_elsewhere(X, groups)
        # What a former fit has chosen says nothing of these rows.
        for former in ("best_calibrator_", "weights_", "final_weights_"):
            self.__dict__.pop(former, None)
        data = check_calibration_set(self, X, y, sample_weight, self.classes)
        rule, candidates = self._what_to_try(data.n_classes)
        if data.source.is_remote:
            return self._fit_elsewhere(rule, candidates, data)
        self.classes_, data = data.classes, grouped(data, groups).in_memory()
        codes, weight = data.codes, data.sample_weight
        splits = splits_of(self.cv, data, self.random_state)
        if rule == STACK and len(splits) < 2:
            raise ValueError("cv gives a single split; a stack needs at least two.")
        lone = lone_class(splits, codes)
        if lone is not None:
            return self._take_simplest(candidates, data, *lone)
        if rule == STACK:
            return self._fit_stack(candidates, data, splits)
        scores, seconds = self._cross_validate(candidates, data, splits)
        unit_weight = np.ones(len(splits))
        if is_log_loss(self.scoring):
            unit_weight = np.concatenate([weight[test] for _, test in splits])
            scores, unit_weight = mean_by_row(scores, unit_weight, splits)
        chosen = choose(scores, unit_weight, one_standard_error=rule != "best")
        names = list(candidates)
        self.cv_results_ = _summarise(names, scores, unit_weight, seconds)
        return self._take(chosen, candidates, data)

    def _refuse_elsewhere(self, X, groups):
        """Refuse what cannot be done with the rows of Dask collections, unread."""
        name = type(self).__name__
        if self._rule() == STACK:
            refuse_dask(
                f"the stack of {name}",
                X,
                'Or choose among calibrators: set rule to "one_standard_error".',
            )
        for label, calibrator in self._what_to_try(None)[1].items():
            if not getattr(calibrator, "by_sums", False):
                refuse_dask(label, X, f"Or leave it out of {name}.")
        if not is_log_loss(self.scoring) or groups is not None:
            raise ValueError(
                f"X is a Dask collection, by whose rows {name} judges with "
                'scoring="neg_log_loss" and without groups only. Pass X.compute() for '
                "others, if it fits into memory."
            )

    def _fit_elsewhere(self, rule, candidates, data):
        """Choose by the rows of Dask collections, and fit the choice to them."""
        self.classes_ = data.classes
        splits = data.hashed_splits(self.cv, self.random_state)
        folds = [tuple(map(data.subset, split)) for split in splits]
        for k, (train, _) in enumerate(folds):
            if train.present.shape[0] == 1:
                return self._take_simplest(candidates, data, k, train.present[0])
        scores = cross_validate(candidates.values(), folds)
        difference, error = scores.against_best()
        margin = 0 if rule == "best" else error
        self.cv_results_ = _table(
            list(candidates), scores.mean, difference, error, scores.seconds
        )
        return self._take(int((-difference <= margin).argmax()), candidates, data)

    def _take(self, chosen, candidates, data):
        """Take a candidate by its place."""
        self.best_index_, self.best_name_ = chosen, list(candidates)[chosen]
        best = clone(candidates[self.best_name_]).set_params(classes=self.classes_)
        self._hand_out(fit_checked(best, data, self.n_features_in_))
        return self

    def _fit_stack(self, candidates, data, splits):
        """Fit all candidates, and the weights of the stack."""
        budget = np.inf if self.max_time is None else self.max_time
        tell = Progress(type(self).__name__, shown=self.verbose > 0).note
        later = waiting(data.n_classes) if self.calibrators is None else {}
        trial = Trial(data, self.n_features_in_, splits, budget, self.n_jobs, tell)
        trial.run(candidates, later)
        names = list(trial.fitted)
        parts = [candidates[name] for name in names]
        judged = np.concatenate([test for _, test in splits])
        # A row that several folds judge is one piece of evidence.
        weight = data.sample_weight[judged] / np.bincount(judged)[judged]
        started = time.perf_counter()
        # What the mixture goes through anyway stands beside it, not in it.
        beside = np.array([isinstance(part, OrderPreservingScaling) for part in parts])
        mixed = np.full(len(parts), True) if beside.all() else ~beside
        held_out = HeldOut(trial.folds, mixed, weight, data.n_classes)
        best = choose(held_out.own.T, weight, one_standard_error=True)
        alone = sorted({0, best, *np.flatnonzero(beside).tolist()})
        (weights, last_maps, final, share), scores = held_out.stack(alone)
        seconds = [0.0, *trial.seconds, time.perf_counter() - started]
        rest = {
            "untouched": share,
            "uniform": held_out.uniform,
            "classes": data.classes,
        }
        stack = StackedCalibrator(parts, weights, last_maps, alone, final, **rest)
        self._hand_out(stack.take(trial.fitted.values(), data))
        scores = np.vstack([held_out.untouched, held_out.own.T, scores])
        tried = [UNTOUCHED, *names, STACK]
        self.cv_results_ = _summarise(tried, scores, weight, np.array(seconds))
        self.best_index_, self.best_name_ = len(tried) - 1, STACK
        finalists = [*REMAPPED, *(f"{names[i]} alone" for i in alone), UNTOUCHED]
        self.weights_ = _named(weights, names)
        self.final_weights_ = _named(np.append((1 - share) * final, share), finalists)
        return self

    def _hand_out(self, best):
        """Keep what takes what was given: a single column, if it was one."""
        best.n_features_in_ = self.n_features_in_
        self.best_calibrator_ = best

    def _take_simplest(self, candidates, data, split, code):
        """Take the first candidate, where a split leaves one class to fit on."""
        names = list(candidates)
        warn(
            f"Split {split} of cv leaves rows of one class only to fit on, "
            f"{self.classes_.tolist()[code]!r}, so the candidates cannot be compared: "
            f"the simplest, {names[0]}, is taken. A comparison needs two different "
            "rows of each of two classes, and splits that leave some of both to fit on."
        )
        unknown = np.full((len(names), 1), np.nan)
        self.cv_results_ = _summarise(names, unknown, np.ones(1), unknown[:, 0])
        return self._take(0, candidates, data)

    def _rule(self):
        default = STACK if self.calibrators is None else "one_standard_error"
        return default if self.rule is None else self.rule

    def _what_to_try(self, n_classes):
        """Return the rule and the candidates, by name."""
        rule = self._rule()
        if rule == STACK and not is_log_loss(self.scoring):
            raise ValueError(
                f"A stack maximises the likelihood, and scoring is {self.scoring!r}. "
                'Leave scoring at "neg_log_loss", or set rule to "best" or to '
                '"one_standard_error".'
            )
        if rule != STACK and self.max_time is not None:
            raise ValueError(
                f"max_time is of a stack, and the rule is {rule!r}. Leave it out, or "
                'set rule to "stack".'
            )
        if self.calibrators is None:
            if rule == STACK:
                return rule, default_candidates(n_classes)
            return rule, named_candidates(common_calibrators())
        candidates = named_candidates(self.calibrators)
        for name, calibrator in candidates.items():
            if not hasattr(calibrator, "calibration_map"):
                raise ValueError(
                    f"{name} is no map of logits, so {type(self).__name__} cannot "
                    "predict with it. Leave it out; compare_calibrators compares it."
                )
        return rule, candidates

    def _cross_validate(self, candidates, data, splits):
        """Return scores (candidates, units) and the mean seconds of a fit.

        A unit is a row for the log-loss and a fold for any other score.
        """
        by_row = is_log_loss(self.scoring)
        of_fold = partial(fold_score, get_scorer(self.scoring))
        score = row_scores if by_row else of_fold
        calls = (
            delayed(fit_and_score)(clone(calibrator), data, rows, score)
            for calibrator in candidates.values()
            for rows in splits
        )
        tell = Progress(type(self).__name__, shown=self.verbose > 0).note
        told = list(candidates), len(splits), self.n_jobs, tell
        per_candidate = [list(zip(*f, strict=True)) for f in run_told(calls, *told)]
        scores = np.array([np.concatenate(folds) for folds, _ in per_candidate])
        seconds = np.array([np.mean(folds) for _, folds in per_candidate])
        return scores, seconds

    @property
    def learns_by_class(self) -> Any:
        # Some of those that are tried when none are named do.
        if self.calibrators is None:
            return True
        tried = named_candidates(self.calibrators).values()
        return any(getattr(each, "learns_by_class", False) for each in tried)

    def calibration_map(self) -> Any:
        """Return the map of the calibrator that was chosen."""
        return self.best_calibrator_.calibration_map()

    @property
    def has_logits(self) -> Any:
        return self.best_calibrator_.has_logits

    @property
    def keeps_class(self) -> Any:
        return self.best_calibrator_.keeps_class


def _named(weights, names):
    return dict(zip(names, weights.tolist(), strict=True))


def _summarise(names, scores, weight, seconds):
    """Return `cv_results_`."""
    mean = scores @ weight / weight.sum()
    difference, error = mean_and_error(scores - scores[mean.argmax()], weight)
    return _table(names, mean, difference, error, seconds)


def _table(names, mean, difference, error, seconds):
    return {
        "name": names,
        "mean_test_score": mean,
        "difference_to_best": difference,
        "standard_error": error,
        "rank_test_score": 1 + np.array([(mean > m).sum() for m in mean]),
        "mean_fit_time": seconds,
    }
