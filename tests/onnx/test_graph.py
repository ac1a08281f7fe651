"""Walks of a graph: subgraphs, nodes out of order, unused constants, domains."""

import numpy as np
import pytest

from skcalib._onnx._graph import (
    GraphIndex,
    Wiring,
    drop_unused,
    operator,
    outer_tensors,
    redirect_readers,
    rename_tensor,
    sort_nodes,
    tensors_read,
)

onnx = pytest.importorskip("onnx")

from graph_parts import info, node  # noqa: E402

pytestmark = pytest.mark.onnx


def infos(names):
    return [info(name, ["n"]) for name in names]


def graph(*nodes, inputs="x", outputs="y", constants=""):
    tensors = [onnx.numpy_helper.from_array(np.ones(1), name) for name in constants]
    return onnx.helper.make_graph(
        list(nodes), "g", infos(inputs), infos(outputs), tensors
    )


def choice(then, otherwise, outputs="y"):
    return node("If", "c", outputs, then_branch=then, else_branch=otherwise)


def branch(*nodes, outputs="q", constants=""):
    return graph(*nodes, inputs="", outputs=outputs, constants=constants)


def loop():
    """A Loop whose body adds the outer tensor `a` to what it carries."""
    body = graph(
        node("Identity", "k", "l"), node("Add", "sa", "t"), inputs="iks", outputs="lt"
    )
    return node("Loop", "mcx", "y", body=body)


def made(nodes):
    return ["".join(n.output) for n in nodes]


def test_a_node_reads_its_inputs_that_are_there():
    clip = node("Clip", ["x", "", "high"], "y")
    assert tensors_read(clip) == {"x": clip, "high": clip}


def test_an_if_reads_what_its_branches_read_from_around_them():
    first = branch(node("Add", "ab", "q"), constants="b")
    second = branch(outputs="d")
    assert set(tensors_read(choice(first, second))) == {"c", "a", "d"}


def test_a_loop_does_not_read_what_its_body_is_given():
    assert set(tensors_read(loop())) == {"m", "c", "x", "a"}


def test_what_is_read_comes_with_its_reader_from_the_innermost_graph():
    reader = node("Neg", "a", "r")
    inner = choice(branch(reader, outputs="r"), branch(outputs="d"), outputs="q")
    found = outer_tensors(branch(inner))
    assert found["a"] == reader
    assert found["d"] == found["c"] == inner


def test_a_body_out_of_order_reads_nothing_that_it_makes():
    body = branch(node("Neg", "r", "q"), node("Neg", "a", "r"))
    assert set(outer_tensors(body)) == {"a"}


def test_an_output_handed_through_has_no_reader():
    assert outer_tensors(branch(outputs="a")) == {"a": None}


def test_sparse_constants_are_held_by_a_graph():
    found = graph(node("Add", "xs", "y"))
    values = onnx.numpy_helper.from_array(np.ones(1), "s")
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i")
    found.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(values, indices, [1])
    )
    assert outer_tensors(found) == {}


def test_nodes_are_needed_through_branches_and_not_beyond():
    nodes = [
        node("Neg", "x", "a"),
        node("Neg", "x", "unused"),
        choice(branch(node("Neg", "a", "q")), branch(outputs="d")),
        node("Neg", "y", "behind"),
        node("Neg", "x", "d"),
    ]
    assert made(Wiring(nodes).needed(["y"])) == ["a", "y", "d"]
    assert Wiring(nodes).needed(["x", "nowhere"]) == []


def test_ancestors_are_what_was_read_not_what_was_made_beside_it():
    classifier = node("TopK", "xk", ["values", "indices"])
    index = GraphIndex(graph(node("Neg", ["values"], "y"), classifier))
    assert index.ancestors("y") == {"values"}


def test_ancestors_include_what_a_branch_reads():
    index = GraphIndex(
        graph(
            node("Neg", "x", "a"),
            choice(branch(node("Neg", "a", "q")), branch(outputs="x")),
        )
    )
    assert index.ancestors("y") == {"a"}


def test_sorting_keeps_an_order_that_is_right():
    nodes = [node("Neg", "x", "b"), node("Neg", "x", "a"), node("Add", "ab", "y")]
    assert Wiring(nodes).in_order() == nodes


