"""Density-ratio calibration: the confidence, seen together with the neighbourhood."""

from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from scipy.special import expit
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from skcalib._base import FeaturesCalibrator
from skcalib._numerics import log_softmax_, split_top
from skcalib._sklearn_compat import Interval, StrOptions, fit_context, points_of
from skcalib._validation import (
    check_both_times,
    check_calibration_set,
    check_features,
    check_logits,
    check_same_columns,
    check_width,
    column_names,
    readable,
    refuse_dask,
)
from skcalib.calibrators._densities import BinShift, DensityRatio

# Where the logits stand in for features, smaller log-probabilities count as this.
LOWEST = -30.0
# Samples are equal whose features agree to this share of the spread of each.
ALIKE = 1e-9
# Rounding may be this share of the size of a feature, or of the largest spread.
ROUNDING = 1e-13
# As good as infinitely far, in units of the largest spread; its square is a float32.
FAR = 1e15


class DensityRatioCalibration(FeaturesCalibrator):
    r"""Recalibrate the confidence by how close a sample is to others (ProCal).

    Networks are too sure of samples that are unlike all others. The confidence c and
    the proximity D of a sample, which falls with its distance from the nearest
    calibration samples, are looked at together: the calibrated confidence is the share
    of right predictions near (c, D) [1]_,

    .. math:: c' = \frac{f_1(c, D)}{f_1(c, D) + f_0(c, D) \, n_0 / n_1},

    with :math:`f_1, f_0` the kernel densities of the :math:`n_1` right and
    :math:`n_0` wrong calibration samples. The other classes share what it leaves in
    their old proportions.

    Parameters
    ----------
    method : {"density_ratio", "bin_mean_shift"}, default="density_ratio"
        The formula above, or add to the confidence the mean gap, hit minus confidence,
        of its bin of confidence and proximity.

    n_neighbors : int, default=10
        Number of nearest neighbours whose mean distance makes the proximity; all, if
        there are fewer.

    bandwidth : float, default=1.0
        Factor on the widths of the kernels, which are those of the normal reference
        rule, :math:`1.06 \, \sigma \, n^{-1/6}` in each direction.

    n_bins : int, default=10
        Number of bins of equal mass of "bin_mean_shift" in each direction.

    prior_samples : float, default=1.0
        Number of samples, spread evenly over the unit square or in every bin, that hit
        as often as the confidence says; they decide where there are no others. 0 is
        the formula above.

    n_logits : int, default=None
        Number of the columns of `X`, from the left, that are logits; all others are
        features. By default all are logits.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    neighbors_ : NearestNeighbors
        The different calibration samples in the space of the features, which are
        moved towards 0 where they lie far from it, and scaled by one power of two.

    distance_scale_ : float
        Median of the mean distances, the unit in which they are taken.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns of `X` seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    skcalib.metrics.proximity_calibration_error : The error that this method mends.
    skcalib.plotting.ProximityDisplay : Shows it.

    Notes
    -----
    Features are the values of a network's last hidden layer, say: pass them as
    ``features=`` to `fit` and to `predict_proba`, which scikit-learn's metadata routing
    does for pipelines and searches once ``set_fit_request(features=True)`` and
    ``set_predict_proba_request(features=True)`` are called; or beside the logits, as
    further columns of `X`, with `n_logits`. Without either the logarithms of the
    predicted probabilities take their place.

    Distances are divided by their median in the calibration set, where [1]_ take them
    as they are, so that the unit of the features has no influence, and neither has a
    feature that is the same in all of them. Equal samples count as one neighbour, and
    no calibration sample is its own. The source leaves the widths
    to a package's default, the one above, and does not give details of the shifts.

    The calibrator keeps the calibration set. It cannot be exported to ONNX or torch:
    it is no map of the logits alone.

    References
    ----------
    .. [1] Xiong, Deng, Koh, Wu, Li, Xu & Hooi. "Proximity-Informed Calibration for
       Deep Neural Networks", NeurIPS 2023. https://arxiv.org/abs/2306.04590

    Examples
    --------
    >>> import numpy as np
    >>> from skcalib import DensityRatioCalibration
    >>> from skcalib.datasets import make_logits
    >>> logits, y = make_logits(1000, 3, random_state=0)
    >>> features = np.random.default_rng(0).normal(size=(1000, 5))
    >>> calibrator = DensityRatioCalibration().fit(logits, y, features=features)
    >>> calibrator.predict_proba(logits, features=features).shape
    (1000, 3)
    >>> both = np.hstack([logits, features])
    >>> blocks = DensityRatioCalibration(n_logits=3).fit(both, y)
    >>> bool(
    ...     np.allclose(
    ...         blocks.predict_proba(both),
    ...         calibrator.predict_proba(logits, features=features),
    ...     )
    ... )
    True
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"density_ratio", "bin_mean_shift"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "bandwidth": [Interval(Real, 0, None, closed="neither")],
        "n_bins": [Interval(Integral, 1, None, closed="left")],
        "prior_samples": [Interval(Real, 0, None, closed="left")],
        "n_logits": [Interval(Integral, 2, None, closed="left"), None],
        "classes": ["array-like", None],
    }

    has_logits = False

    def __init__(
        self,
        *,
        method: Literal["density_ratio", "bin_mean_shift"] = "density_ratio",
        n_neighbors: int = 10,
        bandwidth: float = 1.0,
        n_bins: int = 10,
        prior_samples: float = 1.0,
        n_logits: int | None = None,
        classes: Any = None,
    ) -> None:
        self.method = method
        self.n_neighbors = n_neighbors
        self.bandwidth = bandwidth
        self.n_bins = n_bins
        self.prior_samples = prior_samples
        self.n_logits = n_logits
        self.classes = classes

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, features: Any = None
    ) -> Self:
        """Learn the calibration from logits, features and true classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            Logits of held-out samples; with `n_logits` the features beside them.

        y : array-like of shape (n_samples,)
            True classes; see the parameter `classes`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        features : array-like of shape (n_samples, n_features), default=None
            Samples in the space in which to look for neighbours.

        Returns
        -------
        self : object
            The fitted calibrator.
        """
        refuse_dask("DensityRatioCalibration", X)
        names = None if self.n_logits is None else column_names(X)
        self._names = None if features is None else column_names(features)
        logits, features = self._split(X, features)
        data = check_calibration_set(
            self,
            logits,
            y,
            sample_weight,
            self.classes,
            names=names and names[: self.n_logits],
        )
        if self.n_logits is not None:
            validate_data(self, readable(X), reset=True, skip_check_array=True)
        _refuse_shares(data)
        self.classes_ = data.classes
        used, data = data.weight > 0, data.used()
        logits = data.logits
        self._n_features = None if features is None else features.shape[1]
        if features is not None:
            check_consistent_length(used, features)
            features = features[used]
        else:
            features = _stand_in(logits)
        points = np.column_stack(
            [_confidence(logits)[1], self._fit_neighbours(features)]
        )
        hit = logits.argmax(axis=1) == data.codes
        weight = data.sample_weight
        options: dict[str, Any] = {"prior": self.prior_samples}
        if self.method == "density_ratio":
            options["factor"] = self.bandwidth
            self._model: DensityRatio | BinShift = DensityRatio.fit(
                points, hit, weight, **options
            )
        else:
            options["n_bins"] = self.n_bins
            self._model = BinShift.fit(points, hit, weight, **options)
        return self

    def predict_proba(self, X: Any, features: Any = None) -> Any:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
            In the layout seen by `fit`.

        features : array-like of shape (n_samples, n_features), default=None
            As in `fit`; needed if they were given there.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`; float32 for float32 logits,
            float64 otherwise.
        """
        check_is_fitted(self)
        if features is not None:
            check_same_columns(column_names(features), self._names)
        logits, features = self._split(X, features)
        if self.n_logits is not None:
            validate_data(self, readable(X), reset=False, skip_check_array=True)
            source = check_logits(type(self).__name__, logits)
        else:
            source = check_logits(self, logits, reset=False)
        logits = source.read(slice(0, source.shape[0]))
        if features is None and self._n_features is None:
            features = _stand_in(logits)
        else:
            self._check_features(features, logits)
        top, confidence, rest = _confidence(logits)
        points = np.column_stack([confidence, self._proximity(features)])
        chance = self._model.chance(points)
        proba = rest * (1 - chance)[:, np.newaxis]
        proba[np.arange(top.shape[0]), top] = chance
        return proba.astype(source.dtype, copy=False)

    def _some_beside(self, n_rows):
        """Return features that `predict_proba` takes beside some rows."""
        if self._n_features is None or self.n_logits is not None:
            return {}
        placed = np.resize(points_of(self.neighbors_), (n_rows, self._n_features))
        return {"features": np.ldexp(placed, self._exponent) + self._origin}

    def _split(self, X, features):
        """Return logits and features, from one block or from two."""
        owner, dtype = type(self).__name__, [np.float64, np.float32]
        as_numbers = partial(check_features, owner, dtype=dtype)
        if self.n_logits is None:
            return X, None if features is None else as_numbers(features)
        if features is not None:
            raise ValueError(
                f"features are given, but n_logits={self.n_logits} says that they are "
                "columns of X. Pass them in one way only."
            )
        X = as_numbers(X, "X")
        if X.shape[1] <= self.n_logits:
            raise ValueError(
                f"X has {X.shape[1]} columns and n_logits={self.n_logits}, which "
                "leaves no column of features. Append them to the logits."
            )
        return X[:, : self.n_logits], X[:, self.n_logits :]

    def _check_features(self, features, logits):
        in_fit = self._n_features is not None
        check_both_times(self, "features", features, in_fit=in_fit)
        check_consistent_length(logits, features)
        check_width(features, self._n_features)

    def _fit_neighbours(self, features):
        """Keep the different samples; return the proximity of all to the others."""
        self._origin, half, self._exponent = _frame_of(features)
        rows = self._placed(features)
        keys = np.round(rows / self._steps(features, half))
        _, first, index = np.unique(
            keys, axis=0, return_index=True, return_inverse=True
        )
        different = rows[first]
        n_others = different.shape[0] - 1
        self.neighbors_ = NearestNeighbors(
            n_neighbors=max(1, min(self.n_neighbors, n_others))
        ).fit(different)
        self._typical = self.distance_scale_ = 1.0
        if n_others == 0:
            return np.ones(features.shape[0])
        # No argument: a sample is then not its own neighbour.
        distance = self._mean_distance(None)
        self._typical = float(np.median(distance)) or 1.0
        with np.errstate(over="ignore"):
            self.distance_scale_ = float(np.ldexp(self._typical, self._exponent))
        return np.exp(-distance / self._typical)[np.ravel(index)]

    def _placed(self, features):
        """Return features where their squares are numbers; exact near `_origin`."""
        with np.errstate(over="ignore"):
            rows = np.ldexp(features - self._origin, -self._exponent)
        return np.clip(rows, -FAR, FAR)

    def _steps(self, features, half):
        """Return how far apart equal values of each feature may be, when placed.

        Copies of one sample may differ by rounding where they were computed.
        """
        size = np.abs(features).max(axis=0)
        with np.errstate(over="ignore"):
            half, size = np.ldexp([half, size], -self._exponent)
        return np.maximum(2 * ALIKE * half, ROUNDING * np.maximum(size, 1.0))

    def _proximity(self, features):
        return np.exp(-self._mean_distance(self._placed(features)) / self._typical)

    def _mean_distance(self, features):
        distance, _ = self.neighbors_.kneighbors(features)
        return distance.mean(axis=1, dtype=np.float64)


