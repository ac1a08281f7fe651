"""Bases of the perturbation, and which of them are tried.

A basis holds few numbers that stand for one input-sized tensor. Every basis is
orthonormal, so the norm of the perturbation is that of its coordinates. The published
method has one number for each entry (Tang, Chen & Ho, "Neural Clamping", TMLR 2024);
the slow cosines are our addition: few coordinates are learned from few rows, and their
derivatives can be kept.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

DEFAULT_SIZE = 8
# Cosines a side that are tried where the data may choose: those that helped on
# compressed images (python -m benchmarks run neural_clamping --parts shift).
SIZES = (4, 8)

Values = TypeVar("Values", NDArray[Any], torch.Tensor)


class Basis:
    """A product of one orthonormal basis for each axis of an input.

    `expand` and `reduce` take and give arrays or tensors, whichever they are handed.

    Parameters
    ----------
    shape : tuple of int
        Shape of one input.

    factors : list of (ndarray of shape (n, size) or None)
        The basis of each axis, its vectors as columns. None stands for the identity,
        which costs no product.
    """

    def __init__(
        self, shape: Sequence[int], factors: Sequence[NDArray[np.float64] | None]
    ) -> None:
        self.shape = tuple(shape)
        self._factors = factors
        self.lengths = tuple(
            n if factor is None else factor.shape[1]
            for n, factor in zip(self.shape, factors, strict=True)
        )
        self._tensors: dict[Any, list[torch.Tensor | None]] = {}
        self.dim = math.prod(self.lengths)

    def expand(self, theta: Values) -> Values:
        """Return the perturbation of coordinates `theta` of shape (dim,)."""
        values = theta.reshape(self.lengths)
        for axis, factor in enumerate(self._like(theta)):
            if factor is not None:
                values = _apply(factor, values, axis)
        return values

    def reduce(self, gradient: Values) -> Values:
        """Return coordinates of input-shaped values, whose leading axes are kept."""
        leading = tuple(gradient.shape[: len(gradient.shape) - len(self.shape)])
        values = gradient
        for axis, factor in enumerate(self._like(gradient), start=len(leading)):
            if factor is not None:
                values = _apply(factor.T, values, axis)
        return values.reshape(*leading, self.dim)

    def _like(self, values: Any) -> Sequence[Any]:
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


class Full(Basis):
    """One coordinate for each entry of an input."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, [None] * len(shape))


class Channel(Basis):
    """One coordinate for each channel: a shift of its brightness.

    `channel_axis` counts without the batch axis.
    """

    def __init__(self, shape: Sequence[int], channel_axis: int = 0) -> None:
        factors = [
            None if axis == channel_axis else np.full((n, 1), n**-0.5)
            for axis, n in enumerate(shape)
        ]
        super().__init__(shape, factors)


class LowFrequency(Basis):
    """The slowest `size` cosines along every axis but that of the channels.

    These are the basis functions of the orthonormal discrete cosine transform (type
    II); along an axis shorter than `size` they are all there are. Inputs of one axis
    have no channels: the cosines run along it.
    """

    def __init__(self, shape: Sequence[int], size: int, channel_axis: int = 0) -> None:
        factors = [
            None
            if axis == channel_axis and len(shape) > 1
            else cosines(n, min(size, n))
            for axis, n in enumerate(shape)
        ]
        super().__init__(shape, factors)


class AllCosines(Basis):
    """As many coordinates as entries: the cosines along every axis, channels included.

    A network feels slow cosines far more than fast ones. A descent with a step size
    for each coordinate makes use of that; in pixels, each a sum of all cosines, it
    cannot.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, [cosines(n, n) for n in shape])


def cosines(length: int, size: int) -> NDArray[np.float64]:
    """Return the first `size` basis functions of the DCT-II as columns."""
    position = (np.arange(length) + 0.5) * math.pi / length
    basis = np.cos(np.outer(position, np.arange(size)))
    basis *= (2 / length) ** 0.5
    basis[:, 0] = length**-0.5
    return basis


def _apply(matrix: Any, values: Values, axis: int) -> Values:
    """Multiply `matrix` with `values` along one axis."""
    moved = values.swapaxes(axis, -1)
    return (moved @ matrix.T).swapaxes(axis, -1)


def open_basis(perturbation: str | int, shape: Sequence[int]) -> Basis:
    """Return the basis of "full", "channel", "low_frequency" or a number of cosines."""
    if perturbation in ("full", "auto"):
        return Full(shape)
    axis = channel_axis(shape)
    if perturbation == "channel":
        return Channel(shape, axis)
    size = perturbation if isinstance(perturbation, Integral) else DEFAULT_SIZE
    return LowFrequency(shape, int(size), axis)


def canonical(perturbation: str | int) -> str | int:
    """Return what a perturbation is called in results."""
    return DEFAULT_SIZE if perturbation == "low_frequency" else perturbation


def channel_axis(shape: Sequence[int]) -> int:
    """Return the axis of the channels: the first, unless only the last looks so."""
    colours = (1, 3, 4)
    last = len(shape) == 3 and shape[-1] in colours and shape[0] not in colours
    return len(shape) - 1 if last else 0


def spans_to_try(
    perturbation: str | int, shape: Sequence[int]
) -> list[tuple[str | int, Basis]]:
    """Return ``[(name, basis)]`` by growing dimension."""
    if perturbation != "auto":
        return [(canonical(perturbation), open_basis(perturbation, shape))]
    if len(shape) == 1:
        return [("full", Full(shape))]
    found: dict[int, tuple[str | int, Basis]] = {}
    for size in SIZES:
        basis = open_basis(size, shape)
        found.setdefault(basis.dim, (size, basis))
    return list(found.values())


def columns_within(small: Basis, large: Basis) -> slice | NDArray[np.intp]:
    """Return which coordinates of `large` are those of `small`."""
    if small is large:
        return slice(None)
    number = np.arange(large.dim).reshape(large.lengths)
    return number[tuple(slice(0, n) for n in small.lengths)].ravel()
