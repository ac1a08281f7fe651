"""Which perturbations there are, by name, and which of them are tried."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import torch

from skcalib.clamping._filter import Filter
from skcalib.clamping._perturbation import (
    Basis,
    Channel,
    Full,
    LowFrequency,
    Product,
    channel_axis,
)
from skcalib.clamping._problem import Problem
from skcalib.clamping._space import in_space

DEFAULT_SIZE = 8
# Cosines a side that are tried where the data may choose: those that helped on
# compressed images (python -m benchmarks run neural_clamping --parts shift).
SIZES = (4, 8)
# The filters that are tried beside them: those that helped on corrupted images (python
# -m benchmarks run input_filter). Across channels only where there are few.
FILTERS = ((1, "depthwise"), (3, "depthwise"), (5, "depthwise"), (3, "full"))
FEW_CHANNELS = 4
KINDS = ("depthwise", "full")
OFFSETS = ("channel", "full", "low_frequency")
DEFAULT_FILTER = ("filter", 3, "depthwise", "channel")

Name: TypeAlias = Any  # a word, a number of cosines, or a tuple for a filter
Span = tuple[Name, Basis]


def canonical(perturbation: Name, shape: Sequence[int]) -> Name:
    """Return what a perturbation is called in results."""
    if perturbation == "low_frequency":
        return DEFAULT_SIZE
    if not is_filter(perturbation):
        return perturbation
    size, kind, offset = describe_filter(perturbation, shape)
    if offset != "channel":
        return ("filter", size, kind, offset)
    return "gain" if (size, kind) == (1, "depthwise") else ("filter", size, kind)


def is_filter(perturbation: Name) -> bool:
    """Whether the inputs are filtered, and not only shifted."""
    return perturbation in ("filter", "gain") or isinstance(perturbation, tuple | list)


def describe_filter(
    perturbation: Name, shape: Sequence[int]
) -> tuple[int, str, str | int]:
    """Return size, kind and offset of a filter of inputs of a shape."""
    given: tuple[Any, ...] = tuple(perturbation)
    if isinstance(perturbation, str):
        given = ("filter", 1 if perturbation == "gain" else 3)
    whole: list[Any] = [*given, *DEFAULT_FILTER[len(given) :]]
    name, size, kind, offset, *more = whole
    known = (
        bool(given)
        and name == "filter"
        and _is_count(size)
        and size % 2 == 1
        and kind in KINDS
        and (offset in OFFSETS if isinstance(offset, str) else _is_count(offset))
        and not more
    )
    if not known:
        raise ValueError(
            f"perturbation={perturbation!r} is not known. A filter is 'filter', or "
            "('filter', size, kind, offset) with an odd size, the kind 'depthwise' or "
            "'full', and the offset 'channel', 'full', 'low_frequency' or a number of "
            "cosines; what is left out at the end is 3, 'depthwise', 'channel'."
        )
    if len(shape) == 1:  # features have no axis to filter along
        size = 1
    if shape[channel_axis(shape)] == 1:
        kind = "depthwise"
    return int(size), kind, DEFAULT_SIZE if offset == "low_frequency" else offset


def _is_count(value: Any) -> bool:
    return (
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
    )


def open_basis(perturbation: Name, problem: Problem) -> Basis:
    """Return the basis of a perturbation by name."""
    shape, scale = problem.shape, problem.scale
    if not is_filter(perturbation):
        return in_space(open_product(perturbation, shape), scale)
    size, kind, offset = describe_filter(perturbation, shape)
    mean, deviation = problem.channel_moments
    if scale is not None:
        mean, deviation = mean / scale, deviation / scale
    own, added = kind == "depthwise", open_product(offset, shape)
    return in_space(Filter(shape, size, own, added, mean, deviation), scale)


def open_product(perturbation: Name, shape: Sequence[int]) -> Product:
    """Return the basis of "full", "channel", "low_frequency" or a number of cosines."""
    if perturbation == "full":
        return Full(shape)
    if perturbation == "channel":
        return Channel(shape)
    size = perturbation if isinstance(perturbation, Integral) else DEFAULT_SIZE
    return LowFrequency(shape, int(size))


def spans_to_try(perturbation: Name, problem: Problem) -> list[Span]:
    """Return ``[(name, basis)]`` by growing dimension."""
    shape = problem.shape
    names = [perturbation]
    if perturbation == "auto":
        names = ["full", "gain"] if len(shape) == 1 else [*SIZES, *_filters(shape)]
    names = [canonical(name, shape) for name in names]
    spans = [(name, open_basis(name, problem)) for name in dict.fromkeys(names)]
    spans.sort(key=lambda span: span[1].dim)
    # Where axes are short, as many cosines as there are may come twice.
    return [
        span
        for i, span in enumerate(spans)
        if not any(_same(span, other) for other in spans[:i])
    ]


def _same(span: Span, other: Span) -> bool:
    alike = not is_filter(span[0]) and not is_filter(other[0])
    return alike and span[1].dim == other[1].dim


def _filters(shape: Sequence[int]) -> list[Name]:
    """Return the filters that fit inputs of a shape."""
    axis = channel_axis(shape)
    shortest = min(n for a, n in enumerate(shape) if a != axis)
    return [
        ("filter", size, kind)
        for size, kind in FILTERS
        if size <= shortest and (kind == "depthwise" or shape[axis] <= FEW_CHANNELS)
    ]


def together(spans: Sequence[Span]) -> Basis:
    """Return one basis of all spans, for derivatives that are asked for at once."""
    parts: list[Basis] = []
    for _, basis in reversed(spans):  # the largest first: others lie within them
        if all(part.columns_of(basis) is None for part in parts):
            parts.append(basis)
    return parts[0] if len(parts) == 1 else Together(parts)


class Together(Basis):
    """Spans beside each other; one within another shares its coordinates."""

    def __init__(self, parts: Sequence[Basis]) -> None:
        self.shape = parts[0].shape
        self.dim = sum(part.dim for part in parts)
        self._parts = parts

    @property
    def parts(self) -> Sequence[Basis]:
        return self._parts

    def puller(self, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        pullers = [part.puller(x) for part in self._parts]
        return lambda gradient: torch.cat([pull(gradient) for pull in pullers], dim=1)

    def columns_of(self, small: Basis) -> Any:
        start = 0
        for part in self._parts:
            columns = part.columns_of(small)
            if columns is not None:
                return start + np.arange(part.dim)[columns]
            start += part.dim
        return None
