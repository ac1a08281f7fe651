"""Matrix scaling: softmax(W x + b) with ridge penalties towards the identity map.

Minimised over W and b is the mean log-loss of softmax(W x + b), plus a ridge penalty on
the off-diagonal and the diagonal entries of W - I and on b [Kull et al. 2019; Berta
et al. 2025]. It is convex and solved by Newton-CG.

The parameters are one (K, K + 1) array, W with b as its last column, and x carries a
constant 1. The Hessian, of size K (K + 1), is formed for a few classes only, to make
sure of the end. Its approximate inverse adds up two parts (additive Schwarz): for all
entries the Kronecker product of the mean of diag(p) - p p' and the second moments of
(x, 1), inverted with the ridge in coordinates where both are diagonal, which makes the
fit blind to the units, offsets and correlations of the columns; for the diagonal of W
and b, which carry other penalties, their exact Hessian.

Matrix products are all that counts once there are a thousand classes. Then they run in
single precision, those of the scores for the small W - I only, so that scores stay
exact. Where the ridge outweighs the curvature by the off-diagonal entries, these act
through the mean of x alone, which shifts the score of a class just as its b does; the
exact Hessian by those K shifts, with a diagonal for the rest (Woodbury's identity), is
then so near the truth that no product with the Hessian is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from skcalib._blocks import CalibrationData, Statistic, sum_blocks
from skcalib._numerics import TINY, softmax_
from skcalib._solvers._descend import jittered
from skcalib._solvers._matrix_blocks import (
    Moments,
    Shifts,
    Steering,
    affine_scores,
    outer_sums,
    with_ones,
)
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._result import Result
from skcalib._solvers._softmax import Exponentials, flushed, steering_precision
from skcalib._solvers._vector import fit_vector, inverse, slight_penalty

Array = NDArray[np.float64]
# Sums a statistic of what the Hessian needs of a block.
_OverBlocks = Callable[[Callable[[Steering], Any]], Any]

# No search of the limits below is recorded. What they make of a fit is timed by
# `benchmarks/many_classes.py` (a thousand classes) and `benchmarks/fit_speed.py`.
# From this many logits on, matrix products run in single precision, and what products
# with the Hessian use is not kept but computed anew by each of them.
LARGE = 1 << 24
# Curvature that the shifts may leave out, in units of the ridge's, where what is known
# from earlier steps makes up for it, and where products with the Hessian do.
SHIFTS_SUFFICE, SHIFTS_GUIDE = 4.0, 40.0
# Least curvature of a class's own numbers in units of what it has: products in single
# precision tell no smaller one from rounding.
LEAST_CURVATURE = 1e-4
# Up to so many parameters, of ten classes, the exact Hessian costs as much as a few
# products with it.
MAX_EXACT = 110
# Curvature, in units of the largest, that counts as none.
NO_CURVATURE = 1e-12


@dataclass(frozen=True)
class Ridge:
    """Factors of the squared off-diagonal and diagonal entries of W - I, and of b.

    With a `centre`, of W - centre I; with `offsets`, of b - offsets.
    """

    off_diagonal: float = 0.0
    diagonal: float = 0.0
    intercept: float = 0.0
    centre: float = 1.0
    offsets: Array | float = 0.0

    def at(self, x: Array) -> tuple[float, Array]:
        """Return the penalty of the parameters `x`, and its gradient."""
        away = _away(x, self.centre)
        away[:, -1] -= self.offsets
        slope = self.slope(away)
        return float(np.vdot(away, slope)) / 2, slope

    def slope(self, away: Array) -> Array:
        """Return the gradient of the penalty, `away` from where it is 0."""
        k = np.arange(away.shape[0])
        out = 2 * self.off_diagonal * away
        out[k, k] = 2 * self.diagonal * away[k, k]
        out[:, -1] = 2 * self.intercept * away[:, -1]
        return out


def _away(x: Array, centre: float = 1.0) -> Array:
    """Return `x` less the identity map, or less x -> centre * x."""
    k = np.arange(x.shape[0])
    out = x.copy()
    out[k, k] -= centre
    return out


def identity_map(n_classes: int, factor: float = 1.0) -> Array:
    """Return the parameters of x -> factor * x."""
    return factor * np.eye(n_classes, n_classes + 1)


def fit_matrix(
    data: CalibrationData,
    start: Array,
    *,
    ridge: Ridge,
    tol: float,
    max_iter: int,
    blind: float = 0.0,
) -> Result:
    """Minimise log-loss + penalty from `start`.

    `blind` is that of `minimize`, where steps are solved for and not approximated.
    """
    # About another map than the identity, the diagonal is held by a weak prior.
    is_free = ridge.diagonal == 0 or ridge.centre != 1
    if is_large(data) and is_free and _is_by_class(start):
        start = _fit_by_class(data, start, ridge)
    problem = _Problem(data, ridge)
    return minimize(
        problem.expand,
        problem.loss,
        start,
        tol=tol,
        max_iter=max_iter,
        blind=0.0 if is_large(data) else blind,
    )


def _is_by_class(x: Array) -> bool:
    """Whether every score depends on the feature of its own class alone."""
    return np.count_nonzero(x[:, :-1]) == np.count_nonzero(np.diagonal(x))


def _fit_by_class(data: CalibrationData, start: Array, ridge: Ridge) -> Array:
    """Return a better start: the diagonal, which little holds, and b fitted alone."""
    vector = np.stack([np.diagonal(start), start[:, -1]])
    penalty = slight_penalty(data, vector)
    penalty += [[ridge.diagonal], [ridge.intercept]]
    found = fit_vector(data, vector, penalty=penalty, tol=1e-4, max_iter=20).x
    out = np.zeros_like(start)
    np.fill_diagonal(out, found[0])
    out[:, -1] = found[1]
    return out


def log_loss(data: CalibrationData, x: Array) -> float:
    """Mean log-loss of the (K, K + 1) parameters `x`, without penalty."""
    return float(data.sum(partial(_loss_of_block, x), heavy=True))


def _loss_of_block(x: Array, features: NDArray, codes: NDArray, weight: Array) -> float:
    return float(_losses(x, features, codes) @ weight)


def _losses(x: Array, features: NDArray, codes: NDArray) -> Array:
    return Exponentials.of_scores(affine_scores(x, features), codes).loss


def rise_of_block(
    x: Array, other: Array, features: NDArray, codes: NDArray, weight: Array
) -> tuple[float, float]:
    """Mean and mean square of how much more `x` loses in a row than `other`."""
    rise = _losses(x, features, codes) - _losses(other, features, codes)
    return float(rise @ weight), float(rise * rise @ weight)


def is_large(data: CalibrationData) -> bool:
    """Whether the fit computes in single precision, apart from sums over rows."""
    return data.n_samples * data.n_classes > LARGE


# Of one block: scores, and the features in the precision of the gradient's product.
_ScoresOf = Callable[[NDArray[Any]], tuple[Array, NDArray[Any]]]


def _plain_scores(x: Array, features: NDArray) -> tuple[Array, NDArray]:
    z = features.astype(np.float64, copy=False)
    return affine_scores(x, z), z


def _scores_by_change(
    x: Array, rounded: NDArray | None, features: NDArray
) -> tuple[Array, NDArray]:
    """Compute z + (W - I) z + b, so that only what is small is rounded.

    `rounded` is the transpose of W - I in single precision; None is no change.
    """
    z = steering_precision(features)
    scores = features.astype(np.float64)
    if rounded is not None:
        is_rounded = z.dtype == np.float32
        scores += z @ (rounded if is_rounded else _away(x)[:, :-1].T)
    scores += x[:, -1]
    return scores, z


def _expansion_of_block(
    scores_of: _ScoresOf,
    curvature: Callable[[Steering], Any] | None,
    keep: bool,
    features: NDArray,
    codes: NDArray,
    weight: Array,
) -> tuple[Any, ...]:
    """Sum loss and gradient over one block, and what else the Hessian needs."""
    scores, z = scores_of(features)
    e = Exponentials.of_scores(scores, codes)
    further: list[Any] = []
    if curvature is not None or keep:
        steering = Steering.of_block(z, e, weight)
        # Lists add up to one that holds all blocks.
        further = [[steering]] if keep else []
        if curvature is not None:
            further.append(curvature(steering))
    residual = e.turn_into_residuals()
    residual *= (weight / e.total)[:, np.newaxis]
    residual = flushed(residual.astype(z.dtype, copy=False))
    gradient = outer_sums(residual, z)
    return float(e.loss @ weight), gradient, *further


def _product(direction: Array, block: Steering) -> Array:
    return block.product(direction)


def _steering_of_block(
    x: Array,
    of_steering: Callable[[Steering], Any],
    features: NDArray,
    codes: NDArray,
    weight: Array,
) -> Any:
    z = steering_precision(features)
    proba = flushed(softmax_(affine_scores(x.astype(z.dtype), z)))
    return of_steering(Steering(with_ones(z), proba, weight.astype(z.dtype)))


def _least(curvature: Array) -> Array:
    """Return the least that may stay, also of a class that has none at all."""
    return LEAST_CURVATURE * np.maximum(curvature, 1e-3 * curvature.max())


class _Problem:
    def __init__(self, data: CalibrationData, ridge: Ridge) -> None:
        self._data = data
        self._ridge = ridge
        # At least a few rows per class, or the products of a block are too thin; and no
        # fewer rows than classes, or adding them up costs more than the products.
        n_rows = max(128, data.n_classes)
        self._block_elements = max(1 << 16, n_rows * data.n_classes)
        self._large = is_large(data)
        # What the Hessian needs of all blocks stays in memory where it is small.
        self._keeps = data.source.is_here and not self._large

    def loss(self, x: Array) -> float:
        """Penalised loss at `x`."""
        return log_loss(self._data, x) + self._ridge.at(x)[0]

    def expand(self, x: Array, curvature: Expansion | None) -> Expansion:
        """Loss, gradient and Hessian products about `x`.

        The approximate inverse of `curvature`, if given, is kept.
        """
        statistic = self._statistic(x, with_curvature=curvature is None)
        loss, gradient, *further = self._sum(statistic)
        penalty, slope = self._ridge.at(x)
        loss += penalty
        gradient += slope
        over_blocks = self._over_blocks(x, further[0] if self._keeps else [])

        def hessian_product(direction: Array) -> Array:
            product: Array = over_blocks(partial(_product, direction))
            product += self._ridge.slope(direction)
            return product

        if curvature is not None:
            precondition = curvature.precondition
            is_near = curvature.hessian_product is None
        else:
            precondition, is_near = self._inverse(further[-1], over_blocks)
        product = None if is_near else hessian_product
        is_small = x.size <= MAX_EXACT and not self._large
        exact = self._exact_inverse(over_blocks) if is_small else None
        return Expansion(loss, gradient, product, precondition, exact)

    def _exact_inverse(
        self, over_blocks: _OverBlocks
    ) -> Callable[[], Callable[[Array], Array]]:
        def make() -> Callable[[Array], Array]:
            hessian = over_blocks(Steering.hessian)
            shape = self._data.n_classes, self._data.n_classes + 1
            ridge = self._ridge.slope(np.ones(shape))
            return inverse(hessian + np.diag(ridge.ravel()), shape, classes=0)

        return make

    def _statistic(self, x: Array, *, with_curvature: bool) -> Statistic:
        """Loss, gradient and what else the Hessian needs, of one block."""
        if self._large:
            rounded = _away(x)[:, :-1].T.astype(np.float32)
            scores_of = partial(
                _scores_by_change, x, rounded if rounded.any() else None
            )
        else:
            scores_of = partial(_plain_scores, x)
        curvature = None
        if with_curvature:
            curvature = Steering.shifts if self._large else Steering.moments
        return partial(_expansion_of_block, scores_of, curvature, self._keeps)

    def _over_blocks(self, x: Array, kept: list[Steering]) -> _OverBlocks:
        """Make the function that sums over what is kept, or over all blocks anew."""

        def over_blocks(of_steering: Callable[[Steering], Any]) -> Any:
            if kept:
                return sum_blocks(of_steering, kept, heavy=True)
            return self._sum(partial(_steering_of_block, x, of_steering))

        return over_blocks

    def _inverse(
        self, sums: Any, over_blocks: _OverBlocks
    ) -> tuple[Callable[[Array], Array], bool]:
        """Return an approximate inverse, and whether steps need no Hessian beside it.

        `sums` are moments, or the shifts of a large fit.
        """
        if not self._large:
            return self._approximate_inverse(sums), False
        # At most so much curvature is left out by the shifts, in any direction.
        rest = sums.curvature.max() * sums.variance.sum()
        ridge = 2 * self._ridge.off_diagonal
        if rest <= SHIFTS_GUIDE * ridge:
            return self._inverse_by_shifts(sums), bool(rest <= SHIFTS_SUFFICE * ridge)
        moments = over_blocks(Steering.moments)
        return self._approximate_inverse(moments), False

    def _sum(self, statistic: Statistic) -> Any:
        return self._data.sum(
            statistic, block_elements=self._block_elements, heavy=True
        )

    def _inverse_by_shifts(self, shifts: Shifts) -> Callable[[Array], Array]:
        """Invert J' H J + D (Woodbury's identity).

        A change X of the parameters moves the score of class k in a row by X_k.(z, 1).
        With each z_j at a typical value it is a shift (J X)_k, alike in all rows. What
        is typical is the mean of z_j where it enters another class, and for j = k the
        mean under the curvature w p_k (1 - p_k). H = sum of w (diag(p) - p p') is the
        Hessian by the shifts. D is what is left, to a diagonal: for the entry (k, j)
        the curvature of class k times the variance of z_j, and the ridge.

        Each entry belongs to one shift, so U = J D^-1 J' is diagonal. With r on the
        right-hand side and R the root of U, the identity of Woodbury gives

            D^-1 (r - J' (H^-1 + U)^-1 J D^-1 r)   and
            (H^-1 + U)^-1 = R^-1 (I - (I + R H R)^-1) R^-1,

        where H, which is singular (the same shift of all classes changes nothing), need
        not be inverted, and I + R H R has no eigenvalue below 1.
        """
        k = np.arange(self._data.n_classes)
        mass = np.maximum(shifts.curvature, TINY)
        # Of a class's own feature the mean counts where its probability is uncertain.
        mean, own = shifts.mean, shifts.linear / mass
        rest = np.outer(mass, shifts.variance) + 2 * self._ridge.off_diagonal
        own_rest = np.maximum(shifts.square - own * shifts.linear, 0)
        own_rest += 2 * self._ridge.diagonal
        rest[k, k] = np.maximum(own_rest, _least(shifts.square))
        rest_b = np.maximum(2 * self._ridge.intercept, _least(mass))

        def to_shifts(x: Array) -> Array:
            shift: Array = x[:, :-1] @ mean + (own - mean) * x[k, k] + x[:, -1]
            return shift

        def from_shifts(shift: Array) -> Array:
            out = np.empty((k.shape[0], k.shape[0] + 1))
            np.outer(shift, mean, out=out[:, :-1])
            out[k, k], out[:, -1] = shift * own, shift
            return out

        def divide(x: Array) -> Array:
            x[:, :-1] /= rest
            x[:, -1] /= rest_b
            return x

        # J D^-1 J', which is diagonal.
        unit = to_shifts(divide(from_shifts(np.ones(k.shape[0]))))
        root = np.sqrt(unit)
        inner = root[:, np.newaxis] * shifts.hessian * root
        inner[k, k] += 1
        factor = cho_factor(inner, overwrite_a=True)

        def precondition(r: Array) -> Array:
            shift = to_shifts(divide(r.copy())) / root
            shift -= cho_solve(factor, shift)
            return divide(r - from_shifts(shift / root))

        return precondition

    def _approximate_inverse(self, moments: Moments) -> Callable[[Array], Array]:
        """Add up the inverses of two parts of the Hessian (additive Schwarz).

        One is the Kronecker product A x S with the ridge, S being the second moments
        of (z, 1). It takes the mean of (diag(p) - p p') x (z, 1)(z, 1)' for the product
        of the means, with rows weighted in S by the size of their first factor. In the
        coordinates U, in which A is diagonal, and V, in which both S and the ridge are
        (a generalised eigenproblem), it is a division. The other is exact, by the
        diagonal of W and by b.
        """
        n_classes = self._data.n_classes
        k = np.arange(n_classes)
        left, u = np.linalg.eigh(np.diag(moments.mass) - moments.gram[:, :n_classes])
        largest = max(float(left.max()), TINY)
        right, v = self._share_of_curvature(
            moments.second * (largest / max(float(moments.second[-1, -1]), TINY))
        )
        spectrum = np.outer(np.maximum(left / largest, 0), right) + (1 - right)
        spectrum += NO_CURVATURE
        solve_vector = inverse(self._vector_hessian(moments))

        def precondition(r: Array) -> Array:
            out: Array = u @ ((u.T @ r @ v) / spectrum) @ v.T
            vector = solve_vector(np.stack([r[k, k], r[:, -1]]))
            out[k, k] += vector[0]
            out[:, -1] += vector[1]
            return out

        return precondition

    def _share_of_curvature(self, second: Array) -> tuple[Array, Array]:
        """Diagonalise curvature and ridge by (z, 1) together.

        Returns the share of curvature in the sum of both, and the coordinates where the
        sum is the identity.
        """
        ridge = np.full(second.shape[0], 2 * self._ridge.off_diagonal)
        ridge[-1] = 2 * self._ridge.intercept
        unit = 1 / np.sqrt(np.diagonal(second) + ridge + TINY)
        curvature = second * np.outer(unit, unit)
        # Rounding may leave the curvature indefinite, and beside huge weights the ridge
        # is next to nothing.
        both = curvature + np.diag(ridge * unit**2)
        share, v = jittered(both, NO_CURVATURE, partial(eigh, curvature))
        return np.clip(share, 0, 1), unit[:, np.newaxis] * v

    def _vector_hessian(self, moments: Moments) -> Array:
        """Hessian by the diagonal of W and by b, in this order."""
        n_classes = self._data.n_classes
        k = np.arange(n_classes)
        pp, pz, zz = np.split(moments.gram, 3, axis=1)
        hessian = -np.block([[zz, pz.T], [pz, pp]])
        hessian[k, k] += moments.square + 2 * self._ridge.diagonal
        hessian[k, n_classes + k] += moments.linear
        hessian[n_classes + k, k] += moments.linear
        hessian[n_classes + k, n_classes + k] += (
            moments.mass + 2 * self._ridge.intercept
        )
        return hessian
