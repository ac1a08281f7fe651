"""Platt scaling: a logistic curve for every class against the rest."""

from numbers import Integral, Real
from typing import Any, Literal

from skcalib._base import BaseCalibrator
from skcalib._maps import Affine, CalibrationMap, LogSigmoid, Softmax
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._platt import fit_platt
from skcalib._solvers._temperature import PRIOR
from skcalib._solvers._units import score_unit
from skcalib.calibrators._scaling import log_odds_after


class PlattScaling(BaseCalibrator):
    r"""Fit a logistic curve to the score of every class, then normalise.

    For each class :math:`k` against the rest, finds the slope :math:`a_k` and intercept
    :math:`b_k` of :math:`\operatorname{logit} q_k = a_k s_k + b_k` that minimise the
    log-loss [1]_; the :math:`q_k` of a row are then divided by their sum. Two classes
    need one curve, on the log-odds, and no division.

    Parameters
    ----------
    fit_on : {"log_odds", "logits"}, default="log_odds"
        The score :math:`s_k`: the log-odds :math:`z_k - \ln \sum_{j \ne k} e^{z_j}` of
        the class against the rest, or the raw logit :math:`z_k`. A logit alone says
        little where only differences of logits carry meaning, as in most networks.

    smooth_targets : bool, default=False
        Fit to Platt's targets :math:`(n_k + 1)/(n_k + 2)` for the :math:`n_k` samples
        of the class and :math:`1/(n - n_k + 2)` for the others instead of 1 and 0.
        They make the optimum finite whatever the data, but with few samples of a class
        draw its curve far from the logits. They deny any class the probability 0: where
        logits are masked by huge negative numbers, slopes go to 0.

    prior : float or None, default=8.0
        Strength :math:`c`, in samples, of a weak pull of the curves on log-odds towards
        the temperature :math:`T` that `TemperatureScaling` finds with it:
        :math:`\frac{c}{n} ((T a_k - 1)^2 + b_k^2)` is added to the mean log-loss of
        each class. Where the base rates have evidently moved, the pull is towards a
        temperature and offsets that are fitted together. None, with
        ``smooth_targets=True``, is the fit of [1]_. Not used where ``fit_on="logits"``
        has more than two classes. See Notes on small units.

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
    coef_ : ndarray of shape (n_classes,)
        Slope of each class; for two classes both are the same.

    intercept_ : ndarray of shape (n_classes,)
        Intercept of each class; for two classes they differ in sign.

    unit_ : float
        What logits are divided by before their log-odds; 1 but for small units.

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
        If there is no prior, ``smooth_targets=False``, and the scores of a class are
        told from the rest without error, so that no slope is steep enough; or if
        `max_iter` was reached. The last point is kept.

    Notes
    -----
    All classes are solved at once by Newton's method. A class that never occurs in the
    calibration set gets slope :math:`1/T` and intercept 0, and without a prior the
    constant :math:`1/(n + 2)` before normalisation. Whole weights count as samples in
    the smoothed targets and beside the prior, others by Kish's effective number.

    Where more than two classes have a :math:`T` below 1 with the prior, as with cosine
    similarities, the score is the log-odds of :math:`z / T`, and the pull is towards
    :math:`a_k = 1`. In small units all log-odds of :math:`z` itself are near
    :math:`-\ln(K - 1)`, and no curves of them with small intercepts would do.

    References
    ----------
    .. [1] Platt. "Probabilistic Outputs for Support Vector Machines and Comparisons to
       Regularized Likelihood Methods", Advances in Large Margin Classifiers, 1999.

    Examples
    --------
    >>> from skcalib import PlattScaling
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> platt = PlattScaling(prior=None)
    >>> platt.fit(logits + [[0.0, 4.0]], y=[0, 0, 1, 1, 0])
    PlattScaling(prior=None)
    >>> platt.predict_proba([[4.0, 0.0]]).round(2)
    array([[0.67, 0.33]])
    """

    by_sums = True
    _parameter_constraints: dict = {
        "fit_on": [StrOptions({"log_odds", "logits"})],
        "smooth_targets": ["boolean"],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    learns_by_class = True

    def __init__(
        self,
        *,
        fit_on: Literal["log_odds", "logits"] = "log_odds",
        smooth_targets: bool = False,
        prior: float | None = PRIOR,
        tol: float = 1e-8,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.fit_on = fit_on
        self.smooth_targets = smooth_targets
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Fit a logistic curve for each class."""
        on_log_odds = self._on_log_odds = self.fit_on == "log_odds"
        prior = self.prior if on_log_odds else None
        self.unit_ = score_unit(data, prior)
        result = fit_platt(
            data,
            on_log_odds=on_log_odds,
            smooth_targets=self.smooth_targets,
            prior=self.prior,
            unit=self.unit_,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self._record(result)
        self.coef_, self.intercept_ = result.x.T.copy()

    def calibration_map(self) -> Any:
        """Return the logistic curves, normalised."""
        affine = Affine(self.coef_, self.intercept_)
        # The softmax of the log sigmoids is the sigmoids over their sum, never 0/0.
        if self._on_log_odds or self.coef_.shape[0] == 2:
            odds = log_odds_after(self.unit_)
            return CalibrationMap(*odds, affine, LogSigmoid(), Softmax())
        return CalibrationMap(affine, LogSigmoid(), Softmax())
