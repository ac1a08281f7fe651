"""Checking a converted network: its values, and its gradient, before it is used.

Values are compared with onnxruntime's. The gradient is compared with finite differences
in double precision, along its own direction and a random one, at several steps: kinks
spoil some steps, not all. Quantised networks are constant between jumps, so that only a
gradient other than zero is asked of them.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skcalib._onnx._in_torch._module import Batch, OnnxModule
from skcalib._onnx._in_torch._registry import WHAT_ELSE
from skcalib._onnx._inputs import batches
from skcalib._onnx._session import OnnxNetwork
from skcalib.exceptions import ModelFormatError, NotDifferentiableError

# Largest distance between the logits, relative to their spread.
_VALUE_TOLERANCE = 1e-3
_HALF_TOLERANCE = 5e-2
_QUANTISED_TOLERANCE = 0.25
_GRADIENT_TOLERANCE = 1e-3
_STEPS = (1e-5, 1e-6, 1e-4, 1e-3, 1e-7)
_ROWS = 4
_CONFIRMED_ROWS = 64


def confirm(module: OnnxModule, x: Any) -> None:
    """Compare values and gradients with onnxruntime's on real inputs.

    Also settles how the logits are read, where made-up inputs could not.

    Parameters
    ----------
    module : OnnxModule
        The converted network. Confirming it notes so in it.

    x : array-like or Tensor of shape (n, ...), or mapping from name to them
        A few inputs; the first 64 are used.

    Raises
    ------
    NotDifferentiableError
        If values or gradients differ, or are not finite.
    """
    network = module.reference()
    rows: Any = (
        {name: _array(part) for name, part in x.items()}
        if isinstance(x, Mapping)
        else _array(x)
    )
    readout = network.confirm(rows, _CONFIRMED_ROWS)
    if (readout.tensor, readout.kind) != (module.readout.tensor, module.readout.kind):
        module.use(readout)
    feeds, _ = next(batches(network.inputs, rows, _CONFIRMED_ROWS))
    if not verify(module, network, feeds):
        raise NotDifferentiableError(
            f"The logits of {network.name} are not finite on these inputs."
        )
    module.is_confirmed = True


def _array(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def verify(
    module: OnnxModule, network: OnnxNetwork, feeds: dict[str, np.ndarray]
) -> bool:
    """Compare values and gradients on a batch; False if it gives nothing to compare."""
    n_rows = None if module.fixed_batch else _ROWS
    x = {
        spec.name: torch.from_numpy(np.array(feeds[spec.name])).to(module.device)
        for spec in module.inputs
    }
    try:
        (values,) = network.run(feeds, [module.readout.tensor])
    except ModelFormatError:
        return False
    expected = values.astype(np.float64)
    if not np.isfinite(expected).all():
        return False
    _check_values(module, network, x, expected)
    _check_gradient(module, {name: part[:n_rows] for name, part in x.items()})
    return True


def _check_values(
    module: OnnxModule, network: OnnxNetwork, x: Batch, expected: np.ndarray
) -> None:
    try:
        with torch.no_grad():
            found = module.scores(x)
    except ModelFormatError:
        raise
    except ValueError as error:
        raise NotDifferentiableError(
            f"The model {network.name} runs in onnxruntime but not by torch operators: "
            f"{error} {WHAT_ELSE}"
        ) from error
    off = np.abs(found.cpu().double().numpy() - expected)
    spread = max(float(np.abs(expected).max()), 1e-6)
    distance = float(off.max()) / spread
    if distance > _tolerance(module):
        raise NotDifferentiableError(
            f"The model {network.name}, computed by torch operators, gives scores that "
            f"differ from onnxruntime's by {distance:.2g} of their size, so its "
            f"gradient cannot be trusted. {WHAT_ELSE}"
        )


def _tolerance(module: OnnxModule) -> float:
    if module.is_quantised:
        return _QUANTISED_TOLERANCE
    return _HALF_TOLERANCE if module.is_half else _VALUE_TOLERANCE


@torch.enable_grad()
def _check_gradient(module: OnnxModule, x: Batch) -> None:
    twin = copy.deepcopy(module).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        site = twin.site_values(x)
        logits = twin(x)
        weight = _draw(logits, generator)
    if not site.is_floating_point():
        raise NotDifferentiableError(
            f"The tensor {module.site!r} holds integers, which cannot be perturbed. "
            "Name a floating-point tensor: site=..."
        )

    def total(shift: Tensor) -> Tensor:
        return (twin(x, shift) * weight).sum()

    shift = torch.zeros_like(site, requires_grad=True)
    value = total(shift)
    gradient = torch.zeros_like(site)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, shift)
    size = float(gradient.norm())
    if not np.isfinite(size):
        raise _wrong(module, "is not finite on trial inputs")
    if size == 0:
        raise _wrong(module, "is exactly zero everywhere on trial inputs")
    if not module.is_quantised:
        for direction in (gradient, _draw(site, generator)):
            _compare(module, total, gradient, site, direction / direction.norm())


def _compare(
    module: OnnxModule,
    total: Callable[[Tensor], Tensor],
    gradient: Tensor,
    site: Tensor,
    direction: Tensor,
) -> None:
    """Compare the slope along a direction of length 1 with differences."""
    slope = float((gradient * direction).sum())
    unit = float(site.norm()) or float(site.numel()) ** 0.5
    typical = float(gradient.norm()) / site.numel() ** 0.5
    nearest, closest = np.inf, np.nan
    with torch.no_grad():
        for step in _STEPS:
            reach = step * unit * direction
            measured = float(total(reach) - total(-reach)) / (2 * step * unit)
            scale = max(abs(slope), abs(measured), typical)
            error = abs(measured - slope) / scale
            if error <= _GRADIENT_TOLERANCE:
                return
            if error < nearest:
                nearest, closest = error, measured
    raise _wrong(
        module, f"is wrong: {slope:.4g} where finite differences give {closest:.4g}"
    )


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return drawn.to(like.device)


def _wrong(module: OnnxModule, reason: str) -> NotDifferentiableError:
    return NotDifferentiableError(
        f"The gradient of the logits with respect to {module.site!r} {reason}. "
        f"{WHAT_ELSE}"
    )
