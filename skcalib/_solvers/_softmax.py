"""What the losses of affine maps share: the log-loss and Hessian factors of one block.

By the scores of a row the log-loss -ln p_y has the gradient p - e_y and the Hessian
diag(p) - p p'. With t the scores less their maximum and R the sum of exp(t) over the
other classes, it is log1p(R + exp(t_y) - 1) - t_y: exact where the true class has all
of the probability but 1e-20.

Losses and gradients are computed in float64. The Hessian only steers the steps, so
where matrix products dominate it is formed in float32, at twice the speed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._numerics import in_line, row_maxima

Array = NDArray[np.float64]

# Numbers whose sum of squares lies below this stay finite in float32 products.
LARGEST_SQUARE = 1e30
# Probabilities below this count as 0 in float32: products of smaller ones leave the
# normal numbers, outside of which processors are a hundred times slower.
LEAST_PROBABILITY = 1e-20
# Narrower blocks have small matrix products, which single precision does not speed up.
LEAST_COLUMNS = 32


@dataclass
class Exponentials:
    """Unnormalised probabilities of one block, and what they say of the true classes.

    Dividing them by their row sums is left to the user, who can most often divide one
    number a row instead.
    """

    values: Array
    total: Array  # of each row
    rest: Array  # the same without the true class
    own: tuple[Any, ...]  # index of the true classes in `values`
    loss: Array  # of each row

    @classmethod
    def of_scores(cls, scores: Array, codes: NDArray[np.intp]) -> "Exponentials":
        """Take the place of `scores`."""
        own = np.arange(scores.shape[0], like=scores), codes
        largest = row_maxima(scores)
        scores -= largest[:, np.newaxis]
        flat, index = in_line(scores, own)
        own_score = flat[index]
        values = np.exp(scores, out=scores)
        own_value = flat[index]
        # Where the true class has all probability but 1e-20, the rest is still exact.
        flat[index] = 0
        # A product with ones, several times as fast as a sum.
        rest = values @ np.ones(values.shape[1])
        flat[index] = own_value
        loss = np.log1p(rest + (own_value - 1)) - own_score
        return cls(values, rest + own_value, rest, own, loss)

    def turn_into_residuals(self) -> Array:
        """Return ``total * (p - one_hot)`` in place of the values."""
        self.values[self.own] = -self.rest
        return self.values


def steering_precision(z: NDArray[Any]) -> NDArray[Any]:
    """Round to float32, where that pays and no product overflows."""
    if z.shape[1] < LEAST_COLUMNS:
        return z
    with np.errstate(over="ignore"):
        rounded = z.astype(np.float32, copy=False)
        square = np.vdot(rounded, rounded)
    return rounded if square < LARGEST_SQUARE else z


def flushed(values: NDArray[Any]) -> NDArray[Any]:
    """Set float32 values that count as 0 to 0, in place."""
    if values.dtype == np.float32:
        values *= np.abs(values) >= LEAST_PROBABILITY
    return values


def curvature_product(
    proba: NDArray[Any], change: NDArray[Any], weight: NDArray[Any]
) -> NDArray[Any]:
    """Return ``weight * (diag(p) - p p') @ change`` by rows, in place of `change`."""
    change -= np.vecdot(proba, change)[:, np.newaxis]
    change *= proba
    change *= weight[:, np.newaxis]
    return change
