"""Spline calibration: a spline through the cumulated differences of hits and scores.

Minimised is the integral over the fractiles of the squared distance of a natural cubic
spline from the cumulated differences (weighted linear least squares); its derivative
corrects the probabilities [Gupta, Rahimi, Ajanthan, Mensink, Sminchisescu & Hartley,
Calibration of Neural Networks using Splines, ICLR 2021].

Deviations, so that weights count as repetitions and ties as one point: the integral is
taken by the trapezoidal rule instead of a sum over samples; the differences of equal
scores are pooled; and the derivative is averaged over the fractiles that a group of
them covers.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import expit

from skcalib._blocks import CalibrationData, map_blocks
from skcalib._blocks._scores import Floats, Scores, all_scores, pool_ties

# Differences over a shorter span of fractiles would be rounding; the derivative serves.
SHORTEST_SPAN = 1e-8


class SplineCurve(NamedTuple):
    """Corrected probabilities at ascending log-odds, and the spline behind them.

    `spline` holds its values at equidistant fractiles from 0 to 1.
    """

    knots: Floats
    values: Floats
    spline: Floats


def fit_splines(
    data: CalibrationData, scores: Scores, *, n_knots: int
) -> list[SplineCurve]:
    """Fit one spline to each column of scores."""
    columns = list(zip(*all_scores(data, scores), strict=True))

    def of_column(column: tuple[Floats, NDArray[np.bool_]]) -> SplineCurve:
        return _fit(*column, data.weight, n_knots)

    return list(map_blocks(of_column, columns))


def _fit(
    score: Floats, hit: NDArray[np.bool_], weight: Floats, n_knots: int
) -> SplineCurve:
    lowest, highest, index = pool_ties(score)
    proba = expit(score)
    total = np.bincount(index, weight)
    confidence = np.bincount(index, weight * proba)
    excess = np.bincount(index, weight * (hit - proba))
    fractile = np.concatenate([[0.0], np.cumsum(total)])
    fractile /= fractile[-1]
    cumulated = np.concatenate([[0.0], np.cumsum(excess)])
    basis = CubicSpline(np.linspace(0, 1, n_knots), np.eye(n_knots), bc_type="natural")
    design: Any = basis(fractile)
    # The trapezoidal rule: ties and weights count as the line that repetition gives.
    span = np.diff(fractile)
    share = np.sqrt((np.append(span, 0) + np.append(0, span)) / 2)[:, np.newaxis]
    spline = np.linalg.lstsq(share * design, share[:, 0] * cumulated, rcond=None)[0]
    # The derivative, averaged over the fractiles of each group of equal scores.
    correction = np.diff(design @ spline) / np.maximum(span, SHORTEST_SPAN)
    short = np.flatnonzero(span < SHORTEST_SPAN)
    correction[short] = basis(fractile[short], 1) @ spline
    values = np.clip(confidence / total + correction, 0, 1)
    return SplineCurve(lowest + (highest - lowest) / 2, values, spline)
