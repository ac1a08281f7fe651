"""Classes that the calibration set lacks: tied to the others."""

import numpy as np
from scipy.special import expit

# Log-odds between which the curve of an absent class says what the logits say; beyond
# lie probabilities that differ from 0 or 1 by 4e-18.
KNOTS = np.linspace(-40.0, 40.0, 321)


def fill_absent(coef, intercept, present, n_classes):
    """Return factors, or a matrix, and offsets of all classes from the present ones'.

    An absent class has the mean of their own factors, of their offsets and, with a
    matrix, of what they take from each other.
    """
    offsets = np.full(n_classes, intercept.mean())
    offsets[present] = intercept
    own = coef if coef.ndim == 1 else np.diagonal(coef)
    factors = np.full(n_classes, own.mean())
    if coef.ndim == 1:
        factors[present] = coef
        return factors, offsets
    n_pairs = max(coef.size - own.shape[0], 1)
    matrix = np.full((n_classes, n_classes), (coef.sum() - own.sum()) / n_pairs)
    np.fill_diagonal(matrix, factors)
    matrix[np.ix_(present, present)] = coef
    return matrix, offsets


def keep_absent(data, knots, values, *, kind):
    """Let absent classes keep their probability: replace their curves by the identity.

    `knots` and `values` are lists with a curve a class, of tables of this kind; one
    curve for all of them stays, and so do those of two classes.
    """
    if len(knots) == data.n_classes > 2:
        absent = np.setdiff1d(np.arange(data.n_classes), data.present)
        make_identities(absent, knots, values, kind=kind)


def make_identities(curves, knots, values, *, kind):
    """Replace the tables of these numbers by the logistic function."""
    middles = (KNOTS[1:] + KNOTS[:-1]) / 2
    for k in curves:
        # A step has the value of its middle.
        knots[k] = KNOTS.copy() if kind == "linear" else middles
        values[k] = expit(KNOTS)
