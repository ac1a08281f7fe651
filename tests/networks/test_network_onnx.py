"""ONNX networks before neural clamping: with a gradient, at a site, forward only."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from added_delta import evaluate, value_and_gradient  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._named import NamedRows  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.clamping._perturbation import Full  # noqa: E402
from skcalib.exceptions import NotDifferentiableError  # noqa: E402
from skcalib.frozen import OnnxLogits  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]


def parsed(text, **weights):
    """A model from ONNX's textual form, with arrays as initializers."""
    graph = onnx.parser.parse_graph(text)
    for name, value in weights.items():
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {"table": rng.normal(size=(9, 4)), "w": rng.normal(size=(4, 3))}


def tokens_model(weights):
    return parsed(
        """t (int64[n, 5] tokens) => (float[n, 3] p) {
        e = Gather(table, tokens)  m = ReduceMean <axes = [1], keepdims = 0> (e)
        y = MatMul(m, w)  p = Softmax(y) }""",
        **weights,
    )


def test_onnx_and_torch_agree_on_value_and_gradient(cifar, data_dir):
    module, X, y = cifar
    path = data_dir / "cifar10" / "resnet8d.onnx"
    results = []
    for model in (module, path, OnnxLogits(path)):
        network = open_network(model)
        inputs = Inputs(X[:24], network, 10)
        assert network.probe(inputs, n_classes=10) == 10
        objective = Objective(network, inputs, y[:24])
        results.append(value_and_gradient(objective, None, 0.3))
    for found in results[1:]:
        assert found[0] == pytest.approx(results[0][0], rel=1e-5)
        assert found[2] == pytest.approx(results[0][2], rel=1e-4)
        assert_allclose(found[1], results[0][1], atol=1e-3 * abs(found[1]).max())


def test_a_file_is_converted_once_until_it_changes(tmp_path, weights):
    def write(w):
        onnx.save(
            parsed("f (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", w=w),
            path,
        )

    path = tmp_path / "network.onnx"
    write(weights["w"])
    first, again = open_network(path), open_network(str(path))
    assert first._module is again._module
    path.unlink()
    write(np.zeros((4, 3)) + np.arange(3))
    assert_allclose(open_network(path)(torch.ones(1, 4)), [[0, 4, 8]])


def test_a_fixed_batch_is_filled_up():
    w = np.random.default_rng(0).normal(size=(6, 3))
    text = "f (float[{n}, 6] x) => (float[{n}, 3] y) {{ a = Tanh(x) y = MatMul(a, w) }}"
    X = np.random.default_rng(1).normal(size=(10, 6))
    results = []
    for n in ("4", "n"):
        network = open_network(parsed(text.format(n=n), w=w))
        objective = Objective(network, Inputs(X, network, 7), np.arange(10) % 3)
        results.append(evaluate(objective, None, 0.1))
        assert objective.inputs.batch_size == (4 if n == "4" else 7)
    for fixed, free in zip(*results, strict=True):
        assert_allclose(fixed, free, rtol=1e-5, atol=1e-7)


def test_an_embedding_can_be_perturbed_in_the_place_of_tokens(weights):
    tokens = np.random.default_rng(1).integers(0, 9, (11, 5))
    network = open_network(tokens_model(weights), site="e")
    inputs = Inputs(tokens, network, 4)
    assert inputs.shape == (5, 4)
    assert network.probe(inputs) == 3
    embedded = np.concatenate([x.numpy() for x in inputs.values()])
    assert_allclose(embedded, np.float32(weights["table"])[tokens])
    behind = parsed(
        """b (float[n, 5, 4] e) => (float[n, 3] y) {
        m = ReduceMean <axes = [1], keepdims = 0> (e)  y = MatMul(m, w) }""",
        w=weights["w"],
    )
    delta = 0.5 * np.random.default_rng(2).normal(size=(5, 4))
    for bounds in (None, (-1.0, 1.0)):
        objective = Objective(network, inputs, np.arange(11) % 3, feasible_range=bounds)
        direct = open_network(behind)
        expected = Objective(
            direct,
            Inputs(embedded, direct, 4),
            np.arange(11) % 3,
            feasible_range=bounds,
        )
        for ours, theirs in zip(
            evaluate(objective, delta, 0.2), evaluate(expected, delta, 0.2), strict=True
        ):
            assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        basis = Full((5, 4))
        assert_allclose(
            objective.jacobian(basis, delta), expected.jacobian(basis, delta), atol=1e-6
        )


def test_tokens_without_a_site_say_what_can_be_done(weights):
    with pytest.raises(NotDifferentiableError, match=r"integers.*site='e'"):
        open_network(tokens_model(weights))


def test_a_network_without_gradient_runs_forward_only():
    w = np.random.default_rng(0).normal(size=(3, 3))
    model = parsed(
        """z (float[n, 3] x) => (float[n, 3] p) {
        a = Floor(x)  y = MatMul(a, w)  p = Softmax(y) }""",
        w=w,
    )
    X = 5 * np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    network = open_network(model)
    assert not network.differentiable
    inputs = Inputs(X, network, 4)
    assert network.probe(inputs) == 3
    objective = Objective(network, inputs, np.arange(10) % 3)
    delta = np.array([0.5, 0.0, -0.5])
    expected = np.floor(X + np.float32(delta)) @ np.float32(w)
    assert_allclose(objective.logits(delta), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(NotDifferentiableError, match="gradient_free"):
        value_and_gradient(objective, delta, 0.0)


def test_an_input_named_x_is_one_of_several_without_a_gradient():
    w = np.random.default_rng(0).normal(size=(3, 3))
    model = parsed(
        """two (float[n, 3] x, float[n, 3] z) => (float[n, 3] p) {
        a = Floor(x)  b = Add(a, z)  y = MatMul(b, w)  p = Softmax(y) }""",
        w=w,
    )
    x, z = 5 * np.random.default_rng(1).normal(size=(2, 10, 3)).astype(np.float32)
    network = open_network(model, site="x")
    assert not network.differentiable
    inputs = Inputs(NamedRows({"x": x, "z": z}), network, 4)
    objective = Objective(network, inputs, np.arange(10) % 3)
    expected = (np.floor(x) + z) @ np.float32(w)
    assert_allclose(objective.logits(np.zeros(3)), expected, rtol=1e-5, atol=1e-5)


def test_without_a_gradient_any_input_may_fix_the_batch():
    model = parsed(
        """two (float[n, 3] x, int64[4, 3] m) => (float[n, 3] p) {
        a = Floor(x)  f = Cast <to = 1> (m)  y = Mul(a, f)  p = Softmax(y) }"""
    )
    x = 5 * np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    m = np.random.default_rng(2).integers(0, 2, (10, 3))
    network = open_network(model)
    assert not network.differentiable
    assert network.fixed_batch == 4
    inputs = Inputs(NamedRows({"x": x, "m": m}), network, 256)
    assert network.probe(inputs) == 3
    objective = Objective(network, inputs, np.arange(10) % 3)
    assert_allclose(objective.logits(), np.floor(x) * m)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_onnx_network_runs_on_the_gpu_of_its_own_accord(cifar, data_dir):
    _, X, y = cifar
    results = []
    for device in ("auto", "cpu"):
        network = open_network(data_dir / "cifar10" / "resnet8d.onnx", device=device)
        objective = Objective(network, Inputs(X, network, 16), y)
        results.append(evaluate(objective, None, 0.3))
    assert open_network(data_dir / "cifar10" / "resnet8d.onnx").device.type == "cuda"
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-3)
