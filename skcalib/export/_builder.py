"""Writing ONNX nodes one after another, with names and opsets taken care of."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._onnx._graph import sort_nodes, unused_name
from skcalib._optional import import_optional

# The operators for classical machine learning, and what their LabelEncoder needs.
ML, ML_OPSET = "ai.onnx.ml", 2
# Below this opset `Where` is missing; nothing current writes such models.
SMALLEST_OPSET = 9


class NodeBuilder:
    """Nodes and constants of a piece of graph, in the operators of one opset."""

    def __init__(
        self, opset: int, taken: Collection[str] = (), prefix: str = ""
    ) -> None:
        if opset < SMALLEST_OPSET:
            raise ValueError(
                f"The model uses ONNX opset {opset}; writing a calibration needs "
                f"{SMALLEST_OPSET} or newer. Convert it with onnx.version_converter."
            )
        self.onnx = import_optional("onnx", "Writing an ONNX model")
        self.opset = opset
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        # Of the graph, beside those that it has.
        self.inputs: list[Any] = []
        self._prefix = prefix
        self._taken = set(taken)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def name(self, wanted: str) -> str:
        """Return a name that nothing else in the graph has."""
        return unused_name(self._prefix + wanted, self._taken)

    def op(
        self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output; return the output's name."""
        output = output or self.name(op_type)
        node = self.onnx.helper.make_node(
            op_type,
            list(inputs),
            [output],
            name=self.name(f"{op_type}_node"),
            **attributes,
        )
        self.nodes.append(node)
        return output

    def ml_op(self, op_type: str, x: str, **attributes: Any) -> str:
        """Add a node of the operators for classical machine learning."""
        return self.op(op_type, x, domain=ML, **attributes)

    def input(self, wanted: str, element: str) -> str:
        """Add an input of the graph, one value a row; return its name."""
        name = unused_name(wanted, self._taken)
        number = self.onnx.TensorProto.DataType.Value(element)
        info = self.onnx.helper.make_tensor_value_info(name, number, ["batch"])
        self.inputs.append(info)
        return name

    def opsets(self, model: Any) -> None:
        """Have the model import what the nodes are of."""
        if not any(node.domain == ML for node in self.nodes):
            return
        known = [entry for entry in model.opset_import if entry.domain == ML]
        if not known:
            model.opset_import.add(domain=ML, version=ML_OPSET)
        elif known[0].version < ML_OPSET:
            if any(node.op_type == "LabelEncoder" for node in model.graph.node):
                raise ValueError(
                    f"The model has a LabelEncoder of {ML} {known[0].version}; groups "
                    f"are looked up by one of {ML_OPSET}. Convert the model anew."
                )
            known[0].version = ML_OPSET

    def constant(self, value: Any, dtype: Any = np.float64) -> str:
        """Add a constant, once for equal values; return its name."""
        array = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if array.dtype.kind == "O":
            key = ("O", array.shape, repr(array.tolist()).encode())
        if key not in self._constants:
            name = self._constants[key] = self.name("constant")
            self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return self._constants[key]

    def cast(self, x: str, dtype: Any, output: str | None = None) -> str:
        """Cast to a NumPy type, or to an element type of ONNX given as an int."""
        if not isinstance(dtype, int):
            dtype = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.op("Cast", x, output=output, to=dtype)

    def reduce(self, op_type: str, x: str) -> str:
        """Reduce along the columns and keep the axis."""
        axes_are_input = 13 if op_type == "ReduceSum" else 18
        if self.opset >= axes_are_input:
            return self.op(op_type, x, self.constant([1], np.int64), keepdims=1)
        return self.op(op_type, x, axes=[1], keepdims=1)

    def reshape(self, x: str, shape: list[int], output: str | None = None) -> str:
        """Reshape; -1 stands for the number of rows."""
        return self.op("Reshape", x, self.constant(shape, np.int64), output=output)

    def labels(
        self, scores: str, classes: NDArray[Any], output: str | None = None
    ) -> str:
        """Look up the class of the first largest score of each row."""
        top = self.op("ArgMax", scores, axis=1, keepdims=0)
        if classes.dtype.kind in "US":
            classes = classes.astype(object)
        table = self.constant(classes, label_dtype(classes))
        return self.op("Gather", table, top, output=output, axis=0)

    def add_to(self, model: Any) -> None:
        """Add all nodes, constants and inputs to the graph of `model`, in order."""
        self.opsets(model)
        model.graph.input.extend(self.inputs)
        # Before version 4 every initializer had to be an input of the model, and
        # programs that rewrite a graph, such as onnxsim, make new initializers.
        model.ir_version = max(model.ir_version, 4)
        model.graph.initializer.extend(self.initializers)
        model.graph.node.extend(self.nodes)
        sort_nodes(model.graph)


def label_dtype(classes: NDArray[Any]) -> Any:
    """Return the NumPy type in which ONNX holds these labels."""
    kind = classes.dtype.kind
    if kind in "US" or (kind == "O" and all(isinstance(c, str) for c in classes)):
        return np.object_
    if kind in "iu":
        refuse_beyond_int64("classes_", classes.tolist())
        return np.int64
    if kind == "b":
        return np.bool_
    if kind == "f":
        return np.float64
    raise ValueError(
        f"classes_ holds {classes[:3].tolist()} of type {classes.dtype}; labels of ONNX"
        " are integers, floats, bools or strings. Encode the labels before `fit`."
    )


def refuse_beyond_int64(name: str, values: Iterable[int]) -> None:
    """Refuse integers, which `name` holds, that ONNX cannot."""
    limits = np.iinfo(np.int64)
    for value in values:
        if not limits.min <= value <= limits.max:
            raise ValueError(
                f"{name} holds {value}; the integers of ONNX end at {limits.max}, "
                "2**63 - 1. Fit with text in their place, as astype(str) makes it."
            )


def model_opset(model: Any) -> int:
    """Return the opset of the standard operators, adding one if the model has none."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    model.opset_import.add(domain="", version=13)
    return 13
