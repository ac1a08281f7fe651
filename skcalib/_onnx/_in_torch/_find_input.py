"""The inputs of a graph, and the tensor that is perturbed, or why there is none."""

from skcalib._onnx._in_torch._nodes import Graph, torch_type
from skcalib._onnx._in_torch._registry import Node
from skcalib._onnx._inputs import InputSpec
from skcalib.exceptions import NotDifferentiableError


def find_inputs(
    graph: Graph, target: str, specs: list[InputSpec], site: str | None
) -> tuple[list[InputSpec], str]:
    """Return the inputs that `target` is computed from, and what is perturbed.

    Without a `site` that is the only one of them that holds real numbers.
    """
    nodes = graph.needed(target)
    read = {name for node in nodes for name in node.reads} | {target}
    used = [spec for spec in specs if spec.name in read]
    if not used:
        raise NotDifferentiableError(
            f"The logits {target!r} are computed from no input without a default."
        )
    if site is not None:
        return used, site
    real = [spec.name for spec in used if spec.dtype.kind == "f"]
    if len(real) > 1:
        raise NotDifferentiableError(
            f"The logits {target!r} are computed from several inputs of real numbers, "
            f"{real}: name the one to perturb, such as site={real[0]!r}."
        )
    if not real:
        raise _integers(used, _first_floats(graph, nodes, used))
    return used, real[0]


def _first_floats(graph: Graph, nodes: list[Node], specs: list[InputSpec]) -> list[str]:
    """Return the first real tensors that integers become, those of a table first."""
    integers, found = {spec.name for spec in specs}, []
    for node in nodes:
        if not integers.intersection(node.inputs):
            continue
        if _makes_floats(graph, node):
            found.append((node.op != "Gather", node.outputs[0]))
        else:
            integers.update(node.outputs)
    return [name for _, name in sorted(found, key=lambda pair: pair[0])]


def _makes_floats(graph: Graph, node: Node) -> bool:
    if node.op == "Cast":
        return torch_type(node.get("to")) is None
    if node.op == "Gather":
        table = graph.constant(node.inputs[0])
        return table is not None and table.is_floating_point()
    return node.op in ("DequantizeLinear", "OneHot")


def _integers(specs: list[InputSpec], found: list[str]) -> NotDifferentiableError:
    held = ", ".join(f"{spec.name!r} ({spec.type})" for spec in specs)
    kind = "text" if any(spec.dtype.kind == "O" for spec in specs) else "integers"
    tokens = f"What the model takes, {held}, holds {kind}, "
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
