"""Running a trained torch module without touching it."""

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from skcalib._networks._named import NamedRows, each
from skcalib._onnx._outputs import as_columns, own_row
from skcalib._optional import import_optional

_PURPOSE = "Running a torch module"


def is_module(network: Any) -> bool:
    """Whether `network` is a torch module."""
    return isinstance(network, import_optional("torch", _PURPOSE).nn.Module)


def frozen_view(module: Any, device: Any, *, own_weights: bool = False) -> Any:
    """Return `module` in eval mode, as a copy of its tree that shares its weights.

    The parameters lie in the same memory, so nothing large is copied, but ask for no
    gradient. Buffers are small and copied, and attributes set while running land on the
    view, so that not even a module that counts its calls is changed. What was compiled
    is not compiled in the view. A move to another device copies the weights, as
    `own_weights` does.

    Raises
    ------
    ValueError
        If the module is without its weights, or with lazy layers that never ran.
    TrainModeError
        If TorchScript was traced in train mode, which it cannot leave.
    """
    torch = import_optional("torch", _PURPOSE)
    from skcalib._networks._module_copy import ModuleCopier, copied_script
    from skcalib._networks._train_mode import refuse_train_trace

    own = module_device(module)
    _refuse_without_weights(module)
    wanted = own if str(device) == "auto" else checked_device(device)
    moves = wanted.type != own.type or wanted.index not in (None, own.index)
    owns = own_weights or moves

    def weight(parameter: Any) -> Any:
        # Subclasses may refuse to be rebuilt.
        if type(parameter) is not torch.nn.Parameter:
            return copy.deepcopy(parameter) if owns else parameter
        values = parameter.detach()
        # What was made in inference mode takes no part in a gradient.
        if owns or values.is_inference():
            values = values.clone()
        return torch.nn.Parameter(values, requires_grad=False)

    def buffer(tensor: Any) -> Any:
        return tensor.detach().clone()

    def scripted(part: Any) -> Any:
        refuse_train_trace(part)
        twin = copied_script(part).eval()
        for copied, original in zip(twin.parameters(), part.parameters(), strict=True):
            copied.requires_grad_(False)
            if not owns:
                copied.data = original.data
        return twin

    view = ModuleCopier(weight, buffer, scripted, frozen=True).module(module)
    return view.to(wanted) if moves else view


def _refuse_without_weights(module: Any) -> None:
    """Refuse a module on the device 'meta', or with a lazy layer that never ran."""
    torch = import_optional("torch", _PURPOSE)
    if module_device(module).type == "meta":
        raise ValueError(
            "The module lies on the device 'meta', without its weights. Load them."
        )
    for name, part in module.named_modules():
        own = *part.parameters(recurse=False), *part.buffers(recurse=False)
        # Loaded weights do not end it: the first run gives up hooks and changes class.
        is_lazy = hasattr(part, "_initialize_hook")
        if is_lazy or any(map(torch.nn.parameter.is_lazy, own)):
            raise ValueError(
                f"The {type(part).__name__}{f' {name!r}' * bool(name)} of the module "
                "is lazy and has not been run yet. Load the weights, run the module "
                "once, and pass it then."
            )


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


def floating_types(module: Any) -> Iterator[Any]:
    """Yield the types of a module's real parameters, or of buffers if it has none.

    The first is that of the inputs it takes.
    """
    found = False
    for parameter in module.parameters():
        if parameter.is_floating_point():
            found = True
            yield parameter.dtype
    if not found:
        yield from (b.dtype for b in module.buffers() if b.is_floating_point())


def module_logits(
    view: Any, batches: Iterable[Any], output: str | int | None
) -> Iterator[np.ndarray]:
    """Yield the logits of batches of inputs, as float32 or float64 arrays."""
    torch = import_optional("torch", _PURPOSE)
    from skcalib._networks._result import pick_logits
    from skcalib._networks._train_mode import refuse_train_mode

    device = module_device(view)
    dtype = next(floating_types(view), None)

    def copied(part: Any) -> Any:
        # The first layer may work in place, and the inputs are the user's.
        wanted = dtype if part.is_floating_point() else None
        return part.detach().to(device, wanted or part.dtype, copy=True)

    for number, batch in enumerate(batches):
        x = each(copied, batch)
        if number == 0:
            refuse_train_mode(partial(run_module, view), x)
        with torch.no_grad():
            try:
                result = run_module(view, x)
            except (RuntimeError, TypeError, IndexError) as error:
                raise ValueError(
                    f"The module could not be run on {describe(batch)}: {error}. Pass "
                    "X in the shape, type and scale the module was trained on."
                ) from error
        n_rows = batch.shape[0]
        values = own_row(pick_logits(result, output).detach(), n_rows)
        wide = values.dtype == torch.float64 or not values.is_floating_point()
        array = (values if wide else values.to(torch.float32)).cpu().numpy()
        yield as_columns(array, n_rows, "The module's output")


def run_module(module: Any, x: Any) -> Any:
    """Run a module or function on a batch; named inputs are passed by keyword."""
    return module(**x) if isinstance(x, NamedRows) else module(x)


def describe(x: Any) -> str:
    """Say what a batch is, for a message."""
    if isinstance(x, NamedRows):
        return f"a batch of {x.describe()}"
    return f"a batch of shape {tuple(x.shape)} and type {x.dtype}"
