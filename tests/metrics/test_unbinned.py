"""KS error, smooth ECE and entropy, against their formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import brentq

from skcalib.metrics import (
    ks_calibration_error,
    kuiper_calibration_error,
    predictive_entropy,
    smooth_calibration_error,
)
from skcalib.metrics._smooth import smooth_error, smooth_errors


def draw(seed, n, shift=0.1):
    rng = np.random.default_rng(seed)
    proba = rng.uniform(0.5, 1, n)
    return (rng.random(n) < proba - shift).astype(int), proba


def slow_smooth_error(proba, hit):
    """The definition, with the mirror images of the kernel summed one by one."""
    grid = (np.arange(2000) + 0.5) / 2000

    def error(width):
        density = np.zeros_like(grid)
        n_images = int(np.ceil(5 * width)) + 1
        for shift in 2 * np.arange(-n_images, n_images + 1):
            for centre in (proba + shift, shift - proba):
                kernel = np.exp(-(((grid[:, np.newaxis] - centre) / width) ** 2) / 2)
                density += kernel @ (hit - proba)
        scale = width * np.sqrt(2 * np.pi) * len(proba)
        return np.abs(density).mean() / scale

    return brentq(lambda width: error(width) - width, 1e-3, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "shift"),
    [(4, 0), (4, 0.1), (4, 0.3), (30, 0), (30, 0.1), (30, 0.3), (300, 0.1)],
)
def test_smooth_error_equals_its_formula(n, shift):
    y, proba = draw(0, n, shift)
    expected = slow_smooth_error(proba, y)
    assert smooth_calibration_error(y, proba) == pytest.approx(expected, rel=2e-5)


def test_smooth_error_of_a_shifted_classifier_is_the_shift():
    y, proba = draw(0, 200_000, 0.2)
    assert smooth_calibration_error(y, proba) == pytest.approx(0.2, abs=0.005)


def test_smooth_error_of_residuals_of_one_sign_is_their_mean():
    # However small it is, and of a network that is right and sure in one step.
    for gap in (1e-6, 1e-12, 0.3):
        proba = np.full(500, 1 - gap)
        error = smooth_calibration_error(np.ones(500), proba, labels=[0, 1])
        assert error == pytest.approx(gap, rel=1e-3)
    y, proba = np.zeros(3), np.array([0.6, 0.7, 0.95])
    error = smooth_calibration_error(y, proba, labels=[0, 1])
    assert error == pytest.approx(0.75)


def test_smooth_error_resolves_small_values():
    # Gaps of 1e-4 at one confidence: the fixed point is the gap itself.
    y = np.repeat([1, 0], [8001, 1999])
    error = smooth_calibration_error(y, np.full(10_000, 0.8))
    assert error == pytest.approx(1e-4, rel=1e-4)


def test_smooth_errors_of_every_size_stand_beside_one_another():
    # Rows of weights whose fixed points lie on different grids, the last one included.
    rng = np.random.default_rng(0)
    proba = np.concatenate([rng.uniform(0.5, 1, 600), 1 - rng.exponential(1e-5, 600)])
    hit = (rng.random(1200) < proba).astype(float)
    hit[600:] = 1
    sure = np.arange(1200) >= 600
    shares = [0.0, 1e-4, 1e-3, 0.01, 0.1, 1.0]
    weights = np.stack([np.where(sure, 1, share) for share in shares])
    together = smooth_errors(proba, hit, weights)
    alone = [smooth_error(proba, hit, weight) for weight in weights]
    assert_allclose(together, alone, rtol=1e-10)
    assert (np.diff(together) > 0).all()
    mean = np.abs(hit - proba)[sure].mean()
    assert together[0] == pytest.approx(mean, abs=1e-8)


def test_smooth_error_of_wide_and_narrow_kernels_equals_that_of_a_finer_grid(
    monkeypatch,
):
    for n, shift in ((50, 0.3), (500, 0.1), (5000, 0.02), (5000, 0)):
        y, proba = draw(1, n, shift)
        error = smooth_calibration_error(y, proba)
        with monkeypatch.context() as patch:
            patch.setattr("skcalib.metrics._smooth.STEPS_PER_WIDTH", 128)
            finer = smooth_calibration_error(y, proba)
        assert error == pytest.approx(finer, rel=1e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 100))
@settings(max_examples=25, deadline=None)
def test_smooth_error_never_exceeds_the_mean_residual(seed, n):
    y, proba = draw(seed, n)
    error = smooth_calibration_error(y, proba)
    assert 0 <= error <= np.abs(y - proba).mean() + 1e-9


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_ks_error_equals_its_formula(seed, n):
    y, proba = draw(seed, n)
    order = np.argsort(proba)
    expected = np.abs(np.cumsum(proba[order] - y[order])).max() / n
    assert ks_calibration_error(y, proba) == pytest.approx(expected, abs=1e-12)


def test_ks_error_counts_equal_confidences_together():
    # Taken one by one, three misses before three hits would pass through 0.45.
    error = ks_calibration_error([0, 0, 0, 1, 1, 1], np.full(6, 0.9))
    assert error == pytest.approx(0.4, abs=1e-12)


def test_entropy_equals_its_formula():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(5), size=100)
    expected = -(proba * np.log(proba)).sum(axis=1)
    assert_allclose(predictive_entropy(None, proba, per_sample=True), expected)
    assert predictive_entropy(None, proba) == pytest.approx(expected.mean())


def test_entropy_of_zeros_and_of_equal_probabilities():
    proba = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    entropy = predictive_entropy(None, proba, per_sample=True)
    assert_allclose(entropy, [0, np.log(2)])
    uniform = np.full((2, 1000), 1e-3, dtype=np.float32)
    assert predictive_entropy(None, uniform) == pytest.approx(np.log(1000), rel=1e-6)


def test_entropy_checks_the_rows_it_is_given():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        predictive_entropy([0, 1, 0], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="sums to"):
        predictive_entropy(None, [[3.0, -2.0, 0.5], [0.5, 0.5, 0.5]][1:])


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_kuiper_error_equals_its_formula(seed, n):
    y, proba = draw(seed, n)
    order = np.argsort(proba)
    path = np.append(0, np.cumsum(proba[order] - y[order])) / n
    expected = path.max() - path.min()
    assert kuiper_calibration_error(y, proba) == pytest.approx(expected, abs=1e-12)


def test_kuiper_error_adds_what_cancels_in_the_ks_error():
    # Of 100 rows each, 20 hits more than stated, then 20 less and 15 less.
    y = np.repeat([1, 0, 1, 0, 1, 0], [80, 20, 70, 30, 80, 20])
    proba = np.repeat([0.6, 0.9, 0.95], 100)
    assert ks_calibration_error(y, proba) == pytest.approx(20 / 300)
    assert kuiper_calibration_error(y, proba) == pytest.approx(35 / 300)
