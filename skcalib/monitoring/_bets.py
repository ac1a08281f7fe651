"""Bets against calibration: what is wagered on a row before its class is known.

A stream of rows (p_t, y_t) is calibrated if, whatever came before, class k has the
probability that is stated:

    H0:  P(y_t = k | p_t and all earlier rows) = p_tk .

A recalibrator fixed before y_t is seen says q_t instead. One who bets on it multiplies
the wealth by e_t = q_t[y_t] / p_t[y_t], and under H0 gains nothing on average, since
E e_t = sum_k p_tk q_tk / p_tk <= 1. The wealth, the product of the e_t, is then a
non-negative supermartingale that starts at 1, and by Ville's inequality exceeds
1 / alpha at any time with probability at most alpha; so does the mean of several such
wealths with weights fixed beforehand. Its logarithm is what the log-loss would have
gained by the recalibrator.

The recalibrators, four families of which each has a quarter of the capital:

- powers q ~ p^a of a grid of a: temperatures, for logits too large or too small;
- the likeliest class tilted, q ~ p exp(b [k = argmax p]), of a grid of b: confidences
  too high or too low by an amount that no power fits. It also bears a tolerance best,
  since only two of the ratios q_k / p_k differ;
- one class tilted, q ~ p exp(b [k = j]), for every class j and the same grid;
- all classes tilted, q ~ p exp(b), with b learned from the past. To the second order in
  b the log-likelihood of n rows is g.b - b'Hb / 2 with g = sum(onehot(y) - p) and
  H = sum(diag(p) - pp'). Of H the diagonal is kept, scaled by K / (K - 1), with which
  the step is Newton's where the classes are equally frequent, and where K = 2; a ridge
  shrinks it. This family finds many small biases, which no single class shows.

That a weight of the grid is kept through the product is the method of mixtures: the
mixture itself is one recalibrator, the posterior mean of q given the past.

What is done beside the plain ratio, each of which leaves E e_t <= 1:

- A probability below PROBA_FLOOR is raised to it in the denominator and in q, without
  normalising p anew: sum_k p_k q_k / max(p_k, PROBA_FLOOR) <= sum_k q_k = 1.
- No row gains more than the factor LARGEST_GAIN, so that one wrong label of a confident
  row never raises an alarm: with r_k = q_k / p_k, the stake c = min(1, (LARGEST_GAIN -
  1) / (max_k r_k - 1)) is wagered and e = 1 - c + c r[y].
- A tolerance d allows the true probability of any event of a row to be off by up to d,
  that is, a total variation distance of at most d to p. Then, for the true
  probabilities pi, E e = sum_k p_k e_k + sum_k (pi_k - p_k) e_k, which is at most
  1 + d (max e - min e), by which e is divided.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._numerics import PROBA_FLOOR

Array = NDArray[np.float64]

LARGEST_GAIN = 10.0
_SIZES = np.array([0.025, 0.05, 0.1, 0.2, 0.4, 0.8])
# Logarithms of the powers, and tilts of the likeliest or of one class.
LOG_POWERS = np.concatenate([-_SIZES[::-1], _SIZES])
TILTS = np.array([-1.0, -0.3, -0.1, 0.1, 0.3, 1.0])
# Inverse variance of the prior of the learned tilts: a standard deviation of 0.2.
RIDGE = 25.0
LARGEST_TILT = 1.0


def n_fixed(n_classes: int) -> int:
    """Count the recalibrators that do not learn."""
    return LOG_POWERS.size + (1 + n_classes) * TILTS.size


def log_weights(n_classes: int, n_learned: int) -> Array:
    """Return the logarithm of the capital of each recalibrator."""
    sizes = (LOG_POWERS.size, TILTS.size, n_classes * TILTS.size, n_learned)
    return np.concatenate([np.full(n, -np.log(len(sizes) * n)) for n in sizes])


def floored(proba: NDArray[Any]) -> Array:
    """Return the rows normalised, then raised to the floor."""
    proba = proba.astype(np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    # Zeros are the same to what `recalibrate` returns, which reads them by a map.
    return np.maximum(proba, PROBA_FLOOR, out=proba)


def fixed_bets(p: Array, codes: NDArray[np.intp], tolerance: float) -> Array:
    """Return the log gains of powers and tilted classes, (n, n_fixed)."""
    powers = _bets_on_powers(p, codes, tolerance)
    # Column 0 is the likeliest class, the others are all classes in turn.
    top = p.argmax(axis=1)
    rows = np.arange(codes.size)
    gains = _gains_elsewhere(np.column_stack([p[rows, top], p]), tolerance)
    gains[rows, 1 + codes] += TILTS
    gains[top == codes, 0] += TILTS
    return np.concatenate([powers, gains.reshape(codes.size, -1)], axis=1)


def _bets_on_powers(p: Array, codes: NDArray[np.intp], tolerance: float) -> Array:
    log_p = np.log(p)
    surplus = np.expm1(LOG_POWERS)
    # Ratios before they are normalised: of each class, and where they are extreme.
    of_class = np.exp(surplus[:, np.newaxis, np.newaxis] * log_p)
    normaliser = np.vecdot(of_class, p).T
    ends = np.array([log_p.min(axis=1), log_p.max(axis=1)])
    ends = np.exp(ends[:, :, np.newaxis] * surplus) / normaliser
    low, high = ends.min(axis=0), ends.max(axis=0)
    own = of_class[:, np.arange(codes.size), codes].T / normaliser
    stake = np.minimum(1, (LARGEST_GAIN - 1) / np.maximum(high - 1, 1e-300))
    gains: Array = np.log1p(stake * (own - 1))
    return gains - np.log1p(tolerance * stake * (high - low))


def _gains_elsewhere(p: Array, tolerance: float) -> Array:
    """Return the log gains of tilting each entry, where its class does not come."""
    surplus = np.expm1(TILTS)
    normaliser = 1 + p[:, :, np.newaxis] * surplus
    gains = -np.log(normaliser)
    if tolerance:
        gains -= np.log1p(tolerance * np.abs(surplus) / normaliser)
    return gains


def learned_tilts(residual: Array, variance: Array) -> Array:
    """Return tilts of all classes from sums of onehot(y) - p and of p (1 - p)."""
    n_classes = residual.shape[-1]
    step = (1 - 1 / n_classes) * residual / (RIDGE + variance)
    return np.clip(step, -LARGEST_TILT, LARGEST_TILT)


def learned_bets(
    p: Array, codes: NDArray[np.intp], tilts: Array, tolerance: float
) -> Array:
    """Return the log gains of tilts (n_learned, K) of all classes, (n, n_learned)."""
    ratio = np.exp(tilts)
    normaliser = p @ ratio.T
    spread = ratio.max(axis=1) - ratio.min(axis=1)
    gains: Array = tilts[:, codes].T - np.log(normaliser)
    return gains - np.log1p(tolerance * spread / normaliser)


def sums_of(p: Array, codes: NDArray[np.intp]) -> tuple[Array, Array]:
    """Return the sums over the rows from which the tilts are learned."""
    seen = np.bincount(codes, minlength=p.shape[1])
    return seen - p.sum(axis=0), (p * (1 - p)).sum(axis=0)


def describe(index: int, classes: list[Any]) -> str:
    """Say what a recalibrator holds against the stated probabilities."""
    if index < LOG_POWERS.size:
        factor = np.exp(-LOG_POWERS[index])
        kind = "over" if factor > 1 else "under"
        return (
            f"{kind}-confident: the logits are too large by a factor near {factor:.3g}"
        )
    index -= LOG_POWERS.size
    if index < TILTS.size:
        than, factor = _odds(TILTS[index])
        return f"the predicted class is right {than} often than stated: {factor}"
    index -= TILTS.size
    if index < len(classes) * TILTS.size:
        label, tilt = classes[index // TILTS.size], TILTS[index % TILTS.size]
        than, factor = _odds(tilt)
        return f"class {label!r} is {than} frequent than stated: {factor}"
    return "the frequencies of several classes are not those stated"


def _odds(tilt: float) -> tuple[str, str]:
    """Say in which direction the odds are off, and by how much."""
    return "more" if tilt > 0 else "less", f"odds by {np.exp(abs(tilt)):.3g}"
