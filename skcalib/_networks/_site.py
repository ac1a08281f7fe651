"""A torch module seen from one of its parts on: what that part returns is shifted."""

import threading
from typing import Any

import torch
from torch import Tensor, nn

from skcalib._networks._named import each
from skcalib._networks._torch import run_module


class SiteModule(nn.Module):
    """A module, and the part of it to whose result a perturbation is added.

    ``f(x, shift)`` is the module's result with `shift` added to what the part returns;
    ``f.site_values(x)`` is that tensor. Both leave `x` as it is, also where the module
    works in place.

    Parameters
    ----------
    module : torch.nn.Module
        A frozen view.

    site : str
        Name of the part, as `named_modules` has it. It returns a tensor, or a tuple
        that begins with one, and runs once in a pass.
    """

    def __init__(self, module: nn.Module, site: str) -> None:
        super().__init__()
        self.module = module
        self.site = site
        self._pass = _Pass()
        part = module.get_submodule(site)
        # A view shares its hooks with the module, which must not see this one.
        part._forward_hooks = part._forward_hooks.copy()
        part.register_forward_hook(self._reached)

    def forward(self, x: Any, shift: Tensor | None = None) -> Any:
        """Return the module's result for a batch."""
        self._pass.shift, self._pass.runs = shift, 0
        try:
            result = run_module(self.module, each(torch.clone, x))
        finally:
            self._pass.shift = None
        if shift is not None and self._pass.runs != 1:
            raise ValueError(
                f"The part {self.site!r} of the network runs {self._pass.runs} times "
                "in a pass; what is perturbed has to run once. Name another: site=..."
            )
        return result

    def site_values(self, x: Any) -> Tensor:
        """Return what the part returns; what comes after it is not run."""
        self._pass.stops = True
        try:
            run_module(self.module, each(torch.clone, x))
        except _Reached as reached:
            return reached.values
        finally:
            self._pass.stops = False
        raise ValueError(
            f"The part {self.site!r} of the network is not run. Name another: site=..."
        )

    def _reached(self, part: nn.Module, inputs: Any, output: Any) -> Any:
        values = output[0] if isinstance(output, tuple) else output
        if not isinstance(values, Tensor):
            raise ValueError(
                f"The part {self.site!r} of the network returns a "
                f"{type(output).__name__}; a tensor is needed. Name a part that "
                "returns one: site=..."
            )
        self._pass.runs += 1
        if self._pass.stops:
            raise _Reached(values)
        shift = self._pass.shift
        if shift is None:
            return None
        shifted = values + shift.to(values.dtype)
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted


class _Pass(threading.local):
    """What is to happen at the site in a pass of the thread that asks.

    A module that is served may run in several threads. Copies begin anew.
    """

    shift: Tensor | None = None
    stops = False
    runs = 0

    def __reduce__(self) -> Any:
        return _Pass, ()


class _Reached(BaseException):
    """Ends a pass at the site; no network that catches errors may catch it."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values
