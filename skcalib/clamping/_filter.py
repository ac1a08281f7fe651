r"""The basis of filters: the weights of a small convolution and an offset.

The change of an input x is w * (x - m) + b, with m the mean of each channel: the
weights turn about the mean and the offset b moves it. Written without m, the offset is
b - m sum(w).

Coordinates are scaled so that the Euclidean norm of the change is about that of theta,
as for a tensor that is added: with n the entries of a channel, s_i their standard
deviation and s that of all channels together, the weight with which channel o reads
channel i is theta s_o / (s_i s sqrt(n)), and the offset of channel o is in units of
s_o / s. So the ridge |theta|^2 asks for the identity, in the same units for all
perturbations, and whatever the unit of a channel. All of this is ours.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skcalib.clamping._change import MOST_AXES, Change, correlation
from skcalib.clamping._perturbation import (
    Basis,
    Perturbation,
    Product,
    channel_axis,
    like,
)

# Deviation of a channel that does not vary, as a share of that of all.
SMALLEST_SHARE = 1e-9


class Filter(Basis):
    """Weights of a filter of odd size, and an offset in a basis of its own.

    Parameters
    ----------
    shape : tuple of int
        Shape of one input. Every axis but that of the channels is filtered along; one
        axis alone holds features, each with a gain.

    size : int
        Taps along every axis.

    own : bool
        Whether each channel has a filter of its own, or each sees all channels.

    offset : Product
        The basis of what is added.

    mean, deviation : ndarray of shape (n_channels,)
        Of each channel of the calibration inputs.
    """

    def __init__(
        self,
        shape: Sequence[int],
        size: int,
        own: bool,
        offset: Product,
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
    ) -> None:
        self.shape = tuple(shape)
        self.axis = channel_axis(shape)
        spatial = [n for axis, n in enumerate(shape) if axis != self.axis]
        check_fits(self.shape, spatial, size)
        self.size, self.own, self.offset = size, own, offset
        n_channels = shape[self.axis]
        n_inputs = 1 if own else n_channels
        self._kernel_shape = (n_channels, n_inputs, *[size] * len(spatial))
        self._n_weights = math.prod(self._kernel_shape)
        self.dim = self._n_weights + offset.dim
        overall = math.sqrt(float((deviation**2).mean()))
        deviation = np.maximum(deviation, SMALLEST_SHARE * overall)
        self.unit = math.sqrt(math.prod(spatial))
        # The channel that a weight reads is its own, or that of the second axis.
        taps = [1] * len(spatial)
        read = (n_channels, 1, *taps) if own else (1, n_channels, *taps)
        by_output = deviation.reshape(n_channels, 1, *taps)
        self._mean = mean.reshape(read)
        self._scale = overall * self.unit * deviation.reshape(read) / by_output
        along = [n_channels if axis == self.axis else 1 for axis in range(len(shape))]
        self._share = (deviation / overall).reshape(along)
        self._along = tuple(along)

    def at(self, theta: Any) -> Perturbation:
        weights, rest = theta[: self._n_weights], theta[self._n_weights :]
        mean, scale, share = self._like(theta)
        kernel = weights.reshape(self._kernel_shape) / scale
        delta = self.offset.expand(rest) * share - self._moved(kernel * mean)
        return Perturbation(self, theta, Change(delta, kernel, self.axis))

    def coordinates(self, change: Change) -> NDArray[np.float64]:
        kernel = change.kernel
        if kernel is None:
            kernel = np.zeros(self._kernel_shape)
        offset = (change.delta + self._moved(kernel * self._mean)) / self._share
        weights = (kernel * self._scale).ravel()
        return np.concatenate([weights, self.offset.reduce(offset)])

    def gather(self, by_parts: Sequence[Any]) -> Any:
        by_delta, by_kernel = by_parts
        return self._reduce(by_kernel.reshape(1, -1), by_delta[None])[0]

    def puller(self, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        by_kernel = correlation(x, self._kernel_shape[2:], self.axis, own=self.own)
        return lambda gradient: self._reduce(by_kernel(gradient), gradient)

    def columns_of(self, small: Basis) -> Any:
        if small is self:
            return slice(None)
        if not isinstance(small, Filter) or small.size > self.size:
            return None
        if self.own and not small.own:
            return None
        alike = type(small.offset) is type(self.offset)
        if not alike or small.offset.dim != self.offset.dim:
            return None
        number = np.arange(self._n_weights).reshape(self._kernel_shape)
        first = (self.size - small.size) // 2
        window = slice(first, first + small.size)
        part = number[(slice(None), slice(None), *[window] * (number.ndim - 2))]
        if small.own and not self.own:
            diagonal = np.arange(part.shape[0])
            part = part[diagonal, diagonal]
        offset = self._n_weights + np.arange(self.offset.dim)
        return np.concatenate([part.ravel(), offset])

    def _reduce(self, by_kernel: Any, by_delta: Any) -> Any:
        """Return rows of gradients by theta, from those by kernel and delta."""
        mean, scale, share = self._like(by_delta)
        n = by_delta.shape[0]
        others = tuple(a + 1 for a in range(len(self.shape)) if a != self.axis)
        by_mean = by_delta.sum(others) if others else by_delta
        by_mean = by_mean.reshape(n, -1, *[1] * (len(self._kernel_shape) - 1))
        by_kernel = by_kernel.reshape(n, *self._kernel_shape) - by_mean * mean
        parts = [
            (by_kernel / scale).reshape(n, -1),
            self.offset.reduce(by_delta * share),
        ]
        if isinstance(by_delta, torch.Tensor):
            return torch.cat(parts, dim=1)
        return np.concatenate(parts, axis=1)

    def _moved(self, kernel: Any) -> Any:
        """Return the sum of each channel's weights, to broadcast over an input."""
        return kernel.reshape(kernel.shape[0], -1).sum(1).reshape(self._along)

    def _like(self, values: Any) -> Sequence[Any]:
        return like((self._mean, self._scale, self._share), values)


def check_fits(shape: tuple[int, ...], spatial: Sequence[int], size: int) -> None:
    """Refuse inputs that a filter does not fit into."""
    if len(spatial) > MOST_AXES:
        raise ValueError(
            f"Inputs of shape {shape} have {len(spatial)} axes beside that of their "
            f"channels; a filter runs along {MOST_AXES} at most. Choose another "
            "perturbation, such as 'low_frequency'."
        )
    if any(n < size for n in spatial):
        raise ValueError(
            f"A filter of size {size} does not fit inputs of shape {shape}, which are "
            "shorter along an axis. Take a smaller one, such as perturbation='gain'."
        )
