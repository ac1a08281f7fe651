"""Beta calibration: a three-parameter curve for every class against the rest."""

from numbers import Integral, Real
from typing import Any, Literal

from skcalib._base import BaseCalibrator
from skcalib._maps import BetaLink, CalibrationMap, LogSigmoid, Softmax
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._beta import fit_beta
from skcalib._solvers._temperature import PRIOR
from skcalib._solvers._units import score_unit
from skcalib.calibrators._scaling import log_odds_after


class BetaCalibration(BaseCalibrator):
    r"""Fit a beta curve to the probability of every class, then normalise.

    For each class against the rest, with probability :math:`p`, finds
    :math:`a, b \ge 0` and :math:`c` of
    :math:`\operatorname{logit} q = a \ln p - b \ln(1 - p) + c` that minimise the
    log-loss [1]_; the :math:`q` of a row are then divided by their sum. Two classes
    need one curve and no division. The identity is :math:`a = b = 1, c = 0`.

    Parameters
    ----------
    variant : {"abm", "am", "ab"}, default="abm"
        Three free parameters; two with :math:`a = b`; or two with
        :math:`c = (a - b) \ln 2`, which leaves :math:`p = 1/2` where it is.

    prior : float or None, default=8.0
        Strength :math:`s`, in samples, of a weak pull of the curves towards the
        temperature :math:`T` that `TemperatureScaling` finds with it:
        :math:`\frac{s}{n} ((T a - 1)^2 + (T b - 1)^2 + c^2)` is added to the mean
        log-loss of each class. Where the base rates have evidently moved, the pull is
        towards a temperature and offsets that are fitted together. None is the maximum
        likelihood of [1]_. See Notes on small units.

    tol : float, default=1e-8
        A class has converged when the next step would lower its log-loss by less than
        this, relative to its share of the samples.

    max_iter : int, default=100
        Largest number of iterations.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    a_ : ndarray of shape (n_classes,)
        Coefficient of :math:`\ln p` of each class.

    b_ : ndarray of shape (n_classes,)
        Coefficient of :math:`-\ln(1 - p)` of each class.

    c_ : ndarray of shape (n_classes,)
        Intercept of each class.

    unit_ : float
        What logits are divided by before their softmax; 1 but for small units.

    loss_ : float
        Sum of the minimised losses, priors included, of the classes, each a mean over
        the samples; of two classes there is one.

    gradient_norm_ : float
        Largest violation of the conditions of optimality, in standardised features.

    n_iter_ : int
        Iterations used, each one pass over the data.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If there is no prior and a class is told from the rest without error, so that no
        curve is steep enough; or if `max_iter` was reached. The last point is kept.

    Notes
    -----
    The constraints are part of the problem that is solved: each step of Newton's
    method minimises its quadratic model over :math:`a, b \ge 0`. (The reference
    implementation drops a feature with a negative coefficient and fits again.)

    A class that never occurs in the calibration set has the curve of the temperature,
    and without a prior keeps its probability before normalisation. Logarithms that vary
    by less than 1e-8 over the calibration set get coefficient 0.

    Where more than two classes have a :math:`T` below 1 with the prior, as with cosine
    similarities, :math:`p` is that of the logits over :math:`T`, and the pull is
    towards :math:`a = b = 1`. In small units all :math:`p` would be near :math:`1/K`.

    References
    ----------
    .. [1] Kull, Silva Filho & Flach. "Beta calibration: a well-founded and easily
       implemented improvement on logistic calibration for binary classifiers",
       AISTATS 2017. https://proceedings.mlr.press/v54/kull17a.html

    Examples
    --------
    >>> from skcalib import BetaCalibration
    >>> log_odds = [-3.0, -1.0, 0.5, 1.0, 2.0, 3.0]
    >>> beta = BetaCalibration(variant="am", prior=None)
    >>> beta = beta.fit(log_odds, [0, 1, 0, 0, 1, 1])
    >>> beta.predict_proba([-2.0, 0.0, 2.0]).round(2)
    array([[0.81, 0.19],
           [0.57, 0.43],
           [0.3 , 0.7 ]])
    """

    by_sums = True
    _parameter_constraints: dict = {
        "variant": [StrOptions({"abm", "am", "ab"})],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    learns_by_class = True

    def __init__(
        self,
        *,
        variant: Literal["abm", "am", "ab"] = "abm",
        prior: float | None = PRIOR,
        tol: float = 1e-8,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.variant = variant
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Fit a beta curve for each class."""
        self.unit_ = score_unit(data, self.prior)
        result = fit_beta(
            data,
            variant=self.variant,
            prior=self.prior,
            unit=self.unit_,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self._record(result)
        self.a_, self.b_, self.c_ = result.x.T.copy()

    def calibration_map(self) -> Any:
        """Return the beta curves, normalised."""
        link = BetaLink(self.a_, self.b_, self.c_)
        # The softmax of the log sigmoids is the sigmoids over their sum, never 0/0.
        odds = log_odds_after(self.unit_)
        return CalibrationMap(*odds, link, LogSigmoid(), Softmax())
