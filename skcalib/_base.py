"""What all calibrators share: input checks, labels, prediction through the map."""

from typing import Any, Self

from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skcalib._learned import learned_html
from skcalib._maps import evaluate, top_labels
from skcalib._sklearn_compat import fit_context
from skcalib._validation import (
    check_calibration_set,
    check_logits,
    check_out,
    check_two_classes,
    column_names,
    column_on_host,
    counted_before,
    grouped,
    is_dask,
    is_shares,
    mean_share,
    predicts_by_groups,
    refuse_dask,
    takes_groups,
)
from skcalib._warnings import quiet, warn
from skcalib.exceptions import AbsentClassWarning, ProbabilitiesAsLogitsWarning

# How far above its minimum, in nats, a fit may end that only judges a calibrator.
ROUGH = 1e-5


def _has_calibrated_logits(calibrator):
    return calibrator.has_logits


class BaseCalibrator(ClassifierMixin, BaseEstimator):
    """Base of the calibrators: a subclass adds a fit and a map.

    ``fit_calibration(data)`` sets the learned attributes from a `CalibrationData`;
    ``calibration_map()`` writes them down as a `CalibrationMap`. Both are the
    subclass's own, as is the parameter ``classes=None``.

    Attributes
    ----------
    has_logits : bool
        Whether the map ends in a softmax, whose argument `decision_function` returns;
        true unless a subclass says otherwise.

    keeps_class : bool
        Whether the predicted class is always that of the largest logit; false unless a
        subclass says otherwise.

    takes_unused : bool
        Whether ``fit_calibration`` is given the rows of weight 0, too, since a ``cv``
        counts them; false unless a subclass says otherwise.

    takes_absent : bool
        Whether minus infinity in a row says that it lacks the class, and is no error;
        false unless a subclass says otherwise.

    by_sums : bool
        Whether ``fit_calibration`` asks for nothing but sums over rows, so that it fits
        rows that lie elsewhere, such as those of a Dask collection; false unless a
        subclass says otherwise.

    multilabel : bool
        Whether a row has any number of labels, each with a probability of its own, and
        not one class; false unless a subclass says otherwise.

    learns_by_class : bool
        Whether something is learned for each class by itself, so that the validation
        of what `fit` is given warns of classes without samples; false unless a subclass
        says otherwise.

    classes_ : ndarray of shape (n_classes,)
        The class of each column, set by `fit`.
    """

    _parameter_constraints: dict = {}

    has_logits = True
    keeps_class = False
    takes_unused = False
    takes_absent = False
    by_sums = False
    multilabel = False
    learns_by_class = False

    # While a fit goes on to rows of which most were fitted to before: what was learned
    # then, by a calibrator of the same parameters. A fit may start from it, and end
    # within ROUGH nats of its optimum.
    _near = None

    @property
    def _given_classes(self):
        return self.classes

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn the calibration from logits and true classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples. A single column is the log-odds of the second
            class. May be rows in a file larger than memory: see the guide to logits.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes; see the parameter `classes`. Or shares of all classes, such as
            those of several annotators: a row is then one of each class, weighted.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        Returns
        -------
        self : object
            The fitted calibrator.

        Warns
        -----
        AbsentClassWarning
            If a class has no samples, of which nothing can be learned.

        ProbabilitiesAsLogitsWarning
            If `X` looks like probabilities.
        """
        if not self.by_sums:
            refuse_dask(type(self).__name__, X)
        data = check_calibration_set(self, X, y, sample_weight, self._given_classes)
        return self._learn(data)

    def _learn(self, data, near=None):
        self.classes_ = data.classes
        if near is not None:
            self._near = near
        try:
            self.fit_calibration(data if self.takes_unused else data.used())
        finally:
            self.__dict__.pop("_near", None)
        return self

    def predict_proba(self, X: Any, *, out: Any = None) -> Any:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        out : ndarray of shape (n_samples, n_classes), default=None
            Where to put the probabilities, block by block; new memory by default. A
            `numpy.memmap` may be larger than memory, as those of `X` may be.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`; float32 for float32 logits,
            float64 otherwise. `out`, if that is given. Of a torch tensor, a tensor of
            its device, float32 for half precisions too; of an array of the array API
            standard, one of its library.
        """
        check_is_fitted(self)
        source = check_logits(self, X, reset=False)
        if out is not None:
            check_out(out, source)
        return evaluate(self.calibration_map(), source, out)

    def predict(self, X: Any) -> Any:
        """Return the class of the largest calibrated probability.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        check_is_fitted(self)
        source = check_logits(self, X, reset=False)
        # Straight from the logits where they decide: rounding must not make new ties.
        chosen = None if self.keeps_class else self.calibration_map()
        return top_labels(chosen, source, self.classes_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes, or shares of all classes as in `fit`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        Returns
        -------
        accuracy : float
            The share of rows whose class is right; of shares the mean one of the class
            that is predicted.
        """
        if is_dask(X):
            from skcalib._blocks._dask import share_equal

            return share_equal(self.predict(X), y, sample_weight)
        return self._accuracy(self.predict(X), X, y, sample_weight)

    def _accuracy(self, found, X, y, sample_weight):
        """Return the share of predicted classes that are right, or their mean share."""
        found = column_on_host(found)
        if is_shares(y):
            names = column_names(X)
            return mean_share(y, found, self.classes_, names, sample_weight)
        y, sample_weight = column_on_host(y), column_on_host(sample_weight)
        return float(accuracy_score(y, found, sample_weight=sample_weight))

    @available_if(_has_calibrated_logits)
    def decision_function(self, X: Any) -> Any:
        """Return calibrated logits, whose softmax `predict_proba` gives.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits, in the layout seen by `fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Calibrated logits; for two classes the log-odds of the second.
        """
        check_is_fitted(self)
        source = check_logits(self, X, reset=False)
        logits = evaluate(self.calibration_map().logits, source)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _repr_html_inner(self):
        return super()._repr_html_inner() + learned_html(self)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += learned_html(self)
        return bundle

    def _record(self, result):
        """Keep what a solver reports, and warn if it did not converge."""
        self.loss_ = result.loss
        self.n_iter_ = result.n_iter
        self.gradient_norm_ = result.gradient_norm
        self._warn_unless_converged(result)

    def _warn_unless_converged(self, result):
        if not result.converged:
            warn(
                f"{type(self).__name__} stopped early: {result.message}.",
                ConvergenceWarning,
            )


