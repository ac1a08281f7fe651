"""ONNX networks before neural clamping: with their gradient, or forward only."""

import os
from typing import Any

import torch
from torch import Tensor

from skcalib._networks._given import Given
from skcalib._onnx._files import open_model
from skcalib._onnx._readout import Readout
from skcalib._onnx._recent import Recent
from skcalib._onnx._session import OnnxNetwork
from skcalib.exceptions import NotDifferentiableError

# Converted networks, the last few used: converting one and confirming its gradient
# costs far more than a batch. They hold no state, so that all may share them.
_converted = Recent(4)


def confirm_once(module: Any, x: Any) -> None:
    """Compare a converted network with the original, unless that has been done."""
    from skcalib._onnx._in_torch import confirm

    if not module.is_confirmed:
        confirm(module, x)


def convert(given: Given, site: str | None, device: Any) -> tuple[Any, str | None]:
    """Return ``(module, None)``, or ``(None, reason)`` where there is no gradient."""
    from skcalib._onnx._in_torch import differentiable_network

    def open_anew() -> tuple[Any, str | None]:
        try:
            module = differentiable_network(given.model, given.output, site)
        except NotDifferentiableError as error:
            return None, str(error)
        return module.to(device).eval(), None

    key = (os.getpid(), open_model(given.model), given.output, site, str(device))
    found: tuple[Any, str | None] = _converted.get(key, open_anew)
    return found


class SessionLogits:
    """Logits by onnxruntime, on the CPU, without gradients."""

    def __init__(self, session: OnnxNetwork) -> None:
        self._session = session
        self._readout: Readout | None = None

    def __call__(self, x: Tensor | None = None, /, **named: Tensor) -> Tensor:
        rows: Any = {name: part.numpy() for name, part in named.items()}
        n_rows = next(iter(named.values()), x).shape[0]  # type: ignore[union-attr]
        rows = rows if x is None else x.numpy()
        if self._readout is None:
            self._readout = self._session.confirm(rows, n_rows)
        (logits,) = self._session.logits(rows, n_rows, self._readout)
        return torch.from_numpy(logits)
