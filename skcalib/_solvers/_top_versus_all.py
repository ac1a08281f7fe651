r"""Log-loss of the confidence in the predicted class against whether it is right.

With c the probability of the predicted class at the temperature 1/beta, the loss of a
row is -ln c if it is right and -ln(1 - c) if not, the other classes taken as one [Le
Coz, Herbin & Adjed, Confidence Calibration of Classifiers with Many Classes, NeurIPS
2024].

Derivatives. Let t = beta (z - max z), 0 for the predicted class, and E and E' its mean
under softmax(t) and under that of the other classes alone. By log beta, ln c changes by
-E and ln(1 - c) by E' - E. The logarithm of a sum over the others is convex in t, so
the loss of a row in error need not be.

Of any scores v * z + b the same loss is ln(1 + exp(d)), with d the logarithm of the sum
of their exponentials over the other classes, less the score of the predicted one, and
minus that where the row is in error. The predicted class stays that of z.
"""

import numpy as np
from numpy.typing import NDArray

from skcalib._solvers._temperature import scaled_logits

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def summed_top_losses(
    beta: float, logits: NDArray, codes: Codes, weight: Array
) -> float:
    """Sum the weighted losses of one block of logits at the temperature 1/beta."""
    hit, _, _, rest = _parts(beta, logits, codes)
    loss = np.log1p(rest) - np.where(hit, 0.0, np.log(rest))
    return float(loss @ weight)


def summed_top_slopes(
    beta: float, logits: NDArray, codes: Codes, weight: Array
) -> float:
    """Sum the derivatives of the weighted losses by log beta."""
    hit, t, exp_t, rest = _parts(beta, logits, codes)
    moment = np.einsum("ij,ij->i", exp_t, t)
    slope = moment / (1 + rest) - np.where(hit, 0.0, moment / rest)
    return float(slope @ weight)


def top_expansion_of_block(
    x: Array, logits: NDArray, codes: Codes, weight: Array
) -> tuple[float, Array]:
    """Sum losses of softmax(v * z + b) over one block, and the gradient by (v, b)."""
    top = logits.argmax(axis=1)
    own = np.arange(top.shape[0], like=top), top
    z = logits.astype(np.float64, copy=False)
    scores = x[0] * z + x[1]
    own_score = scores[own]
    scores[own] = -np.inf
    largest = scores.max(axis=1)
    others = np.exp(scores - largest[:, np.newaxis])
    rest = others.sum(axis=1)
    sign = np.where(top == codes, 1.0, -1.0)
    d = sign * (largest + np.log(rest) - own_score)
    loss = np.maximum(d, 0.0) + np.log1p(np.exp(-np.abs(d)))
    slope = weight * sign * np.exp(d - loss)
    others *= (slope / rest)[:, np.newaxis]
    others[own] = -slope
    by_factor = np.einsum("ij,ij->j", others, z)
    return float(loss @ weight), np.stack([by_factor, others.sum(axis=0)])


def _parts(
    beta: float, logits: NDArray, codes: Codes
) -> tuple[NDArray[np.bool_], Array, Array, Array]:
    """Return hits, scaled logits, and their exponentials and sum without the top."""
    top = logits.argmax(axis=1)
    # In single precision the exponential of the lowest would be 0.
    t = scaled_logits(logits, codes, beta)[0].astype(np.float64)
    exp_t = np.exp(t)
    exp_t[np.arange(top.shape[0], like=top), top] = 0
    return top == codes, t, exp_t, exp_t.sum(axis=1)
