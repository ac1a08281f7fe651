"""Gradients through ONNX files: whole networks, how they are read, what is refused."""

import copy
import pickle
import sys
import warnings
import weakref

import numpy as np
import pytest
from numpy.testing import assert_allclose

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from skcalib._onnx._in_torch import confirm, differentiable_network  # noqa: E402
from skcalib._onnx._readout import read_logits  # noqa: E402
from skcalib._onnx._session import open_onnx  # noqa: E402
from skcalib.exceptions import ModelFormatError, NotDifferentiableError  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]


def parsed(text, opset=17, **weights):
    """A model from ONNX's textual form, with arrays as initializers."""
    graph = onnx.parser.parse_graph(text)
    for name, value in weights.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def onnxruntime_logits(model, X):
    network = open_onnx(model)
    readout = network.confirm(X, X.shape[0])
    (values,) = network.run({network.inputs[0].name: X}, [readout.tensor])
    return read_logits(readout, values, X.shape[0])


def gradient(function, X):
    """Logits, and the gradient of a fixed mixture of them."""
    x = torch.from_numpy(X).clone().requires_grad_()
    logits = function(x)
    weight = torch.from_numpy(drawn(*logits.shape, seed=7)).to(logits.dtype)
    (found,) = torch.autograd.grad((logits * weight).sum(), x)
    return logits.detach().numpy(), found.numpy()


def mlp(activation="Relu", end="Softmax", opset=17):
    """A network of two layers on 6 numbers with 3 classes."""
    return parsed(
        f"""mlp (float[n, 6] x) => (float[n, 3] y) {{
            a = MatMul(x, w1)  b = Add(a, b1)  c = {activation}(b)
            z = Gemm(c, w2, b2)  y = {end}(z) }}""",
        opset,
        w1=drawn(6, 8),
        b1=drawn(8, seed=1),
        w2=drawn(8, 3, seed=2),
        b2=drawn(3, seed=3),
    )


# --- real networks ------------------------------------------------------------------


@pytest.fixture(scope="module")
def native(data_dir):
    """Loader of the torch modules whose ONNX files lie beside them."""
    sys.path.insert(0, str(data_dir))
    try:
        import networks
    finally:
        sys.path.remove(str(data_dir))
    return networks.load


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cifar10/resnet8d", (3, 32, 32)),
        ("cifar10/resnet20", (3, 32, 32)),
        ("cifar100/resnet20", (3, 32, 32)),
        ("fashion_mnist/cnn", (1, 28, 28)),
    ],
)
def test_a_real_network_has_the_gradient_of_its_torch_module(
    data_dir, native, name, shape
):
    path = data_dir / f"{name}.onnx"
    module = differentiable_network(path)
    assert module.is_confirmed
    assert module.inputs[0].name == "image"
    assert module.inputs[0].shape == (None, *shape)
    assert module.fixed_batch is None
    X = np.random.default_rng(0).uniform(size=(5, *shape)).astype(np.float32)
    logits, found = gradient(module, X)
    assert_allclose(logits, onnxruntime_logits(path, X), atol=5e-5)
    expected_logits, expected = gradient(native(name), X)
    assert_allclose(logits, expected_logits, atol=1e-4)
    # The file has batch normalisation folded into the convolutions.
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 2e-3


class VisionTransformer(torch.nn.Module):
    """A layer of attention over the patches of a small image."""

    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, 4, 4)
        self.first = torch.nn.Parameter(torch.randn(1, 1, 16))
        layer = torch.nn.TransformerEncoderLayer(
            16, 2, 32, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, x):
        rows = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.first.expand(x.shape[0], -1, -1), rows], 1)
        return self.head(self.layers(rows)[:, 0])


class Recurrent(torch.nn.Module):
    """A bidirectional recurrent layer and a linear one."""

    def __init__(self, kind):
        super().__init__()
        self.cells = kind(5, 6, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (VisionTransformer, (3, 8, 8)),
        (lambda: Recurrent(torch.nn.LSTM), (4, 5)),
        (lambda: Recurrent(torch.nn.GRU), (4, 5)),
    ],
    ids=["transformer", "lstm", "gru"],
)
def test_an_exported_module_keeps_its_gradient(tmp_path, make, shape):
    torch.manual_seed(0)
    module = make().eval()
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # this exporter is deprecated, but needs no extra
        torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )
    X = drawn(3, *shape)
    found = gradient(differentiable_network(path), X)
    for ours, theirs in zip(found, gradient(module, X), strict=True):
        assert_allclose(ours, theirs, atol=2e-5)


