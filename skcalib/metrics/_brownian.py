r"""How far a Brownian motion strays on [0, 1]: the limits of cumulated gaps.

Of a calibrated classifier the cumulated gaps of n rows, divided by the root of
:math:`\sum_i p_i (1 - p_i)`, tend to a Brownian motion :math:`B` [Arrieta-Ibarra,
Gujral, Tannen, Tygert & Xu, Metrics of Calibration for Probabilistic Predictions, JMLR
2022]. With :math:`\bar\Phi` the upper tail of the normal distribution,

- :math:`P(\max |B| > x) = 4 \sum_{k \ge 1} (-1)^{k-1} \bar\Phi((2k - 1) x)`, by the
  reflection principle;
- :math:`P(\max B - \min B > x) = 8 \sum_{k \ge 1} (-1)^{k-1} k \, \bar\Phi(k x)`, the
  integral of the density of Feller [The Asymptotic Distribution of the Range of Sums of
  Independent Random Variables, Annals of Mathematical Statistics 1951].

Both are exact far out, where one term is left. The other form of these series, in
:math:`\exp(-c / x^2)`, would lose small p-values to the rounding of 1 - P.
"""

import numpy as np
from scipy.special import ndtr

# Below, the probability is 1 to the last digit; above, some hundred terms are enough.
SMALLEST = 0.1
TERMS = np.arange(1.0, 401.0)
SIGNS = np.where(TERMS % 2 == 1, 1.0, -1.0)


def largest_distance_tail(x: float) -> float:
    """Probability that the largest distance from 0 exceeds `x`."""
    return _sum(4 * ndtr(-(2 * TERMS - 1) * x), x)


def range_tail(x: float) -> float:
    """Probability that highest and lowest point are farther apart than `x`."""
    return _sum(8 * TERMS * ndtr(-TERMS * x), x)


def _sum(terms: np.ndarray, x: float) -> float:
    return 1.0 if x < SMALLEST else float(np.clip(SIGNS @ terms, 0, 1))
