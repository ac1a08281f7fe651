"""Overlapping blobs and spirals, with the probabilities that no classifier can beat."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.utils import check_random_state

from skcalib._sklearn_compat import Interval, validate_params

# Panels of the integral along a spiral are at most one noise long, with this many
# Gauss-Legendre nodes each: exact to about 1e-12.
_NODES = 8
# Rows of the integral at once: some ten megabytes.
_BLOCK_ELEMENTS = 1 << 20


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_classes": [Interval(Integral, 2, None, closed="left")],
        "n_features": [Interval(Integral, 2, None, closed="left")],
        "radius": [Interval(Real, 0, None, closed="left")],
        "return_posterior": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_overlapping_blobs(
    n_samples: int = 1000,
    n_classes: int = 3,
    *,
    n_features: int = 2,
    radius: float = 1.5,
    return_posterior: bool = False,
    random_state: Any = None,
) -> Any:
    """Draw normal blobs that overlap, and the true probabilities of their classes.

    The centres lie evenly on a circle in the plane of the first two features; all
    features have standard deviation 1 around them, and features beyond the second are
    noise. Only the samples are random: sets of different seeds come from one
    distribution.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.

    n_classes : int, default=3
        Number of blobs, all equally likely.

    n_features : int, default=2
        Number of columns, 2 or more.

    radius : float, default=1.5
        Radius of the circle in standard deviations of a blob; 0 makes the classes
        indistinguishable.

    return_posterior : bool, default=False
        Whether to return the true probabilities as well.

    random_state : int, RandomState instance or None, default=None
        Seed of all draws; pass an int for the same data in each call.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        The samples.

    y : ndarray of shape (n_samples,)
        Their classes, integers from 0 to ``n_classes - 1``.

    posterior : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes given the row of `X`, by Bayes' rule; only if
        `return_posterior`.

    See Also
    --------
    make_spirals : Classes wound around each other.
    make_blood_alcohol : A simulation with features of different kinds.

    Examples
    --------
    >>> from skcalib.datasets import make_overlapping_blobs
    >>> X, y, posterior = make_overlapping_blobs(
    ...     200, return_posterior=True, random_state=0
    ... )
    >>> X.shape, y.shape, posterior.shape
    ((200, 2), (200,), (200, 3))
    """
    rng = check_random_state(random_state)
    angle = 2 * np.pi * np.arange(n_classes) / n_classes
    centres = np.zeros((n_classes, n_features))
    centres[:, :2] = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    y = rng.randint(n_classes, size=n_samples)
    X = centres[y] + rng.standard_normal((n_samples, n_features))
    if not return_posterior:
        return X, y
    # All centres are equally far from the origin, so their norms drop out.
    return X, y, softmax(X @ centres.T, axis=1)


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_classes": [Interval(Integral, 2, None, closed="left")],
        "turns": [Interval(Real, 0, None, closed="neither")],
        "noise": [Interval(Real, 0, None, closed="neither")],
        "return_posterior": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_spirals(
    n_samples: int = 1000,
    n_classes: int = 2,
    *,
    turns: float = 1.0,
    noise: float = 0.1,
    return_posterior: bool = False,
    random_state: Any = None,
) -> Any:
    r"""Draw noisy spirals wound around each other, and the true class probabilities.

    Class :math:`k` of :math:`K` follows the arm

    .. math:: c_k(t) = t \, (\cos \phi, \sin \phi), \qquad
        \phi = 2 \pi (\text{turns} \cdot t + k / K), \quad t \sim U(0, 1)

    and its samples scatter around it with a normal noise in both directions. Only the
    samples are random: sets of different seeds come from one distribution.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.

    n_classes : int, default=2
        Number of arms, all equally likely.

    turns : float, default=1.0
        Turns of an arm around the origin.

    noise : float, default=0.1
        Standard deviation around the arm, whose end is at distance 1.

    return_posterior : bool, default=False
        Whether to return the true probabilities as well.

    random_state : int, RandomState instance or None, default=None
        Seed of all draws; pass an int for the same data in each call.

    Returns
    -------
    X : ndarray of shape (n_samples, 2)
        The samples.

    y : ndarray of shape (n_samples,)
        Their classes, integers from 0 to ``n_classes - 1``.

    posterior : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes given the row of `X`; only if `return_posterior`.

    See Also
    --------
    make_overlapping_blobs : Classes that a linear classifier tells apart best.

    Notes
    -----
    The density of a class is the integral of the noise's density along its arm. It is
    computed by Gauss-Legendre quadrature, eight nodes in each panel of at most one
    noise's length, which is exact to about 1e-12; then follows Bayes' rule.

    Examples
    --------
    >>> from skcalib.datasets import make_spirals
    >>> X, y, posterior = make_spirals(200, return_posterior=True, random_state=0)
    >>> X.shape, y.shape, posterior.shape
    ((200, 2), (200,), (200, 2))
    """
    rng = check_random_state(random_state)
    y = rng.randint(n_classes, size=n_samples)
    along = rng.uniform(size=n_samples)
    X = _arms(along, turns, y / n_classes)
    X += noise * rng.standard_normal((n_samples, 2))
    if not return_posterior:
        return X, y
    return X, y, _spiral_posterior(X, n_classes, turns, noise)


def _arms(along, turns, start):
    """Points of the arms that start `start` of a turn after the first."""
    angle = 2 * np.pi * (turns * along + start)
    return along[..., np.newaxis] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _spiral_posterior(X, n_classes, turns, noise):
    length = 1 + 2 * np.pi * turns  # At least that of an arm.
    along, log_weight = _composite_gauss_legendre(int(np.ceil(length / noise)))
    log_density = np.empty((X.shape[0], n_classes))
    block = max(1, _BLOCK_ELEMENTS // along.shape[0])
    for k in range(n_classes):
        arm = _arms(along, turns, k / n_classes)
        for start in range(0, X.shape[0], block):
            rows = slice(start, start + block)
            squares = np.square(X[rows, np.newaxis] - arm).sum(axis=2)
            exponent = log_weight - squares / (2 * noise**2)
            log_density[rows, k] = logsumexp(exponent, axis=1)
    return softmax(log_density, axis=1)


def _composite_gauss_legendre(n_panels):
    """Nodes on [0, 1] and the logarithms of their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    panels = np.arange(n_panels)[:, np.newaxis]
    along = (panels + (nodes + 1) / 2) / n_panels
    weights = np.broadcast_to(weights / (2 * n_panels), along.shape)
    return along.ravel(), np.log(weights).ravel()