# --- readout ------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax", "Identity", "Sigmoid"])
def test_logits_are_read_as_onnx_logits_reads_them(end):
    model = mlp(end=end)
    if end == "Sigmoid":
        model = parsed(
            "s (float[n, 4] x) => (float[n, 1] y) { z = MatMul(x, w) y = Sigmoid(z) }",
            w=drawn(4, 1),
        )
    X = drawn(9, 4 if end == "Sigmoid" else 6)
    logits, _ = gradient(differentiable_network(model), X)
    assert_allclose(logits, onnxruntime_logits(model, X), atol=1e-5)


@pytest.mark.parametrize("columns", [1, 3])
def test_probabilities_are_read_as_their_logarithm(columns):
    # Softmax less a constant is not recognised as a softmax: only data show it.
    text = f"""p (float[n, 4] x) => (float[n, {columns}] y) {{
        z = MatMul(x, w)  s = {"Sigmoid" if columns == 1 else "Softmax"}(z)
        y = Add(s, zero) }}"""
    model = parsed(text, w=drawn(4, columns), zero=np.float32(0))
    X = drawn(9, 4)
    module = differentiable_network(model)
    assert module.readout.kind == "proba"
    logits, _ = gradient(module, X)
    assert_allclose(logits, onnxruntime_logits(model, X), atol=1e-5)


def test_images_of_logits_are_laid_out_as_columns():
    model = parsed(
        """g (float[n, 3, 5, 5] x) => (float[n, 4, 1, 1] y) {
            a = Conv(x, w)  y = GlobalAveragePool(a) }""",
        w=drawn(4, 3, 3, 3),
    )
    assert differentiable_network(model)(torch.zeros(2, 3, 5, 5)).shape == (2, 4)


def test_an_output_can_be_named():
    model = mlp()
    logits = differentiable_network(model, output="z")(torch.ones(2, 6))
    assert_allclose(logits, differentiable_network(model)(torch.ones(2, 6)))
    with pytest.raises(ModelFormatError, match="no output or inner tensor"):
        differentiable_network(model, output="nothing")


# --- the module ---------------------------------------------------------------------


def test_weights_are_buffers_and_follow_the_module():
    module = differentiable_network(mlp())
    assert list(module.parameters()) == []
    assert not module.training
    assert not module(torch.ones(1, 6)).requires_grad
    wide = copy.deepcopy(module).double()
    assert wide(torch.ones(1, 6, dtype=torch.float64)).dtype == torch.float64
    assert module(torch.ones(1, 6)).dtype == torch.float32
    assert "mlp" not in repr(module)
    assert "inputs=['x']" in repr(module)


@pytest.mark.parametrize("form", ["path", "bytes", "proto"])
def test_a_pickled_module_holds_the_path_or_bytes(tmp_path, form):
    model = mlp()
    path = tmp_path / "mlp.onnx"
    onnx.save(model, path)
    forms = {"path": path, "bytes": path.read_bytes(), "proto": model}
    module = differentiable_network(forms[form], site="c").double()
    data = pickle.dumps(module)
    assert (b"mlp.onnx" in data) == (form == "path")
    again = pickle.loads(data)  # noqa: S301
    x, shift = torch.ones(2, 6).double(), torch.ones(8).double()
    assert torch.equal(again(x, shift), module(x, shift))
    assert again.is_confirmed
    assert again.site == "c"


def test_a_copy_shares_no_weights():
    module = differentiable_network(mlp())
    x = torch.ones(1, 6)
    before = module(x)
    twin = copy.deepcopy(module)
    for buffer in twin.buffers():
        buffer.zero_()
    assert torch.equal(module(x), before)
    assert not torch.equal(twin(x), before)


def test_the_shift_is_added_at_the_site():
    X, delta = torch.from_numpy(drawn(4, 6)), torch.from_numpy(drawn(6, seed=5))
    module = differentiable_network(mlp())
    assert_allclose(module(X, delta), module(X + delta), rtol=1e-5)
    inner = differentiable_network(mlp(), site="c")
    assert inner.site_values(X).shape == (4, 8)
    shift = torch.from_numpy(drawn(8, seed=6))
    expected = torch.from_numpy(drawn(8, 3, seed=2)).T @ shift + module(X)
    assert_allclose(inner(X, shift), expected, rtol=1e-4, atol=1e-5)
    assert_allclose(inner(X), module(X), rtol=1e-6)


