"""Networks that run in train mode after all, and are refused.

Nothing reaches a module that a function knows by a global name, or an object by an
attribute. So a network is first run on a row or two under a watch that ends the run
where torch is asked to act as in training: before a running mean is overwritten.
"""

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from skcalib._networks._module_copy import ModuleCopier
from skcalib._networks._named import each

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class TrainModeError(ValueError):
    """A network acts as in training."""


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
        if acts_as_in_training(func, args, kwargs):
            raise TrainModeError(
                f"The network runs {func.__name__} as in training, so that its logits "
                "are not those of inference. Call eval() on the module behind it, or "
                "pass that module itself: it is then run in eval mode and left as it "
                "is. In a forward of your own, pass training=self.training."
            )
        if getattr(func, "__name__", "") == "add_" and args[0].ndim == 0:
            self._counts.append((args[0], args[0].item()))
        return func(*args, **kwargs)


def acts_as_in_training(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call drops at random, or normalises a batch by itself and learns it."""
    name = getattr(func, "__name__", "")
    if name in _RECURRENT:  # ..., dropout, train, ...
        return any(type(a) is float and a > 0 and b is True for a, b in pairwise(args))
    if name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", 0) > 0)
    if getattr(func, "__module__", None) != "torch.nn.functional":
        return False
    try:
        call = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):  # a call that fails by itself, or a built-in
        return False
    call.apply_defaults()
    found = call.arguments
    if not (found.get("training") or found.get("use_input_stats")):
        return False
    if "running_mean" in found:  # without it, inference normalises by the batch too
        return found["running_mean"] is not None
    return bool(found.get("p", found.get("dropout_p", 1)) > 0)


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
        If that which is compiled belongs to a module in train mode.
    """

    def same(tensor: Any) -> Any:
        return tensor

    copier = ModuleCopier(same, same, scripted=same)
    copier.value(function)
    for module in copier.originals if copier.met_compiled else ():
        if any(part.training for part in module.modules()):
            raise TrainModeError(
                f"The network runs a compiled {type(module).__name__} in train mode, "
                "so that its logits are not those of inference. Call eval() on it, or "
                "pass the module itself: it is then run in eval mode and left as it is."
            )
    return copier.originals, copier.met_compiled
