"""Limits of cumulated gaps, by the other form of their series and by simulation."""

import numpy as np
import pytest

from skcalib.metrics._brownian import largest_distance_tail, range_tail

HALVES = np.arange(60) + 0.5


def distance_cdf(x):
    terms = (-1) ** np.arange(60) / HALVES * np.exp(-((HALVES * np.pi / x) ** 2) / 2)
    return 2 / np.pi * terms.sum()


def range_cdf(x):
    squares = (HALVES * np.pi) ** 2
    return np.sum((8 / x**2 + 2 / squares) * np.exp(-2 * squares / x**2))


@pytest.mark.parametrize("x", [0.05, 0.1, 0.3, 0.7, 1.0, 1.6, 2.5, 4.0, 6.0])
def test_the_tails_are_what_the_other_series_leaves(x):
    assert largest_distance_tail(x) == pytest.approx(1 - distance_cdf(x), abs=1e-13)
    assert range_tail(x) == pytest.approx(1 - range_cdf(x), abs=1e-13)


def test_far_tails_keep_their_digits():
    # Leading terms: 4 and 8 times the upper tail of the normal distribution at 10.
    assert largest_distance_tail(10) == pytest.approx(4 * 7.619853024160527e-24)
    assert range_tail(10) == pytest.approx(8 * 7.619853024160527e-24)
    assert largest_distance_tail(np.inf) == range_tail(np.inf) == 0


def test_a_random_walk_strays_as_far():
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(2000, 2000)) / np.sqrt(2000)
    path = np.cumsum(steps, axis=1)
    share = np.mean(np.abs(path).max(axis=1) > 1.5)
    assert share == pytest.approx(largest_distance_tail(1.5), abs=0.03)
    high, low = np.maximum(path.max(axis=1), 0), np.minimum(path.min(axis=1), 0)
    assert np.mean(high - low > 2) == pytest.approx(range_tail(2.0), abs=0.04)
