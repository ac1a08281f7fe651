"""Operators that lay numbers out differently, and those that compute shapes."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._nodes import tensor_of, torch_type
from skcalib._onnx._in_torch._registry import Function, Node, Place, operator


@operator("Shape")
def _shape(node: Node) -> Function:
    part = slice(node.get("start", 0), node.get("end"))
    return lambda x: torch.tensor(tuple(x.shape)[part], dtype=torch.int64)


@operator("Size")
def _size(node: Node) -> Function:
    return lambda x: torch.tensor(x.numel())


@operator("Reshape", host=(1,))
def _reshape(node: Node) -> Function:
    keep_zero, fixed = node.get("allowzero", 0), node.get("shape")

    def run(x: Tensor, shape: list[int] | None = None) -> Tensor:
        wanted = fixed if shape is None else shape
        if not keep_zero:
            wanted = [d or x.shape[i] for i, d in enumerate(wanted)]
        return x.reshape(wanted)

    return run


@operator("Flatten")
def _flatten(node: Node) -> Function:
    axis = node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        first = axis % x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:first]), math.prod(x.shape[first:]))

    return run


@operator("Squeeze", host=(1,))
def _squeeze(node: Node) -> Function:
    fixed = node.get("axes")

    def run(x: Tensor, axes: list[int] | None = None) -> Tensor:
        wanted = fixed if axes is None else axes
        return x.squeeze() if wanted is None else x.squeeze(tuple(wanted))

    return run


@operator("Unsqueeze", host=(1,))
def _unsqueeze(node: Node) -> Function:
    fixed = node.get("axes")

    def run(x: Tensor, axes: list[int] | int | None = None) -> Tensor:
        wanted = fixed if axes is None else axes
        wanted = [wanted] if isinstance(wanted, int) else wanted
        rank = x.ndim + len(wanted)
        for axis in sorted(a % rank for a in wanted):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Transpose")
def _transpose(node: Node) -> Function:
    order = node.get("perm")
    return lambda x: x.permute(order or tuple(range(x.ndim))[::-1])


@operator("Concat")
def _concat(node: Node) -> Function:
    axis = node.get("axis", 1)
    return lambda *tensors: torch.cat(tensors, axis)


@operator("Split", host=(1,))
def _split(node: Node) -> Function:
    axis, fixed = node.get("axis", 0), node.get("split")
    parts = node.get("num_outputs", len(node.outputs))

    def run(x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
        wanted = fixed if sizes is None else sizes
        return x.split(wanted or math.ceil(x.shape[axis] / parts), axis)

    return run


def _take(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """Slice one axis; torch has no negative steps."""
    rows = range(*slice(start, end, step).indices(x.shape[axis]))
    if not rows:
        return x.narrow(axis, 0, 0)
    low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1])
    x = x.narrow(axis, low, high - low + 1)
    if abs(step) > 1:
        x = x[(*[slice(None)] * (axis % x.ndim), slice(None, None, abs(step)))]
    return x.flip(axis) if step < 0 else x


@operator("Slice", since=10, host=(1, 2, 3, 4))
def _slice(node: Node) -> Function:
    def run(
        x: Tensor,
        starts: list[int],
        ends: list[int],
        axes: list[int] | None = None,
        steps: list[int] | None = None,
    ) -> Tensor:
        axes = list(range(len(starts))) if axes is None else axes
        steps = [1] * len(starts) if steps is None else steps
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            x = _take(x, axis, start, end, step)
        return x

    return run


@operator("Slice")
def _old_slice(node: Node) -> Function:
    starts, ends = node.get("starts"), node.get("ends")
    axes = node.get("axes", range(len(starts)))

    def run(x: Tensor) -> Tensor:
        for axis, start, end in zip(axes, starts, ends, strict=True):
            x = _take(x, axis, start, end, 1)
        return x

    return run


@operator("Expand", host=(1,))
def _expand(node: Node) -> Function:
    # Either side may have the longer shape, and ones on both.
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, shape))


@operator("Tile", since=6, host=(1,))
def _tile(node: Node) -> Function:
    return lambda x, repeats: x.repeat(repeats)


@operator("Pad", host=(1, 2, 3))
def _pad(node: Node) -> Function:
    mode = node.get("mode", "constant")
    fixed = node.get("pads", node.get("paddings"))
    filler = node.get("value", 0.0)

    def run(
        x: Tensor,
        pads: list[int] | None = None,
        value: float | None = None,
        axes: list[int] | None = None,
    ) -> Tensor:
        widths = _widths(x.ndim, fixed if pads is None else pads, axes)
        if mode == "constant":
            flat = [width for pair in reversed(widths) for width in pair]
            return functional.pad(
                x, flat, value=_scalar(filler if value is None else value)
            )
        for axis, (before, after) in enumerate(widths):
            if before or after:
                x = _pad_axis(x, axis, before, after, mode)
        return x

    return run


def _scalar(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _widths(
    rank: int, pads: list[int], axes: list[int] | None
) -> list[tuple[int, int]]:
    """Return what to add before and after each axis."""
    widths = [(0, 0)] * rank
    axes = list(range(rank)) if axes is None else axes
    for i, axis in enumerate(axes):
        widths[axis] = (pads[i], pads[i + len(axes)])
    return widths


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Repeat the edge, mirror at it, or go round."""
    length = x.shape[axis]
    index = torch.arange(-before, length + after, device=x.device)
    if mode == "edge":
        index = index.clamp(0, length - 1)
    elif mode == "wrap":
        index = index % length
    else:
        period = max(2 * (length - 1), 1)
        index = index.abs() % period
        index = torch.minimum(index, period - index)
    return x.index_select(axis, index)


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Function:
    size, mode = node.get("blocksize"), node.get("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        n, depth, height, width = x.shape
        inner = depth // size**2
        if mode == "DCR":
            x = x.reshape(n, size, size, inner, height, width)
            x = x.permute(0, 3, 4, 1, 5, 2)
        else:
            x = x.reshape(n, inner, size, size, height, width)
            x = x.permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, inner, height * size, width * size)

    return run


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Function:
    size = node.get("blocksize")

    def run(x: Tensor) -> Tensor:
        n, depth, height, width = x.shape
        x = x.reshape(n, depth, height // size, size, width // size, size)
        x = x.permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, depth * size**2, height // size, width // size)

    return run


@operator("ConstantOfShape", host=(0,), placed=True)
def _constant_of_shape(node: Node) -> Function:
    proto = node.get("value")
    value = torch.zeros(1) if proto is None else tensor_of(proto)

    def run(place: Place, shape: list[int]) -> Tensor:
        if not value.is_floating_point():
            return value.reshape(()).expand(shape)
        return torch.full(shape, value.item(), dtype=place.dtype, device=place.device)

    return run


@operator("Range")
def _range(node: Node) -> Function:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        bounds = start.item(), limit.item(), delta.item()
        return torch.arange(*bounds, dtype=start.dtype, device=start.device)

    return run


@operator("EyeLike", placed=True)
def _eye_like(node: Node) -> Function:
    offset, element = node.get("k", 0), node.get("dtype")

    def run(place: Place, x: Tensor) -> Tensor:
        dtype = x.dtype if element is None else torch_type(element) or place.dtype
        ones = torch.ones(x.shape, dtype=dtype, device=x.device)
        return ones.triu(offset).tril(offset)

    return run
