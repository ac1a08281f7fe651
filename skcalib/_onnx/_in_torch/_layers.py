"""Convolutions and matrix products."""

import torch
from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._registry import Function, Node, operator, plain
from skcalib._onnx._in_torch._windows import Windows, pad_image, symmetric

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}

plain({"MatMul": torch.matmul})


@operator("Dropout")
def _dropout(node: Node) -> Function:
    # The mask of an inference keeps everything.
    return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))


@operator("Conv")
def _conv(node: Node) -> Function:
    group = node.get("group", 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = tuple(weight.shape[2:])
        windows = Windows.of(node, len(kernel))
        padding = windows.padding(x, kernel)
        width = symmetric(padding)
        if width is None:
            x, width = pad_image(x, padding), (0,) * len(kernel)
        return _CONV[len(kernel)](
            x, weight, bias, windows.strides, width, windows.dilations, group
        )

    return run


@operator("ConvTranspose")
def _conv_transpose(node: Node) -> Function:
    group = node.get("group", 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = tuple(weight.shape[2:])
        rank = len(kernel)
        windows = Windows.of(node, rank)
        full = _TRANSPOSED[rank](
            x, weight, None, windows.strides, 0, 0, group, windows.dilations
        )
        full = pad_image(full, _cuts(node, windows, x, full))
        return full if bias is None else full + bias.reshape(-1, *[1] * rank)

    return run


def _cuts(
    node: Node, windows: Windows, x: Tensor, full: Tensor
) -> list[tuple[int, int]]:
    """Return what to add before and after each axis of the whole result; mostly < 0."""
    rank = full.ndim - 2
    extra = node.get("output_padding", [0] * rank)
    shape = node.get("output_shape")
    auto = windows.auto
    if shape is None and not auto.startswith("SAME"):
        pads = windows.padding(x, tuple([1] * rank))
        return [
            (-low, add - high) for (low, high), add in zip(pads, extra, strict=True)
        ]
    if shape is None:
        pairs = zip(x.shape[2:], windows.strides, strict=True)
        shape = [length * stride for length, stride in pairs]
    cuts = []
    for i, wanted in enumerate(shape[-rank:]):
        total = full.shape[2 + i] + extra[i] - wanted
        half = total // 2
        before = half if auto == "SAME_UPPER" else total - half
        cuts.append((-before, before - total + extra[i]))
    return cuts


@operator("Gemm")
def _gemm(node: Node) -> Function:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    turn_a, turn_b = node.get("transA", 0), node.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.T if turn_a else a
        b = b.T if turn_b else b
        if c is None:
            return a @ b if alpha == 1 else alpha * (a @ b)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


@operator("Einsum")
def _einsum(node: Node) -> Function:
    equation = node.get("equation").replace(" ", "")
    return lambda *tensors: torch.einsum(equation, *tensors)


@operator("Attention", since=23)
def _attention(node: Node) -> Function:
    if len(node.outputs) > 1 or node.get("softcap", 0.0):
        raise node.refuse("caches keys or caps its scores, which is not supported")
    n_query, n_key = node.get("q_num_heads"), node.get("kv_num_heads")
    causal, scale = bool(node.get("is_causal", 0)), node.get("scale")

    def run(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *past: Tensor
    ) -> Tensor:
        if any(part is not None for part in past):
            raise node.refuse("reads cached keys, which is not supported")
        flat = q.ndim == 3
        if flat:
            q, k, v = _heads(q, n_query), _heads(k, n_key), _heads(v, n_key)
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        found = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale
        )
        return found.transpose(1, 2).flatten(2) if flat else found

    return run


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)
