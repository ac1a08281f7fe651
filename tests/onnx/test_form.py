"""A graph that cannot be walked is refused when its file is opened, with the reason."""

import time

import numpy as np
import pytest

from skcalib._onnx._files import open_model, parse_model
from skcalib._onnx._readout import find_readout
from skcalib.exceptions import ModelFormatError
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = pytest.mark.onnx


def ml(op, inputs, outputs=("p",), **attributes):
    return node(op, inputs, outputs, domain="ai.onnx.ml", **attributes)


def model(*nodes, rows=("n", 3), constants=()):
    return make_model(nodes, [info("x", rows)], [info("p")], constants, ml=3)


def branches(made):
    """An If of which both branches are `made`, a list of nodes that end in q."""
    body = onnx.helper.make_graph(made, "body", [], [info("q")])
    return node("If", ["c"], then_branch=body, else_branch=body)


CONDITION = {"c": np.array(True)}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Identity", ["p"])],
        [node("Identity", "b"), node("Identity", "p", "b")],
        [node("Cast", "b", to=1), node("Cast", "p", "b", to=1)],
        [node("Softmax", "a"), node("Identity", "p", "a")],
        [node("Add", "xb"), node("Add", "px", "b")],
        [ml("Normalizer", "b", norm="L1"), ml("Normalizer", "p", "b", norm="L1")],
        [branches([node("Identity", ["p"], ["q"])])],
        [branches([node("Identity", "r", "q"), node("Identity", "q", "r")])],
    ],
)
def test_a_cycle_is_refused(nodes):
    with pytest.raises(ModelFormatError, match=r"a cycle runs through the node '[pq]'"):
        OnnxLogits(model(*nodes, constants=CONDITION)).fit(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Identity", [])], r"'p' \(Identity\) lacks input 1"),
        ([node("Softmax", [])], r"\(Softmax\) lacks input 1"),
        ([node("Softmax", [""])], r"\(Softmax\) lacks input 1"),
        ([node("Sigmoid", [])], r"\(Sigmoid\) lacks input 1"),
        ([node("Div", ["x"])], r"\(Div\) lacks input 2"),
        ([node("Mul", [])], r"\(Mul\) lacks input 1"),
        ([node("ArgMax", [])], r"\(ArgMax\) lacks input 1"),
        ([ml("ZipMap", [])], r"\(ZipMap\) lacks input 1"),
        ([ml("Normalizer", [])], r"\(Normalizer\) lacks input 1"),
        ([ml("LinearClassifier", ["x"])], r"has 1 outputs where 2 are needed"),
        ([node("ReduceSum", [], "t"), node("Div", "xt")], r"\(ReduceSum\) lacks"),
        ([node("Sub", "x", "s"), node("Exp", "s")], r"\(Sub\) lacks input 2"),
        ([branches([node("Identity", [], "q")])], r"'q' \(Identity\) lacks input 1"),
        ([node("Softmax", ["gone"])], "reads 'gone', which nothing makes"),
        ([branches([node("Exp", ["gone"], "q")])], "reads 'gone', which nothing makes"),
        ([node("Softmax", "x", "q")], "nothing makes its output 'p'"),
        ([node("Exp", "x"), node("Softmax", "x")], "makes 'p' a second time"),
    ],
)
def test_what_a_node_lacks_is_named(nodes, reason):
    with pytest.raises(ModelFormatError, match=reason):
        OnnxLogits(model(*nodes, constants=CONDITION)).fit(np.zeros((2, 3)))


def test_the_order_of_the_nodes_and_names_from_outside_do_not_matter():
    late = [node("Softmax", "e"), node("Exp", "x", "e")]
    inner = branches([node("Identity", "e", "q")])
    for written in (model(*late), model(inner, late[1], constants=CONDITION)):
        assert parse_model(open_model(written)) == written


@pytest.mark.slow
def test_twenty_thousand_nodes_are_walked_in_time_that_grows_with_their_number():
    def seconds(n_nodes):
        chain = [node("Identity", [f"t{i}"], [f"t{i + 1}"]) for i in range(n_nodes)]
        first, last = node("Exp", "x", ["t0"]), node("Softmax", [f"t{n_nodes}"])
        source = open_model(model(last, *chain[::-1], first))
        start = time.process_time()
        assert find_readout(parse_model(source)).tensor == f"t{n_nodes}"
        return time.process_time() - start

    seconds(10)  # imports
    # A quadratic walk would take a hundred times as long.
    assert seconds(20_000) < 40 * max(seconds(2_000), 0.02)


@pytest.mark.slow
def test_thousands_of_branches_are_checked_in_time_that_grows_with_their_number():
    def seconds(n_nodes):
        body = onnx.helper.make_graph([node("Exp", "x", "q")], "b", [], [info("q")])
        choices = [
            node("If", ["c"], [f"t{i}"], then_branch=body, else_branch=body)
            for i in range(n_nodes)
        ]
        source = open_model(model(*choices, node("Softmax", "x"), constants=CONDITION))
        start = time.process_time()
        parse_model(source)
        return time.process_time() - start

    seconds(10)  # imports
    assert seconds(8_000) < 40 * max(seconds(800), 0.02)


@pytest.mark.parametrize("op", ["Identity", "Softmax", "Sigmoid", "ArgMax"])
def test_a_function_is_not_taken_for_the_operator_of_its_name(op):
    proba = np.float32([[0.1, 0.2, 0.7]] * 4)
    constant = node("Constant", [], value=onnx.numpy_helper.from_array(proba))
    opset = onnx.helper.make_opsetid("", 17)
    function = onnx.helper.make_function("my", op, [], ["p"], [constant], [opset])
    named = model(node(op, [], domain="my"))
    named.functions.append(function)
    named.opset_import.append(onnx.helper.make_opsetid("my", 1))
    logits = OnnxLogits(named).transform(np.zeros((4, 3), np.float32))
    np.testing.assert_allclose(logits, np.log(proba), rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "domain"), [("Identity", "ai.onnx.ml"), ("Normalizer", ""), ("ZipMap", "")]
)
def test_operators_that_are_in_no_set_are_left_to_onnxruntime(op, domain):
    with pytest.raises(ModelFormatError, match="onnxruntime cannot open"):
        OnnxLogits(model(node(op, [], domain=domain, norm="L1"))).fit(np.zeros((2, 3)))


@pytest.mark.parametrize("imports", [("ai.onnx.ml", 3), ("", 0), ("", 2**60), ("", -1)])
def test_operators_of_an_opset_that_is_not_there_are_counted(imports):
    crafted = model(node("Softmax", []))
    del crafted.opset_import[:]
    crafted.opset_import.append(onnx.helper.make_opsetid(*imports))
    with pytest.raises(ModelFormatError, match=r"\(Softmax\) lacks input 1"):
        OnnxLogits(crafted).fit(np.zeros((2, 3)))


def test_a_batch_that_the_file_claims_asks_for_no_memory():
    claimed = model(node("Softmax", "x"), rows=(10**9, 3))
    with pytest.raises(
        ModelFormatError, match=r"exactly 1,000,000,000 rows, 11\.2 GiB"
    ):
        OnnxLogits(claimed).fit(np.zeros((2, 3), np.float32))


def test_a_batch_of_rows_of_any_length_asks_for_no_memory():
    claimed = model(node("Softmax", "x"), rows=(10**6, "k"))
    with pytest.raises(ModelFormatError, match="dynamic_axes"):
        OnnxLogits(claimed).fit(np.zeros((2, 1000), np.float32))
