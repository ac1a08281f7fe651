"""Walking an ONNX graph backwards: who makes a tensor, and from what."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from skcalib._optional import import_optional

# Operators that pass on the numbers of their first input, only laid out differently.
PASSING = frozenset(
    {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Dropout"}
)
CLASSIFIERS = frozenset(
    {"LinearClassifier", "TreeEnsembleClassifier", "SVMClassifier", "TreeEnsemble"}
)


class GraphIndex:
    """The top level of a graph by tensor name."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.producers = {
            name: node for node in graph.node for name in node.output if name
        }
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        # Scores written out beside the linear classifiers that hide them.
        self.linear_scores: dict[str, str] = {}

    def producer(self, tensor: str) -> Any:
        """Return the node that computes `tensor`, or None."""
        return self.producers.get(tensor)

    def upstream(self, tensor: str) -> Iterator[tuple[str, Any]]:
        """Yield ``(tensor, producer)`` back along operators that only pass numbers on.

        The last pair is the first tensor made by another operator, or by none.
        """
        while True:
            node = self.producer(tensor)
            yield tensor, node
            if node is None or operator(node) not in PASSING:
                return
            tensor = node.input[0]

    def ancestors(self, tensor: str) -> set[str]:
        """Return all tensors that nodes make on the way to `tensor`."""
        found: set[str] = set()
        waiting = [tensor]
        while waiting:
            node = self.producer(waiting.pop())
            for name in node.input if node is not None else ():
                if name in self.producers and name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    def origin(self, tensor: str) -> tuple[str, Any]:
        """Return the last pair of `upstream`."""
        *_, last = self.upstream(tensor)
        return last

    def constant(self, tensor: str) -> np.ndarray | None:
        """Return the value of a small initializer or Constant node, if it is one."""
        onnx = import_optional("onnx", "Reading an ONNX model")
        proto = self.initializers.get(tensor)
        node = self.producer(tensor)
        if proto is None and node is not None and operator(node) == "Constant":
            proto = attribute(node, "value")
        if proto is None or not hasattr(proto, "data_location"):
            return None
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return onnx.numpy_helper.to_array(proto)


def operator(node: Any) -> str:
    """Return the name of a node's standard operator, "" for a vendor's or a function.

    Those may bear the name of a standard one and do something else.
    """
    return node.op_type if _is_standard(node.op_type, domain_name(node.domain)) else ""


@lru_cache(1024)
def _is_standard(op_type: str, domain: str) -> bool:
    defs = import_optional("onnx.defs", "Reading an ONNX model")
    return bool(defs.has(op_type, domain))


def domain_name(name: str) -> str:
    """Return the name of a set of operators; that of the usual ones is empty."""
    return "" if name == "ai.onnx" else name


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute; strings come decoded."""
    onnx = import_optional("onnx", "Reading an ONNX model")
    for item in node.attribute:
        if item.name == name:
            value = onnx.helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def class_labels(node: Any) -> list[int] | list[str]:
    """Return the labels that a classifier operator of ai.onnx.ml names."""
    for name in ("classlabels_int64s", "classlabels_ints"):
        if found := attribute(node, name):
            return [int(label) for label in found]
    return [label.decode() for label in attribute(node, "classlabels_strings", [])]


def tensor_names(graph: Any) -> set[str]:
    """Collect every name that a graph and its inner graphs use."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.add(node.name)
        names.update(node.input)
        names.update(node.output)
        for inner in inner_graphs(node):
            names |= tensor_names(inner)
    return names


def inner_graphs(node: Any) -> Iterator[Any]:
    """Yield the graphs that a node of control flow carries."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        yield from item.graphs


def unused_name(wanted: str, taken: set[str]) -> str:
    """Return `wanted`, or `wanted` with a number, and mark it as taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
