"""BatchNorm folded into the layer before it: the same network, fewer memory passes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from skcalib._networks._torch import frozen_view

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Largest change of a logit, as a share of the largest logit, that rounding explains.
_ROUNDING = 1e-4
# A layer, and the BatchNorm that takes its result.
Pair = tuple[nn.Module, nn.Module]


def fold_batch_norm(module: Any, run: Callable[[Any], Tensor]) -> Any:
    """Return a module without most BatchNorm layers that computes the same.

    In eval mode these are fixed affine maps, and one that follows a convolution or a
    linear layer can be part of its weights. Only layers so changed are copied. Where
    that cannot be done, `module` itself is returned.

    Parameters
    ----------
    module : callable
        The frozen network.

    run : callable
        Takes a module and gives its logits on a few inputs.
    """
    if not isinstance(module, nn.Module):
        return module
    if not any(isinstance(part, _BATCH_NORMS) for part in module.modules()):
        return module
    view = frozen_view(module, "auto")
    try:
        with torch.no_grad():
            logits = run(module)
            pairs = _pairs(view, run)
            _replace(view, pairs)
            found = run(view)
    except Exception:  # it looks into its own layers, which have been replaced
        return module
    limit = _ROUNDING * logits.abs().max()
    # They differ where something else, too, takes what a layer gave.
    same = pairs and bool(((found - logits).abs() <= limit).all())
    return view if same else module


def _pairs(view: nn.Module, run: Callable[[Any], Tensor]) -> list[Pair]:
    """Return each layer whose result goes to a BatchNorm, and that BatchNorm."""
    results: dict[int, tuple[nn.Module, Any]] = {}
    pairs: list[Pair] = []
    calls: Counter[nn.Module] = Counter()

    def watch(part: nn.Module, inputs: Any, output: Any) -> None:
        calls[part] += 1
        if isinstance(part, _LAYERS):
            results[id(output)] = part, output  # kept, so that no other has its id
        elif id(inputs[0]) in results:
            pairs.append((results[id(inputs[0])][0], part))

    handles = []
    for part in view.modules():
        # The view shares its hooks with the module, which must not see this one.
        part._forward_hooks = part._forward_hooks.copy()
        if isinstance(part, _LAYERS + _BATCH_NORMS):
            handles.append(part.register_forward_hook(watch))
    run(view)
    for handle in handles:
        handle.remove()
    return [
        (layer, norm)
        for layer, norm in pairs
        if calls[layer] == calls[norm] == 1 and norm.running_mean is not None
    ]


def _replace(view: nn.Module, pairs: list[Pair]) -> None:
    """Put the fused layers into the tree of modules, and nothing after them."""
    new: dict[nn.Module | None, nn.Module] = {}
    for layer, norm in pairs:
        is_linear = isinstance(layer, nn.Linear)
        fuse: Any = fuse_linear_bn_eval if is_linear else fuse_conv_bn_eval
        new[layer], new[norm] = fuse(layer, norm), nn.Identity()
    for part in list(view.modules()):
        for name, child in part._modules.items():
            part._modules[name] = new.get(child, child)