def test_one_row_is_computed_as_in_a_batch():
    module = differentiable_network(mlp(activation="Tanh"))
    X = torch.from_numpy(drawn(7, 6))
    alone = torch.cat([module(row[None]) for row in X])
    assert_allclose(alone, module(X), atol=1e-6)


def test_a_fixed_batch_is_told():
    model = parsed(
        "f (float[4, 6] x) => (float[4, 3] y) { y = MatMul(x, w) }", w=drawn(6, 3)
    )
    module = differentiable_network(model)
    assert module.fixed_batch == 4
    assert module.is_confirmed


def test_tensors_are_freed_after_their_last_use():
    module = differentiable_network(mlp())
    freed, alive = [], []
    for step in module._steps:
        function = step.function

        def watched(*arguments, function=function):
            made = function(*arguments)
            alive.append(weakref.ref(made))
            freed.append(sum(ref() is None for ref in alive))
            return made

        step.function = watched
    with torch.no_grad():
        module(torch.ones(2, 6))
    # All but the input of the running operator, and its result.
    assert freed == [max(0, i - 1) for i in range(len(freed))]


def test_inputs_of_a_wrong_shape_name_the_node_that_failed():
    module = differentiable_network(mlp())
    with pytest.raises(ValueError, match="node 'a' \\(MatMul\\)"):
        module(torch.ones(2, 5))


# --- graphs -------------------------------------------------------------------------

SHAPES = """g (float[n, 4, 3] x) => (float[n, 6] y) {
    s = Shape(x)  n = Gather(s, zero)  r = Unsqueeze(n, zeros)
    shape = Concat <axis = 0> (r, minus)  flat = Reshape(x, shape)
    places = Range(zero, six, two)  some = Gather <axis = 1> (flat, places)
    wide = ConstantOfShape(shape3)  hot = OneHot(places, twelve, off_on)
    mixed = MatMul(flat, w)  big = Greater(mixed, limit)
    smaller = Where(big, limit, mixed)
    sizes = Expand(one, shape6)  y = Add(smaller, sizes) }"""


def shapes():
    return parsed(
        SHAPES,
        zero=np.int64(0), zeros=np.array([0]), minus=np.array([-1]), six=np.int64(6),
        two=np.int64(2), shape3=np.array([3]), twelve=np.int64(12),
        off_on=np.float32([0, 1]), w=drawn(12, 6), limit=np.float32(0.7),
        one=np.float32(1), shape6=np.array([1, 6]),
    )  # fmt: skip


def test_shapes_are_followed():
    model = shapes()
    module = differentiable_network(model)
    assert module.is_confirmed
    for n in (1, 5):
        X = drawn(n, 4, 3)
        found, _ = gradient(module, X)
        assert_allclose(found, onnxruntime_logits(model, X), atol=1e-5)


def test_values_on_the_device_are_never_read():
    # Tensors of the device "meta" have no values, so that reading one fails.
    for model, shape in ((shapes(), (3, 4, 3)), (mlp(), (3, 6))):
        module = differentiable_network(model).to("meta")
        logits = module(torch.empty(shape, device="meta"))
        assert logits.device.type == "meta"
        assert logits.shape[0] == 3


def test_numbers_are_compared_and_combined():
    model = parsed(
        """l (float[n, 3] x) => (float[n, 3] y) {
            high = Less(half, x)  low = Less(x, minus)  either = Or(high, low)
            both = And(high, low)  one = Xor(high, low)  none = Not(either)
            a = Where(either, x, half)  b = Where(none, minus, a)
            c = Cast<to = 1>(one)  d = Cast<to = 7>(both)
            e = BitShift<direction = "LEFT">(five, two)  f = CastLike(e, half)
            g = Mul(b, f)  h = Add(g, c)  i = Cast<to = 1>(d)  y = Sub(h, i) }""",
        half=np.float32(0.5),
        minus=np.float32(-0.2),
        five=np.uint8([5]),
        two=np.uint8([1]),
    )
    X = drawn(6, 3)
    found, _ = gradient(differentiable_network(model), X)
    assert_allclose(found, onnxruntime_logits(model, X), rtol=1e-6)


