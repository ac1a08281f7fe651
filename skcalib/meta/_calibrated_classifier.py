"""CalibratedClassifier: any scikit-learn classifier with any calibrator on top."""

from copy import deepcopy
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, check_cv
from sklearn.utils import Bunch, assert_all_finite, get_tags, indexable
from sklearn.utils.metadata_routing import (
    MetadataRequest,
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skcalib._sklearn_compat import (
    HasMethods,
    StrOptions,
    as_table,
    check_method_params,
    check_sample_weight,
    fit_context,
)
from skcalib._validation import (
    check_all_known,
    check_groups,
    check_search,
    check_two_classes,
    check_weight,
    column_on_host,
    given_back,
    is_search,
    label_names,
    name_classes,
    one_column,
    refuse_needed_groups,
    takes_groups,
)
from skcalib._warnings import warn
from skcalib.calibrators import ProbabilityFloor, TemperatureScaling
from skcalib.meta._base_rate import warn_of_base_rates
from skcalib.meta._floored_search import fit_behind_floor, takes_floor
from skcalib.meta._scores import (
    ClassifierScores,
    LabelScores,
    beside,
    fit_fold,
    holds_two_classes,
    labels_told,
)


def _calibrator_has_logits(self):
    # What is fitted may have one that its parameters do not tell of.
    known = getattr(self, "calibrators_", None)
    if known is None:
        is_frozen = isinstance(self.estimator, FrozenEstimator)
        known = [] if self.ensemble and not is_frozen else [self._resolved_calibrator()]
    return len(known) == 1 and hasattr(known[0], "decision_function")


class CalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier whose probabilities are calibrated by cross-fitting.

    A classifier is over-confident about the samples it was trained on, so a
    calibrator must see it judge others. By default the classifier is fitted on all
    folds but one, its logits on that one are kept, the logits of all folds are pooled
    to fit one calibrator, and the classifier is fitted once more on everything.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn classifier with `decision_function` or `predict_proba`; None
        is `~sklearn.linear_model.LogisticRegression`. Wrapped in
        `~sklearn.frozen.FrozenEstimator`, a fitted classifier is never fitted again
        and the calibrator is fitted on all data given to `fit`, which then must not
        be what the classifier was trained on.

    calibrator : calibrator, default=None
        Any calibrator; None is `TemperatureScaling`, with a `BaseRateWarning` where it
        leaves a mean probability off the share of its class, as after class weights.
        Its parameter `classes` is set to the classes of the classifier. A
        `MultiLabelCalibration` takes a classifier of several labels, and `y` has a
        column for each.

    cv : int, cross-validation generator or iterable, default=None
        How to split for cross-fitting; None is 5 stratified folds, and an integer so
        many, of shuffled rows where there are several labels; with `groups` given to
        `fit`, a group stays on one side. Ignored with a frozen classifier.

    ensemble : bool, default=False
        If True, keep the pair of classifier and calibrator of each fold and average
        their probabilities, instead of fitting the classifier once more. Where a fold
        holds out samples of one class only, as `~sklearn.model_selection.LeaveOneOut`
        does, a warning says so and its classifier gets the calibrator of all held-out
        samples. Ignored with a frozen classifier.

    method : {"auto", "decision_function", "predict_proba"}, default="auto"
        Where the logits come from: the decision function, or the logarithm of the
        probabilities. See `skcalib.frozen.ClassifierLogits`.

    n_jobs : int, default=None
        Number of folds fitted at the same time; None is 1, -1 all processors.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels, in the order of the columns of `predict_proba`.

    estimators_ : list of classifiers
        The fitted classifiers: one, or with ``ensemble=True`` one for each fold.

    calibrators_ : list of calibrators
        The fitted calibrators, in the order of `estimators_`.

    n_features_in_ : int
        Number of features seen by `fit`, if the classifier tells.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if the classifier tells.

    See Also
    --------
    skcalib.frozen.ClassifierLogits : The logits of a fitted classifier, for a
        calibrator in a pipeline.

    Notes
    -----
    `sample_weight` is always used for the calibration. It is passed to the classifier
    too if its `fit` takes it or, with metadata routing enabled, if the classifier
    requests it.

    A sample whose class is missing from the training part of its fold says nothing
    about the final classifier, which does know the class; the calibrator does not see
    it.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skcalib import CalibratedClassifier, TemperatureScaling
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = CalibratedClassifier(GaussianNB(), TemperatureScaling()).fit(X, y)
    >>> clf.predict_proba(X[:3]).shape
    (3, 2)
    >>> clf.calibrators_[0].calibrator_.temperature_ > 1
    True
    """

    _parameter_constraints: dict = {
        "estimator": [
            HasMethods(["fit", "predict_proba"]),
            HasMethods(["fit", "decision_function"]),
            None,
        ],
        "calibrator": [HasMethods(["fit", "predict_proba"]), None],
        "cv": ["cv_object"],
        "ensemble": ["boolean"],
        "method": [StrOptions({"auto", "decision_function", "predict_proba"})],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        calibrator: Any = None,
        *,
        cv: Any = None,
        ensemble: bool = False,
        method: Literal["auto", "decision_function", "predict_proba"] = "auto",
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.calibrator = calibrator
        self.cv = cv
        self.ensemble = ensemble
        self.method = method
        self.n_jobs = n_jobs

    # The estimator and the calibrator validate their own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Self:
        """Fit the classifier and its calibrator.

        Parameters
        ----------
        X : array-like, sparse matrix or dataframe of shape (n_samples, n_features)
            Whatever the classifier takes.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True classes, or of several labels whether each is set, 0 or 1.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights.

        **params : dict
            Further parameters of the `fit` method of a classifier that is not frozen,
            such as ``logisticregression__sample_weight`` of a pipeline, and `groups`
            for the splitter and for a calibrator that draws folds. With metadata
            routing enabled, they go where requested: an integer `cv` requests no
            groups, but `StratifiedGroupKFold` and `CalibratorSearch` do.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        check_search(self._resolved_calibrator())
        if self._is_multilabel() and y is not None:
            self.classes_ = label_names(y, None, None, np.shape(y)[-1])
        X, y, sample_weight = self._check_input(X, y, sample_weight)
        routed = self._route(X, sample_weight, params)
        if routed.groups is not None:
            refuse_needed_groups(self, self._resolved_calibrator())
        estimator = self._resolved_estimator()
        if isinstance(estimator, FrozenEstimator):
            pairs = [self._fit_frozen(estimator, X, y, sample_weight, routed.groups)]
        else:
            pairs = self._cross_fit(estimator, X, y, sample_weight, routed)
        self._scores, self.calibrators_ = map(list, zip(*pairs, strict=True))
        self.estimators_ = [scores.estimator for scores in self._scores]
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.estimators_[0], name):
                setattr(self, name, getattr(self.estimators_[0], name))
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : array-like, sparse matrix or dataframe of shape (n_samples, n_features)
            Whatever the classifier takes.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`.
        """
        check_is_fitted(self)
        pairs = zip(self._scores, self.calibrators_, strict=True)
        total = sum(calibrator.predict_proba(scores(X)) for scores, calibrator in pairs)
        return total / len(self.calibrators_)

    def predict(self, X: Any) -> Any:
        """Return the most probable class.

        Parameters
        ----------
        X : array-like, sparse matrix or dataframe of shape (n_samples, n_features)
            Whatever the classifier takes.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        check_is_fitted(self)
        if len(self.calibrators_) == 1:
            return self.calibrators_[0].predict(self._scores[0](X))
        proba = self.predict_proba(X)
        if self._is_multilabel(self.calibrators_[0]):
            return (proba > 0.5).astype(np.int64)
        top = column_on_host(proba).argmax(axis=1)
        return given_back(self.classes_[top], proba)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of `predict`.

        Parameters
        ----------
        X : array-like, sparse matrix or dataframe of shape (n_samples, n_features)
            Whatever the classifier takes.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True classes, or whether each label is set.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights.

        Returns
        -------
        accuracy : float
            The share of rows that are right, of several labels in each of them.
        """
        check_is_fitted(self)
        if self._is_multilabel(self.calibrators_[0]):
            label_names(y, None, self.classes_, len(self.classes_), "classes_")
        return super().score(X, y, sample_weight)

    @available_if(_calibrator_has_logits)
    def decision_function(self, X: Any) -> Any:
        """Return calibrated logits; only for one calibrator that has them.

        Parameters
        ----------
        X : array-like, sparse matrix or dataframe of shape (n_samples, n_features)
            Whatever the classifier takes.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Calibrated logits; for two classes the log-odds of the second.
        """
        check_is_fitted(self)
        return self.calibrators_[0].decision_function(self._scores[0](X))

    def get_metadata_routing(self) -> Any:
        """Say where the metadata given to `fit` go.

        Returns
        -------
        routing : MetadataRouter
            `sample_weight` for the calibration itself, what the classifier requests,
            what the splitter requests, and `groups` for a calibrator that takes them.
        """
        fit_to_fit = MethodMapping().add(caller="fit", callee="fit")
        fit_to_split = MethodMapping().add(caller="fit", callee="split")
        of_calibrator = MetadataRequest(owner=type(self).__name__)
        if has_fit_parameter(self._resolved_calibrator(), "groups"):
            of_calibrator.fit.add_request(param="groups", alias=True)
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(estimator=self._resolved_estimator(), method_mapping=fit_to_fit)
            .add(splitter=self.cv, method_mapping=fit_to_split)
            .add(calibrator=of_calibrator, method_mapping=fit_to_fit)
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        base_tags = get_tags(self._resolved_estimator())
        tags.input_tags = deepcopy(base_tags.input_tags)
        if base_tags.classifier_tags is not None:
            tags.classifier_tags.multi_class = base_tags.classifier_tags.multi_class
        tags.classifier_tags.multi_label = self._is_multilabel()
        return tags

    def _resolved_estimator(self):
        return LogisticRegression() if self.estimator is None else self.estimator

    def _resolved_calibrator(self):
        return TemperatureScaling() if self.calibrator is None else self.calibrator

    def _is_multilabel(self, fitted=None):
        calibrator = self._resolved_calibrator() if fitted is None else fitted
        return getattr(calibrator, "multilabel", False)

    def _check_input(self, X, y, sample_weight):
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None. Pass the true class of each row."
            )
        if self._is_multilabel():
            y = check_all_known(y)
        else:
            y = one_column(y, otherwise=" MultiLabelCalibration takes several labels.")
            assert_all_finite(y, input_name="y")
            check_classification_targets(y)
        X, y = indexable(as_table(X), y)
        if sample_weight is not None:
            check_weight(sample_weight, y)  # None negative, and some above 0.
            sample_weight = check_sample_weight(column_on_host(sample_weight), y)
        return X, y, sample_weight

    def _route(self, X, sample_weight, params):
        """Return what the classifier's `fit` and the splitter's `split` are given."""
        if get_config()["enable_metadata_routing"]:
            given = {} if sample_weight is None else {"sample_weight": sample_weight}
            routed = process_routing(self, "fit", **given, **params)
            split = routed.splitter.split
            groups = (routed.calibrator.fit | split).get("groups")
            return Bunch(fit=routed.estimator.fit, split=split, groups=groups)
        estimator = self._resolved_estimator()
        fit_params = dict(params)
        groups = fit_params.pop("groups", None)
        if isinstance(estimator, FrozenEstimator) and fit_params:
            raise TypeError(
                f"{type(self).__name__}.fit got {', '.join(sorted(fit_params))}. Of a "
                "frozen classifier it takes X, y, sample_weight and groups only."
            )
        if sample_weight is not None:
            if has_fit_parameter(estimator, "sample_weight"):
                fit_params["sample_weight"] = beside(X, sample_weight)
            elif not isinstance(estimator, FrozenEstimator):
                warn(
                    f"The fit method of {type(estimator).__name__} has no parameter "
                    "sample_weight: the weights are used for the calibration only."
                )
        fit_params = check_method_params(X, fit_params)
        return Bunch(fit=fit_params, split={"groups": groups}, groups=groups)

    def _fit_frozen(self, estimator, X, *data):
        check_is_fitted(estimator)
        if not self._is_multilabel():
            self.classes_ = column_on_host(estimator.classes_)
        scores = self._scores_of(estimator, self.classes_, n_train=np.inf)  # Trusted.
        return scores, self._fit_calibrator([scores], scores(X), *data)

    def _cross_fit(self, estimator, X, y, sample_weight, routed):
        if not self._is_multilabel():
            self.classes_, codes = np.unique(y, return_inverse=True)
            weight = np.ones(y.shape) if sample_weight is None else sample_weight
            check_two_classes(self, codes, weight, self.classes_)
        groups, split = routed.groups, routed.split
        cv = check_cv(self.cv, y, classifier=True)
        if self.cv is None or isinstance(self.cv, Integral):
            groups = None if groups is None else check_groups(groups, len(y))
            cv, split = self._numbered_cv(cv, groups), {"groups": groups}
        splits = list(cv.split(X, y, **split))
        told = labels_told(y, X)
        folds = Parallel(n_jobs=self.n_jobs)(
            delayed(fit_fold)(clone(estimator), X, told, rows, routed.fit, self.method)
            for rows in splits
        )
        data = (y, sample_weight, groups)
        if self.ensemble:
            return self._fit_calibrators(folds, *data)
        calibrator = self._fit_pooled(folds, *data)
        fitted = clone(estimator).fit(X, beside(X, told), **routed.fit)
        scores = self._scores_of(fitted, np.unique(told), n_train=y.shape[0])
        return [(scores, calibrator)]

    def _numbered_cv(self, cv, groups):
        """Return the folds that an integer stands for, given those of scikit-learn."""
        n_splits, several = cv.get_n_splits(), self._is_multilabel()
        if groups is not None:
            return (GroupKFold if several else StratifiedGroupKFold)(n_splits)
        return KFold(n_splits, shuffle=True, random_state=0) if several else cv

    def _fit_calibrators(self, folds, *data):
        """Return the pair of each fold; where a fold is too poor, all are pooled."""
        rich = [holds_two_classes(kept, *data[:2]) for *_, kept in folds]
        if not all(rich):
            pooled = self._fit_pooled(folds, *data)
            warn(
                f"{len(rich) - sum(rich)} of {len(rich)} splits of cv hold out samples "
                "of one class only, or of classes that their classifier has not seen, "
                "from which no calibrator can be learned. Their classifiers share one "
                "that is fitted on the held-out samples of all splits. Use fewer, "
                "stratified or shuffled splits."
            )
        pairs = []
        for (scores, logits, kept), own in zip(folds, rich, strict=True):
            rows = _rows(kept, *data)
            fitted = self._fit_calibrator([scores], logits, *rows) if own else pooled
            pairs.append((scores, fitted))
        return pairs

    def _fit_pooled(self, folds, *data):
        """Return a calibrator fitted on the held-out samples of all folds."""
        logits = np.concatenate([column_on_host(logits) for _, logits, _ in folds])
        kept = np.concatenate([kept for _, _, kept in folds])
        if not holds_two_classes(kept, *data[:2]):
            raise ValueError(
                "The splits of cv hold out no samples of two classes that their "
                "classifiers were trained on, so no calibrator can be learned. Pass "
                "a cv that leaves samples of every class on both sides, such as "
                "StratifiedKFold or a shuffled KFold."
            )
        scores, *_ = zip(*folds, strict=True)
        return self._fit_calibrator(scores, logits, *_rows(kept, *data))

    def _scores_of(self, estimator, classes, *, n_train):
        told = {"method": self.method, "n_train": n_train}
        if self._is_multilabel():
            return LabelScores(estimator, n_labels=len(self.classes_), **told)
        return ClassifierScores(estimator, classes=classes, **told)

    def _fit_calibrator(self, scores, logits, y, sample_weight, groups):
        calibrator = name_classes(clone(self._resolved_calibrator()), self.classes_)
        needs_floor = any(s.are_log_proba for s in scores) and takes_floor(calibrator)
        if needs_floor and not is_search(calibrator):
            calibrator = ProbabilityFloor(calibrator, classes=self.classes_)
        known = {} if sample_weight is None else {"sample_weight": sample_weight}
        if groups is not None and takes_groups(calibrator):
            known["groups"] = groups
        if needs_floor and is_search(calibrator):
            return fit_behind_floor(calibrator, self.classes_, logits, y, **known)
        calibrator.fit(logits, y, **known)
        if self.calibrator is None:
            warn_of_base_rates(calibrator, logits, y, sample_weight)
        needs_none = isinstance(calibrator, ProbabilityFloor) and not calibrator.floor_
        return calibrator.calibrator_ if needs_none else calibrator


def _rows(rows, *arrays):
    """Return these rows of each array that is given."""
    return [None if array is None else np.asarray(array)[rows] for array in arrays]
