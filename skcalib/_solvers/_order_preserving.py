r"""An increasing map of log-probabilities, by log-loss.

With u the log-probabilities of a row after temperature scaling and H its entropy, the
scores are ``s(H) u + g(u)``. The positive function s joins values at a few entropies by
straight lines; g joins pieces of slope >= 0. Both are linear in their parameters, so
the log-loss is convex in them, and its Hessian is a matrix of a dozen rows. Minimised
is the mean log-loss plus a smoothness penalty, by Newton's method with bounds.

Such maps are the diagonal intra-order-preserving functions of Rahimi, Shaban, Cheng,
Hartley & Boots, Intra Order-Preserving Functions for Calibration of Multi-Class Neural
Networks, NeurIPS 2020; a temperature that depends on the entropy is that of Balanya,
Maronas & Ramos, Adaptive Temperature Scaling for Robust Calibration of Deep Neural
Networks, 2022. Deviation: both are networks there, trained by gradient steps; here they
are piecewise linear, which leaves one optimum, and are held by a penalty.

Derivation of the sums. Write s = sum of S_a hat_a(H) and g = sum of G_m f_m(u) over the
pieces m = 0, 1, ..., which end at e_0 < e_1 < ... = 0 and are w_m = e_m - e_(m-1) wide.
The function f_m has slope 1 on its piece and is flat elsewhere, 0 from e_m on:

    f_m(u) = 0 above piece m,   u - e_m on it,   -w_m below it,

where nothing lies below the lowest piece (w_0 stands as 0). By a parameter whose score
function is f, the gradient of a row's loss is E[f] - f_y, its Hessian Cov[f, f'], with
mean and covariance over the classes under p. All of these come from the moments of a
piece, M_m, F_m, Q_m = the sums of p, p u, p u^2 over the entries on it, and their sums
over the pieces below, written B[.]:

    E[f_m]      = F_m - e_m M_m - w_m B[M]_m
    E[u f_m]    = Q_m - e_m F_m - w_m B[F]_m
    E[f_m f_m]  = Q_m - 2 e_m F_m + e_m^2 M_m + w_m^2 B[M]_m
    E[f_m f_l]  = w_m w_l B[M]_m - w_l (F_m - e_m M_m)        for m < l

In the last, entries below m give both constants, those on m give f_m times -w_l, and
those above m give 0. The second moments are linear in M, F and Q, so that these are
summed over the rows first and put together once (`_expansion`); what is subtracted, the
products of means, is summed over the rows as it is (`of_means`). By S, f is u hat_a(H).

Deviation: with many classes the entries of a row are put in order, and neighbours far
down in it stand together, as so many equal ones with their mean probability
(`_ranks`). What the map makes of their sum differs by the little that they differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import ArraySource, CalibrationData, row_slices, sum_blocks
from skcalib._numerics import cut_logits, entropy, log_softmax_
from skcalib._solvers._bounded_newton import minimize_bounded
from skcalib._solvers._histogram import ROUNDING
from skcalib._solvers._ranks import Ranks
from skcalib._solvers._result import Result
from skcalib._solvers._softmax import Exponentials

Array = NDArray[np.float64]
Sums = tuple[float, Array, Array, Array, Array, Array, Array]

# Scores must keep the order of the logits, so the scale may not fall to 0.
LEAST_SCALE = 1e-3
# No search of the constants below is recorded. What the map is worth with them is
# measured by `benchmarks/compare_methods.py` and `benchmarks/default_search.py`.
# Of the entries of a row only so many of the largest have a say in the knots.
N_LARGEST = 10
# Knots are looked for on grids: of entropies in units of the largest possible, and of
# log-probabilities down to -DEPTH.
GRID = 4096
DEPTH = 32.0
# Neighbouring knots are at least so many steps of the grid apart.
LEAST_GAP = 4
# How far the parameters themselves are held, in units of the penalty on their jumps.
HOLD = 1e-2
# How much of the prior on the temperature each gets (`benchmarks/never_harm.py`).
PRIOR_SHARE = 1 / 8
# Up to so many entries are kept in memory, 8 bytes each; more are computed anew by each
# evaluation.
MOST_KEPT = 1 << 22


@dataclass(frozen=True)
class Knots:
    """Where the two functions may bend: in entropy, and in log-probability."""

    scale: Array
    curve: Array


@dataclass(frozen=True)
class Rows:
    """One block of rows: log-probabilities of classes, or of ranks of classes."""

    u: Array
    # The entry of the true class, or of the rank that it is of, and its own value.
    own: NDArray[np.intp]
    own_u: Array
    entropy: Array
    weight: Array


class RankedRows:
    """All rows, in blocks, and the number of classes that an entry stands for."""

    def __init__(
        self,
        total: Callable[[Callable[[Rows], Any]], Any],
        ranks: Ranks,
        total_weight: float,
    ) -> None:
        # Sums a statistic over all blocks.
        self.sum = total
        self.ranks = ranks
        self.total_weight = total_weight

    @classmethod
    def of_data(cls, data: CalibrationData, temperature: float) -> "RankedRows":
        """Take log-probabilities after temperature scaling."""
        source = data.source
        # A device computes all classes sooner than it puts them in order.
        ranks = Ranks(data.n_classes, grouped=source.is_here or source.is_remote)

        def anew(statistic: Callable[[Rows], Any]) -> Any:
            return data.sum(partial(_after_temperature, temperature, ranks, statistic))

        in_memory = isinstance(source, ArraySource)
        if not in_memory or data.n_samples * ranks.n_ranks > MOST_KEPT:
            return cls(anew, ranks, data.total_weight)
        kept = anew(_in_a_list)
        return cls(partial(_sum_kept, kept), ranks, data.total_weight)

    @classmethod
    def of_ranks(
        cls,
        ranks: Ranks,
        u: Array,
        own: NDArray[np.intp],
        own_u: Array,
        sample_weight: Array,
    ) -> "RankedRows":
        """Take log-probabilities of ranks as they are."""
        total_weight = float(sample_weight.sum())
        weight = sample_weight / total_weight
        h = -(np.exp(u) * u) @ ranks.sizes
        kept = [
            Rows(u[rows], own[rows], own_u[rows], h[rows], weight[rows])
            for rows in row_slices(*u.shape)
        ]
        return cls(partial(_sum_kept, kept), ranks, total_weight)


def _sum_kept(kept: list[Rows], statistic: Callable[[Rows], Any]) -> Any:
    return sum_blocks(statistic, kept)


def _in_a_list(block: Rows) -> list[Rows]:
    return [block]


def _after_temperature(
    temperature: float,
    ranks: Ranks,
    statistic: Callable[[Rows], Any],
    logits: NDArray,
    codes: NDArray,
    weight: Array,
) -> Any:
    """Compute a statistic of a block of logits."""
    u = log_proba_of(logits, temperature)
    h = entropy(u)
    own_u = u[np.arange(u.shape[0], like=u), codes]
    u, own = ranks.of_rows(u, codes)
    return statistic(Rows(u, own, own_u, h, weight))


def log_proba_of(logits: NDArray, temperature: float) -> Array:
    """Log-probabilities of one block after temperature scaling."""
    u = cut_logits(logits)
    u /= temperature
    return log_softmax_(u)


def choose_knots(rows: RankedRows, n_knots: int) -> Knots:
    """Put knots at quantiles of entropies and log-probabilities that are uncertain.

    Each row counts with the root of its entropy, each of its largest probabilities p
    with the root of p (1 - p): what is certain tells nothing about its own shape.
    """
    n_classes = rows.ranks.n_classes
    highest = log(n_classes)
    of_entropy, of_depth = rows.sum(partial(_uncertainties, n_classes))
    share = np.arange(1, n_knots + 1) / (n_knots + 1)
    scale = highest * _quantiles(of_entropy, np.linspace(0.02, 0.98, n_knots))
    return Knots(scale, -DEPTH * _quantiles(of_depth, share)[::-1])


def _uncertainties(n_classes: int, block: Rows) -> tuple[Array, Array]:
    """Count entropies and the largest log-probabilities of a block on the grids."""
    n_largest = min(N_LARGEST, n_classes)
    u, h, weight = block.u, block.entropy, block.weight
    top = -np.partition(-u, n_largest - 1, axis=1)[:, :n_largest]
    p = np.exp(top)
    # Rounding may leave a p above 1.
    say = np.sqrt(np.maximum(p * (1 - p), 0)) * weight[:, np.newaxis]
    return (
        _histogram(h / log(n_classes), weight * np.sqrt(h)),
        _histogram(-top.ravel() / DEPTH, say.ravel()),
    )


def _histogram(values: Array, weight: Array) -> Array:
    index = np.clip(values * GRID, 0, GRID - 1).astype(np.intp)
    histogram = np.bincount(index, weight, GRID)
    return np.asarray(histogram, dtype=np.float64, like=histogram)


def _quantiles(histogram: Array, share: Array) -> Array:
    """Return points of (0, 1] below which these shares lie, none too near another."""
    if not histogram.any():
        return np.ones(1)
    below = np.cumsum(histogram)
    index = np.searchsorted(below, (share - ROUNDING) * below[-1]) + 1
    kept = [int(index[0])]
    for i in index[1:]:
        if i >= kept[-1] + LEAST_GAP:
            kept.append(int(i))
    return np.array(kept) / GRID


def hats(h: Array, knots: Array) -> Array:
    """Weights of the values at the knots in each linear interpolation, by rows."""
    columns = [np.interp(h, knots, unit) for unit in np.eye(knots.shape[0])]
    return np.stack(columns, axis=1)


def piece_of(u: Array, knots: Array) -> NDArray[np.intp]:
    """Tell which piece of the curve each entry lies on, 0 being the lowest."""
    number = np.zeros_like(u, dtype=np.intp)
    for knot in knots:
        number += u > knot
    return number


def fit_order_preserving(
    rows: RankedRows,
    knots: Knots,
    *,
    smoothness: float,
    prior: float = 0.0,
    tol: float,
    max_iter: int,
    near: Array | None = None,
) -> Result:
    """Minimise log-loss + smoothness penalty over values of s and slopes of g.

    The penalty is `smoothness` over the number of samples. The search begins at `near`,
    if that is given, else at the identity.
    """
    n_scales, n_slopes = knots.scale.shape[0], knots.curve.shape[0] + 1
    identity = np.concatenate([np.ones(n_scales), np.zeros(n_slopes)])
    lower = np.concatenate([np.full(n_scales, LEAST_SCALE), np.zeros(n_slopes)])
    penalty = smoothness / rows.total_weight * _roughness(n_scales, n_slopes)
    penalty[np.diag_indices_from(penalty)] += PRIOR_SHARE * prior
    log_sizes = rows.ranks.log_sizes

    def expand(x: Array) -> tuple[float, Array, Array]:
        sums = rows.sum(partial(_sums_of_block, x, knots, log_sizes))
        loss, gradient, hessian = _expansion(sums, knots)
        away = x - identity
        pull = penalty @ away
        return (
            loss + float(away @ pull),
            gradient + 2 * pull,
            hessian + 2 * penalty,
        )

    start = identity if near is None else near
    return minimize_bounded(expand, start, lower, tol=tol, max_iter=max_iter)


def _roughness(*sizes: int) -> Array:
    """Quadratic form: squared jumps within each group, and a little of each square."""
    matrix = HOLD * np.eye(sum(sizes))
    first = 0
    for size in sizes:
        jump = np.diff(np.eye(size), axis=0)
        matrix[first : first + size, first : first + size] += jump.T @ jump
        first += size
    return matrix


def log_proba_of_own(x: Array, rows: RankedRows, knots: Knots) -> Array:
    """Return the log-probability of the true class of each row that is kept."""
    log_sizes = rows.ranks.log_sizes

    def of_block(block: Rows) -> list[Array]:
        piece = piece_of(block.u, knots.curve)
        e, shared = _exponentials(x, block, piece, log_sizes, knots)
        return [-(e.loss + shared)]

    return np.concatenate(rows.sum(of_block))


def _exponentials(
    x: Array,
    block: Rows,
    piece: NDArray[np.intp],
    log_sizes: Array | None,
    knots: Knots,
) -> tuple[Exponentials, Array]:
    """Return the exponentials of the scores of a block, and a correction of the loss.

    That is for true classes that share their entry with others: they have scores of
    their own.
    """
    scales, slopes = np.split(x, [knots.scale.shape[0]])
    n_rows, n_pieces = block.u.shape[0], slopes.shape[0]
    end, width = _ends_and_widths(knots)
    rows = np.arange(n_rows, like=block.u)
    cell = piece + n_pieces * rows[:, np.newaxis]
    # On a piece, the curve is its slope times u - end, less the rises of those above.
    rise = slopes * width
    level = np.cumsum(rise) - rise.sum() - slopes * end
    level = np.asarray(level, like=block.u)
    steepness = (hats(block.entropy, knots.scale) @ scales)[:, np.newaxis] + slopes
    scores = steepness.ravel()[cell]
    scores *= block.u
    scores += level[piece]
    own_piece = piece_of(block.own_u, knots.curve)
    own_score = steepness[rows, own_piece] * block.own_u + level[own_piece]
    if log_sizes is not None:
        scores += log_sizes
    shared = scores[rows, block.own] - own_score
    return Exponentials.of_scores(scores, block.own), shared


def _sums_of_block(
    x: Array, knots: Knots, log_sizes: Array | None, block: Rows
) -> Sums:
    """Sum up what a block of log-probabilities adds to loss, gradient and Hessian.

    For the function of a piece and its moments see the head of this file.
    """
    u, own_u, weight = block.u, block.own_u, block.weight
    n_rows, n_pieces = u.shape[0], knots.curve.shape[0] + 1
    end, width = _ends_and_widths(knots)
    hat = hats(block.entropy, knots.scale)
    rows = np.arange(n_rows, like=u)
    piece = piece_of(u, knots.curve)
    e, shared = _exponentials(x, block, piece, log_sizes, knots)
    proba = e.values
    proba /= e.total[:, np.newaxis]

    cell = (piece + n_pieces * rows[:, np.newaxis]).ravel()
    moments = np.empty((3, n_rows, n_pieces), like=u)
    for moment in moments:
        sums = np.bincount(cell, proba.ravel(), n_rows * n_pieces)
        moment[:] = sums.reshape(n_rows, n_pieces)
        proba *= u
    mass, first, second = moments
    mean_u = first.sum(axis=1)
    mean = first - end * mass - width * _below(mass)
    own_piece = piece_of(own_u, knots.curve)
    at_own = -width * (own_piece[:, np.newaxis] < np.arange(n_pieces))
    at_own[rows, own_piece] = own_u - np.asarray(end, like=u)[own_piece]
    # Var[u], and E[u f] - E[u] E[f] with the functions f of the pieces.
    var = weight * (second.sum(axis=1) - mean_u**2)
    cov = second - end * first - width * _below(first) - mean_u[:, np.newaxis] * mean
    return (
        float((e.loss + shared) @ weight),
        hat.T @ (weight * (mean_u - own_u)),
        weight @ (mean - at_own),
        hat.T @ (hat * var[:, np.newaxis]),
        hat.T @ (cov * weight[:, np.newaxis]),
        (mean * weight[:, np.newaxis]).T @ mean,
        np.stack([weight @ moment for moment in moments]),
    )


def _expansion(sums: Sums, knots: Knots) -> tuple[float, Array, Array]:
    """Put the loss, its gradient and its Hessian together from sums over all rows."""
    loss, by_scale, by_slope, scale, corner, of_means, moments = sums
    mass, first, second = moments
    end, width = _ends_and_widths(knots)
    rising = first - end * mass
    below = _below(mass)
    # E[f f'], with the pieces of the lower triangle in the other order.
    curve = np.outer(width, width) * np.minimum.outer(below, below)
    curve -= np.triu(np.outer(rising, width), 1)
    curve -= np.tril(np.outer(width, rising), -1)
    curve[np.diag_indices_from(curve)] += second - end * (first + rising)
    hessian = np.block([[scale, corner], [corner.T, curve - of_means]])
    return loss, np.concatenate([by_scale, by_slope]), hessian


def _ends_and_widths(knots: Knots) -> tuple[Array, Array]:
    """Upper ends and widths of the pieces; the lowest one, of no end, is never left."""
    end = np.append(knots.curve, 0.0)
    return end, np.diff(end, prepend=end[0])


def _below(sums: Array) -> Array:
    """Add up, for each piece, the sums of the pieces below."""
    return np.cumsum(sums, axis=-1) - sums
