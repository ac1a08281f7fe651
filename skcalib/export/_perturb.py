"""A perturbation written into an ONNX graph: one tensor changed for all its readers.

What is added is an Add. A filter is one Conv behind a reflecting Pad, with the identity
in its weights and what a channel is moved by in its bias; a gain of each channel alone
is a Mul, and the gains of features across columns are a MatMul.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._onnx._graph import redirect_readers, tensor_names
from skcalib._onnx._readout import is_floating
from skcalib._optional import import_optional
from skcalib.exceptions import ModelFormatError
from skcalib.export._builder import NodeBuilder, model_opset

Range = tuple[Any, Any]


def network_input(model: Any) -> str:
    """Return the name of the only input of `model`, or the only one of real numbers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) > 1:
        inputs = [value for value in inputs if is_floating(value.type.tensor_type)]
    if len(inputs) != 1:
        names = [value.name for value in model.graph.input]
        raise ValueError(
            f"The model has the inputs {names}; a perturbation can be written at the "
            "only one that holds real numbers, or at the tensor that site= names."
        )
    name: str = inputs[0].name
    return name


def perturb_tensor(
    model: Any, tensor: str, change: Any, feasible_range: Range | None = None
) -> str:
    """Let every reader of `tensor` see it changed; return the changed one's name.

    `change` has a `delta`, a `kernel` and the `axis` of the channels, as that of a
    fitted NeuralClamping. `model` is changed in place. What changes nothing is not
    written, nor a range of None.
    """
    if not change.any() and feasible_range is None:
        return tensor
    graph = model.graph
    element, dtype = _element(model, tensor)
    build = NodeBuilder(model_opset(model), tensor_names(graph), "skcalib_")
    shifted = build.name("shifted")
    redirect_readers(graph, tensor, shifted)
    # onnxruntime does not convolve doubles.
    wide = np.float64 if dtype == np.float64 and not _convolves(change) else np.float32
    x = tensor if dtype == wide else build.cast(tensor, wide)
    delta = change.delta
    if change.kernel is not None:
        x, delta = _filtered(build, x, change, wide)
    if delta.any():
        x = build.op("Add", x, build.constant(delta, wide))
    if feasible_range is not None:
        # Clip takes scalars only.
        for operator, bound in zip(("Max", "Min"), feasible_range, strict=True):
            x = build.op(operator, x, build.constant(bound, wide))
    if dtype != wide:
        build.cast(x, element, output=shifted)
    else:
        build.nodes[-1].output[0] = shifted
    build.add_to(model)
    return shifted


def _convolves(change: Any) -> bool:
    """Whether it takes a convolution: neither a gain alone, nor one of features."""
    kernel = change.kernel
    return kernel is not None and kernel.ndim > 2 and kernel[0].size > 1


def _filtered(
    build: NodeBuilder, x: str, change: Any, wide: Any
) -> tuple[str, NDArray[Any]]:
    """Write ``x + w * x``; return its name and what is left to add."""
    kernel, delta = with_identity(change.kernel), np.asarray(change.delta)
    if not _convolves(change):
        if kernel.shape[1] > 1:
            return build.op("MatMul", x, build.constant(kernel.T, wide)), delta
        along = [1] * delta.ndim
        along[change.axis] = -1
        return build.op("Mul", x, build.constant(kernel.reshape(along), wide)), delta
    rank = delta.ndim + 1
    order = [0, 1 + change.axis, *(a for a in range(1, rank) if a != 1 + change.axis)]
    turned = order != sorted(order)
    x = build.op("Transpose", x, perm=order) if turned else x
    reach = [0, 0, *(n // 2 for n in kernel.shape[2:])]
    if any(reach) and build.opset < 11:
        x = build.op("Pad", x, mode="reflect", pads=2 * reach)
    elif any(reach):
        x = build.op("Pad", x, build.constant(2 * reach, np.int64), mode="reflect")
    by_channel = np.moveaxis(delta, change.axis, 0).reshape(
        delta.shape[change.axis], -1
    )
    bias = by_channel[:, 0]
    if (by_channel == bias[:, np.newaxis]).all():
        delta = np.zeros(1)
    else:
        bias = np.zeros_like(bias)
    parts = build.constant(kernel, wide), build.constant(bias, wide)
    x = build.op("Conv", x, *parts, group=len(bias) // kernel.shape[1])
    if turned:
        x = build.op("Transpose", x, perm=np.argsort(order).tolist())
    return x, delta


def with_identity(kernel: NDArray[Any]) -> NDArray[Any]:
    """Return the weights of ``x + w * x``."""
    kernel = np.array(kernel)
    channel = np.arange(kernel.shape[0])
    centre = [n // 2 for n in kernel.shape[2:]]
    kernel[(channel, channel if kernel.shape[1] > 1 else 0, *centre)] += 1
    return kernel


def _element(model: Any, tensor: str) -> tuple[int, np.dtype[Any]]:
    """Return the element type of a floating-point tensor, in ONNX and in NumPy."""
    onnx = import_optional("onnx", "Writing an ONNX model")
    for value in _typed_values(onnx, model, tensor):
        if value.name != tensor:
            continue
        element = value.type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        if is_floating(value.type.tensor_type):
            return element, dtype
        raise ModelFormatError(
            f"The tensor {tensor!r} has type {dtype}; only a floating-point tensor can "
            "be shifted by a perturbation. Name another one: site=..."
        )
    raise ModelFormatError(
        f"The model has no tensor {tensor!r} whose type is known, so no perturbation "
        "can be written there."
    )


def _typed_values(onnx: Any, model: Any, tensor: str) -> Any:
    """Return descriptions of the tensors of a graph; inner ones are inferred."""
    graph = model.graph
    if any(value.name == tensor for value in (*graph.input, *graph.output)):
        return (*graph.input, *graph.output)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return inferred.value_info
