"""Turning a graph into a list of steps: constants folded, tensors freed after use.

Values that follow from shapes alone (the arguments of Reshape, Slice, ...) stay on the
CPU as integer tensors, whatever device the network computes on, so that reading them
waits for no device. A value is computed on the device where any of its tensors lies
there: the input, floating-point constants, and everything computed from them.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from skcalib._onnx._in_torch._nodes import Graph, reaching, tensor_of
from skcalib._onnx._in_torch._registry import (
    Function,
    Node,
    Operator,
    Place,
    find_operator,
)
from skcalib.exceptions import NotDifferentiableError

# A value of one run: the number of a computed tensor, the name of a constant, or None
# for an input left out.
Key = int | str | None
_HOST = Place(torch.float32, torch.device("cpu"))
_OF_SHAPES = ("Shape", "Size")
_FAULTS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


@dataclass
class Step:
    """One operator: which values it takes, which it makes, which it is the last to use.

    Values at the positions `listed` become Python numbers first, those at `moved` go to
    the device.
    """

    node: Node
    function: Function
    arguments: tuple[Key, ...]
    results: tuple[int, ...]
    listed: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
    placed: bool = False
    freed: tuple[int, ...] = ()

    def execute(self, values: dict[Key, Any], place: Place) -> None:
        """Compute the step's results into `values`."""
        arguments = [values[key] for key in self.arguments]
        for position in self.listed:
            arguments[position] = arguments[position].tolist()
        for position in self.moved:
            arguments[position] = arguments[position].to(
                place.device, non_blocking=True
            )
        made = (
            self.function(place, *arguments)
            if self.placed
            else self.function(*arguments)
        )
        if isinstance(made, tuple):
            values.update(zip(self.results, made, strict=False))
        else:
            values[self.results[0]] = made


@dataclass
class Choice:
    """An If: the steps of the branch that its condition names, and what they make."""

    node: Node
    condition: Key
    branches: dict[bool, list["Step | Choice"]]
    results: tuple[int, ...]
    freed: tuple[int, ...] = ()

    def execute(self, values: dict[Key, Any], place: Place) -> None:
        """Compute the chosen branch."""
        run_steps(self.branches[bool(values[self.condition])], values, place)


@dataclass
class Plan:
    """The steps from the input to one tensor, and the constants they use."""

    steps: list[Step | Choice]
    buffers: dict[str, torch.Tensor]
    literals: dict[Key, Any]
    slots: dict[str, int] = field(repr=False)


def run_steps(
    steps: Sequence[Step | Choice], values: dict[Key, Any], place: Place
) -> None:
    """Execute steps in order and let go of values after their last use."""
    for step in steps:
        try:
            step.execute(values, place)
        except _FAULTS as error:
            if isinstance(error, torch.cuda.OutOfMemoryError | NotDifferentiableError):
                raise
            raise ValueError(
                f"The node {step.node.name!r} ({step.node.op}) of the ONNX model could "
                f"not be computed: {error}. Pass inputs of the shape and type that the "
                "model takes."
            ) from error
        for key in step.freed:
            values.pop(key, None)


