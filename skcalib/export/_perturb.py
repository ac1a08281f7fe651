"""A perturbation written into an ONNX graph: one tensor shifted for all its readers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._onnx._graph import redirect_readers, tensor_names
from skcalib._optional import import_optional
from skcalib.exceptions import ModelFormatError
from skcalib.export._builder import NodeBuilder, model_opset

Range = tuple[Any, Any]


def network_input(model: Any) -> str:
    """Return the name of the only input of `model`."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in constants]
    if len(names) != 1:
        raise ValueError(
            f"The model has the inputs {names}; a perturbation can be written into a "
            "model of one input only, or at the tensor that site= names."
        )
    return names[0]


def perturb_tensor(
    model: Any,
    tensor: str,
    delta: NDArray[np.float32],
    feasible_range: Range | None = None,
) -> str:
    """Let every reader of `tensor` see it shifted; return the shifted one's name.

    `model` is changed in place. A shift of zeros is not written, nor a range of None.
    """
    if not delta.any() and feasible_range is None:
        return tensor
    graph = model.graph
    element, dtype = _element(model, tensor)
    build = NodeBuilder(model_opset(model), tensor_names(graph), "skcalib_")
    shifted = build.name("shifted")
    redirect_readers(graph, tensor, shifted)
    wide = np.float64 if dtype == np.float64 else np.float32
    steps = [("Add", delta)] if delta.any() else []
    if feasible_range is not None:
        # Clip takes scalars only.
        steps += zip(("Max", "Min"), feasible_range, strict=True)
    x = tensor if dtype == wide else build.cast(tensor, wide)
    for step, (operator, value) in enumerate(steps, start=1):
        is_result = step == len(steps) and dtype == wide
        constant = build.constant(value, wide)
        x = build.op(operator, x, constant, output=shifted if is_result else None)
    if dtype != wide:
        build.cast(x, element, output=shifted)
    build.add_to(model)
    return shifted


def _element(model: Any, tensor: str) -> tuple[int, np.dtype[Any]]:
    """Return the element type of a floating-point tensor, in ONNX and in NumPy."""
    onnx = import_optional("onnx", "Writing an ONNX model")
    for value in _typed_values(onnx, model, tensor):
        if value.name != tensor:
            continue
        element = value.type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        if element in _floats(onnx.TensorProto):
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


def _floats(types: Any) -> tuple[int, ...]:
    return (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16)
