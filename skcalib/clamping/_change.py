r"""What a perturbation does to inputs: x + w * x + delta.

A tensor added to all inputs alike is Neural Clamping as published (Tang, Chen & Ho,
"Neural Clamping", TMLR 2024), with w = 0. The filter w is ours: a small convolution,
depthwise or across channels, undoes what a camera, a lens or a codec has done alike to
all inputs. Borders are reflected without repeating the edge, what NumPy, torch and ONNX
call "reflect".

The gradient of a loss by w is the correlation of its gradient G by the change with the
inputs: dL/dw[o, i, t] = sum_n sum_p G[n, o, p] x[n, i, p + t].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
# Spatial axes that torch and onnxruntime convolve along.
MOST_AXES = max(_CONVOLVE)


@dataclass(frozen=True, eq=False)
class Change:
    """A tensor to add to inputs, and a filter of them whose result is added as well.

    Attributes
    ----------
    delta : array or tensor of the shape of an input
        What is added.

    kernel : array or tensor of shape (channels, 1 or channels, ...), default=None
        Weights w of the filter, as those of a convolution: one filter a channel, or
        across channels. None where inputs are not filtered.

    axis : int, default=0
        Axis of the channels, without the batch axis.
    """

    delta: Any
    kernel: Any = None
    axis: int = 0

    @property
    def parts(self) -> list[Any]:
        """Delta, and the kernel if there is one."""
        return [self.delta] if self.kernel is None else [self.delta, self.kernel]

    def __call__(self, x: Tensor) -> Tensor:
        """Return what is added to the inputs `x`; one for all without a filter."""
        if self.kernel is None:
            delta: Tensor = self.delta
            return delta
        return convolve(x, self.kernel, self.axis) + self.delta

    def any(self) -> bool:
        """Whether anything is changed."""
        return any(bool(part.any()) for part in self.parts)

    def map(self, function: Callable[[Any], Any]) -> "Change":
        """Return the change of other numbers: `function` of delta and of the kernel."""
        delta, *kernel = map(function, self.parts)
        return Change(delta, kernel[0] if kernel else None, self.axis)


def convolve(x: Tensor, kernel: Tensor, axis: int = 0) -> Tensor:
    """Convolve inputs of shape (n, ...) with a kernel; borders are reflected."""
    padded = _padded(x, kernel.shape[2:], axis)
    groups = padded.shape[1] // kernel.shape[1]
    flat = kernel.ndim == 2
    if flat:  # features: no axis to convolve along
        padded, kernel = padded[..., None], kernel[..., None]
    result = _CONVOLVE[kernel.ndim - 2](padded, kernel, groups=groups)
    return (result[..., 0] if flat else result).movedim(1, 1 + axis)


def correlation(
    x: Tensor, size: Sequence[int], axis: int = 0, *, own: bool
) -> Callable[[Tensor], Tensor]:
    """Return a function from each row's gradient by the change to that by the kernel.

    `own` says that each channel has a filter of its own. The result has a row an input
    and the numbers of a kernel as columns.
    """
    views = _padded(x, size, axis)
    for spatial, width in enumerate(size, start=2):
        views = views.unfold(spatial, width, 1)
    n, channels, taps = x.shape[0], views.shape[1], math.prod(size)
    views = views.reshape(n, channels, -1, taps)

    def by_kernel(gradient: Tensor) -> Tensor:
        rows = gradient.movedim(1 + axis, 1).reshape(n, channels, 1, -1)
        if own:
            return (rows @ views).reshape(n, -1)
        # Each channel of the gradient with each of the inputs.
        return torch.einsum("nop,nipt->noit", rows[:, :, 0], views).reshape(n, -1)

    return by_kernel


def _padded(x: Tensor, size: Sequence[int], axis: int) -> Tensor:
    """Return inputs with their channels first and their borders reflected."""
    x = x.movedim(1 + axis, 1)
    reach = [width // 2 for width in reversed(size) for _ in range(2)]
    return functional.pad(x, reach, mode="reflect") if any(reach) else x