def branching(condition):
    """An If whose branches double and halve; each has a constant of its own."""
    value = helper.make_tensor_value_info
    branches = {}
    for name, factor in (("then_branch", 2.0), ("else_branch", 0.5)):
        nodes = [
            helper.make_node("Constant", [], ["k"], value_float=factor),
            helper.make_node("Mul", ["z", "k"], ["r"]),
        ]
        outputs = [value("r", TensorProto.FLOAT, None)]
        branches[name] = helper.make_graph(nodes, name, [], outputs)
    model = parsed(
        f"""i (float[n, 4] x) => (float[n, 3] y) {{
            z = MatMul(x, w)  {condition}  y = Identity(z) }}""",
        w=drawn(4, 3),
        one=np.int64(1),
        where=np.int64(0),
    )
    choice = helper.make_node("If", ["c"], ["chosen"], **branches)
    model.graph.node.insert(len(model.graph.node) - 1, choice)
    model.graph.node[-1].input[0] = "chosen"
    return model


@pytest.mark.parametrize(
    "condition",
    [
        "c = Equal(one, where)",
        "s = Shape(x)  n = Gather(s, where)  c = Equal(n, one)",
    ],
    ids=["constant", "by-shape"],
)
def test_a_branch_is_chosen_by_constants_and_shapes(condition):
    model = branching(condition)
    module = differentiable_network(model)
    for n in (1, 3):
        X = drawn(n, 4)
        found, slope = gradient(module, X)
        assert_allclose(found, onnxruntime_logits(model, X), atol=1e-6)
        assert (slope != 0).all()


def test_what_a_branch_gives_can_be_perturbed():
    model = branching("s = Shape(x)  n = Gather(s, where)  c = Equal(n, one)")
    module = differentiable_network(model, site="chosen")
    x, shift = torch.from_numpy(drawn(2, 4)), torch.from_numpy(drawn(3, seed=1))
    assert_allclose(module.site_values(x), module(x))
    assert_allclose(module(x, shift), module(x) + shift)


def test_nodes_may_stand_in_any_order():
    model = mlp()
    expected = differentiable_network(model)(torch.ones(2, 6))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[1:] + nodes[:1])
    assert_allclose(differentiable_network(model)(torch.ones(2, 6)), expected)


