"""Vector scaling: one factor and one offset for each class."""

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from skcalib._base import BaseCalibrator
from skcalib._maps import Affine, CalibrationMap, Clip, Softmax
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._centre import fit_centre, units_of
from skcalib._solvers._temperature import (
    LEAST_TEMPERATURE,
    PRIOR,
    prior_strength,
)
from skcalib._solvers._temperature_search import search_temperature
from skcalib._solvers._vector import fit_top_vector, fit_vector, slight_penalty
from skcalib.calibrators._absent import fill_absent
from skcalib.calibrators._seen_range import clip_masked


class VectorScaling(BaseCalibrator):
    r"""Scale and shift the logits of each class.

    Finds the vectors :math:`v` and :math:`b` that minimise the negative
    log-likelihood of :math:`\operatorname{softmax}(v \odot z + b)` [1]_, or another
    objective.

    Parameters
    ----------
    objective : {"log_loss", "top"}, default="log_loss"
        What is minimised on the calibration set: the negative log-likelihood, or the
        log-loss of the confidence in the predicted class against whether it is right
        (top-versus-all) [2]_. The predicted class is that of the logits as they came,
        not of the map.

    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the temperature towards 1, as in
        `TemperatureScaling`, and of all factors and offsets towards those of the
        temperature; None is the maximum likelihood of [1]_. See Notes.

    tol : float, default=1e-20
        How far above its minimum, in nats, the mean objective may end. The errors of
        the parameters go with its root, so it lies far below the rounding of the loss.
        No less than 1e-16 for ``objective="top"``.

    max_iter : int, default=100
        Largest number of Newton steps; for ``objective="top"`` of passes over the data,
        after at most so many steps for a start.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes,)
        Factor of each class, :math:`v`.

    intercept_ : ndarray of shape (n_classes,)
        Offset of each class, :math:`b`; with mean 0 over the classes that occur.

    logit_range_ : tuple of two floats
        Logits are cut to this range first. It lies far beyond the logits that carry
        probability; networks mask classes with values such as -1e9, which an affine
        map must not multiply.

    loss_ : float
        Mean objective on the calibration set, among the classes that occur, plus the
        penalties (see Notes).

    n_iter_ : int
        Newton steps used, or passes for ``objective="top"``.

    gradient_norm_ : float
        Euclidean norm of the gradient at the solution.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If the tolerance is not reached in `max_iter` steps.

    Notes
    -----
    The log-loss is convex and solved to its optimum by Newton's method from the
    temperature solution. A class that does not occur in the calibration set is left
    out of the fit and has the mean factor and the mean offset of the others: the data
    say nothing about it, and the likelihood alone would push its probability to 0.

    With a `prior` of :math:`c`, :math:`\frac{c}{n} (\lVert T v - 1 \rVert^2 + \lVert b
    \rVert^2)` is added to the mean objective of :math:`n` samples, with :math:`T` the
    temperature for it. Classes with few samples, which would overfit, stay near it.
    Where the base rates have evidently moved since training, as after training with
    class weights, :math:`T` is fitted together with offsets, and :math:`b` is held near
    these instead of 0 (for the log-loss only).

    The top objective need not be convex. L-BFGS starts from its temperature or from the
    optimum of the log-loss, whichever is lower, and ends in a minimum that need not be
    the lowest. It judges one probability of each row, that of the class predicted by
    the logits among the classes that occur: how the others share the rest, only the
    prior and the rows in which they are predicted say, and the largest probability may
    become that of another class. Rows whose logits rule out all classes but a wrong one
    may keep the search from its end. With two classes it is the log-loss.

    Where some map makes no error on the calibration set, the likelihood alone has no
    optimum. A ridge penalty towards the temperature solution, 1e-10 of the curvature
    there, makes it unique also without a prior; where the data determine the map it
    cannot be seen.

    The result depends on the constant that may be added to all logits of a row, so
    ``logits_from_proba`` of a network's probabilities gives another fit than its own
    logits.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger. "On Calibration of Modern Neural Networks",
       ICML 2017. https://arxiv.org/abs/1706.04599
    .. [2] Le Coz, Herbin & Adjed. "Confidence Calibration of Classifiers with Many
       Classes", NeurIPS 2024. https://arxiv.org/abs/2411.02988

    Examples
    --------
    >>> from skcalib import TemperatureScaling, VectorScaling
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> VectorScaling().fit(X, y).coef_.shape
    (3,)
    >>> top = VectorScaling(objective="top").fit(X, y)
    >>> top.loss_ < TemperatureScaling(objective="top").fit(X, y).loss_
    True
    """

    by_sums = True
    _parameter_constraints: dict = {
        "objective": [StrOptions({"log_loss", "top"})],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    learns_by_class = True

    def __init__(
        self,
        *,
        objective: Literal["log_loss", "top"] = "log_loss",
        prior: float | None = PRIOR,
        tol: float = 1e-20,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.objective = objective
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Fit factors and offsets of the classes that occur."""
        if self.objective == "top":
            fit = fit_top_vector
            options: dict[str, Any] = {"tol": 1e-10, "max_iter": self.max_iter}
            found = search_temperature(data, "top", 0.0, prior=self.prior, **options)
            # No smaller one has a finite inverse.
            temperature = max(found.x[0], LEAST_TEMPERATURE)
            offsets = np.zeros(data.n_classes)
            units = units_of(temperature, data.n_classes)
        else:
            fit = fit_vector
            centre = fit_centre(data, self.prior)
            temperature, offsets = centre.temperature, centre.offsets
            units = centre.units
        data, self.logit_range_ = clip_masked(data, temperature)
        n_classes, present = data.n_classes, data.present
        if present.shape[0] < n_classes:
            data = data.columns(present)
        start = np.stack([np.full(data.n_classes, 1 / temperature), offsets[present]])
        penalty = slight_penalty(data, start)
        # In units of the temperature, as logits may have any.
        penalty += prior_strength(self.prior, data) / units[:, present] ** 2
        result = fit(data, start, penalty=penalty, tol=self.tol, max_iter=self.max_iter)
        self._record(result)
        factors, offsets = result.x
        self.coef_, self.intercept_ = fill_absent(
            factors, offsets - offsets.mean(), present, n_classes
        )

    def calibration_map(self) -> Any:
        """Return the affine map of the columns."""
        affine = Affine(self.coef_, self.intercept_)
        return CalibrationMap(Clip(*self.logit_range_), affine, Softmax())
