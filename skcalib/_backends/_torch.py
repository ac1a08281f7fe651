"""Running a trained torch module without touching it."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from skcalib._backends._outputs import as_columns
from skcalib._optional import import_optional

_PURPOSE = "Running a torch module"


def is_module(network: Any) -> bool:
    """Whether `network` is a torch module."""
    return isinstance(network, import_optional("torch", _PURPOSE).nn.Module)


def frozen_view(module: Any, device: str) -> Any:
    """Return `module` in eval mode, as a copy of its tree that shares its weights.

    The parameters lie in the same memory, so nothing large is copied, but ask for no
    gradient. Buffers are small and copied, and attributes set while running land on the
    view, so that not even a module that counts its calls is changed. Only a move to
    another device, or a compiled module in train mode, which cannot be taken apart,
    takes a whole copy.
    """
    torch = import_optional("torch", _PURPOSE)
    own = module_device(module)
    if own.type == "meta":
        raise ValueError(
            "The module lies on the device 'meta', without its weights. Load them."
        )
    wanted = own if device == "auto" else checked_device(device)
    compiled = isinstance(module, torch.jit.ScriptModule)
    if wanted.type != own.type or wanted.index not in (None, own.index):
        return copy.deepcopy(module).to(wanted).eval().requires_grad_(False)
    if compiled:
        training = any(part.training for part in module.modules())
        return copy.deepcopy(module).eval() if training else module
    return _view(module, {})


def checked_device(device: Any) -> Any:
    """Return the device of this name; raise a ValueError if it cannot be had."""
    torch = import_optional("torch", _PURPOSE)
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows; pass 'auto', 'cpu' "
            "or 'cuda'."
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(device)!r} asks for a GPU, but torch finds none here. Pass "
            "device='auto' or 'cpu'."
        )
    return found


def module_device(module: Any) -> Any:
    """Return the device of the first tensor of a module, the CPU if it has none."""
    torch = import_optional("torch", _PURPOSE)
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def _view(module: Any, seen: dict[int, Any]) -> Any:
    """Copy the tree of modules, each once however often it occurs."""
    if id(module) in seen:
        return seen[id(module)]
    view = module.__class__.__new__(module.__class__)
    seen[id(module)] = view
    state = {name: _views(value, seen) for name, value in module.__dict__.items()}
    state["training"] = False
    state["_parameters"] = {
        name: _without_gradient(parameter, seen)
        for name, parameter in module._parameters.items()
    }
    state["_buffers"] = {
        name: None if buffer is None else buffer.detach().clone()
        for name, buffer in module._buffers.items()
    }
    state["_modules"] = {
        name: None if part is None else _view(part, seen)
        for name, part in module._modules.items()
    }
    view.__dict__ = state
    return view


def _without_gradient(parameter: Any, seen: dict[int, Any]) -> Any:
    """Return a parameter in the same memory that asks for no gradient."""
    torch = import_optional("torch", _PURPOSE)
    # Subclasses, such as parameters that are not there yet, may refuse to be rebuilt.
    if type(parameter) is not torch.nn.Parameter:
        return parameter
    if id(parameter) not in seen:
        detached = torch.nn.Parameter(parameter.detach(), requires_grad=False)
        seen[id(parameter)] = detached
    return seen[id(parameter)]


def _views(value: Any, seen: dict[int, Any]) -> Any:
    """Replace the parameters in a list, such as recurrent layers keep of their own."""
    if not isinstance(value, list):
        return value
    return [_without_gradient(item, seen) for item in value]


def module_logits(
    view: Any, X: Any, batch_size: int, output: str | int | None
) -> Iterator[np.ndarray]:
    """Yield the logits of `X`, batch by batch, as float32 or float64 arrays."""
    torch = import_optional("torch", _PURPOSE)
    from skcalib._backends._torch_rows import rows_in_order

    device = module_device(view)
    dtype = next((p.dtype for p in view.parameters() if p.is_floating_point()), None)
    for batch in rows_in_order(X, batch_size):
        wanted = dtype if batch.is_floating_point() else None
        # A copy: the first layer may work in place, and X is the user's.
        x = batch.detach().to(device, wanted or batch.dtype, copy=True)
        with torch.no_grad():
            try:
                result = view(x)
            except (RuntimeError, TypeError, IndexError) as error:
                raise ValueError(
                    f"The module could not be run on a batch of shape "
                    f"{tuple(batch.shape)} and type {batch.dtype}: {error}. Pass X in "
                    "the shape, type and scale the module was trained on."
                ) from error
        values = pick_logits(result, output).detach()
        wide = values.dtype == torch.float64 or not values.is_floating_point()
        array = (values if wide else values.to(torch.float32)).cpu().numpy()
        yield as_columns(array, batch.shape[0], "The module's output")


def pick_logits(result: Any, output: str | int | None) -> Any:
    """Take the logits out of what a module returned."""
    torch = import_optional("torch", _PURPOSE)
    if output is not None:
        try:
            if isinstance(output, str) and not isinstance(result, Mapping):
                result = getattr(result, output)
            else:
                result = result[output]
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"The module's result, a {type(result).__name__}, has no {output!r}."
            ) from error
    elif not isinstance(result, torch.Tensor) and hasattr(result, "logits"):
        result = result.logits
    if not isinstance(result, torch.Tensor):
        found = f" with the keys {list(result)}" if isinstance(result, Mapping) else ""
        raise ValueError(
            f"The module returned a {type(result).__name__}{found}, not a tensor. Say "
            "where its logits are: output=<name or position>."
        )
    return result
