"""Sums, means, extremes and norms over axes."""

from collections.abc import Callable

import torch
from torch import Tensor

from skcalib._onnx._in_torch._registry import Function, Node, operator

_Axes = tuple[int, ...]


def _prod(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _l2(x: Tensor, axes: _Axes, keep: bool) -> Tensor:
    return torch.linalg.vector_norm(x, 2, axes, keep)


_REDUCTIONS: dict[str, Callable[[Tensor, _Axes, bool], Tensor]] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceProd": _prod,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
}


@operator(*_REDUCTIONS, host=(1,))
def _reduce(node: Node) -> Function:
    function = _REDUCTIONS[node.op]
    fixed, keep = node.get("axes"), bool(node.get("keepdims", 1))
    nothing_for_no_axes = bool(node.get("noop_with_empty_axes", 0))

    def run(x: Tensor, axes: list[int] | None = None) -> Tensor:
        wanted = fixed if axes is None else axes
        if not wanted:
            if nothing_for_no_axes:
                return x
            wanted = range(x.ndim)
        return function(x, tuple(axis % x.ndim for axis in wanted), keep)

    return run
