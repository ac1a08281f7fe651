"""The form of an ONNX graph, checked once when a file is opened.

Every tensor that is read is made once, without a cycle, and every node has the inputs
and outputs that its operator needs. What walks a graph relies on it: a walk along a
cycle would not end. Bodies of If, Loop and Scan are graphs like any other; those of a
model's own functions are written where they are called.
"""

from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from skcalib._onnx._graph import (
    Wiring,
    domain_name,
    given_tensors,
    inner_graphs,
    outer_tensors,
)
from skcalib._optional import import_optional
from skcalib.exceptions import ModelFormatError

# How many nodes of a cycle a message names.
_NAMED = 4
Arity = tuple[list[int], int]


def check_form(model: Any, name: str) -> None:
    """Refuse a model whose graph cannot be walked; `name` is that of the model."""
    try:
        _check_graph(model.graph, _needed_by(model))
        for tensor, node in outer_tensors(model.graph).items():
            raise _FormError(
                f"nothing makes its output {tensor!r}"
                if node is None
                else f"{_describe(node)} reads {tensor!r}, which nothing makes"
            )
    except _FormError as fault:
        raise ModelFormatError(
            f"{name} is no valid ONNX model: {fault}. Export it again, or look at it "
            "with onnx.checker.check_model."
        ) from fault


def without_functions(model: Any, name: str) -> Any:
    """Return a model with its own functions written where they are called."""
    inliner = import_optional("onnx.inliner", "Reading an ONNX model")
    calls = {
        (domain_name(function.domain), function.name): set(_called(function.node))
        for function in model.functions
    }
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        raise ModelFormatError(
            f"{name} is no valid ONNX model: its functions call each other in a cycle. "
            "Export it again, or look at it with onnx.checker.check_model."
        ) from error
    return inliner.inline_local_functions(model)


def _called(nodes: Any) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield domain_name(node.domain), node.op_type
        for inner in inner_graphs(node):
            yield from _called(inner.node)


class _FormError(Exception):
    """What is wrong with a graph."""


def _check_graph(graph: Any, arity: Callable[[Any], Arity | None]) -> None:
    """Check one graph and those inside it."""
    made = given_tensors(graph)
    for node in graph.node:
        for tensor in filter(None, node.output):
            if tensor in made:
                raise _FormError(f"{_describe(node)} makes {tensor!r} a second time")
            made.add(tensor)
    for node in graph.node:
        _check_arity(node, arity(node))
        for inner in inner_graphs(node):
            _check_graph(inner, arity)
    _check_order(Wiring(graph.node))


def _check_order(wiring: Wiring[Any]) -> None:
    """Refuse a cycle; the order in which nodes are written does not matter."""
    try:
        TopologicalSorter(dict(enumerate(wiring.before))).prepare()
    except CycleError as error:
        cycle = sorted(set(error.args[1]))
        named = ", ".join(_describe(wiring.nodes[i]) for i in cycle[:_NAMED])
        more = " and others" if len(cycle) > _NAMED else ""
        raise _FormError(f"a cycle runs through {named}{more}") from error


def _check_arity(node: Any, needed: Arity | None) -> None:
    if needed is None:
        return
    inputs, n_outputs = needed
    n_inputs = len(node.input)
    for i in inputs:
        if i >= n_inputs or not node.input[i]:
            raise _FormError(f"{_describe(node)} lacks input {i + 1}")
    if len(node.output) < n_outputs:
        raise _FormError(
            f"{_describe(node)} has {len(node.output)} outputs where {n_outputs} are "
            "needed"
        )


def _needed_by(model: Any) -> Callable[[Any], Arity | None]:
    """Return what tells a node's needed inputs, and how many outputs; None: unknown."""
    onnx = import_optional("onnx", "Reading an ONNX model")
    versions = {
        domain_name(entry.domain): entry.version for entry in model.opset_import
    }
    found: dict[tuple[str, str], Arity | None] = {}

    def look_up(domain: str, operator: str) -> Arity | None:
        if not onnx.defs.has(operator, domain):
            return None
        version = min(max(versions.get(domain, 0), 0), _NEWEST)
        try:
            schema = onnx.defs.get_schema(operator, version, domain)
        except onnx.defs.SchemaError:  # none of this version, which runs nowhere
            schema = onnx.defs.get_schema(operator, domain)
        single = onnx.defs.OpSchema.FormalParameterOption.Single
        inputs = [i for i, slot in enumerate(schema.inputs) if slot.option == single]
        return inputs, schema.min_output

    def needed(node: Any) -> Arity | None:
        key = (domain_name(node.domain), node.op_type)
        if key not in found:
            found[key] = look_up(*key)
        return found[key]

    return needed


# Beyond what any release of onnx defines, and within its integers.
_NEWEST = 10_000


def _describe(node: Any) -> str:
    name = node.name or next(filter(None, node.output), "")
    return f"the node {name!r} ({node.op_type})"
