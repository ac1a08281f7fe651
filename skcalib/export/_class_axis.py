"""Scores with the classes along an axis of their own, such as those of pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._onnx._files import ModelSource, parse_model
from skcalib._onnx._readout import is_floating
from skcalib._validation import check_class_axis
from skcalib.exceptions import ModelFormatError
from skcalib.export._builder import NodeBuilder


class ClassAxis:
    """The axis of the classes among those of a tensor, (n, ..., K, ...)."""

    def __init__(self, class_axis: int, shape: list[Any], name: str) -> None:
        if not shape and class_axis != -1:
            raise ModelFormatError(
                f"The model does not say how many axes {name!r} has, which "
                f"class_axis={class_axis} needs. Export it with its shapes."
            )
        lengths = [length if isinstance(length, int) else None for length in shape]
        self.index = check_class_axis(lengths, class_axis)
        self.n_axes = len(shape)
        others = [axis for axis in range(self.n_axes) if axis != self.index]
        self._last = [*others, self.index]
        self._places = ""

    @property
    def names(self) -> tuple[int, int]:
        """The axis, counted from the front and from the back."""
        return self.index, self.index - self.n_axes

    def as_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values as a row for each place."""
        rows: NDArray[Any] = np.moveaxis(values, self.index, -1)
        return rows.reshape(-1, values.shape[self.index])

    def write_rows(self, build: NodeBuilder, x: str, n_columns: int) -> str:
        """Write what makes rows of `x`, and note the places that they come from."""
        x = build.op("Transpose", x, perm=self._last)
        others = build.constant(np.arange(self.n_axes - 1), np.int64)
        self._places = build.op("Gather", build.op("Shape", x), others, axis=0)
        return build.reshape(x, [-1, n_columns])

    def write_back(self, build: NodeBuilder, rows: str, n_columns: int) -> str:
        """Write what puts rows of some width into their places."""
        width = build.constant([n_columns], np.int64)
        shape = build.op("Concat", self._places, width, axis=0)
        x = build.op("Reshape", rows, shape)
        return build.op("Transpose", x, perm=np.argsort(self._last).tolist())


def find_dense_output(source: ModelSource) -> str:
    """Return the only output that may hold scores of places, or ask for its name."""
    outputs = parse_model(source).graph.output
    names = [
        value.name
        for value in outputs
        if is_floating(value.type.tensor_type)
        and len(value.type.tensor_type.shape.dim) > 2
    ]
    if len(names) == 1:
        return str(names[0])
    raise ModelFormatError(
        f"Of the outputs {[value.name for value in outputs]} {names or 'none'} may "
        "hold scores of more than two axes. Name the right one: output=..."
    )
