"""The space that a perturbation lives in: the inputs' own, or that of normalised ones.

Tang, Chen & Ho ("Neural Clamping", TMLR 2024) perturb normalised images, (x - m) / s
with one mean m and one deviation s a channel. A network that normalises by itself, or
whose inputs are not normalised at all, takes x + s d for the perturbation d of that
space: the mean moves nothing. So a basis is put between: its coordinates, steps and
penalties are those of the space, the change that it makes is that of the inputs, and
predictions and exports know nothing of it.

A filter of the space is one of the inputs whose weight from channel i to channel o
counts s_o / s_i times as much.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skcalib.clamping._change import Change
from skcalib.clamping._perturbation import Basis, Perturbation, channel_axis, like


class InSpace(Basis):
    """A basis of perturbations of x / s, as one of perturbations of x.

    Parameters
    ----------
    basis : Basis
        Coordinates of perturbations in the space.

    scale : ndarray of shape (n_channels,)
        What is one in the space, in the units of each channel.
    """

    def __init__(self, basis: Basis, scale: NDArray[np.float64]) -> None:
        self.shape, self.dim, self.unit = basis.shape, basis.dim, basis.unit
        self._basis, self._scale = basis, scale
        self._axis = channel_axis(basis.shape)

    def at(self, theta: Any) -> Perturbation:
        change = self._basis.at(theta).change
        return Perturbation(self, theta, self._scaled(change, operator.mul))

    def coordinates(self, change: Change) -> NDArray[np.float64]:
        return self._basis.coordinates(self._scaled(change, operator.truediv))

    def gather(self, by_parts: Sequence[Any]) -> Any:
        factors = self._factors(by_parts)
        return self._basis.gather([*map(operator.mul, by_parts, factors)])

    def puller(self, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        (factor,) = self._factors([x[0]])
        pull = self._basis.puller(x / factor)
        return lambda gradient: pull(gradient * factor)

    def columns_of(self, small: Basis) -> Any:
        if not isinstance(small, InSpace):
            return None
        return self._basis.columns_of(small._basis)

    def _scaled(self, change: Change, by: Callable[[Any, Any], Any]) -> Change:
        delta, *kernel = map(by, change.parts, self._factors(change.parts))
        return Change(delta, kernel[0] if kernel else None, self._axis)

    def _factors(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Return by what the parts of a change of the inputs are larger."""
        along = [1] * len(self.shape)
        along[self._axis] = -1
        factors = [self._scale.reshape(along)]
        if len(parts) > 1:
            outer = self._scale[:, np.newaxis] / self._scale
            shape = parts[1].shape
            ratio = outer if shape[1] > 1 else np.ones((shape[0], 1))
            factors.append(ratio.reshape(*ratio.shape, *[1] * (len(shape) - 2)))
        return like(factors, parts[0])


def in_space(basis: Basis, scale: NDArray[np.float64] | None) -> Basis:
    """Return the basis of perturbations of the inputs."""
    return basis if scale is None else InSpace(basis, scale)


def scale_of(
    space: Any, shape: Sequence[int], deviation: Callable[[], NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Return what is one in the space, a number a channel; None for the inputs' own.

    `deviation` gives that of each channel of the calibration inputs.
    """
    if isinstance(space, str):
        return None if space == "raw" else deviation()
    n_channels = shape[channel_axis(shape)]
    try:
        scale = np.asarray(space, dtype=np.float64)
    except (TypeError, ValueError):
        scale = np.empty(0)
    known = scale.shape in ((), (1,), (n_channels,))
    if not (known and (scale > 0).all() and np.isfinite(scale).all()):
        raise ValueError(
            f"space={space!r} is not a positive deviation for each of the {n_channels} "
            "channels of the inputs, nor one for all. Pass those by which the inputs "
            "are normalised, or 'standardised' to take those of X."
        )
    return np.broadcast_to(scale, (n_channels,)).copy()
