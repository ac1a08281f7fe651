"""Temperature scaling: one number divides all logits."""

from numbers import Integral, Real

from skcalib._base import BaseCalibrator
from skcalib._maps import CalibrationMap, Softmax
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._temperature import PRIOR, fit_temperature
from skcalib._solvers._temperature_search import search_temperature
from skcalib.calibrators._scaling import divisions


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
        Size of the derivative of the log-loss and the prior by :math:`\log T` at the
        last step.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    Warns
    -----
    ConvergenceWarning
        If the logits of each row are equal; and, with ``prior=None``, if no temperature
        is best: all samples are classified without error, or the logits carry no
        information. The best point found is kept.

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
        objective="log_loss",
        gamma=1.0,
        prior=PRIOR,
        tol=1e-10,
        max_iter=100,
        classes=None,
    ):
        self.objective = objective
        self.gamma = gamma
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data):
        """Find the temperature."""
        options = {"prior": self.prior, "tol": self.tol, "max_iter": self.max_iter}
        focal_is_log_loss = self.objective == "focal" and self.gamma == 0
        if self.objective == "log_loss" or focal_is_log_loss:
            result = fit_temperature(data, **options)
        else:
            result = search_temperature(data, self.objective, self.gamma, **options)
        self._record(result)
        self.temperature_ = float(result.x[0])

    def calibration_map(self):
        """Return the division by the temperature."""
        return CalibrationMap(*divisions(self.temperature_), Softmax())
