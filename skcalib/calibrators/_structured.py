"""Structured matrix scaling: temperature first, then a shrunken affine map."""

from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from skcalib._base import ROUGH, BaseCalibrator
from skcalib._maps import (
    Affine,
    CalibrationMap,
    Log,
    Softmax,
    WeightedSum,
    evaluate_block,
)
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._centre import fit_centre
from skcalib._solvers._matrix import Ridge, fit_matrix, identity_map, is_large
from skcalib._solvers._moments import means_and_spreads
from skcalib._solvers._result import NO_INFORMATION
from skcalib._solvers._temperature import PRIOR, fit_temperature
from skcalib._solvers._vector import fit_vector
from skcalib.calibrators._absent import fill_absent
from skcalib.calibrators._floor import (
    DEEP_FLOORS,
    floor_operations,
    learn_floor,
    raised_to,
)
from skcalib.calibrators._scaling import divisions

# Nats that a step may promise to be taken blindly, from a start that is near. Newton's
# method then leaves far less.
BLIND = 0.005
# Penalties below this, as beside huge weights, are at the limit of precision.
LEAST_UNIT = 1e-10


class StructuredMatrixScaling(BaseCalibrator):
    r"""Temperature scaling followed by an affine map that is shrunk by design.

    Temperature scaling comes first; its probabilities are mixed with a little of the
    uniform distribution, and :math:`z'`, their logarithm, is mapped to
    :math:`\operatorname{softmax}((I + D) z' + b)`. Ridge penalties whose strengths
    follow from the number of classes :math:`K` and of samples :math:`n` keep :math:`D`
    and :math:`b` small [1]_:

    .. math::
        \frac{K}{n} \lVert b \rVert^2 + \frac{K}{n} \lVert \operatorname{diag} D
        \rVert^2 + \frac{K (K - 1)}{n} \lVert \operatorname{offdiag} D \rVert^2 .

    Nothing is to be chosen, which makes it a good first method for several classes.

    Parameters
    ----------
    structure : {"matrix", "vector"}, default="matrix"
        "vector" keeps :math:`D` diagonal: cheaper, and often as good.

    intercept_penalty : float, default=1.0
        Factor of the first penalty.

    diagonal_penalty : float, default=1.0
        Factor of the second penalty.

    off_diagonal_penalty : float, default=1.0
        Factor of the third penalty. Not used by ``structure="vector"``.

    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the temperature towards 1, as in
        `TemperatureScaling`; None is the maximum likelihood of [1]_. See Notes.

    tol : float, default=1e-7
        How far above its minimum, in nats, the penalised mean log-loss may end.

    max_iter : int, default=100
        Largest number of Newton steps.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    temperature_ : float
        Temperature of the first step.

    coef_ : ndarray of shape (n_classes, n_classes) or (n_classes,)
        :math:`I + D`, or its diagonal for ``structure="vector"``.

    intercept_ : ndarray of shape (n_classes,)
        The offsets :math:`b`.

    floor_ : float or None
        Probabilities below it are raised to it first; None where no logits lie so far
        apart. See Notes.

    uniform_weight_ : float
        Share of the uniform distribution, :math:`1 / (n + 1)`.

    loss_ : float
        Mean log-loss on the calibration set plus the penalty.

    n_iter_ : int
        Newton steps of the second step.

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
        If no bound shows that the loss is within the tolerance after `max_iter` steps,
        or where rounding ends the search; and, with ``prior=None``, if the logits carry
        no information.

    Notes
    -----
    A few rows of logits that are hundreds or thousands apart, as those of naive Bayes,
    would decide the temperature. Where a probability is below the least of single
    precision, 1.2e-38, that, 1e-20 and 1e-12 are tried as a floor under all of them,
    and one is kept if a temperature fits better after it, as in `ProbabilityFloor`.

    Where the base rates have evidently moved since training, as after training with
    class weights, and there is a `prior`, another temperature is fitted together with
    an offset for every class. The penalties on :math:`b` and on the diagonal of
    :math:`I + D` then draw to that map instead of the identity.

    A class that does not occur in the calibration set is left out of the second step.
    It has the mean of the others' diagonal entries, off-diagonal entries and offsets.

    With weights, :math:`n` is their sum if they are whole, else Kish's effective number
    of samples. The problem is strongly convex and is solved by Newton's method.

    References
    ----------
    .. [1] Berta, Holzmuller, Jordan & Bach. "Structured Matrix Scaling for Multi-Class
       Calibration", 2025. https://arxiv.org/abs/2511.03685

    Examples
    --------
    >>> from skcalib import StructuredMatrixScaling
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> StructuredMatrixScaling().fit(X, y).coef_.shape
    (3, 3)
    """

    _factor = [Interval(Real, 0, None, closed="left")]
    by_sums = True
    _parameter_constraints: dict = {
        "structure": [StrOptions({"matrix", "vector"})],
        "intercept_penalty": _factor,
        "diagonal_penalty": _factor,
        "off_diagonal_penalty": _factor,
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    learns_by_class = True

    def __init__(
        self,
        *,
        structure: Literal["matrix", "vector"] = "matrix",
        intercept_penalty: float = 1.0,
        diagonal_penalty: float = 1.0,
        off_diagonal_penalty: float = 1.0,
        prior: float | None = PRIOR,
        tol: float = 1e-7,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.structure = structure
        self.intercept_penalty = intercept_penalty
        self.diagonal_penalty = diagonal_penalty
        self.off_diagonal_penalty = off_diagonal_penalty
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Find the temperature, then the shrunk matrix or vector."""
        self.uniform_weight_ = 1 / (data.total_weight + 1)
        near = self._near
        known = None if near is None else (near.floor_, near.temperature_)
        # Both structures ask the same rows for the same.
        self.floor_, found, centre, features = data.once(
            ("structured", self.prior, known), lambda: self._through_front(data, known)
        )
        if found.message == NO_INFORMATION:
            self._warn_unless_converged(found)
        self.temperature_ = float(found.x[0])
        fit = self._fit_vector if self.structure == "vector" else self._fit_matrix
        present = data.present
        if present.shape[0] < data.n_classes:
            features = features.columns(present)
        unit = np.full(2, data.n_classes / data.total_weight)
        if centre.is_flat and unit[0] > LEAST_UNIT:
            # The temperature leaves next to nothing, which is then the unit of slopes.
            unit[0] *= min(float(means_and_spreads(features)[1].max()) or 1.0, 1.0) ** 2
        # The map of the centre, after the temperature.
        factor, offsets = self.temperature_ * centre.slope, centre.offsets[present]
        result = fit(features, unit, factor, offsets)
        self._record(result)
        is_vector = self.structure == "vector"
        coef = result.x[0] if is_vector else result.x[:, :-1]
        offsets = result.x[1] if is_vector else result.x[:, -1]
        self.coef_, self.intercept_ = fill_absent(
            coef, offsets, present, data.n_classes
        )

    def _through_front(self, data, known):
        """Return floor, result of the temperature, centre, and the data after both.

        `known` are those of nearly the same rows: a floor is a choice of four, which
        they have made, a temperature the start of a search.
        """
        if known is None:
            floor, near = learn_floor(data, DEEP_FLOORS, least=DEEP_FLOORS[0]), None
        else:
            floor, near = known
        raised = raised_to(floor, data)
        found = fit_temperature(raised, prior=self.prior, near=near)
        centre = fit_centre(raised, self.prior, near=near)
        front = CalibrationMap(*self._front(floor, float(found.x[0]), data.n_classes))
        through = partial(evaluate_block, front)
        kept = data.mapped(through, keep_type=is_large(data))
        return floor, found, centre, kept

    def _fit_vector(self, data, unit, factor, offsets):
        start = np.stack([np.full(data.n_classes, factor), offsets])
        factors = [[self.diagonal_penalty], [self.intercept_penalty]]
        penalty = np.repeat(unit[:, np.newaxis] * factors, data.n_classes, axis=1)
        tol, blind, near = self._start(data)
        if near is not None:
            near = np.stack([near.coef_, near.intercept_])
        return fit_vector(
            data,
            start,
            penalty=penalty,
            tol=tol,
            max_iter=self.max_iter,
            near=near,
            blind=blind,
        )

    def _fit_matrix(self, data, unit, factor, offsets):
        ridge = Ridge(
            unit[0] * (data.n_classes - 1) * self.off_diagonal_penalty,
            unit[0] * self.diagonal_penalty,
            unit[1] * self.intercept_penalty,
            factor,
            offsets,
        )
        start = identity_map(data.n_classes, factor)
        tol, blind, near = self._start(data)
        start[:, -1] = offsets
        if near is not None:
            start = np.column_stack([near.coef_, near.intercept_])
        return fit_matrix(
            data, start, ridge=ridge, tol=tol, max_iter=self.max_iter, blind=blind
        )

    def _start(self, data):
        """Return tolerance, what a blind step may promise, and a start."""
        near = self._near
        if near is None or near.coef_.shape[0] != data.n_classes:
            return self.tol, 0.0, None
        return max(self.tol, ROUGH), BLIND, near

    def _front(self, floor, temperature, n_classes):
        """Floor, temperature, a little of the uniform distribution, logarithm."""
        share = self.uniform_weight_
        scaled = CalibrationMap(*divisions(temperature), Softmax())
        mixed = WeightedSum((1 - share,), (scaled,), share / n_classes)
        return *floor_operations(floor), mixed, Log()

    def calibration_map(self) -> Any:
        """Return temperature, mix with the uniform, and affine map."""
        n_classes = self.intercept_.shape[0]
        affine = Affine(self.coef_, self.intercept_)
        front = self._front(self.floor_, self.temperature_, n_classes)
        return CalibrationMap(*front, affine, Softmax())
