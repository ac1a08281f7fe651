"""The bases of the perturbation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.fft import dctn

torch = pytest.importorskip("torch")

from skcalib.clamping._perturbation import (  # noqa: E402
    AllCosines,
    Channel,
    Full,
    LowFrequency,
    channel_axis,
)

BASES = [
    Full((3, 6, 8)),
    Channel((3, 6, 8)),
    LowFrequency((3, 6, 8), 4),
    LowFrequency((6, 8, 3), 4),
    LowFrequency((2, 9), 4),
    LowFrequency((20,), 5),
    LowFrequency((3, 2, 9), 4),
    AllCosines((3, 4, 5)),
]


@pytest.fixture(params=BASES, ids=lambda b: f"{type(b).__name__}{b.shape}")
def basis(request):
    return request.param


def test_expansion_keeps_the_norm_and_reduction_undoes_it(basis):
    theta = np.random.default_rng(0).normal(size=basis.dim)
    delta = basis.expand(theta)
    assert delta.shape == basis.shape
    assert np.linalg.norm(delta) == pytest.approx(np.linalg.norm(theta))
    assert_allclose(basis.reduce(delta), theta, atol=1e-12)


def test_reduction_is_the_transpose_of_expansion(basis):
    rng = np.random.default_rng(0)
    theta, gradient = rng.normal(size=basis.dim), rng.normal(size=basis.shape)
    inner = (basis.expand(theta) * gradient).sum()
    assert basis.reduce(gradient) @ theta == pytest.approx(inner)


def test_leading_axes_are_reduced_one_by_one(basis):
    values = np.random.default_rng(0).normal(size=(2, 5, *basis.shape))
    reduced = basis.reduce(values)
    assert reduced.shape == (2, 5, basis.dim)
    assert_allclose(reduced[1, 3], basis.reduce(values[1, 3]))


def test_tensors_give_the_numbers_of_arrays(basis):
    theta = np.random.default_rng(0).normal(size=basis.dim)
    delta = basis.expand(torch.from_numpy(theta))
    assert_allclose(delta.numpy(), basis.expand(theta), atol=1e-12)
    assert_allclose(basis.reduce(delta).numpy(), theta, atol=1e-12)
    assert basis.expand(torch.zeros(basis.dim)).dtype == torch.float32


def test_low_frequencies_are_the_first_cosine_coefficients_of_each_channel():
    delta = np.random.default_rng(0).normal(size=(3, 6, 8))
    coefficients = dctn(delta, type=2, norm="ortho", axes=(1, 2))[:, :4, :4]
    reduced = LowFrequency((3, 6, 8), 4).reduce(delta)
    assert_allclose(reduced, coefficients.ravel(), atol=1e-12)


def test_a_channel_coordinate_shifts_one_channel_evenly():
    delta = Channel((3, 4, 4)).expand(np.array([0.0, 2.0, 0.0]))
    assert_allclose(delta[1], 0.5)
    assert_allclose(delta[[0, 2]], 0)


def test_short_axes_have_fewer_coefficients():
    assert LowFrequency((3, 2, 9), 4).dim == 3 * 2 * 4
    assert LowFrequency((20,), 30).dim == 20


def test_few_cosines_are_part_of_more():
    shape = (3, 10, 12)
    small, large = LowFrequency(shape, 4), LowFrequency(shape, 8)
    theta = np.random.default_rng(0).normal(size=small.dim)
    inside = np.zeros(large.dim)
    inside[large.columns_of(small)] = theta
    assert_allclose(large.expand(inside), small.expand(theta), atol=1e-12)


def test_a_basis_of_another_kind_is_no_part_of_one():
    shape = (3, 10, 12)
    assert LowFrequency(shape, 8).columns_of(Channel(shape)) is None
    assert Full(shape).columns_of(LowFrequency(shape, 4)) is None


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 32, 32), 0), ((32, 32, 3), 2), ((1, 28, 28), 0), ((9,), 0)]
)
def test_the_axis_of_the_channels(shape, axis):
    assert channel_axis(shape) == axis
