"""Bases of the perturbation: few numbers that stand for one input-sized tensor.

Every basis is orthonormal, so the norm of the perturbation is that of its coordinates.
`expand` and `reduce` take and give arrays or tensors, whichever they are handed.
"""

import math

import numpy as np
import torch


class Full:
    """One coordinate for each entry of an input."""

    def __init__(self, shape):
        self.shape = tuple(shape)
        self.dim = math.prod(self.shape)

    def expand(self, theta):
        """Return the perturbation of coordinates `theta` of shape (dim,)."""
        return theta.reshape(self.shape)

    def reduce(self, gradient):
        """Return coordinates of input-shaped values, whose leading axes are kept."""
        return gradient.reshape(*_leading(gradient, self.shape), self.dim)


class Separable:
    """A basis that is a product of one basis for each axis of an input."""

    def __init__(self, shape, factors):
        self.shape = tuple(shape)
        # None stands for the identity, which costs no product.
        self._factors = factors
        self.lengths = tuple(
            n if factor is None else factor.shape[1]
            for n, factor in zip(self.shape, factors, strict=True)
        )
        self._tensors = {}
        self.dim = math.prod(self.lengths)

    def expand(self, theta):
        """Return the perturbation of coordinates `theta` of shape (dim,)."""
        values = theta.reshape(self.lengths)
        for axis, factor in enumerate(self._like(theta)):
            if factor is not None:
                values = _apply(factor, values, axis)
        return values

    def reduce(self, gradient):
        """Return coordinates of input-shaped values, whose leading axes are kept."""
        leading = _leading(gradient, self.shape)
        values = gradient
        for axis, factor in enumerate(self._like(gradient), start=len(leading)):
            if factor is not None:
                values = _apply(factor.T, values, axis)
        return values.reshape(*leading, self.dim)

    def _like(self, values):
        """Return the factors as arrays or tensors of the type of `values`."""
        if not isinstance(values, torch.Tensor):
            return self._factors
        key = (values.device, values.dtype)
        if key not in self._tensors:
            self._tensors[key] = [
                None if factor is None else torch.as_tensor(factor).to(values)
                for factor in self._factors
            ]
        return self._tensors[key]


class Channel(Separable):
    """One coordinate for each channel: a shift of its brightness.

    `channel_axis` counts without the batch axis.
    """

    def __init__(self, shape, channel_axis=0):
        factors = [
            None if axis == channel_axis else np.full((n, 1), n**-0.5)
            for axis, n in enumerate(shape)
        ]
        super().__init__(shape, factors)


class LowFrequency(Separable):
    """The slowest `size` cosines along every axis but that of the channels.

    These are the basis functions of the orthonormal discrete cosine transform (type
    II); along an axis shorter than `size` they are all there are. Inputs of one axis
    have no channels: the cosines run along it.
    """

    def __init__(self, shape, size, channel_axis=0):
        if len(shape) == 1:
            channel_axis = None
        factors = [
            None if axis == channel_axis else cosines(n, min(size, n))
            for axis, n in enumerate(shape)
        ]
        super().__init__(shape, factors)
        self.size = size


class AllCosines(Separable):
    """As many coordinates as entries: the cosines along every axis, channels included.

    A network feels slow cosines far more than fast ones. A descent with a step size
    for each coordinate makes use of that; in pixels, each a sum of all cosines, it
    cannot.
    """

    def __init__(self, shape):
        super().__init__(shape, [cosines(n, n) for n in shape])


def cosines(length, size):
    """Return the first `size` basis functions of the DCT-II as columns."""
    position = (np.arange(length) + 0.5) * math.pi / length
    basis = np.cos(np.outer(position, np.arange(size)))
    basis *= (2 / length) ** 0.5
    basis[:, 0] = length**-0.5
    return basis


def _apply(matrix, values, axis):
    """Multiply `matrix` with `values` along one axis."""
    moved = values.swapaxes(axis, -1)
    return (moved @ matrix.T).swapaxes(axis, -1)


def _leading(values, shape):
    """Return the axes of `values` before those of one input."""
    return tuple(values.shape[: len(values.shape) - len(shape)])