def test_a_cycle_ends_the_walks():
    nodes = [node("Add", "xb", "a"), node("Neg", "a", "b"), node("Neg", "a", "y")]
    assert sorted(made(Wiring(nodes).in_order())) == ["a", "b", "y"]
    assert Wiring(nodes).needed(["y"]) == nodes


def test_sorting_puts_makers_before_readers_within_branches():
    found = graph(
        choice(branch(node("Neg", "a", "q")), branch(outputs="x")),
        node("Neg", "b", "a"),
        node("Neg", "x", "b"),
        node("Neg", "x", "z"),
    )
    sort_nodes(found)
    assert made(found.node) == ["b", "a", "y", "z"]


def test_sorting_takes_branches_that_name_their_result_like_the_if():
    same = branch(node("Neg", "x", "y"), outputs="y")
    found = graph(choice(same, same), node("Neg", "x", "c"))
    sort_nodes(found)
    assert made(found.node) == ["c", "y"]


def test_unused_nodes_and_constants_are_dropped():
    found = graph(
        node("Add", "ab", "y"),
        node("Add", "xu", "unused"),
        node("Neg", "x", "a"),
        inputs="xi",
        constants="bui",
    )
    drop_unused(found)
    assert made(found.node) == ["y", "a"]
    # A constant that is an input by name, as in old models, stays with it.
    assert [tensor.name for tensor in found.initializer] == ["b", "i"]


def test_constants_that_only_a_body_reads_are_kept():
    found = graph(loop(), inputs="xmc", constants="au")
    drop_unused(found)
    assert made(found.node) == ["y"]
    assert [tensor.name for tensor in found.initializer] == ["a"]


def test_readers_are_redirected_within_branches_and_through_them():
    found = graph(
        node("Neg", "x", "a"),
        node("Add", "aa", "b"),
        choice(branch(node("Neg", "a", "q")), branch(outputs="a")),
    )
    redirect_readers(found, "a", "new")
    assert made(found.node) == ["a", "b", "y"]
    assert list(found.node[1].input) == ["new", "new"]
    assert set(tensors_read(found.node[2])) == {"c", "new"}


@pytest.mark.parametrize(
    "body",
    [
        branch(node("Neg", "x", "a"), node("Neg", "a", "q")),
        branch(node("Add", "xa", "q"), constants="a"),
    ],
    ids=["made", "constant"],
)
def test_tensors_of_a_body_s_own_keep_their_name(body):
    found = graph(node("Neg", "x", "a"), choice(body, body))
    before = found.node[1].SerializeToString()
    redirect_readers(found, "a", "new")
    assert found.node[1].SerializeToString() == before


def test_what_a_loop_carries_keeps_its_name():
    found = graph(node("Neg", "x", "s"), loop(), inputs="xmca")
    before = found.node[1].SerializeToString()
    redirect_readers(found, "s", "new")
    assert found.node[1].SerializeToString() == before


def test_a_renamed_tensor_is_renamed_where_it_is_made_and_read_but_not_served():
    found = graph(node("Neg", "x", "y"), node("Neg", "y", "b"), outputs="yb")
    found.value_info.extend(infos("y"))
    rename_tensor(found, "y", "old")
    assert made(found.node) == ["old", "b"]
    assert list(found.node[1].input) == ["old"]
    assert [value.name for value in found.output] == ["y", "b"]
    assert [value.name for value in found.value_info] == ["old"]


@pytest.mark.parametrize(
    ("op", "domain", "name"),
    [
        ("Softmax", "", "Softmax"),
        ("Softmax", "ai.onnx", "Softmax"),
        ("Softmax", "com.vendor", ""),
        ("Softmax", "ai.onnx.ml", ""),
        ("ZipMap", "ai.onnx.ml", "ZipMap"),
        ("ZipMap", "com.vendor", ""),
        ("Invented", "", ""),
    ],
)
def test_operators_go_by_their_domain(op, domain, name):
    assert operator(node(op, "x", "y", domain=domain)) == name


def test_a_walk_back_ends_at_an_operator_of_a_vendor():
    index = GraphIndex(
        graph(
            node("Neg", "x", "a"),
            node("Identity", "a", "b", domain="com.vendor"),
            node("Identity", "b", "y", domain="ai.onnx"),
        )
    )
    assert [tensor for tensor, _ in index.upstream("y")] == ["y", "b"]
