"""What the losses of affine maps share: residuals and Hessian factors of one block.

Losses and gradients are computed in float64. The Hessian only steers the steps, so
where matrix products dominate it is formed in float32, at twice the speed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._numerics import softmax_

Array = NDArray[np.float64]


def loss_and_proba(
    scores: Array, codes: NDArray[np.intp], weight: Array
) -> tuple[float, Array]:
    """Return the weighted log-loss and the softmax; `scores` is overwritten."""
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[np.arange(scores.shape[0]), codes]
    np.exp(scores, out=scores)
    total = scores.sum(axis=1)
    loss = float((np.log(total) - own) @ weight)
    scores /= total[:, np.newaxis]
    return loss, scores


def weighted_residual(proba: Array, codes: NDArray[np.intp], weight: Array) -> Array:
    """Return ``weight * (proba - one_hot(codes))``, the gradient by the scores."""
    residual = proba.copy()
    residual[np.arange(proba.shape[0]), codes] -= 1
    residual *= weight[:, np.newaxis]
    return residual


def steering_precision(z: NDArray[Any]) -> NDArray[Any]:
    """Round to float32, unless the squares of the numbers could overflow there."""
    if z.dtype == np.float64 and max(z.max(), -z.min()) < 1e15:
        return z.astype(np.float32)
    return z


def curvature_product(
    scores: NDArray[Any], change: NDArray[Any], weight: Array
) -> NDArray[Any]:
    """Return ``weight * (diag(p) - p p') @ change`` by rows; overwrites both arrays."""
    proba = softmax_(scores)
    change -= np.einsum("ij,ij->i", proba, change)[:, np.newaxis]
    change *= proba
    change *= weight.astype(change.dtype)[:, np.newaxis]
    return change
