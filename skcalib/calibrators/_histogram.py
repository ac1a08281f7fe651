"""Histogram binning: the share of hits in bins of the probability."""

from numbers import Integral, Real
from typing import Any, Literal

from skcalib._base import BaseCalibrator
from skcalib._blocks._scores import one_vs_rest, top_label
from skcalib._maps import FALLBACK, curve_map, make_tables
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._histogram import fit_histogram
from skcalib.calibrators._absent import keep_absent


class HistogramBinning(BaseCalibrator):
    r"""Replace probabilities by the share of hits in their bin.

    Cuts the probability of each class, or of the predicted class, into bins and gives
    every sample the share of the calibration samples of its bin that hit [1]_.

    Parameters
    ----------
    n_bins : int, default=15
        Number of bins.

    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width in the probability, or with equally many samples. Equal
        probabilities are never parted, so ties may leave fewer quantile bins.

    method : {"one_vs_rest", "top_label"}, default="one_vs_rest"
        Bin the probability of every class against the rest and divide each row by its
        sum; or bin that of the predicted class, and let the others share what it leaves
        in their old proportions.

    smoothing : float, default=0.0
        Number of samples added to every bin that hit as often as the middle of the bin
        says. Above 0 no bin gives probability 0 or 1, whose log-loss may be infinite.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    edges_ : list of ndarray of shape (n_bins - 1,)
        Log-odds that part the bins, which are closed on the right; one array a class,
        or a single one for ``method="top_label"``. Those of a class that never occurs
        are others, and leave it as it is.

    values_ : list of ndarray of shape (n_bins,)
        Probability that each bin gives.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Notes
    -----
    Of two classes the second is binned and the first gets the rest. A bin without
    samples gives its middle, but a class without any keeps its probability before
    normalisation. A row in which all bins give 0 keeps its
    probabilities. `smoothing` is the m-estimate of [2]_ with the middle of the bin as
    the prior, where the source takes the share of the class. Bins are kept as log-odds,
    which tell apart probabilities that differ from 1 by less than rounding.

    Bins of equal width are cut in the probability of the logits as they are. In small
    units, such as those of cosine similarities, all probabilities are near :math:`1/K`,
    fall into one or two bins and lose the order of the classes: then take the strategy
    "quantile", or `ScalingBinning`, which fits a temperature first.

    The strategy "quantile" holds the scores of all classes in memory, as float64.

    References
    ----------
    .. [1] Zadrozny & Elkan. "Obtaining calibrated probability estimates from decision
       trees and naive Bayesian classifiers", ICML 2001.
    .. [2] Cestnik. "Estimating probabilities: a crucial task in machine learning",
       ECAI 1990.

    Examples
    --------
    >>> from skcalib import HistogramBinning
    >>> log_odds = [-3.0, -1.0, 0.5, 1.0, 2.0, 3.0]
    >>> binning = HistogramBinning(n_bins=2).fit(log_odds, [0, 1, 0, 1, 1, 1])
    >>> binning.predict_proba([-2.0, 0.1, 4.0])
    array([[0.5 , 0.5 ],
           [0.25, 0.75],
           [0.25, 0.75]])
    """

    by_sums = True
    _parameter_constraints: dict = {
        "n_bins": [Interval(Integral, 1, None, closed="left")],
        "strategy": [StrOptions({"uniform", "quantile"})],
        "method": [StrOptions({"one_vs_rest", "top_label"})],
        "smoothing": [Interval(Real, 0, None, closed="left")],
        "classes": ["array-like", None],
    }

    has_logits = False

    @property
    def learns_by_class(self) -> Any:
        return self.method != "top_label"

    def __init__(
        self,
        *,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        method: Literal["one_vs_rest", "top_label"] = "one_vs_rest",
        smoothing: float = 0.0,
        classes: Any = None,
    ) -> None:
        self.n_bins = n_bins
        self.strategy = strategy
        self.method = method
        self.smoothing = smoothing
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Cut the scores into bins, and count the hits of each."""
        self._method = self.method
        histograms = fit_histogram(
            data,
            top_label if self.method == "top_label" else one_vs_rest,
            n_bins=self.n_bins,
            strategy=self.strategy,
            smoothing=self.smoothing,
        )
        self.edges_ = [histogram.edges for histogram in histograms]
        self.values_ = [histogram.values for histogram in histograms]
        keep_absent(data, self.edges_, self.values_, kind="constant")

    def calibration_map(self) -> Any:
        """Return the histograms as tables."""
        tables = make_tables(self.edges_, self.values_, "constant")
        return curve_map(
            tables, top_label=self._method == "top_label", softmax_share=FALLBACK
        )
