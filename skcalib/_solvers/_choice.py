"""Which of several candidates to take, judged on the same units.

A unit is a row, a fold or a split. The standard error is that of the mean difference
between two candidates, whose scores of one unit go together.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_and_error(
    values: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[Any, Any]:
    """Return weighted means along the last axis and their standard errors.

    Weights count repetitions, so the error is that of the repeated units.
    """
    total = weight.sum()
    mean = values @ weight / total
    square = (values - np.expand_dims(mean, -1)) ** 2 @ weight / total
    return mean, np.sqrt(square / max(total - 1, 1))


def choose(
    scores: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    one_standard_error: bool,
) -> int:
    """Return the row of the best candidate, or the first that it does not beat.

    It beats another one by more than one standard error of their difference (Hastie,
    Tibshirani & Friedman, "The Elements of Statistical Learning", section 7.10).
    `scores` are (candidates, units), the simplest candidate first.
    """
    best = int((scores @ weight).argmax())
    if not one_standard_error:
        return best
    gap, error = mean_and_error(scores[best] - scores, weight)
    return int((gap <= error).argmax())
