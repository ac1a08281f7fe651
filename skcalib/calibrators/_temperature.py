"""Temperature scaling: one number divides all logits."""

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if

from skcalib._base import BaseCalibrator
from skcalib._maps import CalibrationMap, Softmax
from skcalib._sklearn_compat import Interval, StrOptions, fit_context
from skcalib._solvers._result import Result
from skcalib._solvers._temperature import PRIOR, fit_temperature
from skcalib._solvers._temperature_search import search_temperature
from skcalib._solvers._temperature_sums import (
    sums_of_rows,
    temperature_of,
    weights_of,
)
from skcalib._validation import (
    came_whole,
    check_calibration_set,
    column_on_host,
    effective_number,
    is_dask,
    preview,
)
from skcalib._warnings import warn
from skcalib.calibrators._scaling import divisions


def _by_log_loss(calibrator):
    """Whether the objective is the log-loss, of which sums can be kept."""
    if calibrator._is_log_loss:
        return True
    raise AttributeError(
        f"objective={calibrator.objective!r} needs all rows at once; a stream is "
        'learned from with objective="log_loss".'
    )


def _all_zero(sample_weight):
    """Whether there are weights, and none above 0; those of Dask are not looked at."""
    if sample_weight is None or is_dask(sample_weight):
        return False
    weight = np.asarray(column_on_host(sample_weight))
    return weight.dtype.kind in "biuf" and weight.size > 0 and not weight.any()