def test_functions_of_the_model_are_written_out():
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        f (float[n, 4] x) => (float[n, 4] y) { z = own.twice(x)  y = Softmax(z) }
        <domain: "own", opset_import: ["" : 17]>
        twice (a) => (b) { b = Add(a, a) }"""
    module = differentiable_network(onnx.parser.parse_model(text))
    assert_allclose(module(torch.ones(1, 4)), np.full((1, 4), 2.0))


def test_weights_in_files_beside_the_model_are_read(tmp_path):
    path = tmp_path / "large.onnx"
    onnx.save_model(mlp(), path, save_as_external_data=True, size_threshold=0)
    X = torch.ones(2, 6)
    assert_allclose(differentiable_network(path)(X), differentiable_network(mlp())(X))


def test_half_precision_is_computed_in_single():
    half = {
        "w": drawn(6, 3).astype(np.float16),
        "b": drawn(3, seed=1).astype(np.float16),
    }
    model = parsed(
        """h (float16[n, 6] x) => (float16[n, 3] y) {
            a = MatMul(x, w)  b2 = Add(a, b)  c = Tanh(b2)  y = Identity(c) }""",
        **half,
    )
    module = differentiable_network(model)
    assert module.is_confirmed
    assert module.inputs[0].dtype == np.float16
    found = module(torch.ones(1, 6))
    assert found.dtype == torch.float32
    expected = np.tanh(half["w"].astype(np.float32).sum(0) + half["b"])
    assert_allclose(found[0], expected, atol=1e-3)


def test_gradients_go_straight_through_quantisation(tmp_path, data_dir):
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(0)
            rows = rng.uniform(size=(4, 8, 1, 28, 28)).astype(np.float32)
            self.feeds = iter([{"image": row} for row in rows])

        def get_next(self):
            return next(self.feeds, None)

    plain, path = data_dir / "fashion_mnist" / "cnn.onnx", tmp_path / "int8.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(plain, path, Reader(), quant_format=QuantFormat.QDQ)
    module = differentiable_network(path)
    assert module.is_quantised
    assert module.is_confirmed
    X = np.random.default_rng(1).uniform(size=(4, 1, 28, 28)).astype(np.float32)
    logits, found = gradient(module, X)
    assert_allclose(logits, onnxruntime_logits(path, X), atol=0.3)
    _, expected = gradient(differentiable_network(plain), X)
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.8


# --- integer inputs -----------------------------------------------------------------

TOKENS = """t (int64[n, 5] tokens) => (float[n, 3] y) {
    e = Gather(table, tokens)  m = ReduceMean <axes = [1], keepdims = 0> (e)
    y = Gemm(m, w) }"""


def test_integer_inputs_name_the_embedding():
    model = parsed(TOKENS, table=drawn(9, 4), w=drawn(4, 3))
    with pytest.raises(NotDifferentiableError, match=r"integers.*site='e'"):
        differentiable_network(model)


def test_the_embedding_of_tokens_can_be_perturbed():
    table, w = drawn(9, 4), drawn(4, 3)
    module = differentiable_network(parsed(TOKENS, table=table, w=w), site="e")
    tokens = torch.tensor([[1, 2, 3, 4, 5], [8, 8, 0, 0, 1]])
    assert module.site_values(tokens).shape == (2, 5, 4)
    assert module.inputs[0].dtype == np.int64
    shift = torch.from_numpy(drawn(5, 4, seed=4)).requires_grad_()
    logits = module(tokens, shift)
    expected = (table[tokens.numpy()] + shift.detach().numpy()).mean(1) @ w
    assert_allclose(logits.detach(), expected, atol=1e-5)
    (slope,) = torch.autograd.grad(logits[0, 0], shift)
    assert_allclose(slope, np.tile(w[:, 0] / 5, (5, 1)), rtol=1e-5)


def test_a_constant_without_dimensions_is_filled():
    module = differentiable_network(
        parsed(
            """c (float[n, 3] x) => (float[n, 3] y) {
            one = ConstantOfShape <value = int64[1] {2}> (none)
            two = Cast <to = 1> (one)  y = Mul(x, two) }""",
            none=np.zeros(0, dtype=np.int64),
        )
    )
    assert_allclose(module(torch.ones(1, 3)), [[2, 2, 2]])


# --- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "u (float[n, 3, 3] x) => (float[n] y) { y = Det(x) }",
            r"node 'y' \(Det, opset 17\) is an operator that is not supported",
        ),
        (
            """u (float[n, 3] x) => (float[n, 3] y) {
                a, s, z = DynamicQuantizeLinear(x)  y = DequantizeLinear(a, s, z) }""",
            "DynamicQuantizeLinear.*computes in integers",
        ),
    ],
    ids=["unknown", "integers"],
)
def test_operators_without_a_gradient_are_named(text, match):
    with pytest.raises(NotDifferentiableError, match=match) as error:
        differentiable_network(parsed(text))
    assert "solver='gradient_free'" in str(error.value)


def test_trees_are_named():
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml",
        nodes_treeids=[0], nodes_nodeids=[0], nodes_featureids=[0],
        nodes_modes=["LEAF"], nodes_values=[0.0], nodes_truenodeids=[0],
        nodes_falsenodeids=[0], nodes_missing_value_tracks_true=[0],
        nodes_hitrates=[1.0], class_treeids=[0, 0], class_nodeids=[0, 0],
        class_ids=[0, 1], class_weights=[0.4, 0.6], classlabels_int64s=[0, 1],
        post_transform="NONE",
    )  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "t", [value("x", 1, ["n", 2])], [value("y", 1, ["n", 2])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(NotDifferentiableError, match="ensemble of trees"):
        differentiable_network(model)


def test_a_gradient_of_zero_is_refused():
    model = parsed(
        "z (float[n, 3] x) => (float[n, 3] y) { a = Floor(x)  y = Mul(a, w) }",
        w=drawn(3),
    )
    with pytest.raises(NotDifferentiableError, match="exactly zero everywhere"):
        differentiable_network(model)


def test_a_wrong_gradient_is_refused_with_what_was_measured(monkeypatch):
    model = mlp(activation="Tanh")
    module = differentiable_network(model)
    step = next(step for step in module._steps if step.node.op == "Tanh")
    # As if its rule of differentiation had a mistake.
    step.function = lambda x: torch.tanh(x) * 0.5 + torch.tanh(x).detach() * 0.5
    with pytest.raises(NotDifferentiableError, match="finite differences give"):
        confirm(module, drawn(8, 6))


def test_an_operator_that_fails_is_told():
    module = differentiable_network(mlp(activation="Tanh"))
    step = next(step for step in module._steps if step.node.op == "Tanh")
    step.function = lambda x: x.reshape(1, 1)
    with pytest.raises(NotDifferentiableError, match="runs in onnxruntime but not"):
        confirm(module, drawn(8, 6))


def test_wrong_values_are_refused():
    module = differentiable_network(mlp(activation="Tanh"))
    step = next(step for step in module._steps if step.node.op == "Tanh")
    step.function = torch.relu
    with pytest.raises(NotDifferentiableError, match="differ from onnxruntime's by"):
        confirm(module, drawn(8, 6))


def test_of_several_inputs_of_real_numbers_one_is_named():
    model = parsed("s (float[n, 3] x, float[n, 3] other) => (float[n, 3] y) {"
                   " y = Mul(x, other) }")  # fmt: skip
    with pytest.raises(NotDifferentiableError, match=r"\['x', 'other'\].*site='x'"):
        differentiable_network(model)
    module = differentiable_network(model, site="other")
    x = {"x": torch.full((1, 3), 2.0), "other": torch.ones(1, 3)}
    assert_allclose(module(x, torch.ones(3)), [[4, 4, 4]])
    with pytest.raises(ValueError, match=r"\['x', 'other'\], but X has a single"):
        module(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"but X has \['x'\]"):
        module({"x": torch.ones(1, 3)})


def test_beside_integers_the_one_real_input_is_perturbed():
    model = parsed(
        """s (int64[n, 2] ids, float[n, 2, 3] e) => (float[n, 3] y) {
        one = Constant <value_ints = [1]> ()
        mask = Cast <to = 1> (ids)  wide = Unsqueeze(mask, last)
        kept = Mul(e, wide)  y = ReduceSum <keepdims = 0> (kept, one) }""",
    )
    model.graph.initializer.append(numpy_helper.from_array(np.int64([2]), "last"))
    module = differentiable_network(model)
    assert module.site == "e"
    assert module.is_confirmed
    x = {"ids": torch.tensor([[1, 0]]), "e": torch.ones(1, 2, 3)}
    assert_allclose(module(x, torch.ones(2, 3)), [[2, 2, 2]])
    again = pickle.loads(pickle.dumps(module))  # noqa: S301
    assert_allclose(again(x, torch.ones(2, 3)), [[2, 2, 2]])


def test_an_input_with_a_default_is_a_constant():
    model = parsed(
        "s (float[n, 3] x, float[1, 3] w) => (float[n, 3] y) { y = Mul(x, w) }",
        w=np.float32([[1, 2, 3]]),
    )
    module = differentiable_network(model)
    assert_allclose(module(torch.ones(1, 3)), [[1, 2, 3]])


@pytest.mark.parametrize("site", ["nothing", "w1", "y"])
def test_a_site_lies_between_input_and_logits(site):
    with pytest.raises(NotDifferentiableError, match="site="):
        differentiable_network(mlp(), site=site)


def test_a_model_without_known_shape_is_confirmed_on_real_inputs():
    model = parsed(
        """d (float[n, 3, h, w] x) => (float[n, 4] y) {
            a = Conv(x, k)  p = GlobalAveragePool(a)  y = Flatten(p) }""",
        k=drawn(4, 3, 3, 3),
    )
    module = differentiable_network(model)
    assert not module.is_confirmed
    confirm(module, drawn(5, 3, 6, 6))
    assert module.is_confirmed


def test_logits_that_are_not_finite_confirm_nothing():
    model = parsed("l (float[n, 3] x) => (float[n, 3] y) { y = Log(x) }")
    module = differentiable_network(model)
    assert not module.is_confirmed
    with pytest.raises(NotDifferentiableError, match="not finite"):
        confirm(module, -np.ones((2, 3), np.float32))
    confirm(module, np.abs(drawn(2, 3)))
    assert module.is_confirmed
