"""Normalisation over batches, channels, groups and layers."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._registry import Function, Node, operator


@operator("BatchNormalization")
def _batch_norm(node: Node) -> Function:
    epsilon = node.get("epsilon", 1e-5)

    def run(
        x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)

    return run


@operator("InstanceNormalization")
def _instance_norm(node: Node) -> Function:
    epsilon = node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        # As many groups as channels, which also takes images of a single pixel.
        return functional.group_norm(x, x.shape[1], scale, bias, epsilon)

    return run


@operator("GroupNormalization", since=18)
def _group_norm(node: Node) -> Function:
    epsilon, groups = node.get("epsilon", 1e-5), node.get("num_groups")

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if scale.shape[0] != x.shape[1]:  # before version 21: one number a group
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return run


@operator("LayerNormalization")
def _layer_norm(node: Node) -> Function:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    statistics = any(node.outputs[1:])

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> object:
        axes = tuple(range(axis % x.ndim, x.ndim))
        shape = tuple(x.shape[a] for a in axes)
        whole = tuple(scale.shape) == shape
        if bias is not None:
            whole = whole and tuple(bias.shape) == shape
        if whole and not statistics:
            return functional.layer_norm(x, shape, scale, bias, epsilon)
        mean = x.mean(axes, keepdim=True)
        centred = x - mean
        inverse = (centred.square().mean(axes, keepdim=True) + epsilon).rsqrt()
        found = centred * inverse * scale
        return found if bias is None else found + bias, mean, inverse

    return run


@operator("RMSNormalization")
def _rms_norm(node: Node) -> Function:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.ndim, x.ndim))
        return x * (x.square().mean(axes, keepdim=True) + epsilon).rsqrt() * scale

    return run


@operator("MeanVarianceNormalization")
def _mean_variance_norm(node: Node) -> Function:
    axes = tuple(node.get("axes", [0, 2, 3]))

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


@operator("LpNormalization")
def _lp_norm(node: Node) -> Function:
    axis, p = node.get("axis", -1), node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return torch.where(norm == 0, torch.zeros_like(x), x / norm)

    return run


@operator("LRN")
def _local_response_norm(node: Node) -> Function:
    size, bias = node.get("size"), node.get("bias", 1.0)
    alpha, beta = node.get("alpha", 1e-4), node.get("beta", 0.75)

    def run(x: Tensor) -> Tensor:
        # A window over the neighbouring channels, which is the mean along axis 1.
        rows = x.square().flatten(2).transpose(1, 2)
        before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
        mean = functional.avg_pool1d(functional.pad(rows, (before, after)), size, 1)
        return x / (bias + alpha * mean.transpose(1, 2).reshape(x.shape)) ** beta

    return run
