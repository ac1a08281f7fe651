"""Order-preserving scaling: an increasing non-linear map of the log-probabilities."""

from numbers import Integral, Real
from typing import Any

import numpy as np

from skcalib._base import ROUGH, BaseCalibrator, WrappingCalibrator
from skcalib._maps import (
    CalibrationMap,
    EntropyScale,
    LogSoftmax,
    Lookup,
    Softmax,
    Table,
    WeightedSum,
)
from skcalib._sklearn_compat import Interval
from skcalib._solvers._order_preserving import (
    Knots,
    RankedRows,
    choose_knots,
    fit_order_preserving,
)
from skcalib._solvers._temperature import PRIOR, fit_temperature, prior_strength
from skcalib.calibrators._scaling import divisions, fit_scaling
from skcalib.calibrators._temperature import TemperatureScaling


class OrderPreservingScaling(WrappingCalibrator):
    r"""Temperature scaling followed by an increasing map of the log-probabilities.

    With :math:`u` the log-probabilities of a row after temperature scaling and
    :math:`H` their entropy,

    .. math::
        q = \operatorname{softmax}(s(H)\, u + g(u)),

    where the positive function :math:`s` is one more inverse temperature for each
    entropy, and the increasing function :math:`g` acts on every entry alike. Both are
    piecewise linear. Rows keep the order of their entries, so the predicted class
    never changes; the map is intra-order-preserving [1]_ and treats all classes alike.

    It helps where one temperature does not fit both the rows of which the network is
    sure and those of which it is not, and costs next to nothing elsewhere. With
    ``scaling=StructuredMatrixScaling()`` it also does what differs between classes.

    Parameters
    ----------
    scaling : calibrator, default=None
        A calibrator that is fitted before, one with a `decision_function`, such as
        `StructuredMatrixScaling`. The map then applies to its calibrated logits, and
        keeps their order. Its `classes` hold where there are none here.

    n_knots : int, default=8
        Largest number of points at which each of the two functions may bend. They lie
        at quantiles of the uncertain entropies and log-probabilities.

    smoothness : float, default=3.0
        Strength of the pull towards temperature scaling: the penalty is
        `smoothness` over the number of samples, times the squared jumps between
        neighbouring values of :math:`s` and between neighbouring slopes of :math:`g`,
        plus a hundredth of the squared values of :math:`s - 1` and slopes.

    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the temperature towards 1, as in
        `TemperatureScaling`. An eighth of it pulls each value of :math:`s` towards 1
        and each slope towards 0. None is no pull but that of `smoothness`.

    tol : float, default=1e-9
        How far above its minimum, in nats, the penalised mean log-loss may end.

    max_iter : int, default=100
        Largest number of Newton steps.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    scaling_ : calibrator or None
        The fitted `scaling`.

    temperature_ : float
        Temperature of the first step.

    entropy_knots_ : ndarray of shape (n_scales,)
        Entropies, in nats, between which :math:`s` is linear; beyond, it is constant.

    scales_ : ndarray of shape (n_scales,)
        Values of :math:`s` there.

    log_proba_knots_ : ndarray of shape (n_slopes - 1,)
        Log-probabilities at which :math:`g` may bend.

    slopes_ : ndarray of shape (n_slopes,)
        Slopes of :math:`g`, not negative, from the lowest piece to the highest.

    loss_ : float
        Mean log-loss on the calibration set plus the penalty.

    n_iter_ : int
        Newton steps used.

    gradient_norm_ : float
        Euclidean norm of the gradient at the solution, without what bounds hold back.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If the tolerance is not reached in `max_iter` steps, or no temperature is best,
        as of `TemperatureScaling`.

    See Also
    --------
    StructuredMatrixScaling : A linear map that treats every class by itself.

    Notes
    -----
    Given the knots, the log-loss is convex in the values of :math:`s` and the slopes of
    :math:`g`, and Newton's method with bounds finds its minimum. The family is a part
    of that of [1]_, which is fitted there as a neural network: :math:`g` is its
    diagonal form, and :math:`s` takes the place of a temperature that depends on the
    input, here by its entropy [2]_.

    With weights, the number of samples is their sum if they are whole, else Kish's
    effective number.

    References
    ----------
    .. [1] Rahimi, Shaban, Cheng, Hartley & Boots. "Intra Order-Preserving Functions for
       Calibration of Multi-Class Neural Networks", NeurIPS 2020.
       https://arxiv.org/abs/2003.06820
    .. [2] Balanya, Maronas & Ramos. "Adaptive Temperature Scaling for Robust
       Calibration of Deep Neural Networks", 2022. https://arxiv.org/abs/2208.00461

    Examples
    --------
    >>> from skcalib import OrderPreservingScaling
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> op = OrderPreservingScaling().fit(X, y)
    >>> bool((op.predict(X) == X.argmax(axis=1)).all())
    True
    >>> bool((op.scales_ > 0).all() and (op.slopes_ >= 0).all())
    True
    """

    _parameter_constraints: dict = {
        "scaling": [BaseCalibrator, None],
        "n_knots": [Interval(Integral, 1, None, closed="left")],
        "smoothness": [Interval(Real, 0, None, closed="neither")],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    has_logits = True

    def __init__(
        self,
        scaling: Any = None,
        *,
        n_knots: int = 8,
        smoothness: float = 3.0,
        prior: float | None = PRIOR,
        tol: float = 1e-9,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.scaling = scaling
        self.n_knots = n_knots
        self.smoothness = smoothness
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def _inner(self):
        # Without a scaling there is the temperature, which all calibrators begin with.
        return TemperatureScaling() if self.scaling is None else self.scaling

    @property
    def keeps_class(self) -> Any:
        scaling = getattr(self, "scaling_", self.scaling)
        return scaling is None or scaling.keeps_class

    def fit_calibration(self, data: Any) -> None:
        """Fit the scaling before the curve, if there is one, then both its parts."""
        self.scaling_ = None
        if self.scaling is not None:
            self.scaling_, data = fit_scaling(self, self.scaling, data)
        near = getattr(self._near, "temperature_", None)
        found = fit_temperature(data, prior=self.prior, near=near)
        self._warn_unless_converged(found)
        self.temperature_ = float(found.x[0])
        fit_ranked(self, RankedRows.of_data(data, self.temperature_), self._near)

    def calibration_map(self) -> Any:
        """Return the increasing curve of the log-probabilities."""
        # The lowest piece of g has no end: its slope goes to s, the others get less.
        lowest, *others = self.slopes_
        scale = Table(self.entropy_knots_, self.scales_ + lowest, "linear")
        ends = np.append(self.log_proba_knots_, 0.0)
        rises = (np.array(others) - lowest) * np.diff(ends)
        curve = Table(ends, np.concatenate([[0.0], np.cumsum(rises)]), "linear")
        parts = CalibrationMap(EntropyScale(scale)), CalibrationMap(Lookup((curve,)))
        summed = WeightedSum((1.0, 1.0), parts)
        front = ()
        if self.scaling_ is not None:
            front = self.scaling_.calibration_map().logits.operations
        return CalibrationMap(
            *front, *divisions(self.temperature_), LogSoftmax(), summed, Softmax()
        )


def fit_ranked(scaling, rows, near=None):
    """Fit both functions of a scaling to log-probabilities after its temperature."""
    tol = scaling.tol
    if near is None:
        knots = choose_knots(rows, scaling.n_knots)
    else:
        knots = Knots(near.entropy_knots_, near.log_proba_knots_)
        near, tol = np.concatenate([near.scales_, near.slopes_]), max(tol, ROUGH)
    result = fit_order_preserving(
        rows,
        knots,
        smoothness=scaling.smoothness,
        prior=prior_strength(scaling.prior, rows),
        tol=tol,
        max_iter=scaling.max_iter,
        near=near,
    )
    scaling._record(result)
    scaling.entropy_knots_, scaling.log_proba_knots_ = knots.scale, knots.curve
    scaling.scales_, scaling.slopes_ = np.split(result.x, [knots.scale.shape[0]])
