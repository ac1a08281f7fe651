"""Boosted trees over features on top of a calibrator, as far as held-out rows gain."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skcalib._base import (
    BaseCalibrator,
    FeaturesCalibrator,
    WrappingCalibrator,
    fit_checked,
)
from skcalib._maps import evaluate, log_proba
from skcalib._numerics import choose, mean_and_error, softmax_, true_log_proba
from skcalib._sklearn_compat import Interval, fit_context
from skcalib._validation import (
    check_both_times,
    check_calibration_set,
    check_features,
    check_logits,
    check_same_columns,
    check_width,
    column_names,
    column_on_host,
    grouped,
    is_standard,
    is_tensor,
    lone_class,
    refuse_dask,
    splits_of,
)
from skcalib.calibrators import StructuredMatrixScaling

N_FOLDS = 5
# How many standard errors the rounds have to gain.
N_ERRORS = 2
SMALLEST_LEAF = 20
# Added to the curvature of a leaf, as rows would that say nothing: without it a leaf
# that is nearly sure takes a step of any length for one error.
RIDGE = 1.0


class BoostedCalibration(FeaturesCalibrator, WrappingCalibrator):
    r"""Calibrate all rows, and boost what features say about the rest.

    A calibrator of the logits comes first. Gradient boosting then goes on from its
    log-probabilities [1]_ with small trees over features of the rows, and these
    log-probabilities beside them, so that groups that nobody named are calibrated, too
    [2]_. The number of rounds is chosen by cross-fitting. Unless they gain more than
    two standard errors of log-loss on held-out rows, there are none, and the calibrator
    is left as it is.

    Parameters
    ----------
    calibrator : estimator, default=None
        The calibrator of the logits; a ``StructuredMatrixScaling(structure="vector")``
        by default. Its `classes` hold where there are none here.

    max_rounds : int, default=100
        Largest number of rounds, each of which adds a tree, or one for each of more
        than two classes.

    learning_rate : float, default=0.1
        What share of each tree is added.

    max_depth : int, default=3
        Depth of the trees.

    random_state : int, RandomState instance or None, default=0
        Seed of the folds, and of the rows and columns that the trees look at.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    calibrator_ : estimator
        The calibrator of the logits.

    n_rounds_ : int
        Rounds that were chosen; 0 without features, and where they gain nothing.

    rounds_ : list of dict
        For each round the `~sklearn.tree.DecisionTreeRegressor` that is added to the
        logit of a column: to that of the second class only, where two have been seen.
        A tree looks at the features, and the log-probabilities behind them.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns of logits seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    GroupCalibration : For groups that have names.
    DensityRatioCalibration : Recalibrates the confidence by the distance from
        calibration samples.

    Notes
    -----
    The features are numbers and come as metadata, ``fit(X, y,
    features=...)`` and ``predict_proba(X, features=...)``. With scikit-learn's metadata
    routing, searches that score by accuracy pass them on once
    ``set_fit_request(features=True)`` and ``set_score_request(features=True)`` are
    called, and pipelines after ``set_predict_proba_request(features=True)``; the
    scorers of probabilities cannot. They have to be at hand
    where the model serves; it is no map of the logits and cannot be exported. A
    `CalibratedClassifier` hands none to predictions: calibrate its logits beside it, by
    `ClassifierLogits`. Of many classes it is slow: a round fits a tree for each.

    Rounds are chosen over all rows. A group may have lost what others gained.

    References
    ----------
    .. [1] Friedman. "Greedy Function Approximation: A Gradient Boosting Machine",
       Annals of Statistics 2001.
    .. [2] Hebert-Johnson, Kim, Reingold & Rothblum. "Multicalibration: Calibration for
       the (Computationally-Identifiable) Masses", ICML 2018.
       https://arxiv.org/abs/1711.08513

    Examples
    --------
    The second class is found too likely where two features are large:

    >>> import numpy as np
    >>> from scipy.special import expit
    >>> from skcalib import BoostedCalibration
    >>> rng = np.random.default_rng(0)
    >>> features, log_odds = rng.random((3000, 3)), rng.normal(size=3000)
    >>> y = (rng.random(3000) < expit(log_odds)).astype(int)
    >>> log_odds[(features[:, 0] > 0.5) & (features[:, 1] > 0.5)] += 2
    >>> boosted = BoostedCalibration().fit(log_odds, y, features=features)
    >>> boosted.n_rounds_ > 0
    True
    >>> corner, middle = [[0.8, 0.8, 0.5]], [[0.2, 0.2, 0.5]]
    >>> proba = boosted.predict_proba([1.0], features=corner)
    >>> bool(proba[0, 1] < boosted.predict_proba([1.0], features=middle)[0, 1] - 0.2)
    True
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "max_rounds": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_depth": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "classes": ["array-like", None],
    }

    has_logits = keeps_class = by_sums = False

    def __init__(
        self,
        calibrator: Any = None,
        *,
        max_rounds: int = 100,
        learning_rate: float = 0.1,
        max_depth: int = 3,
        random_state: Any = 0,
        classes: Any = None,
    ) -> None:
        self.calibrator = calibrator
        self.max_rounds = max_rounds
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.random_state = random_state
        self.classes = classes

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        features: Any = None,
        groups: Any = None,
    ) -> Self:
        """Learn the calibration from logits, features and true classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes; see the parameter `classes`. Or shares of all classes, such as
            those of several annotators: a row is then one of each class, weighted.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. Rows of weight 0 are as if they were not there.

        features : array-like of shape (n_samples, n_features), default=None
            What else is known of each row; without, there is the calibrator only. NaN
            where a number is missing: each split of a tree learns to which side such
            rows go.

        groups : array-like of shape (n_samples,), default=None
            Rows that belong together, such as frames of one video: a group stays on one
            side of each fold, those of the calibrator included.

        Returns
        -------
        self : object
            The fitted calibrator.
        """
        refuse_dask(type(self).__name__, X)
        given = _on_host(X), y, sample_weight, self._given_classes
        data = check_calibration_set(self, *given)
        self.classes_, data = data.classes, grouped(data, groups)
        self._names, known = None, None
        if features is not None:
            self._names = column_names(features)
            known = self._check_features(features, len(y))
            known = data.spread(known)[data.weight > 0]
        self.calibrator_ = self._fit_inner(data)
        data = data.used()
        self._n_features = None if known is None else known.shape[1]
        self.n_rounds_, self.rounds_ = 0, []
        if known is None:
            return self
        random = check_random_state(self.random_state)
        self._seed = int(random.randint(2**31))
        self.n_rounds_ = self._cross_fitted(data, known, random)
        if self.n_rounds_:
            told = self._told(self.calibrator_, data.source)
            self.rounds_ = self._boosted(told, known, data, self.n_rounds_)
        return self

    def predict_proba(self, X: Any, features: Any = None) -> Any:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        features : array-like of shape (n_samples, n_features), default=None
            As in `fit`; needed if they were given there.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`; float32 for float32 logits,
            float64 otherwise.
        """
        check_is_fitted(self)
        refuse_dask(type(self).__name__, X, "Or pass its chunks one by one.")
        source = check_logits(self, _on_host(X), reset=False)
        in_fit = self._n_features is not None
        check_both_times(self, "features", features, in_fit=in_fit)
        known = None
        if features is not None:
            known = self._check_features(features, source.shape[0], self._n_features)
        if not self.rounds_:
            return evaluate(self.calibrator_.calibration_map(), source)
        told = self._told(self.calibrator_, source)
        *_, told = _rounds(self.rounds_, told, known)
        return softmax_(told).astype(source.dtype, copy=False)

    def _inner(self):
        if self.calibrator is None:
            return StructuredMatrixScaling(structure="vector")
        return self.calibrator

    def _check_features(self, features, n_rows, n_columns=None):
        """Return the features as the float32 that trees compare."""
        names = column_names(features)
        known = check_features(
            type(self).__name__,
            features,
            dtype=np.float32,
            order="C",
            ensure_all_finite="allow-nan",
        )
        check_consistent_length(np.empty(n_rows), known)
        check_width(known, n_columns)
        check_same_columns(names, self._names)
        return known

    @staticmethod
    def _told(calibrator, source):
        """Return the log-probabilities that a calibrator gives."""
        front = log_proba(calibrator.calibration_map(), source.shape[1])
        return evaluate(front, source).astype(np.float64, copy=False)

    def _boosted(self, told, known, data, n_rounds):
        """Return the trees of each round, by column, that go on from `told`."""
        random = np.random.RandomState(self._seed)
        told, columns = told.copy(), _columns(told, known)
        # Of two classes a tree tells the log-odds of the second.
        present = data.present
        boosted = present[1:] if present.size == 2 else present
        factor = 1.0 if present.size == 2 else (present.size - 1) / present.size
        n_drawn = max(1, data.n_samples // 2)
        rounds = []
        for _ in range(n_rounds):
            drawn = random.choice(data.n_samples, n_drawn, replace=False)
            proba, codes = softmax_(told[drawn]), data.codes[drawn]
            weight, features = data.sample_weight[drawn], columns[drawn]
            trees = {}
            for column in boosted.tolist():
                p = proba[:, column]
                tree = DecisionTreeRegressor(
                    max_depth=self.max_depth,
                    min_samples_leaf=SMALLEST_LEAF,
                    max_features="sqrt",
                    random_state=random.randint(2**31),
                )
                sums = weight, (codes == column) - p, p * (1 - p)
                step = _grow(tree, features, *sums)
                tree.tree_.value[:, 0, 0] = factor * self.learning_rate * step
                trees[column] = tree
            for column, tree in trees.items():
                told[:, column] += tree.predict(columns, check_input=False)
            rounds.append(trees)
        return rounds

    def _cross_fitted(self, data, known, random):
        """Return the number of rounds that held-out rows choose."""
        splits = splits_of(N_FOLDS, data, random)
        if lone_class(splits, data.codes):
            return 0
        scores = np.zeros((1 + self.max_rounds, data.n_samples))
        for train, test in splits:
            seen = data.subset(train)
            first = fit_checked(clone(self._inner()), seen)
            rounds = self._boosted(
                self._told(first, seen.source), known[train], seen, self.max_rounds
            )
            told = self._told(first, data.subset(test).source)
            for i, now in enumerate(_rounds(rounds, told, known[test])):
                scores[i, test] = true_log_proba(softmax_(now.copy()), data.codes[test])
        best = choose(scores, data.sample_weight, one_standard_error=False)
        gain, error = mean_and_error(scores[best] - scores[0], data.sample_weight)
        return best if gain > N_ERRORS * error else 0


def _on_host(X):
    """Return logits where trees can be; tensors and their like come from there."""
    return column_on_host(X) if is_tensor(X) or is_standard(X) else X


def _columns(told, known):
    """Return what trees look at, as the float32 that they compare."""
    return np.column_stack([known, told]).astype(np.float32)


def _grow(tree, columns, weight, slope, bend):
    """Fit a tree to slopes of the log-likelihood; return Newton's step at each node."""
    tree.fit(columns, slope, sample_weight=weight)  # Its check looks for gaps.
    leaf = tree.apply(columns, check_input=False)
    rise, bends = (
        np.bincount(leaf, weight * values, tree.tree_.node_count)
        for values in (slope, bend)
    )
    return rise / (bends + RIDGE)


def _rounds(rounds, told, known):
    """Yield the log-probabilities, then what each round makes of them, in place."""
    told, columns = told.copy(), _columns(told, known)
    yield told
    for trees in rounds:
        for column, tree in trees.items():
            told[:, column] += tree.predict(columns, check_input=False)
        yield told
