"""The one input of a graph that is perturbed, or why there is none."""

from skcalib._onnx._in_torch._nodes import Graph, torch_type
from skcalib._onnx._in_torch._registry import Node
from skcalib._onnx._inputs import InputSpec
from skcalib.exceptions import NotDifferentiableError


def find_input(
    graph: Graph, target: str, specs: list[InputSpec], site: str | None
) -> InputSpec:
    """Return the input that `target` is computed from; refuse several, or integers."""
    nodes = graph.needed(target)
    read = {name for node in nodes for name in node.reads} | {target}
    used = [spec for spec in specs if spec.name in read]
    if len(used) != 1:
        described = [f"{spec.name} ({spec.type})" for spec in used]
        raise NotDifferentiableError(
            f"The logits {target!r} are computed from {len(used)} inputs without a "
            f"default: {described}; one is needed. Fix the others in the model, as "
            "initializers."
        )
    (spec,) = used
    if spec.dtype.kind != "f" and site is None:
        raise _integers(spec, _first_floats(graph, nodes, spec.name))
    return spec


def _first_floats(graph: Graph, nodes: list[Node], source: str) -> list[str]:
    """Return the first floating-point tensors that integers are turned into."""
    integers, found = {source}, []
    for node in nodes:
        if not integers.intersection(node.inputs):
            continue
        if _makes_floats(graph, node):
            found.append(node.outputs[0])
        else:
            integers.update(node.outputs)
    return found


def _makes_floats(graph: Graph, node: Node) -> bool:
    if node.op == "Cast":
        return torch_type(node.get("to")) is None
    if node.op == "Gather":
        table = graph.constant(node.inputs[0])
        return table is not None and table.is_floating_point()
    return node.op in ("DequantizeLinear", "OneHot")


def _integers(spec: InputSpec, found: list[str]) -> NotDifferentiableError:
    kind = "text" if spec.dtype.kind == "O" else "integers"
    tokens = f"The model's input {spec.name!r} holds {kind} ({spec.type}), "
    if not found:
        return NotDifferentiableError(
            f"{tokens}which cannot be perturbed, and no tensor that they are turned "
            "into was found. Name a floating-point tensor on the way to the logits: "
            "site=..."
        )
    return NotDifferentiableError(
        f"{tokens}which cannot be perturbed. They are turned into the floating-point "
        f"tensors {found}: name one to perturb, such as site={found[0]!r}."
    )
