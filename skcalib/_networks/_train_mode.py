"""Networks that run in train mode after all, and are refused.

Nothing reaches a module that a function knows by a global name, or an object by an
attribute. So a network is first run on a row or two under a watch that ends the run
where torch is asked to act as in training: before a running mean is overwritten.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from skcalib._networks._module_copy import ModuleCopier, same
from skcalib._networks._named import each

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# What arguments are called, in Python and in the operators of graphs.
_MODES = ("training", "train", "use_input_stats")
_RATES = ("p", "dropout_p", "dropout")


class TrainModeError(ValueError):
    """A network acts as in training."""


_MADE_IN_TRAINING = (
    "The network is a graph that was made in train mode: it runs {} as in training, "
    "which eval() does not undo. Call eval() on the module before it is traced or "
    "exported, or pass that module itself."
)


class _Watch(TorchFunctionMode):
    """Ends what calls torch for something that is done in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: list[tuple[Any, Any]] = []

    def restore_counts(self) -> None:
        """Undo what BatchNorm does before it normalises: count the batch."""
        for tensor, value in reversed(self._counts):
            tensor.fill_(value)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").split(".")[0]
        if acts_as_in_training(func, args, kwargs):
            if isinstance(func, torch._ops.OpOverload):  # of an exported graph
                raise TrainModeError(_MADE_IN_TRAINING.format(name))
            raise TrainModeError(
                f"The network runs {name} as in training, so that its logits "
                "are not those of inference. Call eval() on the module behind it, or "
                "pass that module itself: it is then run in eval mode and left as it "
                "is. In a forward of your own, pass training=self.training."
            )
        if name == "add_" and args[0].ndim == 0:
            self._counts.append((args[0], args[0].item()))
        return func(*args, **kwargs)


def acts_as_in_training(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call drops at random, or normalises a batch by itself and learns it."""
    name = getattr(func, "__name__", "")
    if name in _RECURRENT:  # ..., dropout, train, ...
        return any(type(a) is float and a > 0 and b is True for a, b in pairwise(args))
    if name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", 0) > 0)
    if isinstance(func, torch._ops.OpOverload):
        return _trains(_bound(func._schema.arguments, args, kwargs))
    if getattr(func, "__module__", None) != "torch.nn.functional":
        return False
    try:
        call = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):  # a call that fails by itself, or a built-in
        return False
    call.apply_defaults()
    return _trains(call.arguments)


def _bound(
    arguments: Any, values: Iterable[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of an operator by name."""
    found = {a.name: a.default_value for a in arguments if a.has_default_value()}
    names = (argument.name for argument in arguments)
    return found | dict(zip(names, values, strict=False)) | dict(named)


def _trains(found: Mapping[str, Any]) -> bool:
    """Whether arguments ask for it; one that is not known is an ellipsis."""
    modes = [found[mode] for mode in _MODES if mode in found]
    if not any(mode == 1 for mode in modes):
        # Attention has a rate alone.
        return not modes and found.get("dropout_p", 0) not in (0, ...)
    if "momentum" in found:  # without a mean, inference normalises by the batch too
        return found.get("running_mean") is not None
    return all(found.get(rate) != 0 for rate in _RATES)


def refuse_train_trace(part: Any) -> None:
    """Raise if TorchScript holds the train mode in which it was traced.

    A script asks for its mode instead, also by branches, which are left out here.
    """
    graph = getattr(part, "inlined_graph", None)  # the nodes do not keep it alive
    for node in () if graph is None else graph.nodes():
        if not node.kind().startswith("aten::"):
            continue
        values = (
            value.toIValue() if value.node().kind() == "prim::Constant" else ...
            for value in node.inputs()
        )
        arguments = torch._C.parse_schema(node.schema()).arguments
        if _trains(_bound(arguments, values, {})):
            raise TrainModeError(_MADE_IN_TRAINING.format(node.kind()[6:]))


def refuse_train_mode(forward: Callable[..., Any], *arguments: Any) -> None:
    """Run a network on a row, or on all, and raise if it acts as in training."""
    for rows in (1, None):
        watch = _Watch()
        try:
            with torch.no_grad(), watch:
                forward(*(each(torch.clone, part[:rows]) for part in arguments))
        except TrainModeError:
            watch.restore_counts()
            raise
        except Exception:  # noqa: S112 - what it does not take, its own run will tell
            continue
        return


def modules_behind(function: Callable[..., Any]) -> tuple[list[Any], bool]:
    """Return the modules that a function closes over, and whether any is compiled.

    Compiled code hides what it calls.

    Raises
    ------
    TrainModeError
        If that which is compiled belongs to a module in train mode, or was traced so.
    """
    copier = ModuleCopier(scripted=same)
    copier.value(function)
    if isinstance(function, torch.jit.ScriptFunction):
        refuse_train_trace(function)
    for module in copier.originals if copier.met_compiled else ():
        if isinstance(module, torch.jit.ScriptModule):
            refuse_train_trace(module)
        # A frozen script has no mode: it is that of inference.
        if any(getattr(part, "training", False) for part in module.modules()):
            raise TrainModeError(
                f"The network runs a compiled {type(module).__name__} in train mode, "
                "so that its logits are not those of inference. Call eval() on it, or "
                "pass the module itself: it is then run in eval mode and left as it is."
            )
    return copier.originals, copier.met_compiled
