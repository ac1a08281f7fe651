"""Label outputs of a classifier, and how to make them follow other scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skcalib._onnx._graph import (
    CLASSIFIERS,
    LOOKING_UP,
    PASSING,
    GraphIndex,
    attribute,
    class_labels,
    operator,
)
from skcalib._onnx._readout import Readout
from skcalib._optional import import_optional
from skcalib.export._builder import NodeBuilder


@dataclass(frozen=True)
class LabelSource:
    """A graph output with labels: `origin` decides, `chain` carries to the output.

    `axis` is that of the classes.
    """

    output: str
    origin: Any
    chain: tuple[Any, ...]
    axis: int = 1


def find_labels(
    index: GraphIndex, readout: Readout, axes: tuple[int, int] = (1, -1)
) -> list[LabelSource]:
    """Find the outputs whose labels were made from the scores of `readout`.

    `axes` are the two names of the axis of classes, from the front and the back.
    """
    found = []
    for value in index.graph.output:
        source = _trace(index, value.name, readout, axes)
        if source is not None and value.name != readout.output:
            found.append(source)
    return found


def not_followed(
    index: GraphIndex,
    readout: Readout,
    followed: set[str],
    same: set[str],
    n_axes: int = 1,
) -> list[str]:
    """Name outputs beside `followed` that look like labels or are made of scores.

    Those of `same` say the same as the scores, if these are one of them.
    """
    onnx = import_optional("onnx", "Writing an ONNX model")
    kinds = [onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.STRING]
    if n_axes > 1:
        kinds.append(onnx.TensorProto.BOOL)

    def is_label(value: Any) -> bool:
        tensor_type = value.type.tensor_type
        return tensor_type.elem_type in kinds and len(tensor_type.shape.dim) == n_axes

    twins = same if readout.output in same else set()
    return [
        value.name
        for value in index.graph.output
        if value.name not in followed
        and (
            is_label(value)
            or value.name in twins
            or readout.path & _made_from(index, value.name)
        )
    ]


def _made_from(index: GraphIndex, output: str) -> set[str]:
    return {output} | index.ancestors(output)


def _trace(
    index: GraphIndex, output: str, readout: Readout, axes: tuple[int, int]
) -> LabelSource | None:
    chain: list[Any] = []
    tensor = output
    while (node := index.producer(tensor)) is not None:
        if operator(node) in PASSING:
            tensor = node.input[0]
        elif operator(node) in LOOKING_UP:
            tensor = node.input[1]
        else:
            break
        chain.append(node)
    if node is None:
        return None
    made_from = index.ancestors(readout.score)
    if node.output[0] in made_from | readout.path:
        return None  # the scores depend on this decision, not it on them
    if operator(node) == "ArgMax":
        inputs = {name for name, _ in index.upstream(node.input[0])}
        decided = bool(inputs & readout.path) or (
            bool(inputs & made_from) and _names_classes(index, chain, readout)
        )
        decided &= attribute(node, "axis", 0) in axes
    else:
        decided = (
            operator(node) in CLASSIFIERS
            and tensor == node.output[0]
            and node.output[1] in readout.path | made_from
        )
    if not decided:
        return None
    return LabelSource(output, node, tuple(reversed(chain)), axes[0])


def _names_classes(index: GraphIndex, chain: list[Any], readout: Readout) -> bool:
    """Whether a label of each class is looked up along the way to the output."""
    for node in chain:
        table = index.constant(node.input[0]) if operator(node) in LOOKING_UP else None
        if table is not None and readout.columns in (None, table.size):
            return True
    return False


def relabel(source: LabelSource, build: NodeBuilder, scores: str) -> None:
    """Make the labels follow `scores`, (n, K), under their own name."""
    old = source.origin.output[0]
    source.origin.output[0] = build.name(f"{old}_uncalibrated")
    _decide(source, build, scores, output=old)


def label_beside(source: LabelSource, build: NodeBuilder, scores: str) -> str:
    """Make labels that follow `scores` beside the old ones; return their name."""
    renamed = {source.origin.output[0]: _decide(source, build, scores)}
    last = renamed[source.origin.output[0]]
    for node in source.chain:
        twin = type(node).FromString(node.SerializeToString())
        twin.name = build.name(f"{node.op_type}_node")
        for i, name in enumerate(node.input):
            twin.input[i] = renamed.get(name, name)
        last = renamed[node.output[0]] = build.name(f"{node.output[0]}_calibrated")
        twin.output[0] = last
        build.nodes.append(twin)
    return last


def _decide(
    source: LabelSource, build: NodeBuilder, scores: str, output: str | None = None
) -> str:
    """Write the decision of a source of labels anew, from `scores`."""
    node = source.origin
    if operator(node) == "ArgMax":
        keepdims = attribute(node, "keepdims", 1)
        # Old opsets know ArgMax in single precision only.
        single = build.cast(scores, np.float32)
        axis = source.axis
        return build.op("ArgMax", single, output=output, axis=axis, keepdims=keepdims)
    classes = np.asarray(class_labels(node))
    return build.labels(build.cast(scores, np.float32), classes, output=output)
