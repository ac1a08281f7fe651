"""Bayesian binning into quantiles: an average over numbers of bins."""

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from skcalib._base import BaseCalibrator
from skcalib._blocks._scores import one_vs_rest, top_label
from skcalib._maps import curve_map, make_tables
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._bayesian_binning import fit_bayesian_binning
from skcalib.calibrators._absent import keep_absent

# From n^(1/3) / SPREAD to SPREAD n^(1/3) bins, the constant C of the paper.
SPREAD = 10


class BayesianBinning(BaseCalibrator):
    r"""Average histograms with many numbers of bins, weighted by their evidence (BBQ).

    Bayesian binning into quantiles [1]_: cuts the probability of each class, or of the
    predicted class, into 1, 2, 3, ... bins with equally many samples, weights each of
    these histograms by the marginal likelihood of the hits under a beta prior, and
    averages what they say.

    Parameters
    ----------
    method : {"one_vs_rest", "top_label"}, default="one_vs_rest"
        Bin the probability of every class against the rest and divide each row by its
        sum; or bin that of the predicted class, and let the others share what it leaves
        in their old proportions.

    max_bins : int, default=None
        Largest number of bins tried. None is :math:`10 n^{1/3}`, rounded up, for
        :math:`n` samples; never more than there are samples. The smallest one is
        :math:`n^{1/3} / 10`, rounded down but at least 1.

    prior_strength : float, default=2.0
        How many samples the prior of a histogram counts as, spread over its bins:
        the paper's :math:`N'`. The prior mean of a bin is its middle.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    n_bins_ : ndarray of shape (n_models,)
        The numbers of bins tried.

    weights_ : ndarray of shape (n_curves, n_models)
        Weight of each number of bins in the average; rows sum to 1. One row a class,
        or a single one for ``method="top_label"``.

    edges_ : list of ndarray
        Log-odds at which the average steps, closed on the right; one array a curve.

    values_ : list of ndarray
        Probability between the edges, one more than there are edges.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    HistogramBinning : One number of bins.

    Notes
    -----
    The prior of a bin keeps every probability off 0 and 1. Equal scores are never
    parted, so ties may leave fewer bins. Edges lie halfway between two samples in the
    log-odds; the middle of a bin is taken in the probability. Of two classes the second
    is binned and the first gets the rest. A class that never occurs in the calibration
    set keeps its probability before normalisation. With weights :math:`n` is their sum
    if they are whole, else Kish's effective number of samples, but for the numbers of
    bins no more than 100 times the number of distinct scores.

    The scores of all curves are held in memory, as float64.

    References
    ----------
    .. [1] Naeini, Cooper & Hauskrecht. "Obtaining Well Calibrated Probabilities Using
       Bayesian Binning", AAAI 2015.
       https://pmc.ncbi.nlm.nih.gov/articles/PMC4410090/

    Examples
    --------
    >>> from skcalib import BayesianBinning
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 2, random_state=0)
    >>> binning = BayesianBinning().fit(X, y)
    >>> int(binning.n_bins_[binning.weights_[1].argmax()])
    6
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"one_vs_rest", "top_label"})],
        "max_bins": [Interval(Integral, 1, None, closed="left"), None],
        "prior_strength": [Interval(Real, 0, None, closed="neither")],
        "classes": ["array-like", None],
    }

    has_logits = False

    @property
    def learns_by_class(self) -> Any:
        return self.method != "top_label"

    def __init__(
        self,
        *,
        method: Literal["one_vs_rest", "top_label"] = "one_vs_rest",
        max_bins: int | None = None,
        prior_strength: float = 2.0,
        classes: Any = None,
    ) -> None:
        self.method = method
        self.max_bins = max_bins
        self.prior_strength = prior_strength
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Fit histograms of many numbers of bins, and their weights."""
        self._method = self.method
        self.n_bins_, averages = fit_bayesian_binning(
            data,
            top_label if self.method == "top_label" else one_vs_rest,
            numbers=self._numbers_of_bins,
            strength=self.prior_strength,
        )
        self.weights_ = np.stack([average.weights for average in averages])
        self.edges_ = [average.histogram.edges for average in averages]
        self.values_ = [average.histogram.values for average in averages]
        keep_absent(data, self.edges_, self.values_, kind="constant")

    def _numbers_of_bins(self, n_samples):
        root = np.cbrt(n_samples)
        most = np.ceil(SPREAD * root) if self.max_bins is None else self.max_bins
        most = max(int(min(most, np.ceil(n_samples))), 1)
        least = min(max(int(root / SPREAD), 1), most)
        return np.arange(least, most + 1)

    def calibration_map(self) -> Any:
        """Return the averaged histograms as tables."""
        tables = make_tables(self.edges_, self.values_, "constant")
        return curve_map(tables, top_label=self._method == "top_label")
