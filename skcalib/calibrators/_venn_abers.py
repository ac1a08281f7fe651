"""Venn-Abers calibration: isotonic regression that says how far it can be trusted."""

from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skcalib._base import FoldingCalibrator
from skcalib._maps import (
    Affine,
    CalibrationMap,
    Log,
    LogOdds,
    Lookup,
    Scale,
    Softmax,
    curve_map,
    evaluate,
    make_tables,
)
from skcalib._sklearn_compat import StrOptions
from skcalib._solvers._venn_abers import class_pairs, fit_one_vs_one, fit_one_vs_rest
from skcalib._validation import check_logits, splits_of
from skcalib.calibrators._absent import make_identities

# One-vs-one works with matrices of (2 pairs, classes): 21 MB here, 8 GB for 1,000.
MOST_CLASSES = 150
# Odds of a bound of 0 or 1; a sum of them is still finite.
LARGEST_ODDS = 1e300


class VennAbersCalibration(FoldingCalibrator):
    r"""Fit two isotonic regressions to every score: an interval and a probability.

    For a new sample, adds it to the calibration set as a miss and as a hit and takes
    what isotonic regression gives it each time, :math:`p_0` and :math:`p_1`. One of
    the two is a calibrated probability, whatever the classifier and the distribution,
    so their distance says how much the calibration set knows about such samples. The
    probability is :math:`p_1 / (1 - p_0 + p_1)` [1]_, never 0 or 1.

    Parameters
    ----------
    method : {"one_vs_rest", "one_vs_one"}, default="one_vs_rest"
        For several classes: calibrate every class against the rest and divide each row
        by its sum, or calibrate every pair of classes on the samples of the two and
        put the pairs together [2]_. Two classes need neither.

    cv : int, cross-validation generator or iterable, default=None
        None is the inductive predictor, fitted on all samples. Anything else that
        scikit-learn takes makes a cross Venn-Abers predictor [1]_: one predictor is
        fitted on the test part of each split, and their geometric means are taken. An
        integer gives that many stratified folds of shuffled rows.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling for an integer `cv`.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    knots_ : list of ndarray of shape (n_knots,)
        Ascending scores at which the curves step; between them they are constant,
        closed on the right. One array a class, or one a pair of classes, ordered (0,
        1), (0, 2), ..., (1, 2), ..., for ``method="one_vs_one"``.

    values_ : list of ndarray of shape (n_knots + 1,)
        Probabilities between the knots: of the class, or of the second class of the
        pair.

    lower_, upper_ : list of ndarray of shape (n_knots + 1,)
        The bounds :math:`p_0` and :math:`p_1` between the knots.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    IsotonicCalibration : One isotonic regression, without bounds.

    Notes
    -----
    The score of a class is its log-odds against the rest, that of a pair the difference
    of the two logits. Equal scores are pooled. The bounds are step functions of the
    score; all of their values come from one isotonic regression and the tangents to its
    convex minorant, in :math:`n \log n` operations, and prediction looks them up. A
    curve has up to twice as many knots as there are samples, for each class.

    The interval is no confidence interval: what holds is that one of its two ends,
    nobody knows which, is a calibrated probability. Each curve keeps a share for
    chance, so that with many classes the rows become under-confident.

    A class may be missing from the calibration set: it keeps its probability before
    normalisation, in a pair as one of two, with the bounds 0 and 1. The new sample has
    weight 1, so whole weights count as samples, others by Kish's effective number.

    The cross predictor of [1]_ trains the classifier anew for each fold. Here the
    classifier is given, and the folds part the calibration set only. The paper defines
    no interval for it; `predict_interval` takes the geometric means of the bounds,
    normalised as those of the probability are, between which the probability lies.

    All scores are held in memory, as float64.

    References
    ----------
    .. [1] Vovk, Petej & Fedorova. "Large-scale probabilistic predictors with and
       without guarantees of validity", NeurIPS 2015. https://arxiv.org/abs/1511.00213
    .. [2] Manokhin. "Multi-class probabilistic classification using inductive and cross
       Venn-Abers predictors", COPA 2017.
       https://proceedings.mlr.press/v60/manokhin17a.html

    Examples
    --------
    >>> from skcalib import VennAbersCalibration
    >>> log_odds = [-3.0, -1.0, 0.5, 1.0, 2.0, 3.0]
    >>> venn_abers = VennAbersCalibration().fit(log_odds, [0, 1, 0, 0, 1, 1])
    >>> venn_abers.predict_proba([-2.0, 0.0, 4.0]).round(2)
    array([[0.67, 0.33],
           [0.6 , 0.4 ],
           [0.25, 0.75]])
    >>> venn_abers.predict_interval([-2.0, 0.0, 4.0])[:, 1].round(2)
    array([[0.  , 0.5 ],
           [0.25, 0.5 ],
           [0.67, 1.  ]])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"one_vs_rest", "one_vs_one"})],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
        "classes": ["array-like", None],
    }

    has_logits = False
    learns_by_class = True
    takes_unused = True

    def __init__(
        self,
        *,
        method: Literal["one_vs_rest", "one_vs_one"] = "one_vs_rest",
        cv: Any = None,
        random_state: Any = 0,
        classes: Any = None,
    ) -> None:
        self.method = method
        self.cv = cv
        self.random_state = random_state
        self.classes = classes

    @property
    def draws_folds(self) -> Any:
        return self.cv is not None

    def predict_interval(self, X: Any) -> Any:
        r"""Return the bounds :math:`p_0` and :math:`p_1` of every probability.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        Returns
        -------
        interval : ndarray of shape (n_samples, n_classes, 2)
            Lower and upper bound of each class. Those of two classes hold for
            `predict_proba`; those of more for the probabilities before the rows are
            divided by their sums. With ``method="one_vs_one"`` the bounds of the pairs
            are put together as their probabilities are.
        """
        check_is_fitted(self)
        source = check_logits(self, X, reset=False)
        sides = [(self.lower_, self.upper_), (self.upper_, self.lower_)]
        bounds = [evaluate(self._bound_map(*side), source) for side in sides]
        if self._is_pairwise():
            bounds = [np.exp(bound) for bound in bounds]
        return np.stack(bounds, axis=2)

    def fit_calibration(self, data: Any) -> None:
        """Fit two isotonic regressions to every score."""
        self._check_size(data.n_classes)
        if self.cv is None:
            folds = [data.used()]
        else:
            splits = splits_of(self.cv, data, self.random_state)
            folds = [data.subset(test) for _, test in splits]
        self._method = self.method
        curves = (fit_one_vs_one if self._is_pairwise() else fit_one_vs_rest)(folds)
        self.knots_ = [curve.knots for curve in curves]
        self.values_ = [curve.values for curve in curves]
        self.lower_ = [curve.lower for curve in curves]
        self.upper_ = [curve.upper for curve in curves]
        self._leave_absent(data.used())

    def _leave_absent(self, data):
        """Let absent classes keep their probability, of which nothing is known."""
        n_classes = data.n_classes
        if n_classes == 2:
            return
        curves = np.setdiff1d(np.arange(n_classes), data.present)
        if self._is_pairwise():
            pairs = np.array(class_pairs(n_classes))
            curves = np.flatnonzero(np.isin(pairs, curves).any(axis=1))
        make_identities(curves, self.knots_, self.values_, kind="constant")
        for k in curves:
            self.lower_[k] = np.zeros_like(self.values_[k])
            self.upper_[k] = np.ones_like(self.values_[k])

    def _check_size(self, n_classes):
        if self.method == "one_vs_one" and n_classes > MOST_CLASSES:
            n_pairs = n_classes * (n_classes - 1) // 2
            raise ValueError(
                f"method='one_vs_one' fits a curve to every pair of classes: {n_pairs} "
                f"for {n_classes} classes. It takes at most {MOST_CLASSES} classes; "
                "use method='one_vs_rest'."
            )

    def _is_pairwise(self):
        return self._method == "one_vs_one"

    def _tables(self, values):
        return make_tables(self.knots_, values, "constant")

    def calibration_map(self) -> Any:
        """Return the curves of the merged probabilities."""
        if self._is_pairwise():
            coupled = self._coupled(self.values_, self.values_)
            return CalibrationMap(*coupled, Softmax())
        return curve_map(self._tables(self.values_))

    def _bound_map(self, near, far):
        """Map to one bound of each class: its logarithm if the method is pairwise.

        `near` are the same bounds of the curves, `far` the opposite ones.
        """
        if self._is_pairwise():
            return CalibrationMap(*self._coupled(far, near))
        return CalibrationMap(LogOdds(), Lookup(self._tables(near)))

    def _coupled(self, second, first):
        """Logarithm of Price's estimate, 1 / (1 + sum of the odds of the others).

        For each pair the odds of its second class are taken from the values `second`,
        those of its first class from `first`.
        """
        n_classes = len(self.classes_)
        pairs = np.array(class_pairs(n_classes))
        unit = np.eye(n_classes)
        difference = unit[pairs[:, 1]] - unit[pairs[:, 0]]
        of_second = [_odds(value, 1 - value) for value in second]
        of_first = [_odds(1 - value, value) for value in first]
        # The odds of the second class count against the first.
        total = np.concatenate([unit[pairs[:, 0]], unit[pairs[:, 1]]]).T
        return (
            Affine(np.tile(difference, (2, 1)), np.zeros(2 * len(pairs))),
            Lookup(self._tables(of_second) + self._tables(of_first)),
            Affine(total, np.ones(n_classes)),
            Log(),
            Scale(-1.0),
        )


def _odds(proba, rest):
    odds = np.full_like(proba, LARGEST_ODDS)
    return np.divide(proba, rest, out=odds, where=rest * LARGEST_ODDS > proba)
