"""Operators that work on one number at a time."""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from skcalib._onnx._in_torch._nodes import torch_type
from skcalib._onnx._in_torch._registry import (
    Function,
    Node,
    Place,
    operator,
    plain,
)

plain(
    {
        "Abs": torch.abs,
        "Neg": torch.neg,
        "Exp": torch.exp,
        "Log": torch.log,
        "Sqrt": torch.sqrt,
        "Reciprocal": torch.reciprocal,
        "Floor": torch.floor,
        "Ceil": torch.ceil,
        "Round": torch.round,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Cos": torch.cos,
        "Tan": torch.tan,
        "Asin": torch.asin,
        "Acos": torch.acos,
        "Atan": torch.atan,
        "Sinh": torch.sinh,
        "Cosh": torch.cosh,
        "Asinh": torch.asinh,
        "Acosh": torch.acosh,
        "Atanh": torch.atanh,
        "Erf": torch.erf,
        "Not": torch.logical_not,
        "IsNaN": torch.isnan,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": torch.bitwise_not,
        "Where": torch.where,
        "Identity": lambda x: x,
    }
)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(a: Tensor, b: Tensor) -> Tensor:
    # The base decides on the type; the exponent may be an integer.
    return torch.pow(a, b).to(a.dtype)


_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divide,
    "Pow": _power,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
}


@operator(*_BINARY)
def _binary(node: Node) -> Function:
    function = _BINARY[node.op]
    axis = node.get("axis")
    if axis is None or node.version >= 7:
        return function

    def aligned(a: Tensor, b: Tensor) -> Tensor:
        # Before version 7 the second operand could start at a named axis.
        lacking = a.ndim - (axis % a.ndim) - b.ndim
        return function(a, b.reshape(*b.shape, *[1] * lacking))

    return aligned


_VARIADIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Sum": torch.add,
    "Min": torch.minimum,
    "Max": torch.maximum,
}


@operator("Sum", "Min", "Max", "Mean")
def _variadic(node: Node) -> Function:
    if node.op == "Mean":
        return lambda *tensors: reduce(torch.add, tensors) / len(tensors)
    function = _VARIADIC[node.op]
    return lambda *tensors: reduce(function, tensors)


@operator("Mod")
def _mod(node: Node) -> Function:
    return torch.fmod if node.get("fmod", 0) else torch.remainder


@operator("BitShift")
def _bit_shift(node: Node) -> Function:
    left = node.get("direction") == "LEFT"
    return torch.bitwise_left_shift if left else torch.bitwise_right_shift


@operator("IsInf")
def _is_inf(node: Node) -> Function:
    positive = node.get("detect_positive", 1)
    negative = node.get("detect_negative", 1)

    def run(x: Tensor) -> Tensor:
        found = torch.isinf(x)
        if not positive:
            found = found & (x < 0)
        return found if negative else found & (x > 0)

    return run


@operator("Cast", placed=True)
def _cast(node: Node) -> Function:
    wanted = torch_type(node.get("to"))
    return lambda place, x: x.to(wanted or place.dtype)


@operator("CastLike", placed=True)
def _cast_like(node: Node) -> Function:
    def run(place: Place, x: Tensor, like: Tensor) -> Tensor:
        return x.to(place.dtype if like.is_floating_point() else like.dtype)

    return run


@operator("Clip", since=11, host=(1, 2))
def _clip(node: Node) -> Function:
    def run(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
        if low is not None and high is not None and low > high:
            return torch.full_like(x, high)
        return x if low is None and high is None else torch.clamp(x, low, high)

    return run


@operator("Clip")
def _old_clip(node: Node) -> Function:
    low, high = node.get("min"), node.get("max")
    if low is None and high is None:
        return lambda x: x
    return lambda x: torch.clamp(x, low, high)
