"""The logits in what a network returned."""

from collections.abc import Mapping
from typing import Any

import torch

from skcalib._onnx._outputs import as_columns, own_row


def as_logits(result: Any, n_rows: int) -> Any:
    """Lay out a network's result as (n, K) logits in single or double precision.

    One column of log-odds z becomes the two columns (0, z).
    """
    advice = "Say where the logits are: output=<name or position>."
    logits = as_columns(own_row(result, n_rows), n_rows, "The network's result", advice)
    if logits.dtype != torch.float64:
        logits = logits.float()
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def pick_logits(result: Any, output: str | int | None) -> Any:
    """Take the logits out of what a module returned."""
    if output is not None:
        try:
            if isinstance(output, str) and not isinstance(result, Mapping):
                result = getattr(result, output)
            else:
                result = result[output]
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"The module's result, a {type(result).__name__}, has no {output!r}."
            ) from error
    elif not isinstance(result, torch.Tensor) and hasattr(result, "logits"):
        result = result.logits
    if not isinstance(result, torch.Tensor):
        found = f" with the keys {list(result)}" if isinstance(result, Mapping) else ""
        raise ValueError(
            f"The module returned a {type(result).__name__}{found}, not a tensor. Say "
            "where its logits are: output=<name or position>."
        )
    return result
