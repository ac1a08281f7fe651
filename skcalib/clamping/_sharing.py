"""Networks on their way to other processes: weights travel as plain arrays.

joblib writes the large arrays that a task holds to memory-mapped files, once for each
array however many tasks hold it. So a module is taken apart into its tree and arrays,
the same arrays each time, and worker processes map them instead of copying them.
"""

import copy
import warnings
import weakref

import torch

# Arrays that show the memory of a module's tensors, as long as the module lives.
_arrays = weakref.WeakKeyDictionary()


def portable(model):
    """Return what to pickle for a network; unpickled, it is the network again."""
    if isinstance(model, torch.nn.Module):
        return _portable_module(model)
    inner = getattr(model, "module", None)
    if isinstance(inner, torch.nn.Module):  # TorchLogits
        twin = copy.copy(model)
        twin.module = _portable_module(inner)
        return twin
    return model


def _portable_module(module):
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return module
    known = _arrays.get(module, {})
    used = {}
    tree = _take_apart(module, known, used, {})
    _arrays[module] = used
    return tree


def _take_apart(module, known, used, seen):
    """Copy the tree of modules with weights that stand for arrays."""
    if id(module) in seen:
        return seen[id(module)]
    twin = module.__class__.__new__(module.__class__)
    seen[id(module)] = twin
    state = dict(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        state[kind] = {
            name: _weight(tensor, known, used, seen)
            for name, tensor in state[kind].items()
        }
    state["_modules"] = {
        name: None if part is None else _take_apart(part, known, used, seen)
        for name, part in state["_modules"].items()
    }
    twin.__dict__ = state
    return twin


def _weight(tensor, known, used, seen):
    plain = (torch.Tensor, torch.nn.Parameter)
    if tensor is None or type(tensor) not in plain:
        return tensor
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return tensor
    if id(tensor) in seen:
        return seen[id(tensor)]
    try:
        view = tensor.detach().numpy()
    except TypeError:  # a type that NumPy lacks, such as bfloat16
        return tensor
    key = (view.ctypes.data, view.shape, view.strides, view.dtype.str)
    used[key] = known.get(key, view)
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    weight = _Weight(used[key], is_parameter, tensor.requires_grad)
    seen[id(tensor)] = weight
    return weight


class _Weight:
    """An array that is pickled, and comes back as a parameter or buffer."""

    def __init__(self, array, is_parameter, requires_grad):
        self._parts = (array, is_parameter, requires_grad)

    def __reduce__(self):
        return _tensor, self._parts


def _tensor(array, is_parameter, requires_grad):
    with warnings.catch_warnings():
        # A mapped file cannot be written to, and frozen weights never are.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor
