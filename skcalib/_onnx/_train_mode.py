"""ONNX graphs that were written in train mode, and are refused."""

from collections.abc import Iterator
from typing import Any

from skcalib._onnx._graph import GraphIndex, attribute, inner_graphs, operator
from skcalib.exceptions import ModelFormatError


def refuse_train_mode(model: Any, name: str) -> None:
    """Refuse a model that acts as in training; `name` is that of the model."""
    for node in _nodes_in_training(model.graph):
        raise ModelFormatError(
            f"{name} is in training mode; export the network in eval mode. Its node "
            f"{node.name or node.output[0]!r} ({node.op_type}) acts as in training, so "
            "that the logits of a row depend on chance or on the rows beside it."
        )


def _nodes_in_training(graph: Any) -> Iterator[Any]:
    index = GraphIndex(graph)
    for node in graph.node:
        kind = operator(node)
        if kind == "BatchNormalization":
            # Before version 14 the outputs of new statistics say so.
            if attribute(node, "training_mode", 0) or any(node.output[1:]):
                yield node
        elif kind == "Dropout" and len(node.input) > 2:
            _, ratio, trains = (index.constant(tensor) for tensor in node.input)
            if trains is not None and trains and ratio != 0:
                yield node
        for inner in inner_graphs(node):
            yield from _nodes_in_training(inner)
