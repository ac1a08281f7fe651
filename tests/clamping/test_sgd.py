"""Mini-batch training as a solver."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping  # noqa: E402

pytestmark = pytest.mark.torch

OFFSET = np.array([2.0, 0.0, -1.0, -1.0])


def identity(x):
    return 1 * x


def draw(scale=1.0, n=2000):
    """Draw logits that lack an offset and are twice too large, in any units."""
    rng = np.random.default_rng(0)
    X = 3 * rng.normal(size=(n, 4))
    y = ((X + OFFSET) / 2 + rng.gumbel(size=X.shape)).argmax(axis=1)
    return (scale * X).astype(np.float32), y


def fit(X, y, **options):
    options = {"solver": "sgd", "penalty": 0.0, "gamma": 0, **options}
    return NeuralClamping(identity, **options).fit(X, y)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("fraction", [None, 0.1])
def test_a_lacking_offset_is_found_in_any_units(scale, fraction):
    X, y = draw(scale)
    nc = fit(X, y, validation_fraction=fraction, max_iter=8)
    delta = nc.delta_ / scale
    assert_allclose(delta - delta.mean(), OFFSET - OFFSET.mean(), atol=0.3)
    assert nc.temperature_ / scale == pytest.approx(2, rel=0.1)
    assert nc.n_iter_ <= 8


def test_the_temperature_that_is_served_is_exact():
    X, y = draw()
    nc = fit(X, y, max_iter=2)
    fixed = fit(X, y, solver="fixed_delta", start=nc.delta_)
    assert nc.temperature_ == pytest.approx(fixed.temperature_, rel=1e-6)


def test_the_same_seed_gives_the_same_perturbation():
    X, y = draw(n=200)
    first, second, other = (fit(X, y, random_state=seed) for seed in (0, 0, 1))
    assert_allclose(first.delta_, second.delta_, atol=0)
    assert not np.array_equal(first.delta_, other.delta_)
