"""Smoothing splines: a curve of the log-odds, as smooth as the samples say."""

from numbers import Integral, Real
from typing import Any

import numpy as np

from skcalib._base import BaseCalibrator
from skcalib._maps import (
    CalibrationMap,
    LogSigmoid,
    Lookup,
    Softmax,
    make_tables,
)
from skcalib._sklearn_compat import Interval
from skcalib._solvers._centre import fit_centre
from skcalib._solvers._smoothing_spline import fit_smoothing_splines
from skcalib._solvers._temperature import PRIOR
from skcalib.calibrators._absent import KNOTS
from skcalib.calibrators._scaling import log_odds_after


class SmoothingSplineCalibration(BaseCalibrator):
    r"""Fit a smooth curve to the log-odds of every class, then normalise.

    The log-odds :math:`s_k` of each class against the rest, at the temperature that
    `TemperatureScaling` finds, go through a curve :math:`a_k s_k + b_k + g_k(s_k)`,
    with :math:`g_k` a natural cubic spline, by penalised log-loss [1]_, [2]_. How
    smooth it is, nobody has to say: the curve is the mean over nine penalties, from a
    line to next to none, each weighted by how probable it makes the labels, its
    evidence [3]_. So it stays near the temperature where samples are few, and bends
    where many say so. Two classes need one curve; the :math:`q_k` of more are divided
    by their sum.

    Parameters
    ----------
    prior : float, default=1.0
        Strength :math:`c`, in samples, of a weak pull of the lines towards the
        temperature: :math:`c ((a_k - 1)^2 + b_k^2)` is added to the log-loss of all
        samples.

    n_knots : int, default=20
        Number of knots of each spline, at equidistant quantiles of the log-odds; fewer
        where these nearly coincide.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    temperature_ : float
        What logits are divided by before their log-odds.

    knots_ : list of ndarray
        Ascending log-odds between which each curve is a straight line, one array a
        class. They reach beyond the scores of the calibration set, to about seven times
        the outermost, and there the curve goes on as a natural spline does, which is
        nearly straight. Beyond the first and the last it is constant.

    values_ : list of ndarray
        Calibrated log-odds at these.

    shares_ : ndarray of shape (n_classes, 9)
        Share of each penalty, from the largest to the smallest, in each curve.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Notes
    -----
    The curves may fall where the samples say so, and then rows change their order. In
    each is a share of the uniform distribution, of a tenth of a sample.

    Above 2,048 distinct scores neighbours are pooled, which moves no probability by
    more than a few 1e-4. Every class costs a few dozen steps of Newton's method with as
    many numbers as there are knots.

    A class that never occurs in the calibration set keeps the curve of the temperature;
    one of two is an ordinary curve without hits.

    The scores of all curves are held in memory, as float64.

    References
    ----------
    .. [1] Green & Silverman. "Nonparametric Regression and Generalized Linear Models",
       1994, chapter 5.
    .. [2] Lucena. "Spline-Based Probability Calibration", 2018.
       https://arxiv.org/abs/1809.07751
    .. [3] MacKay. "The evidence framework applied to classification networks", Neural
       Computation 1992. https://doi.org/10.1162/neco.1992.4.5.720

    Examples
    --------
    >>> from skcalib import SmoothingSplineCalibration
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 2, random_state=0)
    >>> spline = SmoothingSplineCalibration().fit(X, y)
    >>> spline.predict_proba([[0.0, 3.0], [0.0, 0.5]]).round(2)
    array([[0.17, 0.83],
           [0.41, 0.59]])
    """

    learns_by_class = True

    _parameter_constraints: dict = {
        "prior": [Interval(Real, 0, None, closed="neither")],
        "n_knots": [Interval(Integral, 3, None, closed="left")],
        "classes": ["array-like", None],
    }

    def __init__(
        self, *, prior: float = 1.0, n_knots: int = 20, classes: Any = None
    ) -> None:
        self.prior = prior
        self.n_knots = n_knots
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Fit the temperature, then the splines."""
        centre = fit_centre(data, PRIOR)
        factor = centre.slope if centre.converged else 1.0
        self.temperature_ = 1 / factor
        curves = fit_smoothing_splines(
            data,
            factor=factor,
            prior=self.prior,
            n_knots=self.n_knots,
            is_flat=centre.is_flat,
        )
        self.knots_ = [curve.knots for curve in curves]
        self.values_ = [curve.values for curve in curves]
        if data.n_classes > 2:
            for k in np.setdiff1d(np.arange(data.n_classes), data.present):
                self.knots_[k], self.values_[k] = KNOTS.copy(), KNOTS.copy()
        self.shares_ = np.stack([curve.shares for curve in curves])

    def calibration_map(self) -> Any:
        """Return the curves, normalised."""
        tables = Lookup(make_tables(self.knots_, self.values_, "linear"))
        odds = log_odds_after(self.temperature_)
        return CalibrationMap(*odds, tables, LogSigmoid(), Softmax())
