"""ECE sweep, against a slow reading of its definition."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skcalib.metrics import sweep_calibration_error


def slow_sweep(score, hit, norm):
    """Split the sorted rows into more and more parts, ties sharing their hits."""
    even = hit.astype(float)
    for value in np.unique(score):
        even[score == value] = hit[score == value].mean()
    order = np.argsort(score)
    score, even = score[order], even[order]
    best = 1
    for n_bins in range(2, len(np.unique(score)) + 1):
        accuracy = [part.mean() for part in np.array_split(even, n_bins)]
        if (np.diff(accuracy) < -1e-10).any():
            break
        best = n_bins
    parts = zip(np.array_split(score, best), np.array_split(even, best), strict=True)
    gaps = [(len(s) / len(score), abs(s.mean() - h.mean())) for s, h in parts]
    return sum(w * g**norm for w, g in gaps) ** (1 / norm)


@pytest.mark.slow
@given(
    norm=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    decimals=st.sampled_from([1, 2, 9]),
    power=st.sampled_from([0, 0.3, 1, 3, 100]),
)
@settings(max_examples=60, deadline=None)
def test_the_sweep_equals_its_definition(norm, seed, n, decimals, power):
    rng = np.random.default_rng(seed)
    proba = np.round(rng.uniform(0.5, 1, n), decimals)
    # From independent of the confidence to fully sorted by it.
    y = (rng.random(n) ** (1 / max(power, 1)) < (2 * proba - 1) ** power).astype(int)
    y[proba == 0.5] = 0  # The first of two equal columns is predicted.
    hit = np.where(proba == 0.5, 1 - y, y)
    error = sweep_calibration_error(y, proba, norm=norm)
    assert error == pytest.approx(slow_sweep(proba, hit, norm), abs=1e-12)


def test_sorted_outcomes_take_as_many_bins_as_rows():
    proba = np.linspace(0.51, 0.99, 40)
    y = (np.arange(40) >= 25).astype(int)
    expected = np.abs(proba - y).mean()
    assert sweep_calibration_error(y, proba) == pytest.approx(expected, abs=1e-12)


def test_outcomes_in_reverse_take_one_bin():
    proba = np.linspace(0.51, 0.99, 40)
    y = (np.arange(40) < 25).astype(int)
    expected = abs(proba.mean() - 25 / 40)
    assert sweep_calibration_error(y, proba) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_wrong", [0, 1, 50])
def test_nearly_sorted_outcomes_do_not_take_quadratic_time(n_wrong):
    n = 200_000
    rng = np.random.default_rng(0)
    proba = np.sort(rng.uniform(0.5, 1, n))
    y = (proba > 0.7).astype(int)
    swapped = np.searchsorted(proba, 0.7) + np.arange(-n_wrong, n_wrong)
    y[swapped] = rng.integers(0, 2, 2 * n_wrong)
    start = time.process_time()
    error = sweep_calibration_error(y, proba)
    assert time.process_time() - start < 5
    assert error == pytest.approx(np.abs(proba - y).mean(), abs=1e-3)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm=3 is not known"):
        sweep_calibration_error([0, 1], [0.2, 0.7], norm=3)