def _stand_in(logits):
    """Features where there are none: log-probabilities, bounded."""
    log_proba = log_softmax_(np.array(logits, dtype=np.float64))
    return np.maximum(log_proba, LOWEST, out=log_proba)


def _frame_of(features):
    """Return where the columns lie, half their ranges, and the exponent of the largest.

    A column that lies near 0 for its range is left there. From others a multiple of a
    power of two is taken that is above half the range, which is exact.
    """
    low, high = features.min(axis=0) / 2, features.max(axis=0) / 2
    half, middle = high - low, high + low
    step = np.ldexp(np.ones_like(half), np.frexp(half)[1])
    with np.errstate(over="ignore"):
        near = np.abs(middle) < 2 * step
    origin = np.where(near, 0, np.round(middle / step) * step)
    origin = np.where(half > 0, origin, features[0])
    return origin, half, int(np.frexp(half.max())[1])


def _refuse_shares(data):
    if data.row is not None:
        raise ValueError(
            "y holds shares of the classes, and DensityRatioCalibration, which looks "
            "at the neighbours of a row, would find it among its own. Pass the "
            "likeliest class: y.argmax(axis=1)."
        )


def _confidence(logits):
    """Return the predicted column, its probability, and shares of the others."""
    top, log_odds, rest = split_top(np.asarray(logits, dtype=np.float64))
    return top, expit(log_odds), rest
