"""Ensemble temperature scaling: calibrated, original and uniform probabilities."""

from functools import partial
from math import log
from numbers import Integral, Real
from typing import Any

import numpy as np

from skcalib._base import BaseCalibrator
from skcalib._maps import CalibrationMap, Softmax, WeightedSum
from skcalib._sklearn_compat import Interval
from skcalib._solvers._mixture import HeldShares, SummedShares, fit_shares
from skcalib._solvers._temperature import (
    PRIOR,
    fit_temperature,
    inverse_factors,
    scaled_logits,
)
from skcalib.calibrators._scaling import divisions


class EnsembleTemperatureScaling(BaseCalibrator):
    r"""Mix temperature-scaled, original and uniform probabilities.

    .. math::
        q = w_1 \operatorname{softmax}(z / T) + w_2 \operatorname{softmax}(z)
        + w_3 / K,

    with the temperature :math:`T` fitted first and the weights, non-negative with sum
    1, fitted next, both by negative log-likelihood [1]_. The predicted class never
    changes.

    Parameters
    ----------
    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the temperature towards 1, as in
        `TemperatureScaling`; None is the maximum likelihood of [1]_.

    tol : float, default=1e-6
        How far above its minimum, in nats, the mean log-loss may end.

    max_iter : int, default=100
        Largest number of iterations for the weights.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    temperature_ : float
        The temperature :math:`T`.

    weights_ : ndarray of shape (3,)
        Weights of the temperature-scaled, the original and the uniform
        probabilities.

    loss_ : float
        Mean log-loss on the calibration set.

    n_iter_ : int
        Iterations for the weights.

    gradient_norm_ : float
        Largest relative gain in likelihood that moving weight to one of the three
        parts still offers; 0 at the optimum. It bounds the distance of `loss_` to its
        minimum.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If the tolerance is not reached in `max_iter` iterations, or no temperature is
        best, as of `TemperatureScaling`.

    References
    ----------
    .. [1] Zhang, Kailkhura & Han. "Mix-n-Match: Ensemble and Compositional Methods for
       Uncertainty Calibration in Deep Learning", ICML 2020.
       https://arxiv.org/abs/2003.07329

    Examples
    --------
    >>> from skcalib import EnsembleTemperatureScaling
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> float(EnsembleTemperatureScaling().fit(X, y).weights_.sum().round(6))
    1.0
    """

    by_sums = True
    _parameter_constraints: dict = {
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    keeps_class = True
    has_logits = False

    def __init__(
        self,
        *,
        prior: float | None = PRIOR,
        tol: float = 1e-6,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Find the temperature, then the weights of the mixture."""
        near = getattr(self._near, "temperature_", None)
        found = fit_temperature(data, prior=self.prior, near=near)
        self._warn_unless_converged(found)
        self.temperature_ = float(found.x[0])
        of_parts = partial(_log_proba_of_parts, self.temperature_)
        shares = (
            HeldShares(data.rows(of_parts), data.weight, prior=0.0)
            if data.source.is_here
            else SummedShares(data, of_parts, n_parts=3)
        )
        result = fit_shares(shares, tol=self.tol, max_iter=self.max_iter)
        self._record(result)
        self.weights_ = result.x

    def calibration_map(self) -> Any:
        """Return the mixture of scaled, original and uniform probabilities."""
        scaled = CalibrationMap(*divisions(self.temperature_), Softmax())
        weights = tuple(float(w) for w in self.weights_[:2])
        parts = (scaled, CalibrationMap(Softmax()))
        constant = float(self.weights_[2]) / len(self.classes_)
        return CalibrationMap(WeightedSum(weights, parts, constant))


def _log_proba_of_parts(temperature, logits, codes, weight):
    """Return log-probabilities of the true class under the three parts, (n, 3)."""
    *more, beta = inverse_factors(temperature)
    columns = []
    for scaled, factor in ((logits * more[0] if more else logits, beta), (logits, 1.0)):
        t, t_label = scaled_logits(scaled, codes, factor)
        total = np.exp(t, out=t).sum(axis=1, dtype=np.float64)
        columns.append(t_label - np.log(total))
    columns.append(np.full(codes.shape[0], -log(logits.shape[1]), like=t))
    return np.stack(columns, axis=1)
