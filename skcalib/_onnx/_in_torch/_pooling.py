"""Pooling: maxima, means and norms of windows or of whole images."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._registry import Function, Node, operator, plain
from skcalib._onnx._in_torch._windows import Windows, pad_image, symmetric

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


plain(
    {
        "GlobalAveragePool": lambda x: x.mean(_spatial(x), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(_spatial(x), keepdim=True),
    }
)


@operator("GlobalLpPool")
def _global_lp_pool(node: Node) -> Function:
    p = node.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)


@operator("MaxPool")
def _max_pool(node: Node) -> Function:
    kernel = tuple(node.get("kernel_shape"))
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refuse("also returns the places of the maxima: not supported")
    windows = Windows.of(node, len(kernel))
    pool = _MAX[len(kernel)]

    def run(x: Tensor) -> Tensor:
        padding = windows.padding(x, kernel)
        overhang = windows.overhang(x, kernel, padding)
        width = symmetric(padding)
        if width is None or any(overhang) or _too_wide(width, kernel):
            whole = [
                (low, high + more)
                for (low, high), more in zip(padding, overhang, strict=True)
            ]
            x, width = pad_image(x, whole, -math.inf), (0,) * len(kernel)
        return pool(x, kernel, windows.strides, width, windows.dilations)

    return run


def _too_wide(width: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether torch's pooling refuses the padding."""
    return any(2 * w > k for w, k in zip(width, kernel, strict=True))


@operator("AveragePool")
def _average_pool(node: Node) -> Function:
    kernel = tuple(node.get("kernel_shape"))
    counted = bool(node.get("count_include_pad", 0))
    windows = Windows.of(node, len(kernel))
    pool = _MEAN[len(kernel)]
    if any(d != 1 for d in windows.dilations):
        raise node.refuse("takes means of dilated windows, which is not supported")

    def run(x: Tensor) -> Tensor:
        padding = windows.padding(x, kernel)
        overhang = windows.overhang(x, kernel, padding)
        width = symmetric(padding)
        if width is not None and not any(overhang) and not _too_wide(width, kernel):
            return pool(x, kernel, windows.strides, width, False, counted)
        # The share of each window that counts, found by pooling ones.
        beyond = [(0, more) for more in overhang]
        inside = pad_image(torch.ones_like(x[:1, :1]), padding, float(counted))
        share = pool(pad_image(inside, beyond), kernel, windows.strides)
        padded = pad_image(pad_image(x, padding), beyond)
        return pool(padded, kernel, windows.strides) / share

    return run


@operator("LpPool")
def _lp_pool(node: Node) -> Function:
    kernel, p = tuple(node.get("kernel_shape")), node.get("p", 2)
    windows = Windows.of(node, len(kernel))
    pool = _MEAN[len(kernel)]
    if any(d != 1 for d in windows.dilations):
        raise node.refuse("takes norms of dilated windows, which is not supported")

    def run(x: Tensor) -> Tensor:
        padding = windows.padding(x, kernel)
        overhang = windows.overhang(x, kernel, padding)
        powers = pad_image(x.abs() ** p, padding)
        powers = pad_image(powers, [(0, more) for more in overhang])
        total = pool(powers, kernel, windows.strides) * math.prod(kernel)
        return total ** (1 / p)

    return run