class TemperatureScaling(BaseCalibrator):
    r"""Divide the logits by one learned temperature.

    Finds :math:`T > 0` that minimises the negative log-likelihood of
    :math:`\operatorname{softmax}(z / T)` [1]_, or another objective. The predicted
    class never changes.

    Parameters
    ----------
    objective : {"log_loss", "focal", "brier", "top", "ece"}, default="log_loss"
        What the temperature minimises on the calibration set: the negative
        log-likelihood; the focal loss :math:`-(1 - p_y)^\gamma \ln p_y` [2]_; the
        squared distance of the probabilities to the one-hot label; the log-loss of the
        confidence in the predicted class against whether it is right
        (top-versus-all) [4]_; or the expected calibration error in 15 equal-width bins,
        by trying every temperature from 0.001 to 5 in steps of 0.001 as in the
        comparisons of [3]_.

    gamma : float, default=1.0
        Exponent of the focal loss; 0 gives the log-loss. Only for
        ``objective="focal"``.

    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the objective towards :math:`T = 1` (see
        Notes); None is the objective alone, for the log-loss the maximum likelihood of
        [1]_.

    tol : float, default=1e-10
        Absolute tolerance on :math:`\log T`. Not used by ``objective="ece"``, and
        "focal", "brier" and "top" reach 1e-8 at best.

    max_iter : int, default=100
        Largest number of iterations.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    temperature_ : float
        The learned temperature; above 1 when the classifier is over-confident.

    loss_ : float
        Value of the objective at `temperature_` on the calibration set, plus what the
        prior adds.

    n_iter_ : int
        Iterations used.

    gradient_norm_ : float
        Size of the derivative of the objective and the prior by :math:`\log T` at the
        last step; NaN with "ece", which has none.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    sums_ : ndarray of shape (101,)
        What is kept of the rows of a stream; only after `partial_fit`.

    Warns
    -----
    ConvergenceWarning
        If the logits of each row are equal, or `max_iter` was reached; and, with
        ``prior=None``, if no temperature is best: all samples are classified without
        error, or the logits carry no information. The best point found is kept.

    Notes
    -----
    Few samples, all of them classified without error, say that a temperature near 0 is
    best; the first error on other data then costs any number of nats. The prior is

    .. math::
        \frac{2c}{n} \ln \cosh \frac{\ln T}{2},

    added to the mean objective of :math:`n` samples, with :math:`c` its strength: as if
    `prior` trials had each found the logits too large and too small by a factor. Its
    pull on :math:`\ln T` never exceeds :math:`c / n`, so that logits in units of their
    own, far from log-probabilities, lose little by it, and with thousands of samples it
    is gone. Units of the logits matter by that little only; with
    ``prior=None`` not at all.

    The log-loss is convex in :math:`1/T` and is solved by a safeguarded Newton method
    that starts from a subsample of the rows. The search covers the typical distance
    of the two largest logits of a row times 0.001 to 1,000. The focal, Brier
    and top objectives need not be convex: a coarse grid over the same range finds the
    valley, which is then searched within. With two classes "top" is the log-loss. Small
    training losses on few samples are easily reached at extreme temperatures; prefer
    the log-loss unless there is a reason.

    Of a stream (`partial_fit`, `merge`) sums of fixed number are kept, of the log-loss
    and its derivatives at 32 temperatures, and interpolated. The temperature agrees
    with that of `fit` on all rows to 1e-8 of itself on the logits of networks, and to
    1e-5 of as unfavourable ones as there can be, whatever the batches; it lies between
    0.02 and 50, or there is a warning.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger. "On Calibration of Modern Neural Networks",
       ICML 2017. https://arxiv.org/abs/1706.04599
    .. [2] Lin, Goyal, Girshick, He & Dollar. "Focal Loss for Dense Object Detection",
       ICCV 2017. https://arxiv.org/abs/1708.02002
    .. [3] Tang, Chen & Ho. "Neural Clamping: Joint Input Perturbation and Temperature
       Scaling for Neural Network Calibration", TMLR 2024.
       https://arxiv.org/abs/2209.11604
    .. [4] Le Coz, Herbin & Adjed. "Confidence Calibration of Classifiers with Many
       Classes", NeurIPS 2024. https://arxiv.org/abs/2411.02988

    Examples
    --------
    >>> from skcalib import TemperatureScaling
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> ts = TemperatureScaling(prior=None).fit(logits, y=[0, 0, 1, 1])
    >>> ts.predict_proba([[4.0, 0.0]]).round(2)
    array([[0.75, 0.25]])

    Four samples are not believed by default:

    >>> ts = TemperatureScaling().fit(logits, y=[0, 0, 1, 1])
    >>> ts.predict_proba([[4.0, 0.0]]).round(2)
    array([[0.93, 0.07]])

    From the rows of a stream, in one pass:

    >>> stream = TemperatureScaling()
    >>> for rows in (slice(0, 2), slice(2, 4)):
    ...     stream = stream.partial_fit(logits[rows], [0, 0, 1, 1][rows])
    >>> bool(abs(stream.temperature_ / ts.temperature_ - 1) < 1e-8)
    True
    """

    by_sums = True
    _parameter_constraints: dict = {
        "objective": [StrOptions({"log_loss", "focal", "brier", "top", "ece"})],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    keeps_class = True

    def __init__(
        self,
        *,
        objective: Literal["log_loss", "focal", "brier", "top", "ece"] = "log_loss",
        gamma: float = 1.0,
        prior: float | None = PRIOR,
        tol: float = 1e-10,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.objective = objective
        self.gamma = gamma
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Find the temperature."""
        self.__dict__.pop("sums_", None)  # Of another stream.
        if self._is_log_loss:
            result = fit_temperature(data, **self._options)
        else:
            objective: Any = self.objective  # No longer the log-loss.
            result = search_temperature(data, objective, self.gamma, **self._options)
        self._take(result)

    @property
    def _is_log_loss(self) -> bool:
        """Whether the objective is the log-loss, by either of its names."""
        is_focal = self.objective == "focal" and self.gamma == 0
        return self.objective == "log_loss" or is_focal

    @property
    def _options(self) -> dict[str, Any]:
        return {"prior": self.prior, "tol": self.tol, "max_iter": self.max_iter}

    def _take(self, result: Result) -> None:
        self._record(result)
        self.temperature_ = float(result.x[0])

    @available_if(_by_log_loss)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Learn from the next rows of a stream, none of which is kept.

        The stream begins with the first call, or the first after `fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples, as for `fit`; one row may do.

        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            True classes, or shares of all classes.

        classes : array-like of shape (n_classes,), default=None
            Label of each column, in the first call, where the first rows do not tell
            it; the parameter `classes` of the calibrator does as well.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, compared with those of all other rows. All may be 0,
            if the classes are known: nothing is added then, and the temperature is 1
            while there is nothing else.

        Returns
        -------
        self : object
            The calibrator of all rows so far.
        """
        is_first = not hasattr(self, "sums_")
        if is_first and hasattr(self, "temperature_"):
            warn(
                "This TemperatureScaling was fitted by fit, which keeps no sums of its "
                "rows; partial_fit begins anew. Pass those rows to partial_fit, too, "
                "if they are to count."
            )
        known = self.classes if is_first else self.classes_
        given = known if classes is None else classes
        if known is not None and not np.array_equal(given, known):
            raise ValueError(
                f"classes={preview(list(given))} is not the same as before: "
                f"{preview(list(known))}. Leave it out, or begin with a new one."
            )
        # Rows of weight 0 add nothing, and are checked like others.
        is_idle = given is not None and _all_zero(sample_weight)
        if is_idle:
            sample_weight = np.ones_like(column_on_host(sample_weight))
        data = check_calibration_set(
            self, X, y, sample_weight, given, reset=is_first, is_part=True
        )
        self.classes_ = data.classes
        sums = sums_of_rows(data, came_whole(sample_weight))
        return self._add(np.zeros_like(sums) if is_idle else sums)

    @available_if(_by_log_loss)
    @fit_context(prefer_skip_nested_validation=True)
    def merge(self, other: Self) -> Self:
        """Add the rows that another calibrator has seen by `partial_fit`.

        Parameters
        ----------
        other : TemperatureScaling
            Does not change.

        Returns
        -------
        self : object
            The calibrator of the rows of both.
        """
        for calibrator in (self, other):
            if not hasattr(calibrator, "sums_"):
                raise ValueError(
                    f"{calibrator!r} has no sums of a stream; merge takes two "
                    "TemperatureScaling that have learned by partial_fit."
                )
        if not np.array_equal(self.classes_, other.classes_):
            raise ValueError(
                f"The columns of one stream are {preview(self.classes_.tolist())}, "
                f"those of the other {preview(other.classes_.tolist())}."
            )
        return self._add(other.sums_)

    def _add(self, sums: NDArray[np.float64]) -> Self:
        """Find the temperature of all rows so far."""
        if hasattr(self, "sums_"):
            sums = self.sums_ + sums
        n_samples = effective_number(*weights_of(sums)) if sums.any() else 0.0
        self._take(temperature_of(sums, n_samples, **self._options))
        # Last: the rows of an interrupted call may come again.
        self.sums_: NDArray[np.float64] = sums
        return self

    def calibration_map(self) -> Any:
        """Return the division by the temperature."""
        return CalibrationMap(*divisions(self.temperature_), Softmax())
