"""The table of operators: for each ONNX operator a maker of its torch function.

A maker reads the attributes of one node once, when the model is loaded, and returns
the function that computes the node's outputs from its inputs. Inputs that only say how
to compute (shapes, axes, bounds) are named in `host` and arrive as Python values.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from skcalib.exceptions import NotDifferentiableError

Function = Callable[..., Any]

WHAT_ELSE = (
    "Use NeuralClamping(solver='gradient_free') without a preset, which takes forward "
    "passes only, or calibrate the logits alone, such as by TemperatureScaling."
)

# Graphs of these compute in integers or with thresholds: they have no gradient.
_NO_GRADIENT = {
    **dict.fromkeys(
        (
            *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
            *("QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QGemm"),
            *("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"),
        ),
        "computes in integers, through which no gradient flows",
    ),
    **dict.fromkeys(
        ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"),
        "is an ensemble of trees, whose scores are constant almost everywhere",
    ),
    **dict.fromkeys(
        ("Loop", "Scan", "SequenceMap"), "repeats a graph, which is not supported"
    ),
}


class Place(NamedTuple):
    """Where a network computes: its floating-point type and device."""

    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Node:
    """One node of a graph, read out of its message.

    `captured` holds what graphs inside it read from the graph around them.
    """

    op: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(repr=False)
    captured: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensors that the node needs, also within the graphs inside it."""
        return tuple(filter(None, (*self.inputs, *self.captured)))

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def refuse(self, reason: str) -> NotDifferentiableError:
        """Return the error that says why this node cannot be differentiated."""
        operator = f"{self.domain}.{self.op}" if self.domain else self.op
        return NotDifferentiableError(
            f"The model cannot be differentiated: its node {self.name!r} ({operator}, "
            f"opset {self.version}) {reason}. {WHAT_ELSE}"
        )


@dataclass(frozen=True)
class Operator:
    """A maker of torch functions, from the version `since` of the operator set.

    `host` holds the inputs that arrive as Python values; `placed` says that the
    function wants the `Place` as its first argument.
    """

    make: Callable[[Node], Function]
    since: int
    host: frozenset[int]
    placed: bool


_table: dict[tuple[str, str], list[Operator]] = {}


def operator(
    *names: str,
    since: int = 1,
    host: Iterable[int] = (),
    placed: bool = False,
    domain: str = "",
) -> Callable[[Callable[[Node], Function]], Callable[[Node], Function]]:
    """Enter the decorated maker into the table."""

    def enter(make: Callable[[Node], Function]) -> Callable[[Node], Function]:
        for name in names:
            entry = Operator(make, since, frozenset(host), placed)
            entries = _table.setdefault((domain, name), [])
            entries.append(entry)
            entries.sort(key=lambda entry: entry.since)
        return make

    return enter


def plain(functions: dict[str, Function]) -> None:
    """Enter operators that have neither attributes nor versions."""
    for name, function in functions.items():
        operator(name)(partial(_always, function))


def _always(function: Function, node: Node) -> Function:
    return function


def find_operator(node: Node) -> Operator:
    """Return the entry of a node's operator at its version."""
    entries = _table.get((node.domain, node.op), [])
    fitting = [entry for entry in entries if entry.since <= node.version]
    if fitting:
        return fitting[-1]
    raise node.refuse(_NO_GRADIENT.get(node.op, "is an operator that is not supported"))
