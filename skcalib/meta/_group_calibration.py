"""A calibration for every group, near that of the whole where rows are few."""

from copy import deepcopy
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skcalib._base import BaseCalibrator, WrappingCalibrator, fit_checked
from skcalib._blocks import ArraySource
from skcalib._maps import (
    Affine,
    CalibrationMap,
    Softmax,
    evaluate,
    evaluate_block,
    log_proba,
)
from skcalib._numerics import choose, distinct, softmax_, true_log_proba
from skcalib._sklearn_compat import Interval, StrOptions, fit_context
from skcalib._solvers._group_scaling import fit_groups
from skcalib._validation import (
    check_both_times,
    check_calibration_set,
    check_groups,
    check_logits,
    column_on_host,
    given_back,
    is_tensor,
    lone_class,
    place_of_group,
    readable,
    refuse_dask,
    splits_of,
    warn_of_namesakes,
)
from skcalib.calibrators import StructuredMatrixScaling
from skcalib.meta._chain import Recalibrated

# Tried by cross-fitting, the strongest first: groups that do not differ at all.
STRENGTHS = (np.inf, 1000.0, 100.0, 10.0, 1.0)
N_FOLDS = 5
_POSITIVE = Interval(Real, 0, None, closed="right")


class ShrunkScaling(BaseCalibrator):
    """What `GroupCalibration` does to the log-probabilities of one group.

    Parameters
    ----------
    strength : float, default=10.0
        Strength of the penalty towards leaving them as they are.

    structure : {"temperature", "vector"}, default="temperature"
        One factor, or a factor and an offset for each class.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits.

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (n_classes,)
        Factors and offsets.
    """

    _parameter_constraints: dict = {
        "strength": [_POSITIVE],
        "structure": [StrOptions({"temperature", "vector"})],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        *,
        strength: float = 10.0,
        structure: Literal["temperature", "vector"] = "temperature",
        classes: Any = None,
    ) -> None:
        self.strength = strength
        self.structure = structure
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Find factors and offsets."""
        number = np.zeros(data.n_samples, dtype=np.intp)
        found = fit_groups(data, number, 1, self.strength, self.structure)
        self.coef_, self.intercept_ = found.x[:, 0]
        self._warn_unless_converged(found)

    def calibration_map(self) -> Any:
        """Return the affine map of the columns."""
        return CalibrationMap(Affine(self.coef_, self.intercept_), Softmax())


class GroupCalibration(WrappingCalibrator):
    r"""Calibrate all rows, and correct each group as far as its rows allow.

    A calibrator of all rows comes first. Its log-probabilities :math:`L` are then
    scaled in each group, :math:`\operatorname{softmax}(v_g L + b_g)`, with a ridge
    penalty towards :math:`v = 1, b = 0` that is divided by the number of rows of the
    group: one of 20 rows stays near the whole, one of 20,000 is free (partial pooling).
    How strong the penalty is, is chosen by cross-fitting, and so is whether the groups
    are told apart at all. Groups that were not seen get the calibration of the whole.

    Parameters
    ----------
    calibrator : estimator, default=None
        The calibrator of all rows; a ``StructuredMatrixScaling(structure="vector")`` by
        default. Its `classes` hold where there are none here.

    structure : {"temperature", "vector"}, default="temperature"
        One number for each group, or a factor and an offset for each class.

    strength : float or "auto", default="auto"
        Strength of the penalty, about as many rows as the whole counts against a
        group; infinity leaves the groups as the whole. By default, of 1, 10, 100, 1,000
        and infinity the largest whose log-loss on held-out rows is within one standard
        error of the least.

    random_state : int, RandomState instance or None, default=0
        Seed of the folds.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    calibrator_ : estimator
        The calibrator of all rows.

    strength_ : float
        The strength that was chosen or given; infinity without groups.

    groups_ : list
        The groups seen, in sorted order; empty if `fit` was given none. Dates are
        datetimes, in whatever unit they came.

    coef_, intercept_ : ndarray of shape (n_groups, n_classes)
        :math:`v_g` and :math:`b_g`.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If the search of a group ends early. The best point found is kept.

    UserWarning
        If a prediction names groups by another type than `fit`, such as ``"1"`` for 1.

    Notes
    -----
    The groups come as metadata, ``fit(X, y, groups=...)`` and ``predict_proba(X,
    groups=...)``. `calibrator_of` returns the calibrator of one group, which takes
    logits only and is saved and exported as any other; `skcalib.export.to_onnx`,
    `calibrate_onnx_model` and `to_torch` write all groups into one graph, with the
    group of a row as an input more. A `CalibratedClassifier` hands no groups to
    predictions, and refuses them in `fit`: calibrate its logits beside it, by
    `ClassifierLogits`.

    Examples
    --------
    >>> import numpy as np
    >>> from skcalib import GroupCalibration
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(4000, 3, random_state=0)
    >>> country = np.where(np.arange(4000) % 4, "de", "fr")
    >>> X[country == "fr"] *= 2
    >>> grouped = GroupCalibration().fit(X, y, groups=country)
    >>> grouped.groups_
    ['de', 'fr']
    >>> bool(grouped.coef_[0, 0] > 1.5 * grouped.coef_[1, 0])
    True
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "structure": [StrOptions({"temperature", "vector"})],
        "strength": [StrOptions({"auto"}), _POSITIVE],
        "random_state": ["random_state"],
        "classes": ["array-like", None],
    }

    has_logits = keeps_class = by_sums = False

    def __init__(
        self,
        calibrator: Any = None,
        *,
        structure: Literal["temperature", "vector"] = "temperature",
        strength: Literal["auto"] | float = "auto",
        random_state: Any = 0,
        classes: Any = None,
    ) -> None:
        self.calibrator = calibrator
        self.structure = structure
        self.strength = strength
        self.random_state = random_state
        self.classes = classes

    @property
    def learns_by_class(self) -> Any:
        return super().learns_by_class or self.structure == "vector"

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Learn the calibration from logits, groups and true classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes; see the parameter `classes`. Or shares of all classes, such as
            those of several annotators: a row is then one of each class, weighted.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        groups : array-like of shape (n_samples,), default=None
            The group of each row; without, there is the calibration of the whole only.

        Returns
        -------
        self : object
            The fitted calibrator.
        """
        refuse_dask(type(self).__name__, X)
        data = check_calibration_set(self, X, y, sample_weight, self._given_classes)
        self.classes_ = data.classes
        self.calibrator_ = self._fit_inner(data)
        if groups is not None:
            groups = data.spread(check_groups(groups, len(y)))[data.weight > 0]
        data = data.used()
        if groups is None:
            self.groups_, self.strength_ = [], np.inf
            self.coef_, self.intercept_ = np.ones((2, 0, data.n_classes))
            return self
        names, number = distinct(groups)
        self.groups_ = names.tolist()
        self.strength_ = (
            self._cross_fitted(data, number)
            if isinstance(self.strength, str)
            else float(self.strength)
        )
        told = self._told(self.calibrator_, data)
        found = self._fit_groups(told, number, self.strength_)
        self.coef_, self.intercept_ = found.x
        self._warn_unless_converged(found)
        return self

    def predict_proba(self, X: Any, groups: Any = None) -> Any:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        groups : array-like of shape (n_samples,), default=None
            The group of each row; needed if `fit` was given groups. One that it has
            not seen gets the calibration of the whole.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`; float32 for float32 logits,
            float64 otherwise.
        """
        check_is_fitted(self)
        refuse_dask(type(self).__name__, X, "Or pass its chunks one by one.")
        source = check_logits(self, X, reset=False)
        check_both_times(self, "groups", groups, in_fit=bool(self.groups_))
        if groups is None:
            return evaluate(self.calibrator_.calibration_map(), source)
        front = log_proba(self.calibrator_.calibration_map(), self.classes_.shape[0])
        told = evaluate(front, source)
        given = check_groups(groups, source.shape[0])
        row, factor, offset = self._scaling_of(given)
        if is_tensor(told):
            scaled = told * told.new_tensor(factor[row]) + told.new_tensor(offset[row])
            return scaled.softmax(dim=1)
        rows = ArraySource(readable(told))
        proba = rows.map(
            lambda block, row: softmax_(block * factor[row] + offset[row]),
            row,
            dtype=rows.dtype,
            n_columns=rows.shape[1],
        )
        return given_back(proba, told)

    def _scaling_of(self, given):
        """Return which of the factors and offsets each row has, and these two."""
        names, row = distinct(given)
        names = names.tolist()
        place = np.array([place_of_group(name, self.groups_) for name in names])
        is_seen = place >= 0
        unknown = [name for name, seen in zip(names, is_seen, strict=True) if not seen]
        warn_of_namesakes(unknown, self.groups_, any_seen=bool(is_seen.any()))
        # Those that were not seen are left as the whole.
        seen = is_seen[:, np.newaxis]
        factor = np.where(seen, self.coef_[place], 1.0)
        return row, factor, np.where(seen, self.intercept_[place], 0.0)

    def predict(self, X: Any, groups: Any = None) -> Any:
        """Return the class of the largest calibrated probability.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        groups : array-like of shape (n_samples,), default=None
            As in `predict_proba`.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        proba = column_on_host(self.predict_proba(X, groups=groups))
        return self.classes_[proba.argmax(axis=1)]

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> float:
        """Return the accuracy.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes, or shares of all classes as in `fit`.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        groups : array-like of shape (n_samples,), default=None
            As in `predict_proba`.

        Returns
        -------
        accuracy : float
            Share of right predictions.
        """
        predicted = self.predict(X, groups=groups)
        return self._accuracy(predicted, X, y, sample_weight)

    def calibrator_of(self, group: Any) -> Any:
        """Return the calibrator of the rows of one group, from the same logits.

        Parameters
        ----------
        group : object
            Name of a group. One that was not seen has the calibrator of the whole.

        Returns
        -------
        calibrator : estimator
            Fitted, to be saved and exported; a new one each time.
        """
        check_is_fitted(self)
        [group] = check_groups([group], 1).tolist()
        number = place_of_group(group, self.groups_)
        if number < 0:
            warn_of_namesakes([group], self.groups_, any_seen=False)
            return deepcopy(self.calibrator_)
        scaling = ShrunkScaling(strength=self.strength_, structure=self.structure)
        scaling.classes_ = self.classes_
        scaling.n_features_in_ = self.classes_.shape[0]
        scaling.coef_, scaling.intercept_ = self.coef_[number], self.intercept_[number]
        return Recalibrated.of(self.calibrator_, scaling)

    def _some_beside(self, n_rows):
        """Return groups that `predict_proba` takes beside some rows."""
        if not self.groups_:
            return {}
        return {"groups": [self.groups_[i % len(self.groups_)] for i in range(n_rows)]}

    def _inner(self):
        if self.calibrator is None:
            return StructuredMatrixScaling(structure="vector")
        return self.calibrator

    @staticmethod
    def _told(calibrator, data):
        """Return the rows with the log-probabilities of a calibrator as logits."""
        front = log_proba(calibrator.calibration_map(), data.n_classes)
        return data.mapped(lambda block: evaluate_block(front, block))

    def _fit_groups(self, told, number, strength):
        n_groups = len(self.groups_)
        return fit_groups(told, number, n_groups, strength, self.structure)

    def _cross_fitted(self, data, number):
        """Return the strength that held-out rows choose."""
        splits = splits_of(N_FOLDS, data, self.random_state)
        if lone_class(splits, data.codes):
            return STRENGTHS[0]
        gains = np.zeros((len(STRENGTHS), data.n_samples))
        for train, test in splits:
            seen, unseen = data.subset(train), data.subset(test)
            whole = fit_checked(clone(self._inner()), seen)
            seen, unseen = self._told(whole, seen), self._told(whole, unseen)
            logits, own = unseen.logits, number[test]
            for i, strength in enumerate(STRENGTHS):
                v, b = self._fit_groups(seen, number[train], strength).x
                proba = softmax_(logits * v[own] + b[own])
                gains[i, test] = true_log_proba(proba, unseen.codes)
        best = choose(gains, data.sample_weight, one_standard_error=True)
        return STRENGTHS[best]
