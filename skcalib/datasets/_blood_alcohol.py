"""Simulated blood alcohol, under or over the limit, with the true probability."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.special import ndtr
from sklearn.utils import check_random_state

from skcalib._sklearn_compat import Interval, validate_params

_GRAMS_A_DRINK = 8.0
_MOST_DRINKS = 15
_HOURS = (0.5, 8.0)
# Women, men: kilograms (mean, standard deviation), and the share r of the body weight
# that alcohol spreads in, with its relative scatter between people.
_WEIGHT = np.array([[68.0, 12.0], [82.0, 13.0]])
_LEAST_WEIGHT = 40.0
_SPREAD_FACTOR = np.array([0.55, 0.68])
_SPREAD_SCATTER = 0.05
# Elimination in percentage points an hour.
_ELIMINATION_MEAN, _ELIMINATION_SCATTER = 0.015, 0.003
# Share of the alcohol that reaches the blood after no, a small and a large meal.
_ABSORBED = np.array([1.0, 0.9, 0.8])
_NODES = 64


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "limit": [Interval(Real, 0, None, closed="neither")],
        "return_posterior": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_blood_alcohol(
    n_samples: int = 1000,
    *,
    limit: float = 0.05,
    return_posterior: bool = False,
    random_state: Any = None,
) -> Any:
    r"""Simulate whether a person's blood alcohol is over the limit.

    The concentration, in percent, follows Widmark's formula

    .. math:: \mathrm{BAC} = \frac{100 \, a g}{1000 \, w r} - \beta t

    with :math:`g` grams of alcohol of which a share :math:`a` is absorbed, :math:`w`
    kilograms of body weight and :math:`t` hours. The factor :math:`r` and the
    elimination rate :math:`\beta` differ between people and are not among the features,
    so that near the limit nobody can be sure.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of people.

    limit : float, default=0.05
        Limit of the concentration in percent.

    return_posterior : bool, default=False
        Whether to return the true probabilities as well.

    random_state : int, RandomState instance or None, default=None
        Seed of all draws; pass an int for the same data in each call.

    Returns
    -------
    X : ndarray of shape (n_samples, 5)
        Columns: sex (0 woman, 1 man), weight in kilograms, number of drinks of 8 grams,
        hours since drinking, and meal (0 none, 1 small, 2 large).

    y : ndarray of shape (n_samples,)
        1 where the concentration is over the limit, else 0.

    posterior : ndarray of shape (n_samples, 2)
        Probabilities of both classes given the row of `X`; only if `return_posterior`.

    See Also
    --------
    make_overlapping_blobs, make_spirals : Data in the plane.

    Notes
    -----
    Sex and meal are drawn evenly, weights from N(68, 12) and N(82, 13), at least 40;
    drinks evenly from 1 to 15, hours from U(0.5, 8). :math:`r` is 0.55 or 0.68 times
    N(1, 0.05), :math:`\beta` is N(0.015, 0.003). Meals reduce the absorbed share to 0.9
    and 0.8. The probabilities are exact in :math:`r` and integrated over :math:`\beta`
    by Gauss-Hermite quadrature with 64 nodes, to about 1e-6.

    Examples
    --------
    >>> from skcalib.datasets import make_blood_alcohol
    >>> X, y, posterior = make_blood_alcohol(
    ...     200, return_posterior=True, random_state=0
    ... )
    >>> X.shape, y.shape, posterior.shape
    ((200, 5), (200,), (200, 2))
    """
    rng = check_random_state(random_state)
    sex = rng.randint(2, size=n_samples)
    mean, scatter = _WEIGHT[sex].T
    weight = np.maximum(mean + scatter * rng.standard_normal(n_samples), _LEAST_WEIGHT)
    drinks = rng.randint(1, _MOST_DRINKS + 1, size=n_samples)
    hours = rng.uniform(*_HOURS, size=n_samples)
    meal = rng.randint(_ABSORBED.shape[0], size=n_samples)
    X = np.column_stack([sex, weight, drinks, hours, meal]).astype(np.float64)

    spread = 1 + _SPREAD_SCATTER * rng.standard_normal(n_samples)
    elimination = _ELIMINATION_MEAN
    elimination = elimination + _ELIMINATION_SCATTER * rng.standard_normal(n_samples)
    y = (_peak(X) / spread - elimination * hours > limit).astype(np.int64)
    if not return_posterior:
        return X, y
    above = _probability_above(X, limit)
    return X, y, np.column_stack([1 - above, above])


def _peak(X):
    """Concentration in percent without elimination, for the typical factor r."""
    sex, meal = X[:, 0].astype(int), X[:, 4].astype(int)
    grams = _ABSORBED[meal] * _GRAMS_A_DRINK * X[:, 2]
    return 100 * grams / (1000 * X[:, 1] * _SPREAD_FACTOR[sex])


def _probability_above(X, limit):
    """Return P(peak / spread - elimination * hours > limit) for each row.

    Given the elimination, the event says that the normal `spread` is small enough.
    """
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(_NODES)
    elimination = _ELIMINATION_MEAN + _ELIMINATION_SCATTER * nodes
    needed = limit + X[:, 3:4] * elimination
    # Far out in the tail elimination is negative and so is `needed`: certainly above.
    largest = np.where(needed > 0, _peak(X)[:, np.newaxis] / needed, np.inf)
    above = ndtr((largest - 1) / _SPREAD_SCATTER)
    return above @ (node_weights / node_weights.sum())
