"""New base rates: the probabilities of a calibrator for other shares of the classes."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skcalib._base import BaseCalibrator, WrappingCalibrator
from skcalib._blocks import BLOCK_ELEMENTS
from skcalib._maps import (
    Affine,
    CalibrationMap,
    Softmax,
    evaluate,
    evaluate_block,
    log_proba,
)
from skcalib._numerics import cut_logits
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._class_shares import (
    by_likelihood,
    by_moments,
    choose_prior,
    draw_weights,
    interval_of,
    p_value_of_means,
    replicates_of_likelihood,
    replicates_of_moments,
)
from skcalib._validation import (
    check_logits,
    column_on_host,
    preview,
    refuse_dask,
)
from skcalib.calibrators import StructuredMatrixScaling

# A share that is given as zero would leave no probability whatever a row looks like.
SMALLEST_SHARE = 1e-9


class PriorShift(WrappingCalibrator):
    r"""Calibrate, and correct for shares of the classes that have moved.

    Where the classes become more or less frequent, but each looks as before (label
    shift), probabilities that were calibrated for the shares :math:`f` are so for the
    shares :math:`\pi` after :math:`q_k \pi_k / f_k`, normalised: an offset of the
    logits. The new shares are given, or estimated from unlabelled rows by
    `update_priors`.

    Parameters
    ----------
    calibrator : estimator, default=None
        The calibrator to be corrected; a
        ``StructuredMatrixScaling(structure="vector")`` by default. Calibration by class
        comes first: without it, the estimate blames the model's biases on the shares.
        Its `classes` hold where there are none here.

    priors : "estimate", array-like of shape (n_classes,) or dict, default="estimate"
        The shares of the classes where the model serves: an array in the order of
        `classes_`, a dict from label to share, or "estimate" to leave them as they were
        until `update_priors` is called. A pandas Series is read by the labels in its
        index, in any order; only where the index is the default one, and its numbers
        are not the classes, by position.

    method : {"em", "bbse"}, default="em"
        How `update_priors` estimates: by maximum likelihood, as the EM algorithm of
        [1]_ does, or from mean predictions, black-box shift estimation with soft
        predictions [2]_, which needs no calibrated probabilities.

    sampling_priors : array-like of shape (n_classes,) or dict, default=None
        The shares that the calibrated probabilities are for, where these are not the
        shares in `y`: of a set for training and calibration that was drawn by class.
        By default the shares in `y`, weighted.

    n_bootstrap : int, default=200
        Replicates behind the intervals of the estimated shares; 0 leaves them out.

    confidence_level : float, default=0.95
        Level of the intervals, share by share.

    random_state : int, RandomState instance or None, default=0
        Seed of the bootstrap, and of the folds of held-out rows.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    calibrator_ : estimator
        The fitted calibrator, for the shares of the calibration set.

    fit_priors_ : ndarray of shape (n_classes,)
        The shares that its probabilities are for.

    priors_ : ndarray of shape (n_classes,)
        The shares that `predict_proba` is for.

    priors_interval_ : ndarray of shape (2, n_classes) or None
        Ends of the intervals of estimated shares, each of which holds the true share
        of where the rows came from with about the probability `confidence_level`: what
        the rows given to `update_priors` leave open, if only the shares moved. By "em"
        too, they are those of shares that are not drawn to the old ones, widened to
        hold `priors_`. What the calibration set leaves open is not in them.

    shift_p_value_ : float or None
        P-value of the hypothesis that these rows have the mean probabilities of the
        calibration set, which moved shares would change.

    n_unlabelled_ : int
        How many rows these were.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    skcalib.monitoring.CalibrationMonitor : Where true classes come in later.

    Notes
    -----
    Whether only the shares have moved cannot be seen in unlabelled rows: if a class
    looks different as well, the correction may harm. The p-value says whether anything
    moved, not what. By "em" the shares are drawn towards the old ones as if 10, 30, ...
    rows more had come with those, or infinitely many, whichever makes held-out rows
    likeliest: few rows of many classes do not move them by noise. "bbse" has no such
    guard, and with a hundred classes may be worse than no correction.

    The intervals are percentiles of a bootstrap without the guard: how sure one is of
    the old shares cannot be seen in the rows. Its rows have random weights, and half a
    row of every class comes in addition where that makes the interval wider, so that a
    single row leaves much open: of a few classes, nearly everything.

    References
    ----------
    .. [1] Saerens, Latinne & Decaestecker. "Adjusting the Outputs of a Classifier to
       New a Priori Probabilities: A Simple Procedure", Neural Computation 2002.
    .. [2] Lipton, Wang & Smola. "Detecting and Correcting for Label Shift with Black
       Box Predictors", ICML 2018. https://arxiv.org/abs/1802.03916
    .. [3] Alexandari, Kundaje & Shrikumar. "Maximum Likelihood with Bias-Corrected
       Calibration is Hard-To-Beat at Label Shift Adaptation", ICML 2020.
       https://arxiv.org/abs/1901.06852

    Examples
    --------
    >>> import numpy as np
    >>> from skcalib import PriorShift
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(6000, 3, random_state=0)
    >>> shift = PriorShift().fit(X[:3000], y[:3000])
    >>> rare = np.r_[np.flatnonzero(y == 0)[-900:], np.flatnonzero(y == 1)[-100:]]
    >>> shift.update_priors(X[rare]).priors_.round(1)
    array([0.9, 0.1, 0. ])
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "priors": [StrOptions({"estimate"}), "array-like", Mapping],
        "method": [StrOptions({"em", "bbse"})],
        "sampling_priors": ["array-like", Mapping, None],
        "n_bootstrap": [Interval(Integral, 0, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "classes": ["array-like", None],
    }

    has_logits = True
    keeps_class = by_sums = False

    def __init__(
        self,
        calibrator: Any = None,
        priors: Any = "estimate",
        *,
        method: Literal["em", "bbse"] = "em",
        sampling_priors: Any = None,
        n_bootstrap: int = 200,
        confidence_level: float = 0.95,
        random_state: Any = 0,
        classes: Any = None,
    ) -> None:
        self.calibrator = calibrator
        self.priors = priors
        self.method = method
        self.sampling_priors = sampling_priors
        self.n_bootstrap = n_bootstrap
        self.confidence_level = confidence_level
        self.random_state = random_state
        self.classes = classes

    def _inner(self):
        if self.calibrator is None:
            return StructuredMatrixScaling(structure="vector")
        return self.calibrator

    def fit_calibration(self, data: Any) -> None:
        """Fit the calibrator, and count the classes."""
        self.calibrator_ = self._fit_inner(data)
        self._count_predictions(data)
        counted = np.bincount(data.codes, data.weight, data.n_classes)
        # A class that is not there has the share that is stated of it; with a smaller
        # one, every row would seem to be evidence that it has come up.
        absent = counted == 0
        counted *= 1 - self._mean[absent].sum()
        counted[absent] = self._mean[absent]
        # Nor is any smaller than half a row.
        counted = np.maximum(counted, 0.5 / max(data.total_weight, 1))
        given = self.sampling_priors
        self.fit_priors_ = (
            counted / counted.sum()
            if given is None
            else _as_shares(given, self.classes_, "sampling_priors")
        )
        self.priors_ = (
            self.fit_priors_.copy()
            if isinstance(self.priors, str)
            else _as_shares(self.priors, self.classes_, "priors")
        )
        self.priors_interval_: NDArray[Any] | None = None
        self.shift_p_value_: float | None = None
        self.n_unlabelled_ = 0

    def _count_predictions(self, data):
        """Keep the moments of the calibrated probabilities, of all and by class."""
        front = log_proba(self.calibrator_.calibration_map(), data.n_classes)
        n_classes = data.n_classes

        def moments(logits, codes, weight):
            proba = np.exp(evaluate_block(front, cut_logits(logits)))
            by_class = np.zeros((n_classes, n_classes))
            np.add.at(by_class, codes, weight[:, np.newaxis] * proba)
            return by_class, (weight[:, np.newaxis] * proba).T @ proba

        # As many numbers as its tables have.
        size = max(BLOCK_ELEMENTS, n_classes**2)
        by_class, square = data.sum(moments, block_elements=size)
        self._mean = by_class.sum(axis=0)
        self._covariance = square - np.outer(self._mean, self._mean)
        shares = np.bincount(data.codes, data.weight, n_classes)
        # A class that is not there is taken to be told perfectly.
        self._class_means = np.where(
            shares > 0, by_class.T / np.where(shares > 0, shares, 1), np.eye(n_classes)
        )
        self._n_fit = data.total_weight

    def update_priors(self, X: Any) -> Self:
        """Estimate the shares of the classes from unlabelled rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of rows as they come where the model serves, of which no true class
            is needed.

        Returns
        -------
        self : object
            The calibrator, which predicts for these shares from now on.

        Raises
        ------
        ValueError
            If the shares are given as `priors`.
        """
        check_is_fitted(self)
        self._validate_params()
        refuse_dask("update_priors", X)
        if not isinstance(self.priors, str):
            raise ValueError(
                "The shares are given, so that none are estimated. Pass "
                'priors="estimate" and fit again, or leave out update_priors.'
            )
        source = check_logits(self, X, reset=False)
        front = log_proba(self.calibrator_.calibration_map(), self.classes_.shape[0])
        told = evaluate(front, source)
        told = column_on_host(told).astype(np.float64)
        random = check_random_state(self.random_state)
        priors = self._estimated(told, random)
        interval = self._interval(told, priors, random)
        self.shift_p_value_ = p_value_of_means(
            self._mean, self._covariance, self._n_fit, np.exp(told)
        )
        self.priors_, self.priors_interval_ = priors, interval
        self.n_unlabelled_ = told.shape[0]
        return self

    def _estimated(self, told, random):
        """Return the shares behind log-probabilities."""
        if self.method == "bbse":
            return by_moments(np.exp(told).mean(axis=0), self._class_means)
        old = self.fit_priors_
        return by_likelihood(told, old, choose_prior(told, old, random))

    def _interval(self, told, priors, random):
        """Return the ends of the interval of each share, None without replicates."""
        if not self.n_bootstrap:
            return None
        weights = draw_weights(self.n_bootstrap, told.shape, random)
        if self.method == "em":
            drawn = [
                replicates_of_likelihood(told, self.fit_priors_, each)
                for each in weights.sets
            ]
        else:
            proba = np.exp(told)
            drawn = [
                replicates_of_moments(proba, self._class_means, each)
                for each in weights.sets
            ]
        return interval_of(drawn, priors, self.confidence_level)

    def calibration_map(self) -> Any:
        """Return the calibrator's map and the offset."""
        n_classes = self.classes_.shape[0]
        front = log_proba(self.calibrator_.calibration_map(), n_classes)
        new = np.maximum(self.priors_, SMALLEST_SHARE)
        offset = np.log(new) - np.log(self.fit_priors_)
        moved = Affine(np.ones(n_classes), offset)
        return CalibrationMap(*front.operations, moved, Softmax())


def _as_shares(given, classes, name):
    """Return shares in the order of the classes, all above zero."""
    labels, given = classes.tolist(), by_label(given, classes)
    if isinstance(given, Mapping):
        missing = [label for label in labels if label not in given]
        unknown = [label for label in given if label not in labels]
        if missing or unknown:
            raise ValueError(
                f"{name} has to name the share of every class. Missing are "
                f"{preview(missing)}; {preview(unknown)} are no classes."
            )
        given = [column_on_host(given[label]) for label in labels]
    shares = np.asarray(column_on_host(given), dtype=np.float64)
    if shares.shape != (len(labels),):
        raise ValueError(
            f"{name} has shape {shares.shape}; it needs one share for each of the "
            f"{len(labels)} classes {preview(labels)}, in this order."
        )
    if not ((shares >= 0).all() and abs(shares.sum() - 1) <= 1e-3):
        raise ValueError(
            f"{name}={shares.tolist()} are no shares: they have to be at least 0 and "
            f"sum to 1, and sum to {shares.sum():.6g}."
        )
    shares = np.maximum(shares, SMALLEST_SHARE)
    return shares / shares.sum()


def by_label(given, classes):
    """Return a series of pandas whose index names the classes as a dict.

    Such as `value_counts` gives, most frequent first. Others are returned as they are.
    """
    is_series = hasattr(given, "to_dict")
    is_named = is_series and not _is_unnamed(given.index, classes.tolist())
    return given.to_dict() if is_named else given


def _is_unnamed(index, labels):
    """Whether an index of pandas counts the shares, and does not name their classes."""
    # Only a RangeIndex has a step: what a series has that was given no index.
    return (
        getattr(index, "step", None) == 1
        and index.start == 0
        and set(index) != set(labels)
    )
