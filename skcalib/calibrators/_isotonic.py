"""Isotonic calibration: non-decreasing curves without a fixed shape."""

from typing import Any

from skcalib._base import BaseCalibrator
from skcalib._blocks._scores import one_vs_rest, top_label
from skcalib._maps import FALLBACK, Scale, curve_map, make_tables
from skcalib._sklearn_compat import StrOptions
from skcalib._solvers._isotonic import fit_isotonic
from skcalib._solvers._temperature import LEAST_TEMPERATURE, PRIOR, fit_temperature
from skcalib.calibrators._absent import keep_absent

# Share of the uncalibrated probabilities that makes the curves strictly increasing.
STRICT = 1e-9


class IsotonicCalibration(BaseCalibrator):
    r"""Fit a non-decreasing curve to the probabilities by isotonic regression.

    Of all non-decreasing functions takes the one with the least squared distance to the
    hits [1]_, for every class against the rest or in one of the other ways below, and
    divides each row by its sum.

    Parameters
    ----------
    method : str, default="one_vs_rest"
        What the curves are fitted to:

        - "one_vs_rest": one curve for each class against the rest. A row in which all
          curves give 0 keeps its probabilities.
        - "strict": the same plus 1e-9 times the probabilities, so that no two of them
          are mapped to one value (IROvA [2]_).
        - "strict_temperature": the same after temperature scaling (IROvA-TS [2]_).
        - "shared": one strictly increasing curve for all classes, fitted to all pairs
          of sample and class (IRM [2]_). The predicted class never changes.
        - "top_label": one curve for the probability of the predicted class; the others
          share what it leaves in their old proportions.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    knots_ : list of ndarray of shape (n_knots,)
        Ascending log-odds between which each curve is a straight line: one array a
        class for the first three methods, else a single one.

    values_ : list of ndarray of shape (n_knots,)
        Non-decreasing probabilities at the knots.

    temperature_ : float
        The learned temperature; only for ``method="strict_temperature"``.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If ``method="strict_temperature"`` and no temperature is best.

    Notes
    -----
    The curves are functions of the log-odds of a class against the rest. These order
    the samples as the probabilities do, so at the calibration samples the result is
    that of isotonic regression on the probabilities; but they tell apart probabilities
    that differ from 1 by less than rounding. Samples with equal scores are pooled.
    Between the flat pieces a curve is linear in the log-odds, and beyond the first and
    last sample it is constant.

    A class that never occurs in the calibration set keeps its probability before
    normalisation. Zeros make the log-loss of a test sample infinite; "strict" avoids
    that, at a price of about 20 nats for such a sample.

    The fit holds some blocks of rows and the scores of the hits in memory, never all
    scores.

    References
    ----------
    .. [1] Zadrozny & Elkan. "Transforming Classifier Scores into Accurate Multiclass
       Probability Estimates", KDD 2002. https://doi.org/10.1145/775047.775151
    .. [2] Zhang, Kailkhura & Han. "Mix-n-Match: Ensemble and Compositional Methods for
       Uncertainty Calibration in Deep Learning", ICML 2020.
       https://arxiv.org/abs/2003.07329

    Examples
    --------
    >>> from skcalib import IsotonicCalibration
    >>> log_odds = [-3.0, -1.0, 0.5, 1.0, 2.0, 3.0]
    >>> isotonic = IsotonicCalibration().fit(log_odds, [0, 1, 0, 0, 1, 1])
    >>> isotonic.predict_proba([-2.0, 0.0, 4.0]).round(2)
    array([[0.83, 0.17],
           [0.67, 0.33],
           [0.  , 1.  ]])
    """

    by_sums = True
    _parameter_constraints: dict = {
        "method": [
            StrOptions(
                {"one_vs_rest", "strict", "strict_temperature", "shared", "top_label"}
            )
        ],
        "classes": ["array-like", None],
    }

    has_logits = False

    @property
    def learns_by_class(self) -> Any:
        return self.method not in ("shared", "top_label")

    def __init__(self, *, method: str = "one_vs_rest", classes: Any = None) -> None:
        self.method = method
        self.classes = classes

    @property
    def keeps_class(self) -> Any:
        return getattr(self, "_method", self.method) == "shared"

    def fit_calibration(self, data: Any) -> None:
        """Fit the isotonic curves."""
        self._method, factor = self.method, 1.0
        self.__dict__.pop("temperature_", None)
        if self.method == "strict_temperature":
            found = fit_temperature(data, prior=PRIOR)
            self._warn_unless_converged(found)
            self.temperature_ = float(found.x[0])
            factor = self._factor
        scores = top_label if self.method == "top_label" else one_vs_rest
        shared = self.method == "shared"
        curves = fit_isotonic(data, scores, factor=factor, shared=shared)
        self.knots_ = [curve.knots for curve in curves]
        self.values_ = [curve.values for curve in curves]
        keep_absent(data, self.knots_, self.values_, kind="linear")

    @property
    def _factor(self):
        return 1 / max(self.temperature_, LEAST_TEMPERATURE)

    def calibration_map(self) -> Any:
        """Return the curves as tables, normalised."""
        tables = make_tables(self.knots_, self.values_, "linear")
        front = [Scale(self._factor)] if self._method == "strict_temperature" else []
        share = FALLBACK if self._method == "one_vs_rest" else STRICT
        return curve_map(
            tables,
            top_label=self._method == "top_label",
            front=front,
            softmax_share=share,
        )
