"""Resizing images, axis by axis, as a weighted sum of a few shifted copies.

Each axis of the result takes one (nearest), two (linear) or four (cubic) entries of the
source. Where they lie and what they weigh is computed on the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skcalib._onnx._in_torch._registry import Function, Node, operator

# Rounding of the place of the nearest entry.
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda place: torch.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: torch.floor(place + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@dataclass(frozen=True)
class _Rule:
    """The attributes of a resizing."""

    mode: str
    coordinates: str
    nearest: str = "floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    policy: str = "stretch"

    def places(self, x: Tensor, axis: int, length: int, scale: float) -> Tensor:
        """Return where the entries of the result lie in the source."""
        source = x.shape[axis]
        place = torch.arange(length, device=x.device, dtype=torch.float64)
        if self.coordinates == "asymmetric":
            return place / scale
        if self.coordinates == "align_corners":
            return place * ((source - 1) / max(length - 1, 1))
        if self.coordinates == "pytorch_half_pixel" and length == 1:
            return torch.zeros_like(place)
        if self.coordinates == "half_pixel_symmetric":
            share = length / (scale * source)
            return source / 2 * (1 - share) + (place + 0.5) / scale - 0.5
        return (place + 0.5) / scale - 0.5

    def taps(self, place: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Return the positions each entry takes, and their weights."""
        if self.mode == "nearest":
            # Places meant to be whole may miss it by a rounding error.
            return [(_NEAREST[self.nearest](_tidy(place)), None)]
        first = torch.floor(place)
        part = place - first
        if self.mode == "linear":
            return [(first, 1 - part), (first + 1, part)]
        a = self.cubic
        near = [((a + 2) * t - (a + 3)) * t * t + 1 for t in (part, 1 - part)]
        far = [((a * t - 5 * a) * t + 8 * a) * t - 4 * a for t in (1 + part, 2 - part)]
        weights = [far[0], near[0], near[1], far[1]]
        return [(first + i - 1, weight) for i, weight in enumerate(weights)]


def _tidy(place: Tensor) -> Tensor:
    whole = torch.round(place * 2) / 2
    return torch.where((place - whole).abs() < 1e-6, whole, place)


@operator("Resize", since=11, host=(1, 2, 3))
def _resize(node: Node) -> Function:
    rule = _Rule(
        node.get("mode", "nearest"),
        node.get("coordinate_transformation_mode", "half_pixel"),
        node.get("nearest_mode", "round_prefer_floor"),
        node.get("cubic_coeff_a", -0.75),
        bool(node.get("exclude_outside", 0)),
        node.get("keep_aspect_ratio_policy", "stretch"),
    )
    if rule.coordinates == "tf_crop_and_resize" or node.get("antialias", 0):
        raise node.refuse("crops or smooths while resizing, which is not supported")
    axes = node.get("axes")

    def run(
        x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None
    ) -> Tensor:
        return _apply(rule, x, axes, scales or None, sizes or None)

    return run


@operator("Resize", since=10, host=(1,))
@operator("Upsample", host=(1,))
def _old_resize(node: Node) -> Function:
    mode, fixed = node.get("mode", "nearest"), node.get("scales")
    rule = _Rule("linear" if mode == "bilinear" else mode, "asymmetric")

    def run(x: Tensor, scales: list[float] | None = None) -> Tensor:
        return _apply(rule, x, None, scales or fixed, None)

    return run


def _apply(
    rule: _Rule,
    x: Tensor,
    axes: list[int] | None,
    scales: list[float] | None,
    sizes: list[int] | None,
) -> Tensor:
    axes = list(range(x.ndim)) if axes is None else axes
    lengths = [x.shape[axis] for axis in axes]
    if sizes is None:
        scales = [1.0] * len(axes) if scales is None else scales
        sizes = [
            math.floor(n * scale + 1e-6)
            for n, scale in zip(lengths, scales, strict=True)
        ]
    else:
        scales = [size / n for size, n in zip(sizes, lengths, strict=True)]
        if rule.policy != "stretch":
            common = (min if rule.policy == "not_larger" else max)(scales)
            scales = [common] * len(axes)
            sizes = [math.floor(n * common + 0.5) for n in lengths]
    for axis, size, scale in zip(axes, sizes, scales, strict=True):
        if size != x.shape[axis] or scale != 1:
            x = _resize_axis(rule, x, axis, size, scale)
    return x


def _resize_axis(
    rule: _Rule, x: Tensor, axis: int, length: int, scale: float
) -> Tensor:
    last = x.shape[axis] - 1
    taps = rule.taps(rule.places(x, axis, length, scale))
    along = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
    if rule.exclude_outside and rule.mode != "nearest":
        taps = _without_outside(taps, last)
    result = torch.zeros(())
    for position, (place, weight) in enumerate(taps):
        part = x.index_select(axis, place.clamp(0, last).to(torch.int64))
        if weight is not None:
            part = part * weight.to(x.dtype).reshape(along)
        result = part if position == 0 else result + part
    return result


def _without_outside(
    taps: list[tuple[Tensor, Tensor | None]], last: int
) -> list[tuple[Tensor, Tensor | None]]:
    """Drop the weight of entries outside the image and share it among the others."""
    inside = [
        (place, weight * ((place >= 0) & (place <= last)))
        for place, weight in taps
        if weight is not None
    ]
    total = torch.stack([weight for _, weight in inside]).sum(0)
    return [(place, weight / total) for place, weight in inside]