class FeaturesCalibrator(BaseCalibrator):
    """Base of calibrators that may be given features of the rows beside the logits."""

    predict_proba: Any  # The subclass's own, as is its `fit`: both take features.

    def predict(self, X: Any, features: Any = None) -> Any:
        """Return the class of the largest calibrated probability.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            In the layout seen by `fit`.

        features : array-like of shape (n_samples, n_features), default=None
            As in `fit`; needed if they were given there.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        proba = self.predict_proba(X, features=features)
        return self.classes_[proba.argmax(axis=1)]

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, features: Any = None
    ) -> float:
        """Return the accuracy of `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            In the layout seen by `fit`.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes, or shares of all classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        features : array-like of shape (n_samples, n_features), default=None
            As in `fit`; needed if they were given there.

        Returns
        -------
        accuracy : float
            The share of rows whose class is right; of shares the mean one of the class
            that is predicted.
        """
        predicted = self.predict(X, features=features)
        return self._accuracy(predicted, X, y, sample_weight)


class FoldingCalibrator(BaseCalibrator):
    """Base of calibrators that may draw folds, which keep groups of rows together.

    Attributes
    ----------
    draws_folds : bool
        Whether `fit` does draw folds; the subclass's own.
    """

    draws_folds: Any

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Learn the calibration from logits and true classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples. A single column is the log-odds of the second
            class. May be rows in a file larger than memory: see the guide to logits.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes; see the parameter `classes`. Or shares of all classes, such as
            those of several annotators: a row is then one of each class, weighted.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        groups : array-like of shape (n_samples,), default=None
            Rows that belong together, such as frames of one video or augmentations of
            one image: where folds are drawn, a group stays on one side of each. A
            splitter given as `cv` decides for itself.

        Returns
        -------
        self : object
            The fitted calibrator.

        Warns
        -----
        AbsentClassWarning
            If a class has no samples, of which nothing can be learned.

        ProbabilitiesAsLogitsWarning
            If `X` looks like probabilities.
        """
        if not self.by_sums:
            refuse_dask(type(self).__name__, X)
        data = check_calibration_set(self, X, y, sample_weight, self._given_classes)
        return self._learn(grouped(data, groups))


def _that_of_the_inner(name):
    return property(lambda self: getattr(self._inner(), name))


def _that_of_the_fitted(name):
    # What was fitted knows better: a search has chosen by then.
    return property(
        lambda self: getattr(getattr(self, "calibrator_", self._inner()), name)
    )


class WrappingCalibrator(FoldingCalibrator):
    """Base of calibrators that fit another, and say of themselves what it says.

    ``_inner()`` is the subclass's own and returns the other one, not fitted. Where the
    subclass differs, it says so.
    """

    has_logits = _that_of_the_fitted("has_logits")
    keeps_class = _that_of_the_fitted("keeps_class")
    takes_unused = _that_of_the_inner("takes_unused")
    by_sums = _that_of_the_inner("by_sums")
    learns_by_class = _that_of_the_inner("learns_by_class")

    @property
    def draws_folds(self) -> Any:
        return takes_groups(self._inner())

    @property
    def _given_classes(self):
        of_inner = getattr(self._inner(), "_given_classes", None)
        return of_inner if self.classes is None else self.classes

    def _fit_inner(self, data):
        """Fit a clone, with the rows of weight 0 if it takes them."""
        data, inner = data if self.takes_unused else data.used(), self._inner()
        check_maps_logits(type(self).__name__, inner)
        return fit_checked(clone(inner), data, self.n_features_in_)


def check_maps_logits(owner, calibrator):
    """Refuse a calibrator that has no map of logits alone."""
    if not hasattr(calibrator, "calibration_map"):
        raise TypeError(
            f"{owner} needs a calibrator that maps logits alone; "
            f"{type(calibrator).__name__} takes groups or features beside them."
        )


def fit_checked(calibrator, data, n_features_in=None, *, near=None):
    """Fit a calibrator to data that need no second check.

    One that brings a `fit` of its own, which may do more, is given arrays, and their
    groups if it draws folds. Others may start from `near`, one of the same parameters
    that was fitted to rows of which most are here; they then end within about `ROUGH`
    nats of the optimum.
    """
    # It may be handed out, and takes what was given: a single column, if it was one.
    width = n_features_in or data.n_classes
    if isinstance(calibrator, BaseCalibrator):
        calibrator._validate_params()
    if type(calibrator).fit not in (BaseCalibrator.fit, FoldingCalibrator.fit):
        calibrator.set_params(classes=data.classes)
        known = {}
        # What came as one row of shares stays together.
        together = data.row if data.groups is None else data.groups
        takes_them = takes_groups(calibrator) and not predicts_by_groups(calibrator)
        if together is not None and takes_them:
            known["groups"] = together
        # Whoever was given the whole set has told what it lacks, and looks like.
        told = quiet(AbsentClassWarning, ProbabilitiesAsLogitsWarning)
        logits, weight = data.logits, data.sample_weight
        with told, counted_before(weight):
            calibrator.fit(logits, data.labels, sample_weight=weight, **known)
        _take_columns(calibrator, width)
        return calibrator
    if not data.source.is_remote:
        check_two_classes(calibrator, data.codes, data.sample_weight, data.classes)
    calibrator.n_features_in_ = width
    return calibrator._learn(data, near)


def _take_columns(calibrator, n_columns):
    """Have a calibrator, and what is fitted within, take rows of so many columns."""
    calibrator.n_features_in_ = n_columns
    for name in ("best_calibrator_", "calibrator_", "scaling_"):
        within = getattr(calibrator, name, None)
        if isinstance(within, BaseCalibrator):
            _take_columns(within, n_columns)
