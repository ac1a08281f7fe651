"""The classes that a model names its columns of scores by."""

from typing import Any

from skcalib._onnx._graph import (
    CLASSIFIERS,
    LOOKING_UP,
    GraphIndex,
    class_labels,
    operator,
)


def named_classes(
    index: GraphIndex, score: str, path: frozenset[str]
) -> tuple[Any, ...] | None:
    """Return the label of each column of `score`; None where no operator names it.

    A ZipMap behind the scores names them, or the classifier that made them, unless
    its labels are looked up in a table. `path` are the tensors that lead to `score`.
    """
    makers = index.needed([score])
    for node in index.nodes:
        if operator(node) == "ZipMap":
            before = {node.input[0]} | index.ancestors(node.input[0])
            if score in before:
                return tuple(class_labels(node)) or None
    for node in makers:
        if operator(node) in CLASSIFIERS and path.intersection(node.output[1:]):
            return _of_classifier(index, node)
    return None


def _of_classifier(index: GraphIndex, classifier: Any) -> tuple[Any, ...] | None:
    labels = class_labels(classifier)
    for node in index.nodes:
        if operator(node) not in LOOKING_UP:
            continue
        if index.origin(node.input[1])[0] == classifier.output[0]:
            table = index.constant(node.input[0])
            found = [] if table is None else table.ravel().tolist()
            labels = [x.decode() if isinstance(x, bytes) else x for x in found]
    return tuple(labels) or None
