r"""From wealths to evidence: groups, and labels that come late.

**Groups.** Half of the capital is wagered on all rows together, the other half in equal
parts on the rows of each group. The weights are fixed beforehand, so that the sum is a
wealth again.

**Delay.** Where the label of a row comes h rows late, calibration can only mean what
was known when the row was told:

    P(y_t = k | p_t and the rows up to t - h) = p_tk .

Labels less than h apart may then hang together, and the product over all rows is no
supermartingale. That over every h-th row is: there are h interleaved streams, each with
a wealth of its own, and nothing is known of them together. The supremum of each obeys
P(sup E >= y) <= 1 / y, so that, for F that does not fall,

    E F(sup E) <= 1   if   the integral of F(y) / y^2 from 1 to infinity is at most 1

[Shafer, Shen, Vereshchagin & Vovk, "Test Martingales, Bayes Factors and p-Values",
2011]. Here F(y) = (y - 1 - ln y) / ln(y)^2, the uniform mixture of a y^(1-a) over
0 < a < 1. The mean of the h values F(sup E_i) never falls, whatever the dependence
between the streams, and by Markov's inequality its limit reaches 1 / alpha with
probability at most alpha. The mean of the wealths themselves, the proposal of Arnold,
Henzi & Ziegel (2023), is not bounded so at a time chosen by looking at it.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]

# Below it the logarithm of F is taken from its series, which does not cancel.
_SMALL = 1e-3


def over_groups(log_wealths: list[float]) -> float:
    """Return the log wealth of the whole, which comes first, and of the groups."""
    whole, *groups = log_wealths
    if not groups:
        return whole
    of_groups = logsumexp(groups) - np.log(len(groups))
    return float(np.logaddexp(whole, of_groups) - np.log(2))


def adjusted(log_supremum: Array) -> Array:
    """Return ln F(y) of suprema y >= 1, by their logarithms."""
    x = np.maximum(log_supremum, 0)
    series = np.log(0.5 + np.minimum(x, _SMALL) / 6)
    safe = np.maximum(x, _SMALL)
    # ln(e^x - 1 - x), which e^x alone would overflow.
    large = safe + np.log1p(-(1 + safe) * np.exp(-safe)) - 2 * np.log(safe)
    return np.where(x > _SMALL, large, series)


def over_streams(log_suprema: Array) -> float:
    """Return the log evidence of interleaved streams, by their suprema so far."""
    return float(logsumexp(adjusted(log_suprema)) - np.log(log_suprema.size))
