"""Networks on their way to other processes: weights travel as plain arrays.

joblib writes the large arrays that a task holds to memory-mapped files, once for each
array however many tasks hold it. So a module is taken apart into its tree and arrays,
the same arrays each time, and worker processes map them instead of copying them. What
was compiled travels uncompiled, and TorchScript as the bytes of its file.
"""

import contextlib
import io
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from skcalib._networks._module_copy import ModuleCopier

# Arrays that show the memory of a module's tensors, as long as the module lives.
_arrays: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def portable(model: Any) -> Any:
    """Return what to pickle for a network; unpickled, it is the network again."""
    if not isinstance(model, torch.nn.Module):
        return model
    known = _arrays.get(model, {})
    used: dict[Any, Any] = {}

    def weight(tensor: Any) -> Any:
        return _weight(tensor, known, used)

    tree = ModuleCopier(weight, weight, _Script).module(model)
    _arrays[model] = used
    return tree


def portable_scripts(state: dict[str, Any]) -> dict[str, Any]:
    """Return what to pickle for a state in which TorchScript may be."""
    copier = ModuleCopier(scripted=_Script)
    twin: dict[str, Any] = copier.value(state)
    script = torch.jit.ScriptModule
    return twin if any(isinstance(p, script) for p in copier.originals) else state


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


class _Script:
    """TorchScript that is pickled, and comes back as it is read from a file."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __reduce__(self) -> Any:
        file = io.BytesIO()
        with _without_deprecation():
            torch.jit.save(self._module, file)
        return _script, (file.getvalue(),)


def _script(data: bytes) -> Any:
    with _without_deprecation():
        return torch.jit.load(io.BytesIO(data))


@contextlib.contextmanager
def _without_deprecation() -> Iterator[None]:
    """Silence what torch says of TorchScript, which is the user's choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _tensor(array: Any, is_parameter: bool, requires_grad: bool) -> torch.Tensor:
    with warnings.catch_warnings():
        # A mapped file cannot be written to, and frozen weights never are.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor
