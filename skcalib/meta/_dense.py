"""Pixels and tokens: a calibrator of the rows of an array of any shape."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skcalib._base import BaseCalibrator, WrappingCalibrator
from skcalib._blocks import MemmapSource, is_mapped_file
from skcalib._validation import (
    as_rows,
    check_class_axis,
    check_floats,
    column_on_host,
    is_dask,
    is_tensor,
    preview,
    shape_of,
    spread_groups,
    spread_weight,
)
from skcalib.calibrators import TemperatureScaling

# Units that are predicted at a time where there is a place to put them.
UNITS_AT_ONCE = 16


class DenseCalibration(WrappingCalibrator):
    """Calibrate every pixel of images, or every token of sequences.

    One calibrator is fitted on all of them as rows, which are read block by block from
    where they lie, and `predict_proba` gives probabilities in the shape of the logits.
    A sample is an image or a sequence: folds of cross-validation, outside or of the
    calibrator itself, never cut one.

    Parameters
    ----------
    calibrator : estimator, default=None
        The calibrator of the rows; `TemperatureScaling` by default. A
        `CalibratorSearch` is given the number of the image or sequence of each row as
        `groups`, unless `fit` is told others, and reads all rows into memory.

    class_axis : int, default=1
        The axis of `X` that holds the classes: 1 of (n, K, H, W), -1 of (n, T, K).

    ignore_index : int or float, default=None
        The label of places that count for nothing, such as 255, -100 or that of
        padding.

    classes : array-like of shape (n_classes,), default=None
        Class of each entry along the `class_axis`; as of the calibrator by default.

    Attributes
    ----------
    calibrator_ : estimator
        The fitted calibrator, which takes rows.

    classes_ : ndarray of shape (n_classes,)
        Class of each entry along the `class_axis`.

    n_features_in_ : int
        Number of entries along the `class_axis`.

    See Also
    --------
    as_rows : The rows by themselves, which metrics take.
    skcalib.export.calibrate_onnx_model : Writes the calibration into a network of
        images or sequences.

    Notes
    -----
    `X` of two axes or one is what every calibrator takes. A class axis of length 1
    holds the log-odds of the second of two classes, and the probabilities have both.

    Examples
    --------
    >>> import numpy as np
    >>> from skcalib import DenseCalibration
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(50, 3, 8, 8))
    >>> noise = rng.gumbel(size=truth.shape)
    >>> y = (truth + noise).argmax(axis=1)  # drawn from the softmax of the truth
    >>> dense = DenseCalibration(class_axis=1).fit(2 * truth, y)
    >>> round(dense.calibrator_.temperature_, 1)
    2.0
    >>> dense.predict_proba(2 * truth).shape
    (50, 3, 8, 8)
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "class_axis": [Integral],
        "ignore_index": [Real, None],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        calibrator: Any = None,
        *,
        class_axis: int = 1,
        ignore_index: float | None = None,
        classes: Any = None,
    ) -> None:
        self.calibrator = calibrator
        self.class_axis = class_axis
        self.ignore_index = ignore_index
        self.classes = classes

    def _inner(self):
        return TemperatureScaling() if self.calibrator is None else self.calibrator

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Learn the calibration from logits and true classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Logits, with the classes along the `class_axis`; see `as_rows`.

        y : array-like of the shape of `X` without its `class_axis`
            True classes; see the parameter `ignore_index`.

        sample_weight : array-like of shape (n_samples,) or that of `y`, default=None
            Non-negative weights, of samples or of places.

        groups : array-like of shape (n_samples,), default=None
            Samples that belong together, such as images of one patient: where the
            calibrator draws folds, a group stays on one side of each. By default each
            sample is one.

        Returns
        -------
        self : object
            The fitted calibrator.
        """
        calibrator = self._inner()
        if not hasattr(calibrator, "calibration_map") or calibrator.multilabel:
            raise TypeError(
                f"DenseCalibration needs a calibrator that maps rows of exclusive "
                f"classes, each by itself; {type(calibrator).__name__} does not. Fit a "
                "MultiLabelCalibration on as_rows(X), where labels occur together."
            )
        if y is not None and (_is_dense(X) or self.ignore_index is not None):
            sample_weight = spread_weight(sample_weight, y, self.ignore_index)
            groups = spread_groups(groups, y, self.ignore_index)
            X, y = as_rows(X, y, **self._layout)
            _refuse_void(y, X.shape[1], self._given_classes)
        return super().fit(X, y, sample_weight, groups)

    @property
    def _layout(self):
        return {"class_axis": self.class_axis, "ignore_index": self.ignore_index}

    def fit_calibration(self, data: Any) -> None:
        """Fit the calibrator on the rows, those of a sample in one group."""
        self.calibrator_ = self._fit_inner(data)

    def calibration_map(self) -> Any:
        """Return the map of the rows."""
        return self.calibrator_.calibration_map()

    def predict_proba(self, X: Any, *, out: Any = None) -> Any:
        """Return calibrated probabilities in the shape of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Logits, with the classes along the `class_axis`.

        out : ndarray of the shape of the probabilities, default=None
            Where to put them, a few samples at a time; new memory by default. May be a
            `numpy.memmap` larger than memory.

        Returns
        -------
        proba : ndarray of shape (n_samples, ...)
            Probabilities along the `class_axis` in the order of `classes_`; `out`, if
            that is given, and a tensor for a tensor.
        """
        check_is_fitted(self)
        if not _is_dense(X):
            return super().predict_proba(X, out=out)
        if out is None:
            return self._laid_out(super().predict_proba, X)
        check_floats(out)
        X = X if hasattr(X, "shape") else np.asarray(X)
        if out.shape[:1] != X.shape[:1]:
            raise ValueError(
                f"out has shape {out.shape}, and X {tuple(X.shape)}: it needs as many "
                "units as X, and the classes along the class_axis."
            )
        pages = MemmapSource(out) if is_mapped_file(out) else None
        for start in range(0, X.shape[0], UNITS_AT_ONCE):
            part = slice(start, start + UNITS_AT_ONCE)
            out[part] = self._laid_out(super().predict_proba, X[part])
            if pages is not None:
                pages.release(out[part])
        return out

    @available_if(lambda self: self.has_logits)
    def decision_function(self, X: Any) -> Any:
        """Return calibrated logits in the shape of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Logits, with the classes along the `class_axis`.

        Returns
        -------
        logits : ndarray of shape (n_samples, ...)
            Calibrated logits along the `class_axis`; for two classes the log-odds of
            the second, without that axis.
        """
        check_is_fitted(self)
        function = super().decision_function
        return self._laid_out(function, X) if _is_dense(X) else function(X)

    def predict(self, X: Any) -> Any:
        """Return the class of the largest calibrated probability.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Logits, with the classes along the `class_axis`.

        Returns
        -------
        y_pred : ndarray of the shape of `X` without its `class_axis`
            Labels from `classes_`.
        """
        check_is_fitted(self)
        function = super().predict
        return self._laid_out(function, X) if _is_dense(X) else function(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of `predict`, ignored places left out.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Logits, with the classes along the `class_axis`.

        y : array-like of the shape of `X` without its `class_axis`
            True classes.

        sample_weight : array-like of shape (n_samples,) or that of `y`, default=None
            Non-negative weights.

        Returns
        -------
        accuracy : float
            The share of places whose class is right.
        """
        check_is_fitted(self)
        if not _is_dense(X) and self.ignore_index is None:
            return super().score(X, y, sample_weight)
        rows, labels = as_rows(X, y, **self._layout)
        weight = spread_weight(sample_weight, y, self.ignore_index)
        predicted = column_on_host(super().predict(rows))
        return accuracy_score(labels, predicted, sample_weight=weight)

    def _laid_out(self, function, X):
        """Return what a function makes of the rows, in the places they come from."""
        shape = np.shape(X)
        axis = check_class_axis(shape, self.class_axis)
        if is_tensor(X):  # which stays one, on the host as well
            rows = X.movedim(axis, -1).reshape(-1, shape[axis])
        else:
            rows = as_rows(X, class_axis=self.class_axis)
        values = function(rows)
        places = (*shape[:axis], *shape[axis + 1 :])
        if values.ndim == 1:
            return values.reshape(places)
        laid = values.reshape((*places, values.shape[1]))
        if is_tensor(laid):
            return laid.movedim(-1, axis)
        return np.moveaxis(laid, -1, axis)


def _is_dense(X):
    return not is_dask(X) and len(shape_of(X)) > 2


def _refuse_void(labels, n_columns, classes):
    """Refuse integers that seem to mark places without a class, and are not ignored."""
    known = np.arange(max(n_columns, 2)) if classes is None else np.asarray(classes)
    numbers = labels.dtype.kind in "iu" and known.dtype.kind in "iu" and known.size
    if not numbers or known.min() <= labels.min() <= labels.max() <= known.max():
        return
    present = np.unique(labels)
    void = np.setdiff1d(present, known)
    # Classes have other numbers than columns where several do, those counted from 1 and
    # the second of two.
    is_class = void.size > 1 or void[0] == known.size or known.size == 2
    if classes is None and present.size == known.size and is_class:
        return
    raise ValueError(
        f"y has {present.size} classes ({preview(present)}) for {known.size} columns "
        f"of X, and {preview(void)} are not those of columns. Leave out places that "
        f"have no class: ignore_index={void[-1]} (as_rows takes it, too). Or name the "
        "classes of all columns, in order: classes=[...]."
    )
