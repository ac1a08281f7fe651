"""Labels that may occur together: a map for each, or one for all."""

from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skcalib._base import BaseCalibrator, fit_checked
from skcalib._blocks import ArraySource, CalibrationData, several
from skcalib._maps import CalibrationMap, PerColumn, Sigmoid, Softmax, evaluate
from skcalib._sklearn_compat import fit_context
from skcalib._validation import (
    as_repetitions,
    check_groups,
    check_indicator,
    check_logits,
    check_weight,
    column_on_host,
    is_standard,
    is_tensor,
    label_names,
    preview,
    readable,
    refuse_dask,
    takes_groups,
)
from skcalib._warnings import warn
from skcalib.calibrators import TemperatureScaling
from skcalib.exceptions import AbsentClassWarning
from skcalib.meta._base_rate import warn_of_label_rates

# What is learned of a label is learned of whether it is set.
SET = np.array([0, 1])


class MultiLabelCalibration(BaseCalibrator):
    r"""Calibrate sigmoid outputs: labels any number of which may be set.

    Each label is a problem of two classes, whose log-odds is its column of logits. A
    calibrator of them is fitted for each label, on the rows where it is known, or one
    for all labels together.

    Parameters
    ----------
    calibrator : estimator, default=None
        Calibrator of two classes; `TemperatureScaling` by default, with a
        `BaseRateWarning` where it leaves mean probabilities off the shares of labels.

    shared : bool, default=False
        Whether one map serves all labels, which suits many labels of few rows.

    classes : array-like of shape (n_labels,), default=None
        Name of each label. By default those of the columns of a data frame, `y` or
        `X`, or numbers.

    Attributes
    ----------
    calibrators_ : list
        The fitted calibrator of each label, None where it was set in all rows or in
        none: these scores stay as they are. With `shared`, the one for all.

    classes_ : ndarray of shape (n_labels,)
        Name of each label.

    n_features_in_ : int
        Number of labels.

    See Also
    --------
    skcalib.metrics.calibration_report : Errors of each label and their mean, with
        ``multilabel=True``.

    Notes
    -----
    The calibrators of the list take one column of log-odds, and are saved and exported
    as any other. As a `calibrator` of `~skcalib.CalibratedClassifier`, this takes the
    scores of `~sklearn.multioutput.MultiOutputClassifier`,
    `~sklearn.multioutput.ClassifierChain`,
    `~sklearn.multiclass.OneVsRestClassifier` and others that are fitted on an indicator
    matrix.

    Examples
    --------
    Two findings, the second of which a network states too surely:

    >>> import numpy as np
    >>> from scipy.special import expit
    >>> from skcalib import MultiLabelCalibration
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(0, 2, (4000, 2))
    >>> y = (rng.random((4000, 2)) < expit(logits)).astype(int)
    >>> logits[:, 1] *= 3
    >>> y[:100, 0] = -1  # not known
    >>> multi = MultiLabelCalibration().fit(logits, y)
    >>> [round(part.temperature_, 1) for part in multi.calibrators_]
    [1.0, 3.0]
    >>> multi.predict_proba(logits).shape
    (4000, 2)
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "shared": ["boolean"],
        "classes": ["array-like", None],
    }

    multilabel = True

    @property
    def draws_folds(self) -> Any:
        """Whether the calibrator of a label draws folds."""
        return takes_groups(self._part())

    def __init__(
        self, calibrator: Any = None, *, shared: bool = False, classes: Any = None
    ) -> None:
        self.calibrator = calibrator
        self.shared = shared
        self.classes = classes

    def __sklearn_tags__(self):
        """Tags: `y` has a column a label."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.two_d_labels = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Learn the calibration of each label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_labels)
            Logits, whose sigmoids are the probabilities of the model.

        y : array-like of shape (n_samples, n_labels)
            1 where a label is set, 0 where it is not, -1 or NaN where it is not known.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        groups : array-like of shape (n_samples,), default=None
            Rows that belong together, such as frames of one video: where the calibrator
            draws folds, a group stays on one side of each. By default the rows of one
            image, where `X` is of `as_rows`, and with `shared` the labels of each row.

        Returns
        -------
        self : object
            The fitted calibrator.
        """
        refuse_dask(type(self).__name__, X)
        if not hasattr(self._part(), "calibration_map"):
            raise TypeError(
                f"{type(self._part()).__name__} is no map from one row of logits to "
                "probabilities, which MultiLabelCalibration needs of each label."
            )
        if is_tensor(X) or is_standard(X):
            X = column_on_host(X)  # Each label takes its own rows.
        source = self._read(X, reset=True)
        logits = source.read(slice(None))
        is_set, is_known = check_indicator(y, logits.shape)
        weight = check_weight(sample_weight, logits)
        self.classes_ = label_names(y, X, self.classes, logits.shape[1])
        is_known &= (weight > 0)[:, np.newaxis]
        beside = [weight]
        if groups is None:
            groups = self._groups_of(source)
        if groups is not None:
            beside.append(check_groups(groups, logits.shape[0]))
        if self.shared:
            spread = [np.broadcast_to(b[:, np.newaxis], logits.shape) for b in beside]
            parts = [(logits, is_set, is_known, *spread)]
        else:
            columns = zip(logits.T, is_set.T, is_known.T, strict=True)
            parts = [(*column, *beside) for column in columns]
        self.calibrators_ = [self._fit_part(*part) for part in parts]
        self._warn_of_constant()
        if self.calibrator is None:
            self._warn_of_base_rates(logits, is_set, is_known, weight)
        return self

    def _read(self, X, *, reset):
        """Return the source of the logits, after its checks."""
        shape = np.shape(readable(X))
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(
                f"X has shape {shape}; MultiLabelCalibration needs a column of logits "
                "for each of several labels. Of a single label a calibrator takes the "
                "column by itself."
            )
        return check_logits(self, X, reset=reset)

    def _groups_of(self, source):
        """Return what belongs together of itself: images, or the labels of a row."""
        groups = source.row_groups()
        if groups is None and self.shared and self.draws_folds:
            return np.arange(source.shape[0])
        return groups

    def _fit_part(self, logits, is_set, is_known, weight, groups=None):
        """Return the calibrator of the known entries, None if all are alike."""
        z, codes = logits[is_known], is_set[is_known].astype(np.intp)
        if z.size == 0 or codes.min() == codes.max():
            return None
        calibrator = clone(self._part())
        data = CalibrationData(
            ArraySource(np.column_stack([np.zeros_like(z), z])),
            codes,
            as_repetitions(weight[is_known]),
            SET,
            groups=several(groups, is_known),
        )
        return fit_checked(calibrator.set_params(classes=SET), data, 1)

    def _part(self):
        return TemperatureScaling() if self.calibrator is None else self.calibrator

    def _warn_of_constant(self):
        lacking = [part is None for part in self.calibrators_]
        if not any(lacking):
            return
        if self.shared:
            raise ValueError(
                "y is the same wherever it is known. MultiLabelCalibration needs "
                "labels that are set in some rows and not in others."
            )
        warn(
            f"{sum(lacking)} of {len(lacking)} labels are set in all rows or in none, "
            f"or are not known at all: {preview(self.classes_[lacking])}. Nothing can "
            "be learned of them, and their probabilities stay as they are.",
            AbsentClassWarning,
        )

    def _warn_of_base_rates(self, logits, is_set, is_known, weight):
        """Warn of labels, or of all of them where they share a map."""
        learned = [part is not None for part in self.calibrators_]
        proba = evaluate(self.calibration_map(), ArraySource(logits))
        is_known, names = is_known & learned, self.classes_
        if self.shared:
            weight = np.repeat(weight, logits.shape[1])
            columns = proba, is_set, is_known
            proba, is_set, is_known = (column.reshape(-1, 1) for column in columns)
            names = np.array(["any label"])
        warn_of_label_rates(proba, is_set, is_known, weight, names)

    def calibration_map(self) -> Any:
        """Return the maps of the columns, then the sigmoid."""
        parts = (
            CalibrationMap(Softmax()) if part is None else part.calibration_map()
            for part in self.calibrators_
        )
        return CalibrationMap(PerColumn(tuple(parts)), Sigmoid())

    def predict_proba(self, X: Any, *, out: Any = None) -> Any:
        """Return the calibrated probability of each label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_labels)
            Logits, in the layout seen by `fit`.

        out : ndarray of shape (n_samples, n_labels), default=None
            Where to put the probabilities; new memory by default.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_labels)
            Probabilities in the order of `classes_`; rows need not sum to 1.
        """
        return super().predict_proba(X, out=out)

    def predict(self, X: Any) -> Any:
        """Return which labels are more probable than not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_labels)
            Logits, in the layout seen by `fit`.

        Returns
        -------
        y_pred : ndarray of shape (n_samples, n_labels)
            1 where the calibrated probability is above one half, else 0.
        """
        return (column_on_host(self.predict_proba(X)) > 0.5).astype(np.int64)

    def decision_function(self, X: Any) -> Any:
        """Return calibrated log-odds, whose sigmoid `predict_proba` gives.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_labels)
            Logits, in the layout seen by `fit`.

        Returns
        -------
        log_odds : ndarray of shape (n_samples, n_labels)
            Calibrated log-odds of each label.
        """
        check_is_fitted(self)
        return evaluate(self.calibration_map().logits, self._read(X, reset=False))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of known labels that `predict` gets right.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_labels)
            Logits, in the layout seen by `fit`.

        y : array-like of shape (n_samples, n_labels)
            As in `fit`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        accuracy : float
            Between 0 and 1.
        """
        predicted = self.predict(X)
        label_names(y, X, self.classes_, predicted.shape[1], "classes_")
        is_set, is_known = check_indicator(y, predicted.shape)
        weight = check_weight(sample_weight, predicted)[:, np.newaxis] * is_known
        if not weight.any():
            raise ValueError(
                "Every label is unknown, -1 or NaN, in the rows whose sample_weight is "
                "positive, so that there is nothing to judge by."
            )
        return float(np.average(predicted == is_set, weights=weight))
