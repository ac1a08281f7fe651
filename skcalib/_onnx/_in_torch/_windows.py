"""Windows that slide over images: their padding, and where they end."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._registry import Node


@dataclass(frozen=True)
class Windows:
    """Kernel sizes, strides, dilations and padding of a convolution or pooling."""

    auto: str
    pads: tuple[int, ...] | None
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil: bool

    @classmethod
    def of(cls, node: Node, rank: int) -> "Windows":
        """Read the attributes of a node that works on `rank` axes."""
        pads = node.get("pads")
        return cls(
            auto=node.get("auto_pad", "NOTSET"),
            pads=None if pads is None else tuple(pads),
            strides=tuple(node.get("strides", [1] * rank)),
            dilations=tuple(node.get("dilations", [1] * rank)),
            ceil=bool(node.get("ceil_mode", 0)),
        )

    def padding(self, x: Tensor, kernel: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return the declared padding before and after each axis."""
        rank = len(kernel)
        if self.auto in ("NOTSET", "VALID"):
            if self.pads is None or self.auto == "VALID":
                return [(0, 0)] * rank
            return [(self.pads[i], self.pads[rank + i]) for i in range(rank)]
        found = []
        for length, size, stride, dilation in zip(
            x.shape[2:], kernel, self.strides, self.dilations, strict=True
        ):
            outcome = math.ceil(length / stride)
            total = (outcome - 1) * stride + (size - 1) * dilation + 1 - length
            less, more = max(total, 0) // 2, (max(total, 0) + 1) // 2
            upper = self.auto == "SAME_UPPER"
            found.append((less, more) if upper else (more, less))
        return found

    def overhang(
        self, x: Tensor, kernel: tuple[int, ...], padding: list[tuple[int, int]]
    ) -> list[int]:
        """Return how far the last window reaches beyond the padding (ceil mode)."""
        found = []
        for i, (before, after) in enumerate(padding):
            reach = (kernel[i] - 1) * self.dilations[i] + 1
            length, stride = x.shape[2 + i], self.strides[i]
            room = length + before + after - reach
            steps = -(-room // stride) if self.ceil else room // stride
            if self.ceil and steps * stride >= length + before:
                steps -= 1  # no window starts in the padding behind the image
            found.append(max(steps * stride - room, 0))
        return found


def symmetric(padding: list[tuple[int, int]]) -> tuple[int, ...] | None:
    """Return one width an axis if both sides are padded alike."""
    if any(before != after for before, after in padding):
        return None
    return tuple(before for before, _ in padding)


def pad_image(x: Tensor, padding: list[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the axes after the first two."""
    flat = [width for pair in reversed(padding) for width in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x
