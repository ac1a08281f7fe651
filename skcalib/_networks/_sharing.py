"""Networks on their way to other processes: weights travel as plain arrays.

joblib writes the large arrays that a task holds to memory-mapped files, once for each
array however many tasks hold it. So a module is taken apart into its tree and arrays,
the same arrays each time, and worker processes map them instead of copying them. What
was compiled travels uncompiled.
"""

import copy
import warnings
import weakref
from typing import Any

import torch

from skcalib._networks._module_copy import ModuleCopier

# Arrays that show the memory of a module's tensors, as long as the module lives.
_arrays: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def portable(model: Any) -> Any:
    """Return what to pickle for a network; unpickled, it is the network again."""
    if isinstance(model, torch.nn.Module):
        return _portable_module(model)
    inner = getattr(model, "module", None)
    if isinstance(inner, torch.nn.Module):  # TorchLogits
        twin = copy.copy(model)
        twin.module = _portable_module(inner)
        return twin
    return model


def _portable_module(module: torch.nn.Module) -> Any:
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return module
    known = _arrays.get(module, {})
    used: dict[Any, Any] = {}

    def weight(tensor: Any) -> Any:
        return _weight(tensor, known, used)

    tree = ModuleCopier(weight, weight).module(module)
    _arrays[module] = used
    return tree


def _weight(tensor: Any, known: dict[Any, Any], used: dict[Any, Any]) -> Any:
    plain = (torch.Tensor, torch.nn.Parameter)
    if type(tensor) not in plain:
        return tensor
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return tensor
    try:
        view = tensor.detach().numpy()
    except TypeError:  # a type that NumPy lacks, such as bfloat16
        return tensor
    key = (view.ctypes.data, view.shape, view.strides, view.dtype.str)
    used[key] = known.get(key, view)
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    return _Weight(used[key], is_parameter, tensor.requires_grad)


class _Weight:
    """An array that is pickled, and comes back as a parameter or buffer."""

    def __init__(self, array: Any, is_parameter: bool, requires_grad: bool) -> None:
        self._parts = (array, is_parameter, requires_grad)

    def __reduce__(self) -> Any:
        return _tensor, self._parts


def _tensor(array: Any, is_parameter: bool, requires_grad: bool) -> torch.Tensor:
    with warnings.catch_warnings():
        # A mapped file cannot be written to, and frozen weights never are.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor
