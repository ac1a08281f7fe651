"""Quantisation, with gradients that go straight through the rounding.

Quantised tensors are carried as floating-point numbers with whole values, so that the
gradient survives between a QuantizeLinear and its DequantizeLinear; it is zero where a
value was cut off at the end of the integer range, as in quantisation-aware training.
"""

import torch
from torch import Tensor

from skcalib._onnx._in_torch._registry import (
    Function,
    Node,
    Place,
    operator,
)
from skcalib._optional import import_optional

_RANGES = {
    "UINT8": (0, 255),
    "INT8": (-128, 127),
    "UINT16": (0, 65535),
    "INT16": (-32768, 32767),
    "UINT4": (0, 15),
    "INT4": (-8, 7),
}


def _aligned(part: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Lay a number, one number a channel, or one a block, along `x`."""
    if block:
        part = part.repeat_interleave(block, axis)
        return part.narrow(axis, 0, x.shape[axis])
    if part.ndim == 0 or part.numel() == 1:
        return part.reshape(())
    return part.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _round(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity. The sum is exact."""
    return x + (torch.round(x) - x).detach()


@operator("QuantizeLinear")
def _quantise(node: Node) -> Function:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    name = _output_type(node)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        kind = name or _range_name(zero)
        if kind not in _RANGES:
            raise node.refuse(f"quantises to the type {kind}, which is not supported")
        whole = _round(x / _aligned(scale, x, axis, block))
        if zero is not None:
            whole = whole + _aligned(zero, x, axis, block).to(x.dtype)
        return whole.clamp(*_RANGES[kind])

    return run


def _output_type(node: Node) -> str | None:
    element = node.get("output_dtype", 0)
    if not element:
        return None
    onnx = import_optional("onnx", "Reading an ONNX model")
    return str(onnx.TensorProto.DataType.Name(element))


def _range_name(zero: Tensor | None) -> str:
    if zero is None:
        return "UINT8"
    return {torch.int8: "INT8", torch.int16: "INT16", torch.int32: "UINT16"}.get(
        zero.dtype, "UINT8"
    )


@operator("DequantizeLinear", placed=True)
def _dequantise(node: Node) -> Function:
    axis, block = node.get("axis", 1), node.get("block_size", 0)

    def run(
        place: Place, x: Tensor, scale: Tensor, zero: Tensor | None = None
    ) -> Tensor:
        value = x.to(place.dtype)
        if zero is not None:
            value = value - _aligned(zero, x, axis, block).to(place.dtype)
        return value * _aligned(scale, x, axis, block)

    return run
