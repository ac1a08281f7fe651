"""Which of several outputs of a model tells what its scores are."""

import re
from typing import TYPE_CHECKING, Any

from skcalib._onnx._graph import LOOKING_UP, GraphIndex, operator, tensors_read
from skcalib.exceptions import ModelFormatError

if TYPE_CHECKING:
    from skcalib._onnx._readout import Readout

# Operators behind which a column is no longer the class that it was.
_MIXING = re.compile(
    "Reduce|Top|Arg|Sort|Cum|MatMul|Gemm|Einsum|Conv|Pool|Attention|LSTM|GRU|RNN"
    "|DynamicQuantizeLinear"
)


def find_decision(index: GraphIndex, tensor: str) -> tuple[str, Any]:
    """Return what a tensor repeats and its maker, for labels before any look-up."""
    tensor, node = index.origin(tensor)
    while node is not None and operator(node) in LOOKING_UP:
        table = index.constant(node.input[0])
        if table is None or table.size != max(table.shape, default=1):
            break  # no list of labels
        tensor, node = index.origin(node.input[1])
    return tensor, node


def choose(index: GraphIndex, found: dict[str, "Readout"]) -> "Readout":
    """Choose among the readouts of the graph's outputs, by name, or ask for one.

    Those without an output are of labels, which say what their scores are as much as
    an operator does.
    """
    if not found:
        raise ModelFormatError(
            f"The model is no classifier that skcalib can read: none of its outputs "
            f"{[value.name for value in index.graph.output]} is a floating-point "
            "tensor with a row a sample and a column a class. Pass output= with the "
            "name of the tensor that holds the logits. If it has the classes of every "
            "pixel or token, name their axis as well: "
            "calibrate_onnx_model(model, calibrator, class_axis=1)."
        )
    served = [readout for readout in found.values() if readout.output is not None]
    labels = [
        readout
        for name, readout in found.items()
        if readout.output is None
        and not any(_replaces(index, score, readout, name) for score in served)
    ]
    known = [*labels, *(score for score in served if score.is_certain)]
    served = [
        score
        for score in served
        if score.is_certain or not any(_is_made_of(index, score, by) for by in known)
    ]
    readouts = [*served, *labels]
    certain = [readout for readout in readouts if readout.is_certain]
    groups = [certain, readouts]
    if any(_also_reads(index, score, by) for score in served for by in certain):
        groups = [labels]
    for group in groups:
        if len({_origin(index, readout) for readout in group}) == 1:
            same = _origin(index, group[0])
            agreeing = [r for r in (*group, *readouts) if _origin(index, r) == same]
            return next((r for r in agreeing if r.output is not None), group[0])
    names = [readout.output or readout.score for readout in readouts]
    raise ModelFormatError(
        f"The model has several outputs that could be its scores: "
        f"{list(dict.fromkeys(names))}. Name the right one: output=..."
    )


def _origin(index: GraphIndex, readout: "Readout") -> str:
    return index.origin(readout.tensor)[0]


def _replaces(
    index: GraphIndex, score: "Readout", label: "Readout", output: str
) -> bool:
    """Whether served scores say more of the classes than the labels of `output`.

    That is, the label helped to make them, or they are the scores it was taken from
    but for something done to each column.
    """
    if find_decision(index, output)[0] in _behind(index, score.score):
        return True
    if _origin(index, score) == _origin(index, label):
        return False
    return (
        _is_made_of(index, score, label)
        and bool(label.path & _behind(index, score.score, label.path, mixing=False))
    ) or (
        _is_made_of(index, label, score)
        and bool(score.path & _behind(index, label.score, score.path, mixing=False))
    )


def _is_made_of(index: GraphIndex, score: "Readout", by: "Readout") -> bool:
    """Whether scores are made of others alone, and of nothing that goes round them."""
    met = _behind(index, score.score, by.path)
    is_other = _origin(index, score) != _origin(index, by) or by.output is not None
    return is_other and bool(met & by.path) and not met & _inputs(index)


def _also_reads(index: GraphIndex, score: "Readout", by: "Readout") -> bool:
    """Whether scores that no operator names are made of others and of more."""
    if score.is_certain:
        return False
    before = {name for name, _ in index.upstream(by.tensor)}
    made = by.path - before if by.tensor != by.score else by.path
    met = _behind(index, score.score, by.path)
    return bool(met & made) and bool(met & _inputs(index))


def _behind(
    index: GraphIndex,
    tensor: str,
    stops: frozenset[str] = frozenset(),
    *,
    mixing: bool = True,
) -> set[str]:
    """Return the tensors from which numbers came to `tensor`, up to `stops`.

    If not `mixing`, only along operators that may leave each column its class.
    """
    met: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        node = index.producer(name)
        if node is None or name in stops or operator(node) in ("Shape", "Size"):
            continue
        if mixing or not _MIXING.search(node.op_type):
            waiting += tensors_read(node)
    return met


def _inputs(index: GraphIndex) -> set[str]:
    return {value.name for value in index.graph.input} - index.initializers.keys()
