import numpy as np
import pytest

from skcalib._blocks import CalibrationData, open_source
from skcalib.calibrators._seen_range import sensible_range


def test_the_range_reaches_from_the_middle_of_the_largest_logits():
    # Of each row the largest logit is 3, 4 or 5 and the second is 1 below it.
    top = np.array([3.0, 4.0, 5.0, 4.0])
    logits = np.column_stack([top, top - 1, np.full(4, -7.0)])
    data = CalibrationData(open_source(logits), np.array([0, 1, 0, 2]), np.ones(4))
    middle, spread = 4.0, 0.5
    reach = 1e3 * 2.5 + 1e2 * spread
    assert sensible_range(data, 2.5) == (middle - reach, middle + reach)


def test_the_distance_of_the_two_largest_logits_counts_where_the_temperature_is_low():
    logits = np.tile([8.0, 5.0, -7.0], (4, 1))
    data = CalibrationData(open_source(logits), np.array([0, 1, 0, 2]), np.ones(4))
    lower, upper = sensible_range(data, 0.1)
    assert upper - 8 == 8 - lower == pytest.approx(1e3 * 3)