class Compiler:
    """Makes the plan of one tensor of a graph."""

    def __init__(self, graph: Graph, inputs: list[str]) -> None:
        self._graph = graph
        self._known: dict[str, torch.Tensor] = {}
        self._on_device = set(inputs)
        self._slots = {name: slot for slot, name in enumerate(inputs)}
        self._buffers: dict[str, torch.Tensor] = {}
        self._buffer_keys: dict[str, str] = {}
        self._literals: dict[Key, Any] = {None: None}

    def plan(self, target: str, kept: Iterable[str] = ()) -> Plan:
        """Plan the computation of `target`; the tensors `kept` are never freed."""
        nodes = self._fold(self._graph.needed(target))
        nodes = reaching(target, nodes)
        steps = [self._step(node) for node in nodes]
        self._free(nodes, steps, {target, *kept})
        return Plan(steps, self._buffers, self._literals, self._slots)

    def is_constant(self, name: str) -> bool:
        """Whether the value of a tensor does not depend on the input."""
        return name in self._known or self._graph.is_constant(name)

    def _value(self, name: str) -> torch.Tensor | None:
        if name not in self._known:
            value = self._graph.constant(name)
            if value is None:
                return None
            self._known[name] = value
        return self._known[name]

    # --- folding ------------------------------------------------------------------

    def _fold(self, nodes: Iterable[Node]) -> list[Node]:
        """Compute what depends on constants alone; return the other nodes."""
        waiting, kept = deque(nodes), []
        while waiting:
            node = waiting.popleft()
            if node.op == "Constant":
                self._known[node.outputs[0]] = _constant(node)
            elif node.op == "If" and self.is_constant(node.inputs[0]):
                chosen = bool(self._value(node.inputs[0]))
                waiting.extendleft(reversed(self._branch(node, chosen)))
            elif node.op != "If" and all(
                not name or self.is_constant(name) for name in node.inputs
            ):
                self._evaluate(node)
            else:
                kept.append(node)
        return kept

    def _evaluate(self, node: Node) -> None:
        entry = find_operator(node)
        arguments: list[Any] = [self._value(n) if n else None for n in node.inputs]
        for position in _host_positions(entry, node):
            arguments[position] = arguments[position].tolist()
        function = entry.make(node)
        try:
            made = function(_HOST, *arguments) if entry.placed else function(*arguments)
        except _FAULTS as error:
            raise node.refuse(f"could not be computed: {error}") from error
        made = made if isinstance(made, tuple) else (made,)
        self._known.update(zip(node.outputs, made, strict=False))

    def _branch(self, node: Node, chosen: bool) -> list[Node]:
        """Return the nodes of a branch under names that occur nowhere else."""
        graph = node.get("then_branch" if chosen else "else_branch")
        prefix = f"{node.outputs[0]}/{chosen}/"
        inner = self._graph.read(graph.node)
        names = {name: prefix + name for n in inner for name in n.outputs if name}
        for tensor in graph.initializer:
            names[tensor.name] = prefix + tensor.name
            self._known[prefix + tensor.name] = tensor_of(tensor)
        renamed = [
            replace(
                n,
                inputs=tuple(names.get(name, name) for name in n.inputs),
                outputs=tuple(names.get(name, name) for name in n.outputs),
            )
            for n in inner
        ]
        for n in inner:
            if n.op in ("If", "Loop", "Scan"):
                raise n.refuse("stands inside the branch of an If, as control flow")
        results = zip(graph.output, node.outputs, strict=True)
        return renamed + [
            _identity(names.get(value.name, value.name), output)
            for value, output in results
        ]

    # --- steps --------------------------------------------------------------------

    def _slot(self, name: str) -> int:
        return self._slots.setdefault(name, len(self._slots))

    def _step(self, node: Node) -> Step | Choice:
        if node.op == "If":
            return self._choice(node)
        entry = find_operator(node)
        host = _host_positions(entry, node)
        tensors = [i for i, name in enumerate(node.inputs) if name and i not in host]
        device = node.op not in _OF_SHAPES and (
            any(self._lies_on_device(node.inputs[i]) for i in tensors)
            or (node.op == "ConstantOfShape" and _makes_floats(node))
        )
        listed, moved, arguments = [], [], []
        for position, name in enumerate(node.inputs):
            key = self._key(name, listed=position in host, device=device)
            arguments.append(key)
            if isinstance(key, int) and position in host:
                listed.append(position)
            elif isinstance(key, int) and device and name not in self._on_device:
                moved.append(position)
        if device:
            self._on_device.update(filter(None, node.outputs))
        return Step(
            node,
            entry.make(node),
            tuple(arguments),
            tuple(self._slot(name) for name in node.outputs),
            tuple(listed),
            tuple(moved),
            entry.placed,
        )

    def _lies_on_device(self, name: str) -> bool:
        if not self.is_constant(name):
            return name in self._on_device
        value = self._value(name)
        return value is not None and value.is_floating_point()

    def _key(self, name: str, *, listed: bool, device: bool) -> Key:
        """Return the key of a value, and make room for it if it is a constant."""
        if not name:
            return None
        value = self._value(name)
        if value is None:
            return self._slot(name)
        if listed:
            return self._literal(f"list:{name}", value.tolist())
        if not device:
            return self._literal(f"host:{name}", value)
        key = self._buffer_keys.setdefault(name, f"constant_{len(self._buffer_keys)}")
        self._buffers[key] = value
        return key

    def _literal(self, key: str, value: Any) -> str:
        self._literals[key] = value
        return key

    def _choice(self, node: Node) -> Choice:
        branches = {}
        for chosen in (True, False):
            nodes = self._fold(self._branch(node, chosen))
            for output in node.outputs:
                if output in self._known:
                    # A constant result of one branch is a value like any other.
                    self._known[f"{output}/{chosen}"] = self._known.pop(output)
                    nodes.append(_identity(f"{output}/{chosen}", output))
            branches[chosen] = [self._step(inner) for inner in nodes]
        results = tuple(self._slot(name) for name in node.outputs)
        return Choice(node, self._slot(node.inputs[0]), branches, results)

    def _free(
        self, nodes: list[Node], steps: list[Step | Choice], kept: set[str]
    ) -> None:
        """Say after which step each value is no longer needed."""
        last: dict[str, int] = {}
        for position, node in enumerate(nodes):
            for name in (*node.outputs, *node.reads):
                last[name] = position
        for name, position in last.items():
            if name in self._slots and name not in kept:
                steps[position].freed += (self._slots[name],)


def _host_positions(entry: Operator, node: Node) -> list[int]:
    return [i for i in entry.host if i < len(node.inputs) and node.inputs[i]]


def _identity(source: str, result: str) -> Node:
    return Node("Identity", "", 1, result, (source,), (result,), {})


def _makes_floats(node: Node) -> bool:
    value = node.get("value")
    return value is None or tensor_of(value).is_floating_point()


def _constant(node: Node) -> torch.Tensor:
    """Return the value of a Constant node, in whichever attribute it stands."""
    if (proto := node.get("value")) is not None:
        return tensor_of(proto)
    for name, dtype in (("float", torch.float32), ("int", torch.int64)):
        for form in (f"value_{name}", f"value_{name}s"):
            if (value := node.get(form)) is not None:
                return torch.tensor(value, dtype=dtype)
    raise node.refuse("holds text or a sparse tensor")
