"""Copies of a tree of modules in which nothing refers to the original any more.

A module is more than its parameters: its `forward` may have been replaced by a bound
method, a partial or a closure, hooks may be methods of it, and torch.compile keeps
code that was made of it. A copy that shares one of these runs the original, in the
original's mode. So whatever a module holds is walked, and where something refers to
a module it is rebuilt around that module's copy; the rest is shared.
"""

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

Replace = Callable[[Any], Any]


def same(value: Any) -> Any:
    """Return what is given: copies share it."""
    return value


def copied_script(module: Any) -> Any:
    """Return a copy of a TorchScript module that can be trained where it could be."""
    with torch.no_grad():  # or its weights would be computed from the original's
        twin = copy.deepcopy(module)
    for weight, original in zip(twin.parameters(), module.parameters(), strict=True):
        weight.requires_grad_(original.requires_grad)
    return twin


class ModuleCopier:
    """Copies modules, and functions and containers that refer to them.

    Parameters
    ----------
    parameter, buffer : callable, default=same
        Give the tensor that stands in the copy for one of the original.

    scripted : callable, default=copied_script
        Gives the copy of a TorchScript module, which cannot be taken apart.

    frozen : bool, default=False
        Whether copies are in eval mode, or else in that of the original.

    deep : bool, default=False
        Whether attributes that refer to no module are copied as well, as by
        `copy.deepcopy`.

    Attributes
    ----------
    originals : list of torch.nn.Module
        The modules that were met.

    met_compiled : bool
        Whether any of them, or a function, was compiled.
    """

    def __init__(
        self,
        parameter: Replace = same,
        buffer: Replace = same,
        scripted: Replace = copied_script,
        *,
        frozen: bool = False,
        deep: bool = False,
    ) -> None:
        self._parameter, self._buffer, self._scripted = parameter, buffer, scripted
        self._frozen, self._deep = frozen, deep
        # Copies by the id of the original, as copy.deepcopy keeps them.
        self._memo: dict[int, Any] = {}
        self._cells: dict[int, Any] = {}
        self.originals: list[Any] = []
        self.met_compiled = False

    def module(self, module: Any) -> Any:
        """Return the copy of a module, not compiled nor shared among processes."""
        if is_compiled(module):
            self.met_compiled = True
            module = module._modules["_orig_mod"]
        if isinstance(module, DistributedDataParallel):
            module = module.module  # the reducer around it cannot be copied
        if id(module) in self._memo:
            return self._memo[id(module)]
        self.originals.append(module)
        if isinstance(module, torch.jit.ScriptModule):
            self.met_compiled = True
            twin = self._memo[id(module)] = self._scripted(module)
            return twin
        # Not by the class's own way, which a traced graph uses to make a new class.
        twin = object.__new__(module.__class__)
        self._memo[id(module)] = twin
        twin.__dict__ = self._state(dict(module.__dict__))
        return twin

    def _state(self, state: dict[str, Any]) -> dict[str, Any]:
        # torch.compile's code; it is made of the original.
        self.met_compiled |= state.pop("_compiled_call_impl", None) is not None
        twins: dict[str, Any] = {
            "_parameters": _each(state.pop("_parameters"), self._weight),
            "_buffers": _each(state.pop("_buffers"), self._own_buffer),
            "_modules": _each(state.pop("_modules"), self.module),
        }
        twins.update({k: self._value(v, self._deep) for k, v in state.items()})
        if self._frozen:
            twins["training"] = False
        return twins

    def value(self, value: Any) -> Any:
        """Return a copy of what refers to a module, and anything else as it is."""
        return self._value(value, False)

    def _value(self, value: Any, deep: bool) -> Any:
        if isinstance(value, torch.nn.Module):
            return self.module(value)
        if isinstance(value, torch.nn.Parameter):
            return self._weight(value)
        if id(value) in self._memo:
            return self._memo[id(value)]
        rebuild = _REBUILT.get(type(value))
        if rebuild is not None:
            self._memo[id(value)] = value  # where it holds itself
            twin = rebuild(self, value, deep)
            del self._memo[id(value)]
            if twin is not value:
                self._memo[id(value)] = twin
                return twin
        return copy.deepcopy(value, self._memo) if deep else value

    def _weight(self, tensor: Any) -> Any:
        return self._once(tensor, self._parameter)

    def _own_buffer(self, tensor: Any) -> Any:
        return self._once(tensor, self._buffer)

    def _once(self, tensor: Any, replace: Replace) -> Any:
        if id(tensor) not in self._memo:
            self._memo[id(tensor)] = replace(tensor)
        return self._memo[id(tensor)]

    def _sequence(self, values: Any, deep: bool) -> Any:
        twins = [self._value(value, deep) for value in values]
        return type(values)(twins) if _differ(twins, values) else values

    def _mapping(self, values: Any, deep: bool) -> Any:
        twins = [self._value(value, deep) for value in values.values()]
        if not _differ(twins, values.values()):
            return values
        return type(values)(zip(values, twins, strict=True))

    def _method(self, method: Any, deep: bool) -> Any:
        parts = method.__func__, method.__self__
        twins = self._value(parts[0], False), self._value(parts[1], deep)
        return types.MethodType(*twins) if _differ(twins, parts) else method

    def _partial(self, part: Any, deep: bool) -> Any:
        parts = part.func, part.args, part.keywords, part.__dict__
        twins = [self._value(value, deep) for value in parts]
        if not _differ(twins, parts):
            return part
        twin = functools.partial(twins[0], *twins[1], **twins[2])
        twin.__dict__.update(twins[3])
        return twin

    def _function(self, function: Any, deep: bool) -> Any:
        plain = getattr(function, "_torchdynamo_orig_callable", None)
        if plain is not None:
            self.met_compiled = True
            twin = self.value(plain)
            return function if twin is plain else twin
        parts = (
            *(function.__closure__ or ()),
            function.__defaults__,
            function.__kwdefaults__,
            function.__dict__,
        )
        cells = [self._cell(cell) for cell in parts[:-3]]
        defaults, keywords, attributes = (self.value(part) for part in parts[-3:])
        if not _differ([*cells, defaults, keywords, attributes], parts):
            return function
        twin = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            defaults,
            tuple(cells),
        )
        twin.__kwdefaults__ = keywords
        twin.__dict__.update(attributes)
        return twin

    def _cell(self, cell: Any) -> Any:
        if id(cell) not in self._cells:
            self._cells[id(cell)] = cell
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                return cell
            twin = self.value(value)
            if twin is not value:
                self._cells[id(cell)] = types.CellType(twin)
        return self._cells[id(cell)]


_REBUILT: dict[type, Any] = {
    list: ModuleCopier._sequence,
    tuple: ModuleCopier._sequence,
    dict: ModuleCopier._mapping,
    OrderedDict: ModuleCopier._mapping,
    types.MethodType: ModuleCopier._method,
    types.FunctionType: ModuleCopier._function,
    functools.partial: ModuleCopier._partial,
}


def is_compiled(module: Any) -> bool:
    """Whether `module` is what `torch.compile` makes of a module."""
    # By its parts: importing the class would load the compiler.
    return "_orig_mod" in module._modules and "dynamo_ctx" in module.__dict__


def is_exported(module: Any) -> bool:
    """Whether `module` is a graph of `torch.export`, which has one mode for good."""
    return isinstance(module, torch.fx.GraphModule) and "train" in vars(module)


def _each(values: dict[str, Any], replace: Replace) -> dict[str, Any]:
    return {k: None if v is None else replace(v) for k, v in values.items()}


def _differ(twins: Any, values: Any) -> bool:
    return any(a is not b for a, b in zip(twins, values, strict=True))
