"""Scaling-binning: a parametric calibrator, then bins of what it says."""

from numbers import Integral
from typing import Any, Literal

from skcalib._base import BaseCalibrator, WrappingCalibrator
from skcalib._blocks._scores import one_vs_rest, top_label
from skcalib._maps import FALLBACK, curve_map, make_tables
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._histogram import fit_histogram
from skcalib.calibrators._platt import PlattScaling
from skcalib.calibrators._scaling import fit_scaling
from skcalib.calibrators._temperature import TemperatureScaling


class ScalingBinning(WrappingCalibrator):
    r"""Scale by a parametric calibrator, then replace its probabilities by bin means.

    Fits a parametric calibrator, cuts its probabilities into bins and gives every
    sample the mean of these probabilities, not of the hits, over the calibration
    samples of its bin [1]_. Few distinct values come out, so that their calibration
    error can be measured; and since hits are not averaged, far fewer samples are
    needed for the same error than in histogram binning.

    Parameters
    ----------
    scaling : calibrator, default=None
        The parametric calibrator, one with a `decision_function`. None is
        `PlattScaling` for two classes, as in [1]_, and `TemperatureScaling` for more.
        Its `classes` hold where there are none here.

    n_bins : int, default=15
        Number of bins.

    strategy : {"quantile", "uniform"}, default="quantile"
        Bins with equally many samples, or of equal width in the probability. Equal
        probabilities are never parted, so ties may leave fewer quantile bins.

    method : {"top_label", "one_vs_rest"}, default="top_label"
        Bin the scaled probability of the predicted class, and let the others share what
        it leaves in the proportions that the scaling gave them; or bin that of every
        class and divide each row by its sum. With many classes the latter loses
        predictions: the likeliest classes of a row often share a value.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    scaling_ : calibrator
        The fitted parametric calibrator.

    edges_ : list of ndarray of shape (n_bins - 1,)
        Log-odds, after scaling, that part the bins, which are closed on the right; one
        array a class, or a single one for ``method="top_label"``.

    values_ : list of ndarray of shape (n_bins,)
        Probability that each bin gives.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If the fit of the scaling warns.

    See Also
    --------
    HistogramBinning : Averages the hits instead.

    Notes
    -----
    The proofs of [1]_ scale, cut and average on three parts of the calibration set; as
    in the code of its authors, all of it serves each time here. They scale the
    probability of the predicted class, or of each class, by a curve of its own, and do
    not normalise; here the rows of both steps sum to 1. With ``method="one_vs_rest"``
    and two classes the second is binned and the first gets the rest. A bin without
    samples gives its middle, and a row in which all bins give 0 keeps its scaled
    probabilities.

    The strategy "quantile" holds the scores of all classes in memory, as float64.

    References
    ----------
    .. [1] Kumar, Liang & Ma. "Verified Uncertainty Calibration", NeurIPS 2019.
       https://arxiv.org/abs/1909.10155

    Examples
    --------
    >>> from skcalib import ScalingBinning
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> binning = ScalingBinning(n_bins=3).fit(X, y)
    >>> binning.values_[0].round(2)
    array([0.79, 0.99, 1.  ])
    """

    _parameter_constraints: dict = {
        "scaling": [BaseCalibrator, None],
        "n_bins": [Interval(Integral, 1, None, closed="left")],
        "strategy": [StrOptions({"quantile", "uniform"})],
        "method": [StrOptions({"top_label", "one_vs_rest"})],
        "classes": ["array-like", None],
    }

    has_logits = keeps_class = False

    def __init__(
        self,
        scaling: Any = None,
        *,
        n_bins: int = 15,
        strategy: Literal["quantile", "uniform"] = "quantile",
        method: Literal["top_label", "one_vs_rest"] = "top_label",
        classes: Any = None,
    ) -> None:
        self.scaling = scaling
        self.n_bins = n_bins
        self.strategy = strategy
        self.method = method
        self.classes = classes

    def _inner(self):
        return TemperatureScaling() if self.scaling is None else self.scaling

    def fit_calibration(self, data: Any) -> None:
        """Fit the scaling, then cut what it says into bins."""
        self._method = self.method
        scaling = self._inner()
        if self.scaling is None and data.n_classes == 2:
            scaling = PlattScaling()
        self.scaling_, scaled = fit_scaling(self, scaling, data)
        histograms = fit_histogram(
            scaled,
            top_label if self.method == "top_label" else one_vs_rest,
            n_bins=self.n_bins,
            strategy=self.strategy,
            mean_of="probabilities",
        )
        self.edges_ = [histogram.edges for histogram in histograms]
        self.values_ = [histogram.values for histogram in histograms]

    def calibration_map(self) -> Any:
        """Return the scaling and the means of its bins."""
        front = self.scaling_.calibration_map().logits.operations
        tables = make_tables(self.edges_, self.values_, "constant")
        return curve_map(
            tables,
            top_label=self._method == "top_label",
            front=front,
            softmax_share=FALLBACK,
        )
