"""Reading an ONNX graph: the nodes that a tensor needs, and the constants they use."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from skcalib._onnx._files import ModelSource, load_outside_data
from skcalib._onnx._graph import (
    Wiring,
    attribute_value,
    domain_name,
    inner_graphs,
    outer_tensors,
)
from skcalib._onnx._in_torch._registry import WHAT_ELSE, Node
from skcalib._optional import import_optional
from skcalib.exceptions import NotDifferentiableError

_PURPOSE = "Reading an ONNX model"

# Types that torch lacks, or computes little in, are widened.
_TORCH_TYPES = {
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "UINT16": torch.int32,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "UINT32": torch.int64,
    "INT64": torch.int64,
    "UINT64": torch.int64,
    "BOOL": torch.bool,
    "INT4": torch.int8,
    "UINT4": torch.uint8,
    "INT2": torch.int8,
    "UINT2": torch.uint8,
}
# Numbers that classical models keep in attributes become inputs, as weights are.
_LIFTED = {
    "LinearClassifier": ("coefficients", "intercepts"),
    "LinearRegressor": ("coefficients", "intercepts"),
    "Scaler": ("offset", "scale"),
    "Imputer": ("imputed_value_floats",),
}
_NOT_NUMBERS = ("STRING", "COMPLEX64", "COMPLEX128", "UNDEFINED")


def torch_type(element: int) -> torch.dtype | None:
    """Return the integer or boolean torch type of an ONNX one; None if it is floating.

    Every floating-point type is computed in the type of the network.
    """
    onnx = import_optional("onnx", _PURPOSE)
    name = onnx.TensorProto.DataType.Name(element)
    if name in _NOT_NUMBERS:
        raise NotDifferentiableError(
            f"The model computes with values of type {name.lower()}, which have no "
            f"gradient. {WHAT_ELSE}"
        )
    return _TORCH_TYPES.get(name)


def tensor_of(proto: Any) -> torch.Tensor:
    """Return the values of a TensorProto on the CPU; floating-point ones as float32."""
    onnx = import_optional("onnx", _PURPOSE)
    dtype = torch_type(proto.data_type)
    values = onnx.numpy_helper.to_array(proto)
    if dtype is None:
        with np.errstate(over="ignore"):  # bounds beyond single precision
            return torch.from_numpy(np.array(values, dtype=np.float32))
    wide = values.astype(bool if dtype == torch.bool else np.int64)
    return torch.from_numpy(np.array(wide)).to(dtype)


class Graph:
    """The nodes and constants of a model, by tensor name.

    Outside data are read. `has_halves` says whether weights are kept in half precision.
    """

    def __init__(self, model: Any, source: ModelSource) -> None:
        onnx = import_optional("onnx", _PURPOSE)
        if source.folder is not None:
            load_outside_data(model, source.folder)
        self.opsets = {domain_name(o.domain): o.version for o in model.opset_import}
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._sparse = {t.values.name for t in model.graph.sparse_initializer}
        self.has_halves = any(
            onnx.TensorProto.DataType.Name(t.data_type) in ("FLOAT16", "BFLOAT16")
            for t in model.graph.initializer
        )
        self.nodes = self.read(Wiring(model.graph.node).in_order())

    def read(self, nodes: Iterable[Any]) -> list[Node]:
        """Read messages of nodes."""
        return [self._read_node(proto) for proto in nodes]

    def _read_node(self, proto: Any) -> Node:
        domain = domain_name(proto.domain)
        node = Node(
            op=proto.op_type,
            domain=domain,
            version=self.opsets.get(domain, 1),
            name=proto.name or next(filter(None, proto.output), ""),
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={item.name: attribute_value(item) for item in proto.attribute},
            captured=tuple(chain(*map(outer_tensors, inner_graphs(proto)))),
        )
        return self._lift(node) if domain == "ai.onnx.ml" else node

    def _lift(self, node: Node) -> Node:
        """Turn numbers in attributes into inputs."""
        onnx = import_optional("onnx", _PURPOSE)
        names: tuple[str, ...] = ()
        for attribute in _LIFTED.get(node.op, ()):
            name = f"{node.outputs[-1]}/{attribute}"
            values = np.asarray(node.get(attribute, []), dtype=np.float32)
            if values.size:
                tensor = onnx.numpy_helper.from_array(values, name)
                self._initializers[name] = tensor
            names += (name if values.size else "",)
        return replace(node, inputs=node.inputs + names)

    def needed(self, tensor: str) -> list[Node]:
        """Return the nodes that `tensor` is computed from, in order."""
        return reaching(tensor, self.nodes)

    def constant(self, name: str) -> torch.Tensor | None:
        """Return an initializer, if `name` is one."""
        if name in self._sparse:
            raise NotDifferentiableError(
                f"The model keeps {name!r} as a sparse tensor, which is not supported. "
                f"{WHAT_ELSE}"
            )
        proto = self._initializers.get(name)
        return None if proto is None else tensor_of(proto)

    def is_constant(self, name: str) -> bool:
        """Whether `name` is an initializer."""
        return name in self._initializers or name in self._sparse


def reaching(target: str, nodes: Iterable[Node]) -> list[Node]:
    """Return those of `nodes` that `target` is computed from."""
    wiring = Wiring(nodes, attrgetter("reads"), attrgetter("outputs"))
    return wiring.needed([target])
