"""Changes to a graph in place: rename a tensor, order nodes, drop what is unused."""

from typing import Any

from skcalib._onnx._graph import inner_graphs
from skcalib._optional import import_optional
from skcalib.export._builder import NodeBuilder


def rename_tensor(graph: Any, old: str, new: str) -> None:
    """Rename a tensor where it is made and used; graph outputs keep their names."""
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == old:
                node.output[i] = new
        _rename_inputs(node, old, new)
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def redirect_readers(graph: Any, old: str, new: str) -> None:
    """Let all nodes that read the tensor `old` read `new`."""
    for node in graph.node:
        _rename_inputs(node, old, new)


def _rename_inputs(node: Any, old: str, new: str) -> None:
    for i, name in enumerate(node.input):
        if name == old:
            node.input[i] = new
    for inner in inner_graphs(node):
        made = {name for other in inner.node for name in other.output}
        if old in made or old in {value.name for value in inner.input}:
            continue
        for other in inner.node:
            _rename_inputs(other, old, new)
        for value in inner.output:
            # An inner graph may hand an outer tensor straight through.
            if value.name == old:
                value.name = new


def used_tensors(node: Any) -> set[str]:
    """Return the tensors that a node reads, also from within its inner graphs."""
    used = {name for name in node.input if name}
    for inner in inner_graphs(node):
        for other in inner.node:
            used |= used_tensors(other)
        used.update(value.name for value in inner.output)
    return used


def add_nodes(model: Any, build: NodeBuilder) -> None:
    """Add what `build` holds to the graph of `model`, in order."""
    constants = build.initializers
    if model.ir_version < 4:
        # Before version 4 every initializer had to be an input of the model.
        make = import_optional("onnx", "Writing an ONNX model").helper.make_node
        nodes = [make("Constant", [], [t.name], value=t) for t in constants]
        model.graph.node.extend(nodes)
    else:
        model.graph.initializer.extend(constants)
    model.graph.node.extend(build.nodes)
    sort_nodes(model.graph)


def drop_unused(graph: Any) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed |= used_tensors(node)
            kept.append(node)
    _set_nodes(graph, kept[::-1])
    needed.update(value.name for value in graph.input)
    unused = [tensor for tensor in graph.initializer if tensor.name not in needed]
    for tensor in unused:
        graph.initializer.remove(tensor)


def sort_nodes(graph: Any) -> None:
    """Put every node after those it reads from, in the present order otherwise."""
    maker = {
        name: i for i, node in enumerate(graph.node) for name in node.output if name
    }
    nodes = list(graph.node)
    before = [sorted({maker[t] for t in used_tensors(n) if t in maker}) for n in nodes]
    order: list[int] = []
    done = set()
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [i for i in before[node] if i not in done and i != node]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            if node not in done:
                done.add(node)
                order.append(node)
    _set_nodes(graph, [nodes[i] for i in order])


def _set_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
