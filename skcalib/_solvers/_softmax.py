"""What the losses of affine maps share: the log-loss and Hessian factors of one block.

Losses and gradients are computed in float64. The Hessian only steers the steps, so
where matrix products dominate it is formed in float32, at twice the speed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Numbers whose sum of squares lies below this stay finite in float32 products.
LARGEST_SQUARE = 1e30
# Narrower blocks have small matrix products, which single precision does not speed up.
LEAST_COLUMNS = 32


def loss_and_exp(
    scores: Array, codes: NDArray[np.intp], weight: Array
) -> tuple[float, Array, Array]:
    """Return the weighted log-loss, unnormalised probabilities and their row sums.

    The probabilities take the place of `scores`. Dividing them by their sums is left
    to the caller, who can most often divide one number a row instead.
    """
    largest = scores.max(axis=1)
    own = scores[np.arange(scores.shape[0]), codes] - largest
    scores -= largest[:, np.newaxis]
    np.exp(scores, out=scores)
    # A product with ones, several times as fast as a sum.
    total = scores @ np.ones(scores.shape[1])
    return float((np.log(total) - own) @ weight), scores, total


def steering_precision(z: Array) -> NDArray[Any]:
    """Round to float32, where that pays and no product overflows."""
    if z.shape[1] < LEAST_COLUMNS:
        return z
    with np.errstate(over="ignore"):
        rounded = z.astype(np.float32)
        square = np.vdot(rounded, rounded)
    return rounded if square < LARGEST_SQUARE else z


def curvature_product(
    proba: NDArray[Any], change: NDArray[Any], weight: NDArray[Any]
) -> NDArray[Any]:
    """Return ``weight * (diag(p) - p p') @ change`` by rows, in place of `change`."""
    change -= np.vecdot(proba, change)[:, np.newaxis]
    change *= proba
    change *= weight[:, np.newaxis]
    return change
