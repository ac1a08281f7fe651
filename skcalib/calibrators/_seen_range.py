"""Where to cut masked logits before an affine map is fitted to them."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._numerics import LARGEST_LOGIT, cut_logits
from skcalib._solvers._temperature import subsample, typical_gap

# In units of the temperature: what lies this far below the largest logit of its row has
# probability 0 before the cut and after it.
DEPTH = 1e3
# In units of the typical distance of a row's largest logit from the middle of them.
SPREAD = 1e2


def sensible_range(data: CalibrationData, temperature: float) -> tuple[float, float]:
    """Return the interval outside which logits say nothing but "masked"."""
    sample = subsample(data)
    largest = sample.rows(_largest)
    middle = float(np.median(largest))
    spread = float(np.median(np.abs(largest - middle)))
    reach = DEPTH * max(temperature, typical_gap(sample)) + SPREAD * spread
    # Predictions cut all logits to these bounds first.
    return max(middle - reach, -LARGEST_LOGIT), min(middle + reach, LARGEST_LOGIT)


def _largest(logits: NDArray, codes: NDArray, weight: NDArray) -> NDArray:
    return cut_logits(logits).max(axis=1)


def clip_masked(
    data: CalibrationData, temperature: float
) -> tuple[CalibrationData, tuple[float, float]]:
    """Cut the logits to their sensible range; return the range too."""
    lower, upper = sensible_range(data, temperature)
    if data.sum(partial(_count_outside, lower, upper)):
        data = data.mapped(partial(_clip_, lower, upper))
    return data, (lower, upper)


def _count_outside(
    lower: float, upper: float, logits: NDArray, codes: NDArray, weight: NDArray
) -> int:
    return int(logits.min() < lower) + int(logits.max() > upper)


def _clip_(lower: float, upper: float, block: NDArray) -> NDArray:
    return np.clip(block, lower, upper, out=block)
