"""Spline calibration: a smooth correction of the probability, without bins."""

from numbers import Integral
from typing import Any, Literal

import numpy as np

from skcalib._base import BaseCalibrator
from skcalib._blocks._scores import one_vs_rest, top_label
from skcalib._maps import curve_map, make_tables
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._spline import fit_splines
from skcalib.calibrators._absent import keep_absent


class SplineCalibration(BaseCalibrator):
    r"""Correct the probability by the slope of a spline, without bins.

    Sorts the samples by a probability and cumulates the differences of hit and
    probability; for a calibrated classifier that curve stays at 0. A natural cubic
    spline is fitted to it by least squares, and its derivative at a sample is what the
    probability lacks there [1]_.

    Parameters
    ----------
    method : {"top_label", "one_vs_rest"}, default="top_label"
        Correct the probability of the predicted class, and let the others share what
        it leaves in their old proportions; or correct that of every class against the
        rest, the within-class form, and divide each row by its sum.

    n_knots : int, default=6
        Number of knots of the spline, equidistant between the fractiles 0 and 1.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    knots_ : list of ndarray of shape (n_distinct_scores,)
        Ascending log-odds between which each curve is a straight line: a single array
        for ``method="top_label"``, else one a class.

    values_ : list of ndarray of shape (n_distinct_scores,)
        Corrected probabilities at these log-odds.

    splines_ : ndarray of shape (n_curves, n_knots)
        Values of each spline at its knots: cumulated hits less cumulated
        probabilities, per sample.

    uniform_weight_ : float
        Share of the uniform distribution in `values_`, :math:`1 / (n + 1)`.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Notes
    -----
    The spline is fitted to the cumulated curve itself, a chain of straight lines, by
    the trapezoidal rule, and its derivative is averaged over the fractiles that belong
    to one score. So equal scores count as one and weights as repetitions, and a class
    and its complement get complementary curves. With distinct scores that differs from
    the sums over samples in the code of [1]_ by terms of order :math:`1/n`.

    Between the scores of two calibration samples the curve is straight in the
    log-odds, where [1]_ interpolate in the probability, and beyond the first and last
    it is constant. The curves need not be monotone, and the prediction changes where
    the probability of the predicted class falls below another. Corrected values are cut
    to [0, 1] and mixed with a share :math:`1 / (n + 1)` of the uniform distribution,
    without which a test sample could have probability 0. With weights :math:`n` is
    their sum if they are whole, else Kish's effective number of samples.

    The within-class form suits few classes: where a class is rare, nearly all fractiles
    belong to samples of others, and the few that matter lie between two knots.

    With ``method="one_vs_rest"`` a class that never occurs in the calibration set keeps
    its probability before normalisation.

    The scores of all curves are held in memory, as float64.

    References
    ----------
    .. [1] Gupta, Rahimi, Ajanthan, Mensink, Sminchisescu & Hartley. "Calibration of
       Neural Networks using Splines", ICLR 2021. https://arxiv.org/abs/2006.12800

    Examples
    --------
    >>> from skcalib import SplineCalibration
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> spline = SplineCalibration().fit(X, y)
    >>> spline.predict_proba([[5.0, 0.0, 0.0]]).round(2)
    array([[0.9 , 0.05, 0.05]])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"top_label", "one_vs_rest"})],
        "n_knots": [Interval(Integral, 2, None, closed="left")],
        "classes": ["array-like", None],
    }

    has_logits = False

    @property
    def learns_by_class(self) -> Any:
        return self.method != "top_label"

    def __init__(
        self,
        *,
        method: Literal["top_label", "one_vs_rest"] = "top_label",
        n_knots: int = 6,
        classes: Any = None,
    ) -> None:
        self.method = method
        self.n_knots = n_knots
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Fit the splines of cumulated hits."""
        self._method = self.method
        scores = top_label if self.method == "top_label" else one_vs_rest
        curves = fit_splines(data, scores, n_knots=self.n_knots)
        self.uniform_weight_ = 1 / (data.total_weight + 1)
        floor = self.uniform_weight_ / data.n_classes
        self.knots_ = [curve.knots for curve in curves]
        self.values_ = [
            floor + (1 - self.uniform_weight_) * curve.values for curve in curves
        ]
        keep_absent(data, self.knots_, self.values_, kind="linear")
        self.splines_ = np.stack([curve.spline for curve in curves])

    def calibration_map(self) -> Any:
        """Return the splines' derivatives as tables."""
        tables = make_tables(self.knots_, self.values_, "linear")
        return curve_map(tables, top_label=self._method == "top_label")
