"""Activation functions, and the softmax family."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._registry import Function, Node, operator, plain

plain(
    {
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Softsign": functional.softsign,
        "Mish": functional.mish,
        # Turning linear above 20, as by default, would lose digits of float64.
        "Softplus": lambda x: functional.softplus(x, threshold=40),
        "PRelu": lambda x, slope: torch.where(x >= 0, x, slope * x),
        "HardSwish": functional.hardswish,
    }
)


@operator("LeakyRelu")
def _leaky_relu(node: Node) -> Function:
    alpha = node.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


@operator("Elu")
def _elu(node: Node) -> Function:
    alpha = node.get("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


@operator("Celu")
def _celu(node: Node) -> Function:
    alpha = node.get("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


@operator("Selu")
def _selu(node: Node) -> Function:
    alpha = node.get("alpha", 1.67326319217681884765625)
    gamma = node.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * functional.elu(x, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Function:
    alpha = node.get("alpha", 1.0)
    return lambda x: functional.threshold(x, alpha, 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node) -> Function:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


@operator("Gelu")
def _gelu(node: Node) -> Function:
    form = node.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=form)


@operator("Swish")
def _swish(node: Node) -> Function:
    alpha = node.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


@operator("Shrink")
def _shrink(node: Node) -> Function:
    bias, bound = node.get("bias", 0.0), node.get("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        inner = torch.where(x > bound, x - bias, torch.zeros_like(x))
        return torch.where(x < -bound, x + bias, inner)

    return run


def _hardmax(x: Tensor, axis: int) -> Tensor:
    top = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, top, 1.0)


_SOFTMAX: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Softmax": torch.softmax,
    "LogSoftmax": torch.log_softmax,
    "Hardmax": _hardmax,
}


@operator(*_SOFTMAX, since=13)
def _softmax(node: Node) -> Function:
    function, axis = _SOFTMAX[node.op], node.get("axis", -1)
    return lambda x: function(x, axis)


@operator(*_SOFTMAX)
def _softmax_of_rows(node: Node) -> Function:
    """Before version 13 all axes from `axis` on are one row."""
    function, axis = _SOFTMAX[node.op], node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        first = axis % x.ndim if x.ndim else 0
        rows = x.flatten(first) if first < x.ndim else x
        return function(rows, -1).reshape(x.shape)

    return run
