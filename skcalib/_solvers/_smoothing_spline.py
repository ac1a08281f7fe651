r"""Smoothing splines of the log-odds, averaged over how smooth they are.

For one score s, the log-odds of a class at a good temperature, the curve is

    f(s) = a s + b + g(u),    u = arcsinh(s / m),

with m the median of \|s\|, masked classes aside, and g a natural cubic spline with
knots at quantiles of u. Minimised for a penalty l, over the weighted rows with hits y,
is

    sum of log-loss(y, f(s)) + prior ((a - 1)^2 + b^2) + l / 2 integral g''(u)^2 du ,

u in units of its standard deviation: penalised likelihood [Green & Silverman,
Nonparametric Regression and Generalized Linear Models, 1994, ch. 5]. No line is taken
out of u, which the penalty would not see, so that straight parts are those in s. The
penalty is that of a Gaussian process prior on g, and the evidence of l is Laplace's
approximation of the probability of the hits under it [MacKay, The evidence framework
applied to classification networks, 1992]. Nothing is chosen: the curve is the mean of
the probabilities under all penalties of a wide grid, weighted by their evidence.

Splines over quantiles of a score, penalised and fitted by log-loss, are from Lucena,
Spline-Based Probability Calibration, 2018, who chooses the penalty by cross-validation
and penalises the size of coefficients. Here the curve is drawn to the temperature, and
neighbouring scores are pooled where there are very many.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh
from scipy.special import logsumexp

from skcalib._blocks import CalibrationData, map_blocks
from skcalib._blocks._scores import (
    Floats,
    Scores,
    all_scores,
    one_vs_rest,
    pool_ties,
    second_class,
)
from skcalib._numerics import TINY, cut_logits, log_sigmoid
from skcalib._solvers._bounded_newton import minimize_bounded, scaled_root

Array = NDArray[np.float64]

# Curvature costs from next to nothing to everything: the ends of the grid are a curve
# that is free at each knot, and a straight line. A finer grid changes nothing seen.
PENALTIES = 10.0 ** np.arange(4, -5, -1)
# Knots lie between these quantiles, and no nearer in standard deviations than that:
# between two that nearly coincide lies nothing that could be learned.
OUTER = 0.01
NEAREST = 0.02
# So many groups of neighbouring scores say of a smooth curve what all rows say.
MOST_GROUPS = 2048
# Points of the table that a curve becomes, at equal steps of u, between the outermost
# scores; and how far beyond these, in u, it goes on (to seven times large scores), and
# with how many points.
TABLE = 512
BEYOND, BEYOND_TABLE = 2.0, 64
# In nats, of all rows or of each: what a step must promise to be taken. And how many
# steps there may be.
TOL = 1e-7
TOL_OF_ROW = 1e-12
MAX_ITER = 100
# Scores of less spread say nothing, and u has no unit.
LEAST_SPREAD = 1e-8
# Scores beyond are as sure as any: a mask of -1e9 is no further.
REACH = 1e3
# Samples, of all that there are, of the uniform distribution: where no sample of many
# was wrong, the next one still may be.
DOUBT = 0.1


class SmoothCurve(NamedTuple):
    """Log-odds at ascending scores, and the share of each penalty in them."""

    knots: Floats
    values: Floats
    shares: Floats


@dataclass(frozen=True)
class _Rows:
    """Groups of equal or neighbouring scores: mean score, weight, and that of hits."""

    score: Array
    total: Array
    hits: Array
    ends: Array


def fit_smoothing_splines(
    data: CalibrationData,
    *,
    factor: float,
    prior: float,
    n_knots: int,
    is_flat: bool = False,
) -> list[SmoothCurve]:
    """Fit a curve to the log-odds of every class; two classes have mirrored curves.

    Log-odds are those of ``factor * logits``. Where these are flat, the prior on slopes
    is in units of a nat for a standard deviation.
    """
    mirror = data.n_classes == 2
    of_logits = second_class if mirror else one_vs_rest
    scores, hits = all_scores(data, partial(_scaled, of_logits, factor))
    weight = data.sample_weight

    def of_class(k: int) -> SmoothCurve:
        rows = _pooled(scores[k], hits[k], weight)
        return _fit(rows, data.n_classes, prior, n_knots, is_flat)

    curves = list(map_blocks(of_class, range(len(scores))))
    return [_mirrored(curves[0]), *curves] if mirror else curves


def _scaled(
    scores: Scores, factor: float, logits: NDArray[Any], codes: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.bool_]]:
    found, hits = scores(cut_logits(logits) * factor, codes)
    return np.clip(found, -REACH, REACH, out=found), hits


def _mirrored(curve: SmoothCurve) -> SmoothCurve:
    return SmoothCurve(-curve.knots[::-1], -curve.values[::-1], curve.shares)


def _pooled(score: Floats, hit: NDArray[np.bool_], weight: Floats) -> _Rows:
    """Pool ties, and neighbours of about equal weight where there are too many."""
    index = pool_ties(score)[2]
    total: Any = np.bincount(index, weight)
    if total.shape[0] > MOST_GROUPS:
        before = np.cumsum(total) - total / 2
        of_tie = np.minimum(before / total.sum() * MOST_GROUPS, MOST_GROUPS - 1)
        index = np.unique(of_tie.astype(np.intp), return_inverse=True)[1][index]
        total = np.bincount(index, weight)
    mean = np.bincount(index, weight * score) / total
    hits: Any = np.bincount(index, weight * hit)
    return _Rows(mean, total, hits, np.array([score.min(), score.max()]))


def _fit(
    rows: _Rows, n_classes: int, prior: float, n_knots: int, is_flat: bool
) -> SmoothCurve:
    spline = _Spline(rows, n_knots)
    middle, nat = 0.0, 1.0
    if is_flat:  # A slope that is all but free turns about the mean.
        middle, spread = _mean_and_spread(rows.score, rows.total)
        nat = min(spread or 1.0, 1.0)
    features = np.column_stack([rows.score - middle, np.ones_like(rows.score)])
    features = np.column_stack([features, spline.features(rows.score)])
    n_bends = features.shape[1] - 2
    x = np.zeros(features.shape[1])
    found, evidence = [], []
    for penalty in PENALTIES:
        ridge = np.append([2 * prior * nat**2, 2 * prior], np.full(n_bends, penalty))
        x, loss, hessian = _minimize(rows, features, ridge, x)
        root, unit = scaled_root(hessian)
        half_log_det = np.log(np.diagonal(root) / unit).sum()
        evidence.append(n_bends * np.log(penalty) / 2 - loss - half_log_det)
        found.append(x)
    shares = np.exp(evidence - np.max(evidence))
    shares /= shares.sum()
    knots = spline.points()
    line = np.column_stack([knots - middle, np.ones_like(knots)])
    bends = np.column_stack([line, spline.features(knots)])
    curves = knots[:, np.newaxis] + bends @ np.transpose(found)
    doubt = DOUBT / (DOUBT + rows.total.sum())
    hit = _log_mean(curves, shares, doubt, 1 / n_classes)
    values = hit - _log_mean(-curves, shares, doubt, 1 - 1 / n_classes)
    return SmoothCurve(knots, values, shares)


def _log_mean(log_odds: Array, shares: Array, doubt: float, proba: float) -> Array:
    """Return the logarithm of the mean probability, of which `proba` has `doubt`."""
    parts = log_sigmoid(log_odds) + np.log(np.maximum(shares, TINY))
    mean: Array = logsumexp(parts, axis=1)
    doubted: Array = np.logaddexp(np.log1p(-doubt) + mean, np.log(doubt * proba))
    return doubted


def _minimize(
    rows: _Rows, features: Array, ridge: Array, x: Array
) -> tuple[Array, float, Array]:
    """Minimise the penalised loss from `x`; return where, the loss and the Hessian.

    The parameters are those of what is added to the score.
    """
    misses = rows.total - rows.hits

    def expand(x: Array) -> tuple[float, Array, Array]:
        u = rows.score + features @ x
        hit = log_sigmoid(u)
        miss = hit - u
        loss = -(rows.hits @ hit + misses @ miss)
        slope = rows.total * np.exp(hit) - rows.hits
        bent = features * (rows.total * np.exp(hit + miss))[:, np.newaxis]
        hessian = features.T @ bent + np.diag(ridge)
        loss = float(loss + ridge @ x**2 / 2)
        return loss, features.T @ slope + ridge * x, hessian

    tol = max(TOL, TOL_OF_ROW * float(rows.total.sum()))
    unbounded = np.full_like(x, -np.inf)
    x = minimize_bounded(expand, x, unbounded, tol=tol, max_iter=MAX_ITER).x
    loss, _, hessian = expand(x)
    return x, loss, hessian


class _Spline:
    """Natural cubic splines of arcsinh(s / m), as features of unit curvature."""

    def __init__(self, rows: _Rows, n_knots: int) -> None:
        self._rows = rows
        size = np.abs(rows.score)
        # In units of masks all else would be one score. Means err by rounding.
        near = size < 0.99 * REACH
        total = np.where(near, rows.total, 0) if near.any() else rows.total
        self._unit = max(_quantiles(size, total, 0.5), LEAST_SPREAD)
        u = self._u(rows.score)
        spread = _mean_and_spread(u, rows.total)[1]
        ends = np.linspace(OUTER, 1 - OUTER, n_knots)
        knots = _apart(_quantiles(u, rows.total, ends), NEAREST * spread)
        # Two knots bound a line, which is no bend.
        self._basis: Any = None
        if knots.shape[0] > 2 and spread > LEAST_SPREAD:
            self._basis, self._knots = _unit_bends(knots, spread), knots

    def _u(self, score: Array) -> Array:
        return np.arcsinh(score / self._unit)

    def features(self, score: Array) -> Array:
        """Return the (n, n_bends) values at scores; beyond the knots they are lines."""
        if self._basis is None:
            return np.empty((score.shape[0], 0))
        u = self._u(score)
        inside = np.clip(u, self._knots[0], self._knots[-1])
        beyond = (u - inside)[:, np.newaxis]
        values: Array = self._basis(inside) + beyond * self._basis(inside, 1)
        return values

    def points(self) -> Array:
        """Return ascending scores between which a curve may be taken for straight."""
        first, last = self._u(self._rows.ends)
        below = np.linspace(first - BEYOND, first, BEYOND_TABLE, endpoint=False)
        above = np.linspace(last + BEYOND, last, BEYOND_TABLE, endpoint=False)[::-1]
        points = np.concatenate([below, np.linspace(first, last, TABLE), above])
        return np.unique(np.sinh(points) * self._unit)


def _unit_bends(knots: Array, spread: float) -> Any:
    """Return splines whose integrals of the squared second derivative are 1.

    And those of products of two are 0, so that the penalty is a sum of squares. Lines
    are left out.
    """
    basis = CubicSpline(knots, np.eye(knots.shape[0]), bc_type="natural")
    bend: Any = basis(knots, 2)
    gap = np.diff(knots)
    # The second derivative is straight between knots.
    inner = np.diag(gap[:-1] + gap[1:]) / 3
    inner += (np.diag(gap[1:-1], 1) + np.diag(gap[1:-1], -1)) / 6
    curvature, directions = eigh(spread**3 * bend[1:-1].T @ inner @ bend[1:-1])
    directions = directions[:, 2:] / np.sqrt(curvature[2:])
    return CubicSpline(knots, directions, bc_type="natural")


def _mean_and_spread(values: Array, weight: Array) -> tuple[float, float]:
    """Return mean and standard deviation."""
    mean = float(np.average(values, weights=weight))
    square = np.average((values - mean) ** 2, weights=weight)
    return mean, float(np.sqrt(square))


def _quantiles(values: Array, weight: Array, at: Any) -> Any:
    order = np.argsort(values)
    cumulated = np.cumsum(weight[order])
    shares = (cumulated - weight[order] / 2) / cumulated[-1]
    return np.interp(at, shares, values[order])


def _apart(knots: Array, nearest: float) -> Array:
    """Leave out knots that are not above the last one by more than that."""
    kept = [knots[0]]
    for knot in knots[1:]:
        if knot > kept[-1] + nearest:
            kept.append(knot)
    return np.array(kept)
