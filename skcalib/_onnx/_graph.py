"""Walking an ONNX graph: who makes a tensor, from what, and who reads it.

A node reads its inputs, and what the graphs that it carries (the branches of an If, the
body of a Loop) read from the graph around them. Everything that follows the edges of a
graph, or changes them, stands here; none of it asks that nodes are written in order.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar

import numpy as np

from skcalib._optional import import_optional

# Operators that pass on the numbers of their first input, only laid out differently.
PASSING = frozenset(
    {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Dropout"}
)
# What static quantisation writes behind every operator, in pairs: numbers on a grid.
ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Operators of ai.onnx.ml with a label and scores.
CLASSIFIERS = frozenset({"LinearClassifier", "TreeEnsembleClassifier", "SVMClassifier"})
# Operators that look up a label by its number, which is their second input.
LOOKING_UP = frozenset({"ArrayFeatureExtractor", "Gather"})

N = TypeVar("N")
Names = Callable[[N], Iterable[str]]


def inner_graphs(node: Any) -> Iterator[Any]:
    """Yield the graphs that a node of control flow carries."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        yield from item.graphs


def tensors_read(node: Any) -> dict[str, Any]:
    """Return the tensors that a node reads, each with the node that does.

    That is the node itself, or one of a graph inside it.
    """
    read = {tensor: node for tensor in node.input if tensor}
    for inner in inner_graphs(node):
        found = outer_tensors(inner)
        read.update({tensor: reader or node for tensor, reader in found.items()})
    return read


def outer_tensors(graph: Any) -> dict[str, Any]:
    """Return the tensors that a graph reads and does not hold, each with its reader.

    That is a node, or None for what is handed on as an output. Inner graphs read from
    the graph around them; that of a model has nothing around it.
    """
    read: dict[str, Any] = {}
    for node in graph.node:
        read.update(tensors_read(node))
    read.update({value.name: None for value in graph.output})
    held = given_tensors(graph).union(*(node.output for node in graph.node))
    return {tensor: reader for tensor, reader in read.items() if tensor not in held}


def given_tensors(graph: Any) -> set[str]:
    """Return the tensors that no node makes: inputs and constants."""
    given = {value.name for value in (*graph.input, *graph.initializer)}
    return given.union(tensor.values.name for tensor in graph.sparse_initializer)


def _tensors_made(node: Any) -> Iterable[str]:
    made: Iterable[str] = node.output
    return made


class Wiring(Generic[N]):
    """Which node of a graph makes each tensor, and which nodes come before which.

    Of one level of a graph: what inner graphs read counts as read by the node that
    carries them. The order in which nodes are written does not matter.

    Parameters
    ----------
    nodes : iterable
        The nodes. No walk looks for a cycle, nor is caught in one.

    reads, makes : callable
        Give the names of the tensors that a node reads and makes, "" for none.
    """

    def __init__(
        self, nodes: Iterable[N], reads: Names | None = None, makes: Names | None = None
    ) -> None:
        self.nodes = list(nodes)
        self._reads = reads or tensors_read
        makes = makes or _tensors_made
        self._maker = {
            tensor: position
            for position, node in enumerate(self.nodes)
            for tensor in makes(node)
            if tensor
        }

    @cached_property
    def before(self) -> list[list[int]]:
        """The positions of the nodes that each node reads from."""
        return [
            sorted({self._maker[t] for t in self._reads(node) if t in self._maker})
            for node in self.nodes
        ]

    def producer(self, tensor: str) -> N | None:
        """Return the node that computes `tensor`, or None."""
        position = self._maker.get(tensor)
        return None if position is None else self.nodes[position]

    def needed(self, tensors: Iterable[str]) -> list[N]:
        """Return the nodes that `tensors` are computed from, as they are written."""
        found: set[int] = set()
        waiting = [self._maker[tensor] for tensor in tensors if tensor in self._maker]
        while waiting:
            position = waiting.pop()
            if position not in found:
                found.add(position)
                waiting += self.before[position]
        return [self.nodes[position] for position in sorted(found)]

    def ancestors(self, tensor: str) -> set[str]:
        """Return all tensors that nodes make and read on the way to `tensor`."""
        read = {name for node in self.needed([tensor]) for name in self._reads(node)}
        return read & self._maker.keys()

    def in_order(self) -> list[N]:
        """Return every node behind those it reads from, else as they are written."""
        order: dict[int, None] = {}
        opened: set[int] = set()
        stack = list(reversed(range(len(self.nodes))))
        while stack:
            position = stack[-1]
            if position in opened:
                order.setdefault(stack.pop())
                continue
            opened.add(position)
            stack += [i for i in reversed(self.before[position]) if i not in opened]
        return [self.nodes[position] for position in order]


class GraphIndex(Wiring[Any]):
    """The top level of a graph by tensor name."""

    def __init__(self, graph: Any) -> None:
        super().__init__(graph.node)
        self.graph = graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        # Scores written out beside the linear classifiers that hide them.
        self.linear_scores: dict[str, str] = {}

    def upstream(self, tensor: str) -> Iterator[tuple[str, Any]]:
        """Yield ``(tensor, producer)`` back along what passes on or rounds numbers.

        The last pair is the first tensor made by another operator, or by none.
        """
        while True:
            node = self.producer(tensor)
            yield tensor, node
            if node is None or operator(node) not in PASSING | ROUNDING:
                return
            tensor = node.input[0]

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
    """Return the value of a node's attribute."""
    found = (item for item in node.attribute if item.name == name)
    return next(map(attribute_value, found), default)


def attribute_value(item: Any) -> Any:
    """Return the value of an attribute; strings come decoded, those of a list too."""
    onnx = import_optional("onnx", "Reading an ONNX model")
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, list):
        return [v.decode() if isinstance(v, bytes) else v for v in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def class_labels(node: Any) -> list[int] | list[str]:
    """Return the labels that a classifier operator of ai.onnx.ml names."""
    for name in ("classlabels_int64s", "classlabels_ints"):
        if found := attribute(node, name):
            return [int(label) for label in found]
    labels: list[str] = attribute(node, "classlabels_strings", [])
    return labels


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


def unused_name(wanted: str, taken: set[str]) -> str:
    """Return `wanted`, or `wanted` with a number, and mark it as taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def rename_tensor(graph: Any, old: str, new: str) -> None:
    """Rename a tensor where it is made and used; graph outputs keep their names."""
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == old:
                node.output[i] = new
    redirect_readers(graph, old, new)
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def redirect_readers(graph: Any, old: str, new: str) -> None:
    """Let all nodes that read the tensor `old` read `new`."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for inner in inner_graphs(node):
            if old not in outer_tensors(inner):
                continue  # or has a tensor of its own of that name
            redirect_readers(inner, old, new)
            for value in inner.output:
                if value.name == old:  # handed straight through
                    value.name = new


def sort_nodes(graph: Any) -> None:
    """Put every node behind those it reads from, in the present order otherwise."""
    _set_nodes(graph, Wiring(graph.node).in_order())


def drop_unused(graph: Any) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {value.name for value in graph.output}
    nodes = Wiring(graph.node).needed(needed)
    needed.update(value.name for value in graph.input)
    needed.update(*map(tensors_read, nodes))
    _set_nodes(graph, nodes)
    unused = [tensor for tensor in graph.initializer if tensor.name not in needed]
    for tensor in unused:
        graph.initializer.remove(tensor)


def _set_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
