"""NumPy's functions on a DeviceArray give what they give on an array."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import entr, expit

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

EXPRESSIONS = {
    "a number is weak": lambda x, i: x.astype(np.float32) * 0.1,
    "one of NumPy is not": lambda x, i: x.astype(np.float32) * np.float64(0.1),
    "true division of whole numbers": lambda x, i: i / 3,
    "products of truths": lambda x, i: (x > 0) * x,
    "comparison with an array": lambda x, i: i == np.arange(i.shape[0]),
    "an array from the left": lambda x, i: np.ones(3) @ x.T,
    "in place": lambda x, i: np.exp(x.copy(), out=x.copy()),
    "largest": lambda x, i: x.max(axis=1, keepdims=True),
    "first that holds": lambda x, i: (np.rint(x.sum(axis=1)) > 0).argmax(axis=0),
    "rows and columns": lambda x, i: x[np.arange(i.shape[0], like=i), i % 3],
    "a new axis": lambda x, i: x[:, np.newaxis] - x[np.newaxis],
    "by a mask": lambda x, i: x[:, 0][x[:, 1] > 0],
    "counts": lambda x, i: np.bincount(i % 3, x[:, 0], 5),
    "counts of rows": lambda x, i: np.bincount(i % 3),
    "places": lambda x, i: np.searchsorted(np.array([-1.0, 0, 1]), x, side="right"),
    "lines": lambda x, i: np.interp(x, np.array([-1, 0, 0.5]), np.array([0, 2.0, 1])),
    "one knot": lambda x, i: np.interp(x, np.array([0.5]), np.array([2.0])),
    "sums over an axis": lambda x, i: np.einsum("ij,ij->j", x, x),
    "products of rows": lambda x, i: np.vecdot(x, x),
    "largest of all": lambda x, i: x.max() + x.min() + x.sum(),
    "cut": lambda x, i: np.clip(x, -0.5, 0.5),
    "chosen": lambda x, i: np.where(x > 0, x, 0),
    "the last": lambda x, i: np.partition(x, 1, axis=1)[:, 2],
    "cumulated": lambda x, i: np.cumsum(x, axis=-1) + np.cumsum(x)[-1],
    "beside each other": lambda x, i: np.column_stack([x, i, np.hstack([x, x])]),
    "new ones": lambda x, i: np.full(3, 2.5, like=x) + np.ones(3, like=x),
    "quotient and remainder": lambda x, i: np.stack(np.divmod(i, 3)),
    "places of what is not 0": lambda x, i: np.flatnonzero(x > 0),
    "of SciPy": lambda x, i: expit(x) + entr(expit(x)),
    "powers": lambda x, i: (x**2) ** 0.3,
    "all and any": lambda x, i: np.isfinite(x).all() & ~(x > 9).any(axis=1),
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_a_tensor_is_computed_with_as_an_array(expression):
    from skcalib._blocks._device_array import DeviceArray

    x = np.random.default_rng(0).normal(size=(6, 3))
    i = np.array([4, 1, 3, 2, 2, 0])
    expected = np.asarray(expression(x, i))
    found = expression(DeviceArray(torch.tensor(x)), DeviceArray(torch.tensor(i)))
    assert isinstance(found, DeviceArray)
    assert found.dtype == expected.dtype
    assert_allclose(found.on_host(), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("compute", "what"),
    [
        (lambda x: np.fft.fft(x), "numpy.fft"),
        (lambda x: np.arctan2(x, x), "numpy.arctan2"),
        (lambda x: np.add.reduceat(x, [0, 1]), "numpy.add"),
        (lambda x: np.add(np.ones(3), x, out=np.ones(3)), "into an array"),
        (lambda x: np.asarray(x), "This"),
    ],
)
def test_what_is_not_known_is_refused_by_name(compute, what):
    from skcalib._blocks._device_array import DeviceArray

    with pytest.raises(TypeError, match=rf"{what}.* is not computed on cpu") as caught:
        compute(DeviceArray(torch.ones(3, dtype=torch.float64)))
    assert "Pass tensor.cpu()" in str(caught.value)
