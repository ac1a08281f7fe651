"""Operators that pick, sort and scatter numbers by position."""

import torch
from torch import Tensor

from skcalib._onnx._in_torch._registry import Function, Node, operator


@operator("Gather")
def _gather(node: Node) -> Function:
    axis = node.get("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        along = axis % x.ndim
        flat = _from_start(index.reshape(-1), x.shape[along])
        shape = (*x.shape[:along], *index.shape, *x.shape[along + 1 :])
        return x.index_select(along, flat).reshape(shape)

    return run


def _from_start(index: Tensor, length: int) -> Tensor:
    """Count negative positions from the end."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + length, index)


@operator("GatherElements")
def _gather_elements(node: Node) -> Function:
    axis = node.get("axis", 0)
    return lambda x, index: x.gather(axis, _from_start(index, x.shape[axis]))


@operator("GatherND")
def _gather_nd(node: Node) -> Function:
    n_batch = node.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        return x[_positions(x, index, n_batch)]

    return run


def _positions(x: Tensor, index: Tensor, n_batch: int) -> tuple[Tensor, ...]:
    """Return one index tensor an axis; leading batch axes are walked together."""
    rank = index.ndim - 1
    batch = [
        torch.arange(x.shape[axis], device=index.device).reshape(
            [-1 if i == axis else 1 for i in range(rank)]
        )
        for axis in range(n_batch)
    ]
    named = [
        _from_start(part, x.shape[n_batch + i])
        for i, part in enumerate(index.unbind(-1))
    ]
    return (*batch, *named)


_REDUCE = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


@operator("Scatter", "ScatterElements")
def _scatter_elements(node: Node) -> Function:
    axis, how = node.get("axis", 0), node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        index = _from_start(index, x.shape[axis])
        if how == "none":
            return x.scatter(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, _REDUCE[how])

    return run


@operator("ScatterND")
def _scatter_nd(node: Node) -> Function:
    how = node.get("reduction", "none")
    if how not in ("none", "add"):
        raise node.refuse(f"scatters with reduction {how!r}, which is not supported")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        return x.index_put(_positions(x, index, 0), updates, accumulate=how == "add")

    return run


@operator("TopK", host=(1,))
def _top_k(node: Node) -> Function:
    axis, fixed = node.get("axis", -1), node.get("k")
    largest, ordered = bool(node.get("largest", 1)), bool(node.get("sorted", 1))

    def run(x: Tensor, k: list[int] | int | None = None) -> tuple[Tensor, Tensor]:
        count = k[0] if isinstance(k, list) else fixed if k is None else k
        values, index = x.topk(count, axis, largest=largest, sorted=ordered)
        return values, index

    return run


@operator("ArgMax", "ArgMin")
def _arg_extreme(node: Node) -> Function:
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    if not node.get("select_last_index", 0):
        return lambda x: function(x, axis, keepdim=keep)
    return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)


@operator("CumSum", host=(1,))
def _cumulative_sum(node: Node) -> Function:
    exclusive, backwards = node.get("exclusive", 0), node.get("reverse", 0)

    def run(x: Tensor, axis: list[int] | int) -> Tensor:
        along = axis[0] if isinstance(axis, list) else axis
        x = x.flip(along) if backwards else x
        total = x.cumsum(along, dtype=x.dtype)
        total = total - x if exclusive else total
        return total.flip(along) if backwards else total

    return run


@operator("Trilu", host=(1,))
def _triangle(node: Node) -> Function:
    function = torch.triu if node.get("upper", 1) else torch.tril

    def run(x: Tensor, diagonal: list[int] | int = 0) -> Tensor:
        offset = diagonal[0] if isinstance(diagonal, list) else diagonal or 0
        return function(x, offset)

    return run


@operator("OneHot", host=(1,))
def _one_hot(node: Node) -> Function:
    axis = node.get("axis", -1)

    def run(index: Tensor, depth: list[int] | int, values: Tensor) -> Tensor:
        count = int(depth[0] if isinstance(depth, list) else depth)
        classes = torch.arange(count, device=index.device)
        hit = _from_start(index, count).unsqueeze(-1) == classes
        # Positions outside the range hit nothing, so that their row is all "off".
        return torch.where(hit, values[1], values[0]).movedim(-1, axis)

    return run


@operator("NonZero")
def _non_zero(node: Node) -> Function:
    return lambda x: x.nonzero().T


@operator("Compress")
def _compress(node: Node) -> Function:
    axis = node.get("axis")

    def run(x: Tensor, wanted: Tensor) -> Tensor:
        rows = wanted.nonzero().reshape(-1)
        return x.reshape(-1)[rows] if axis is None else x.index_select(axis, rows)

    return run
