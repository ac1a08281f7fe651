"""Means and standard deviations over rows, and what of them may be rounding alone."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._numerics import cut_logits

Array = NDArray[np.float64]

# In units of the precision of logits and features: a spread that may be rounding alone.
ROUNDING = 2.0


def means_and_spreads(data: CalibrationData) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column, 0 where it may be rounding."""
    first = cut_logits(data.head(1))
    mean, square, noise = data.sum(partial(_columns_of_block, first))
    return mean + first[0], deviation(mean, square, noise)


def _columns_of_block(
    first: Array, logits: NDArray, codes: NDArray, weight: Array
) -> Array:
    z = cut_logits(logits)
    noise = ROUNDING * np.finfo(logits.dtype).eps * abs(z)
    return moments_of_block(z, noise, first, weight)


def moments_of_block(x: Any, noise: Any, origin: Any, weight: Any) -> Array:
    """Sum ``x - origin``, its square, and the square of what of it may be `noise`.

    Overwrites `x`. Noise is judged by row, as one may lie where rounding is coarse.
    """
    x -= origin
    noise = np.minimum(noise, abs(x))
    return np.stack([weight @ x, weight @ (x * x), weight @ (noise * noise)])


def deviation(mean: Any, square: Any, noise: Any, least: float = 0.0) -> Array:
    """Return the standard deviation by such sums, 0 if not above `least` and noise."""
    found = np.sqrt(np.maximum(square - mean**2, 0))
    return np.where(found > np.maximum(least, np.sqrt(noise)), found, 0)
