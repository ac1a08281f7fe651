"""Bases of the perturbation: few numbers that stand for one input-sized tensor.

Every basis here is orthonormal, so the norm of the perturbation is that of its
coordinates. The published method has one number for each entry (Tang, Chen & Ho,
"Neural Clamping", TMLR 2024); the slow cosines are our addition: few coordinates are
learned from few rows, and their derivatives can be kept. Filters of the inputs stand in
`_filter.py`; what is tried, in `_spans.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from skcalib.clamping._change import Change

Values = TypeVar("Values", NDArray[Any], torch.Tensor)


@dataclass(frozen=True, eq=False)
class Perturbation:
    """Coordinates in a basis, and the change of the inputs that they stand for."""

    basis: "Basis"
    theta: Any
    change: Change


class Basis:
    """Coordinates of perturbations, in which the change of an input is linear.

    Attributes
    ----------
    shape : tuple of int
        Shape of one input.

    dim : int
        Number of coordinates.

    unit : float
        Size of a coordinate that changes its inputs' entries by about one.
    """

    shape: tuple[int, ...]
    dim: int
    unit = 1.0

    def at(self, theta: Any) -> Perturbation:
        """Return the perturbation of coordinates, arrays or tensors."""
        raise NotImplementedError

    def coordinates(self, change: Change) -> NDArray[np.float64]:
        """Return those of a change, or of the part of it that lies in the span."""
        raise NotImplementedError

    def gather(self, by_parts: Sequence[Any]) -> Any:
        """Return the gradient by the coordinates, from those by a change's parts."""
        raise NotImplementedError

    def puller(self, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function from each row's gradient by the change of `x` to theta's.

        Made once for a batch, called for each class.
        """
        raise NotImplementedError

    @property
    def parts(self) -> Sequence["Basis"]:
        """The bases that it is made of, in the order of their coordinates."""
        return [self]

    def units(self, length: float, like: Any = None) -> Iterator[Perturbation]:
        """Yield `length` times each coordinate; tensors like `like`, if given."""
        for part in self.parts:
            for theta in length * np.eye(part.dim):
                yield part.at(
                    theta if like is None else torch.from_numpy(theta).to(like)
                )

    def columns_of(self, small: "Basis") -> Any:
        """Return which coordinates are those of a basis within this one, else None."""
        return slice(None) if small is self else None


class Product(Basis):
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
        self._tensors: dict[Any, Sequence[Any]] = {}
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

    def at(self, theta: Any) -> Perturbation:
        return Perturbation(self, theta, Change(self.expand(theta)))

    def coordinates(self, change: Change) -> NDArray[np.float64]:
        return self.reduce(change.delta)

    def gather(self, by_parts: Sequence[Any]) -> Any:
        return self.reduce(by_parts[0])

    def puller(self, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return self.reduce

    def columns_of(self, small: Basis) -> Any:
        if small is self:
            return slice(None)
        if not (type(small) is type(self) is LowFrequency):
            return None
        number = np.arange(self.dim).reshape(self.lengths)
        return number[tuple(slice(0, n) for n in small.lengths)].ravel()

    def _like(self, values: Any) -> Sequence[Any]:
        """Return the factors as arrays or tensors of the type of `values`."""
        if not isinstance(values, torch.Tensor):
            return self._factors
        key = (values.device, values.dtype)
        if key not in self._tensors:
            self._tensors[key] = like(self._factors, values)
        return self._tensors[key]


class Full(Product):
    """One coordinate for each entry of an input."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, [None] * len(shape))


class Channel(Product):
    """One coordinate for each channel: a shift of its brightness."""

    def __init__(self, shape: Sequence[int]) -> None:
        factors = [
            None if axis == channel_axis(shape) else np.full((n, 1), n**-0.5)
            for axis, n in enumerate(shape)
        ]
        super().__init__(shape, factors)


class LowFrequency(Product):
    """The slowest `size` cosines along every axis but that of the channels.

    These are the basis functions of the orthonormal discrete cosine transform (type
    II); along an axis shorter than `size` they are all there are. Inputs of one axis
    have no channels: the cosines run along it.
    """

    def __init__(self, shape: Sequence[int], size: int) -> None:
        channels = channel_axis(shape) if len(shape) > 1 else None
        factors = [
            None if axis == channels else cosines(n, min(size, n))
            for axis, n in enumerate(shape)
        ]
        super().__init__(shape, factors)


class AllCosines(Product):
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


def like(parts: Sequence[Any], values: Any) -> Sequence[Any]:
    """Return arrays as they are, or as tensors where `values` is one; None stays."""
    if not isinstance(values, torch.Tensor):
        return parts
    return [p if p is None else torch.as_tensor(p).to(values) for p in parts]


def channel_axis(shape: Sequence[int]) -> int:
    """Return the axis of the channels: the first, unless only the last looks so."""
    colours = (1, 3, 4)
    last = len(shape) == 3 and shape[-1] in colours and shape[0] not in colours
    return len(shape) - 1 if last else 0
