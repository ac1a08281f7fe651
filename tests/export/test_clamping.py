"""Whole networks written with their perturbation: run in onnxruntime and in torch."""

import copy
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skcalib.calibrators import VectorScaling
from skcalib.datasets import load_demo
from skcalib.export import calibrate_onnx_model, save_onnx, to_onnx, to_torch
from skcalib.frozen import OnnxLogits, TorchLogits

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
clamping = pytest.importorskip("skcalib.clamping")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
DOUBLE, INT64 = onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64
C, H, W, K = 3, 4, 5, 4
WEIGHT = np.random.default_rng(1).normal(size=(C * H * W, K)).astype(np.float32)
SHAPES = {"nchw": (C, H, W), "nhwc": (H, W, C)}
T = 1.7


def images(shape, *, batch="n", element=FLOAT, opset=17, ir_version=8):
    """A linear network on images: Flatten, MatMul, Softmax."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    nodes = [
        node("Flatten", ["image"], ["flat"], axis=1),
        node("MatMul", ["flat", "W"], ["z"]),
        node("Softmax", ["z"], ["p"], axis=1),
    ]
    return make_model(
        nodes,
        [info("image", [batch, *shape], element)],
        [info("p", [batch, K], element)],
        {"W": WEIGHT.astype(dtype)},
        opset=opset,
        ir_version=ir_version,
    )


def draw(shape, n=8, seed=0):
    return np.random.default_rng(seed).random((n, *shape)).astype(np.float32)


def a_delta(shape, scale=0.3):
    rng = np.random.default_rng(2)
    return rng.normal(scale=scale, size=shape).astype(np.float32)


def session_of(model):
    return ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(model, X, output=None):
    session = session_of(model)
    name = session.get_inputs()[0].name
    return session.run([output] if output else None, {name: X})[0]


def formula(X, delta, feasible_range=None, temperature=T):
    shifted = X.astype(np.float64) + delta
    if feasible_range is not None:
        shifted = np.clip(shifted, *feasible_range)
    return softmax(shifted.reshape(len(X), -1) @ WEIGHT / temperature, axis=1)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    "feasible_range", [None, (0, 1), (np.zeros((1, 1, 1)), np.float32(0.9))]
)
def test_the_graph_computes_the_formula(clamp, layout, feasible_range):
    shape = SHAPES[layout]
    model, delta, X = images(shape), a_delta(shape), draw(shape)
    estimator = clamp(model, delta, n_classes=K, feasible_range=feasible_range)
    calibrated = calibrate_onnx_model(model, estimator)
    onnx.checker.check_model(calibrated, full_check=True)
    expected = formula(X, delta, feasible_range)
    assert_allclose(run(calibrated, X), expected, atol=1e-6)
    assert_allclose(estimator.predict_proba(X), expected, atol=1e-6)
    assert [v.SerializeToString() for v in calibrated.graph.input] == [
        v.SerializeToString() for v in model.graph.input
    ]
    assert [v.name for v in calibrated.graph.output] == ["p"]


@pytest.mark.parametrize(("opset", "ir_version"), [(9, 3), (12, 6), (21, 10)])
def test_old_and_new_models_are_written(clamp, opset, ir_version):
    model = images((C, H, W), opset=opset, ir_version=ir_version)
    if ir_version < 4:  # when every constant had to be an input
        model.graph.input.append(info("W", WEIGHT.shape))
    delta, X = a_delta((C, H, W)), draw((C, H, W))
    estimator = clamp(model, delta, n_classes=K, feasible_range=(0.0, 1.0))
    calibrated = calibrate_onnx_model(model, estimator)
    assert_allclose(run(calibrated, X), formula(X, delta, (0, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("element", "dtype", "atol"),
    [(HALF, np.float16, 2e-3), (DOUBLE, np.float64, 1e-7)],
)
def test_other_precisions_are_shifted_in_their_own_type(clamp, element, dtype, atol):
    shape = (C, H, W)
    model, delta = images(shape, element=element), a_delta(shape)
    X = draw(shape).astype(dtype)
    estimator = clamp(model, delta, n_classes=K, feasible_range=(0, 1))
    calibrated = calibrate_onnx_model(model, estimator)
    proba = run(calibrated, X)
    assert proba.dtype == dtype
    assert_allclose(proba, formula(X, delta, (0, 1)), atol=atol)


def test_a_fixed_batch_stays_fixed(clamp):
    shape = (C, H, W)
    model, delta, X = images(shape, batch=6), a_delta(shape), draw(shape, n=6)
    calibrated = calibrate_onnx_model(model, clamp(model, delta, n_classes=K))
    assert session_of(calibrated).get_inputs()[0].shape == [6, *shape]
    assert_allclose(run(calibrated, X), formula(X, delta), atol=1e-6)


def test_all_readers_of_the_input_see_it_shifted(clamp):
    inner = onnx.helper.make_graph(
        [node("Mul", ["x", "two"], ["inside"])], "branch", [], [info("inside", None)]
    )
    nodes = [
        node("MatMul", ["x", "W"], ["a"]),
        node("Identity", ["x"], ["copy"]),
        node("MatMul", ["copy", "W"], ["b"]),
        node("Add", ["a", "b"], ["ab"]),
        node("If", ["yes"], ["wide"], then_branch=inner, else_branch=inner),
        node("MatMul", ["wide", "W"], ["c"]),
        node("Add", ["ab", "c"], ["z"]),
    ]
    weight = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    constants = {"W": weight, "two": np.float32(2), "yes": np.array(True)}
    model = make_model(nodes, [info("x", ["n", 3])], [info("z", ["n", 2])], constants)
    delta, X = np.float32([0.5, -1, 2]), draw((3,))
    calibrated = calibrate_onnx_model(model, clamp(model, delta, n_classes=2))
    # The output held logits, and still does.
    assert_allclose(run(calibrated, X), 4 * (X + delta) @ weight / T, atol=1e-5)


def test_a_network_that_is_only_a_softmax_reads_the_shifted_input(clamp):
    nodes = [
        node("Softmax", ["x"], ["p"], axis=1),
        node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [info("p", ["n", 3]), info("label", ["n"], INT64)]
    model = make_model(nodes, [info("x", ["n", 3])], outputs)
    delta, X = np.float32([0, 3, 0]), draw((3,))
    calibrated = calibrate_onnx_model(model, clamp(model, delta, n_classes=3))
    expected = softmax((X + delta) / T, axis=1)
    assert_allclose(run(calibrated, X, "p"), expected, atol=1e-6)
    assert_array_equal(run(calibrated, X, "label"), 1)


def test_labels_follow_the_perturbed_input(clamp):
    shape = (C, H, W)
    model, delta, X = images(shape), a_delta(shape, 2.0), draw(shape, n=50)
    model.graph.node.append(node("ArgMax", ["p"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(info("label", ["n"], INT64))
    calibrated = calibrate_onnx_model(model, clamp(model, delta, n_classes=K))
    expected = formula(X, delta).argmax(axis=1)
    assert (expected != formula(X, 0 * delta).argmax(axis=1)).any()
    assert_array_equal(run(calibrated, X, "label"), expected)


def test_log_odds_in_one_column(clamp):
    nodes = [node("MatMul", ["x", "W"], ["z"]), node("Sigmoid", ["z"], ["p"])]
    weight = np.float32([[1.0], [-2.0], [0.5]])
    model = make_model(
        nodes, [info("x", ["n", 3])], [info("p", ["n", 1])], {"W": weight}
    )
    delta, X = np.float32([0.5, -1, 2]), draw((3,))
    estimator = clamp(model, delta, n_classes=2)
    calibrated = calibrate_onnx_model(model, estimator)
    expected = 1 / (1 + np.exp(-(X + delta) @ weight / T))
    assert_allclose(run(calibrated, X), expected, atol=1e-6)
    assert_allclose(estimator.predict_proba(X)[:, 1:], expected, atol=1e-6)


def test_an_output_calibrator_takes_the_place_of_the_temperature(clamp):
    shape = (C, H, W)
    model, delta, X = images(shape), a_delta(shape), draw(shape, n=40)
    estimator = clamp(model, delta, n_classes=K)
    y = np.random.default_rng(0).integers(K, size=40)
    vector = VectorScaling().fit(estimator.logits(X), y)
    estimator.output_calibrator_ = vector
    calibrated = calibrate_onnx_model(model, estimator)
    expected = vector.predict_proba((X + delta).reshape(40, -1) @ WEIGHT)
    assert_allclose(run(calibrated, X), expected, atol=1e-6)
    with torch.no_grad():
        proba = to_torch(clamp(linear(), delta, n_classes=K, output_calibrator=vector))(
            torch.from_numpy(X)
        )
    assert_allclose(proba, expected, atol=1e-6)


def test_zeros_are_not_written(clamp):
    shape = (C, H, W)
    model, X = images(shape), draw(shape)
    estimator = clamp(model, np.zeros(shape), n_classes=K)
    calibrated = calibrate_onnx_model(model, estimator)
    assert "Add" not in {n.op_type for n in calibrated.graph.node}
    assert_allclose(run(calibrated, X), formula(X, np.zeros(shape)), atol=1e-6)
    kept = calibrate_onnx_model(model, estimator, keep_original=True)
    assert_array_equal(run(kept, X, "p"), run(model, X))
    assert_allclose(
        run(kept, X, "p_calibrated"), formula(X, np.zeros(shape)), atol=1e-6
    )


def test_the_original_outputs_cannot_be_kept_beside_a_perturbation(clamp):
    shape = (C, H, W)
    model = images(shape)
    estimator = clamp(model, a_delta(shape), n_classes=K)
    with pytest.raises(ValueError, match="keep_original=True cannot be had"):
        calibrate_onnx_model(model, estimator, keep_original=True)


def test_an_inner_tensor_is_shifted_where_the_input_holds_numbers_of_words(clamp):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(7, 3)).astype(np.float32)
    weight = rng.normal(size=(6, K)).astype(np.float32)
    nodes = [
        node("Gather", ["table", "tokens"], ["embedded"]),
        node("Flatten", ["embedded"], ["flat"], axis=1),
        node("MatMul", ["flat", "W"], ["z"]),
    ]
    model = make_model(
        nodes,
        [info("tokens", ["n", 2], INT64)],
        [info("z", ["n", K])],
        {"table": table, "W": weight},
    )
    delta, X = a_delta((2, 3)), rng.integers(7, size=(9, 2))
    shifted = np.clip(table[X] + delta, -1, 1).reshape(len(X), -1)
    expected = softmax(shifted @ weight / T, axis=1)
    for site, shape in (("embedded", (2, 3)), ("flat", (6,))):
        estimator = clamp(
            model,
            delta.reshape(shape),
            n_classes=K,
            site=site,
            feasible_range=(-1, 1),
        )
        assert_allclose(estimator.predict_proba(X), expected, atol=1e-6)
        calibrated = calibrate_onnx_model(None, estimator)
        assert_allclose(softmax(run(calibrated, X), axis=1), expected, atol=1e-6)
        module = to_torch(estimator)
        assert_allclose(module(torch.from_numpy(X)), expected, atol=1e-6)
    for site, message in (
        ("tokens", "'tokens' has type int64"),
        ("nothing", "no tensor 'nothing'"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate_onnx_model(model, clamp(model, delta, n_classes=K, site=site))


def test_the_metadata_tell_how_without_all_entries(clamp):
    shape = (C, H, W)
    model, delta = images(shape), a_delta(shape)
    estimator = clamp(
        model, delta, n_classes=K, gamma=0.5, feasible_range=(0, 1), start=delta
    )
    calibrated = calibrate_onnx_model(model, estimator)
    (entry,) = calibrated.metadata_props
    note = json.loads(entry.value)
    assert note["method"] == "NeuralClamping"
    assert note["learned"]["temperature_"] == T
    assert note["perturbation"]["shape"] == list(shape)
    assert note["perturbation"]["norm"] == pytest.approx(np.linalg.norm(delta))
    assert note["params"]["feasible_range"] == [0, 1]
    assert note["params"]["gamma"] == 0.5
    assert note["learned"]["penalty_"] == 1e-3
    assert "model" not in note["params"]
    assert len(entry.value) < 1500


@pytest.mark.parametrize("high", [np.inf, np.array([np.inf])])
def test_the_metadata_are_json_whatever_the_range(clamp, high):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    shape = (C, H, W)
    model, delta = images(shape), a_delta(shape)
    estimator = clamp(model, delta, n_classes=K, feasible_range=(-9.0, high))
    (entry,) = calibrate_onnx_model(model, estimator).metadata_props
    note = json.loads(entry.value, parse_constant=refuse)
    assert note["params"]["feasible_range"][0] == -9


def test_the_model_is_left_out_where_the_estimator_has_it(clamp, tmp_path):
    shape = (C, H, W)
    model, delta, X = images(shape), a_delta(shape), draw(shape)
    path = tmp_path / "model.onnx"
    save_onnx(model, path)
    for form in (path, str(path), model.SerializeToString(), OnnxLogits(path)):
        estimator = clamp(form, delta, n_classes=K)
        for calibrated in (calibrate_onnx_model(None, estimator), to_onnx(estimator)):
            assert_allclose(run(calibrated, X), formula(X, delta), atol=1e-6)


def test_a_calibrated_model_can_be_perturbed_in_turn(clamp):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape)
    once = calibrate_onnx_model(None, clamp(images(shape), delta, n_classes=K))
    twice = calibrate_onnx_model(None, clamp(once, delta, n_classes=K, temperature=1))
    assert_allclose(run(twice, X), formula(X, 2 * delta), atol=1e-6)


def test_another_model_than_the_one_fitted_is_found_out(clamp):
    shape = (C, H, W)
    other = images(shape)
    other.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(10 * WEIGHT[::-1], "W")
    )
    estimator = clamp(images(shape), a_delta(shape), n_classes=K)
    with pytest.raises(ValueError, match="differs from Python"):
        calibrate_onnx_model(other, estimator)


def linear():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(C * H * W, K))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(WEIGHT.T))
        module[1].bias.zero_()
    return module


class Tuple(torch.nn.Module):
    """A network in train mode, with dropout, whose logits lie in a tuple."""

    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.drop = torch.nn.Dropout(0.5)
        self.norm = torch.nn.BatchNorm1d(K, affine=False, eps=0.0)

    def forward(self, x):
        return x, self.norm(self.drop(self.inner(x)))


class FixedBatch(torch.nn.Module):
    """Right for every batch in Python, and for one only once traced."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        scale = float(x.shape[0])
        return self.inner(x) * torch.tensor(scale) / x.shape[0]


@pytest.mark.parametrize("wrap", [lambda m: m, TorchLogits])
def test_a_torch_module_is_written_on_the_way(clamp, wrap):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape)
    estimator = clamp(wrap(linear()), delta, n_classes=K, feasible_range=(0, 1))
    calibrated = calibrate_onnx_model(None, estimator)
    session = session_of(calibrated)
    assert session.get_inputs()[0].name == "input"
    assert session.get_inputs()[0].shape == ["batch", *shape]
    assert [value.name for value in session.get_outputs()] == ["probabilities"]
    for n in (1, 8):
        expected = formula(X[:n], delta, (0, 1))
        assert_allclose(run(calibrated, X[:n]), expected, atol=1e-6)


@pytest.mark.parametrize("n_columns", [1, K])
def test_a_module_that_squeezes_serves_a_single_row(clamp, n_columns):
    class Squeezing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(C * H * W, n_columns)
            )

        def forward(self, x):
            return self.inner(x).squeeze()

    shape = (C, H, W)
    estimator = clamp(Squeezing(), a_delta(shape), n_classes=max(2, n_columns))
    calibrated = calibrate_onnx_model(None, estimator)
    for n in (1, 8):
        X = draw(shape)[:n]
        expected = estimator.predict_proba(X)[:, -n_columns:]
        assert_allclose(run(calibrated, X), expected, atol=1e-6)


def test_what_a_module_returns_are_logits_also_after_a_softmax(clamp):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape)
    module = torch.nn.Sequential(linear(), torch.nn.Softmax(dim=1))
    estimator = clamp(module, delta, n_classes=K)
    expected = softmax(formula(X, delta, temperature=1) / T, axis=1)
    assert_allclose(estimator.predict_proba(X), expected, atol=1e-6)
    # The module itself may stand in the place of None.
    for model in (None, module):
        calibrated = calibrate_onnx_model(model, estimator)
        assert_allclose(run(calibrated, X), expected, atol=1e-6)


def test_a_compiled_module_is_written_as_what_it_was_made_of():
    from skcalib.export._clamping_torch import export_network

    class Compiled(torch.nn.Module):
        """Has what torch.compile gives, whose import takes seconds."""

        def __init__(self):
            super().__init__()
            self._orig_mod, self.dynamo_ctx = linear(), None

    module = Compiled()
    model = onnx.load_from_string(export_network(module, None, (C, H, W)))
    X = draw((C, H, W))
    assert_allclose(run(model, X), X.reshape(len(X), -1) @ WEIGHT, atol=1e-5)


def test_a_transformer_is_written_on_the_way(clamp):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 8), layer, torch.nn.Flatten(), torch.nn.Linear(24, K)
    )
    estimator = clamp(module, a_delta((3, 5)), n_classes=K)
    fused = torch.backends.mha.get_fastpath_enabled()
    calibrated = calibrate_onnx_model(None, estimator)
    assert torch.backends.mha.get_fastpath_enabled() == fused
    X = draw((3, 5))
    assert_allclose(run(calibrated, X), estimator.predict_proba(X), atol=1e-6)


def test_the_module_is_left_as_it_was(clamp):
    module = Tuple().train()
    before = copy.deepcopy(module.state_dict())
    parameters = [(p, p.data_ptr(), p.requires_grad) for p in module.parameters()]
    delta, X = a_delta((C, H, W)), draw((C, H, W))
    estimator = clamp(module, delta, n_classes=K, output=1)
    calibrated = calibrate_onnx_model(None, estimator)
    written = to_torch(estimator).to(torch.float64)
    written.load_state_dict({k: v + 1 for k, v in written.state_dict().items()})
    assert all(part.training for part in module.modules())
    for name, value in module.state_dict().items():
        assert_array_equal(value, before[name])
    for p, pointer, flag in parameters:
        assert (p.data_ptr(), p.requires_grad) == (pointer, flag)
        assert p.grad is None
    assert_allclose(run(calibrated, X), formula(X, delta), atol=1e-6)


def test_a_module_in_double_precision_keeps_it(clamp):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape).astype(np.float64)
    estimator = clamp(linear().double(), delta, n_classes=K)
    calibrated = calibrate_onnx_model(None, estimator)
    assert_allclose(run(calibrated, X), formula(X, delta), atol=1e-7)


class Buffered(torch.nn.Module):
    """The linear network without a parameter."""

    def __init__(self, dtype):
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(WEIGHT).to(dtype))

    def forward(self, x):
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_module_of_buffers_is_written_in_their_precision(clamp, kind):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape).astype(kind)
    estimator = clamp(Buffered(getattr(torch, kind)), delta, n_classes=K)
    expected = formula(X, delta)
    assert_allclose(estimator.predict_proba(X), expected, atol=1e-6)
    calibrated = calibrate_onnx_model(None, estimator)
    assert_allclose(run(calibrated, X), expected, atol=1e-6)
    with torch.no_grad():
        found = to_torch(estimator)(torch.from_numpy(X))
    assert_allclose(found, expected, atol=1e-6)


def test_a_convolution_in_double_precision_is_written_in_single(clamp):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(C, K, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    module = torch.nn.Sequential(*layers).double().eval()
    delta, X = a_delta((C, H, W)), draw((C, H, W))
    estimator = clamp(module, delta, n_classes=K)
    calibrated = calibrate_onnx_model(None, estimator)
    expected = estimator.predict_proba(X.astype(np.float64))
    assert_allclose(run(calibrated, X), expected, atol=1e-6)
    assert next(module.parameters()).dtype == torch.float64


def test_a_module_in_half_precision_is_written_in_single(clamp):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape)
    estimator = clamp(linear().bfloat16(), delta, n_classes=K)
    with pytest.warns(UserWarning, match="more than rounding in single precision"):
        calibrated = calibrate_onnx_model(None, estimator)
    assert_allclose(run(calibrated, X), formula(X, delta), atol=2e-2)


def test_an_export_that_holds_for_one_batch_size_only_is_refused(clamp):
    estimator = clamp(FixedBatch(), a_delta((C, H, W)), n_classes=K)
    with pytest.raises(ValueError, match="which torch took as constant"):
        calibrate_onnx_model(None, estimator)


def test_a_module_that_torch_cannot_write_is_named(clamp):
    class Strange(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svd(x.reshape(len(x), K, -1))[1]

    estimator = clamp(Strange(), a_delta((C, H, W)), n_classes=K)
    with pytest.raises(ValueError, match="torch could not write Strange"):
        calibrate_onnx_model(None, estimator)


def test_a_callable_can_be_deployed_by_its_onnx_form_only(clamp):
    shape = (C, H, W)
    estimator = clamp(lambda x: x, a_delta(shape), n_classes=K)
    for export in (to_onnx, to_torch, lambda e: calibrate_onnx_model(None, e)):
        with pytest.raises(TypeError, match="is the callable '<lambda>'"):
            export(estimator)


def test_a_pipeline_with_steps_before_is_refused(clamp):
    model = images((C, H, W))
    estimator = clamp(model, a_delta((C, H, W)), n_classes=K)
    pipeline = make_pipeline(FunctionTransformer(), estimator)
    with pytest.raises(TypeError, match="ends in NeuralClamping; the steps before it"):
        calibrate_onnx_model(model, pipeline)


def test_an_estimator_that_is_not_fitted_is_refused(clamp):
    model = images((C, H, W))
    estimator = type(clamp(model, 0, n_classes=K))(model)
    for export in (to_onnx, to_torch, lambda e: calibrate_onnx_model(model, e)):
        with pytest.raises(NotFittedError):
            export(estimator)


def test_several_inputs_are_refused(clamp):
    nodes = [node("Add", ["x", "x2"], ["z"])]
    model = make_model(
        nodes, [info("x", ["n", 3]), info("x2", ["n", 3])], [info("z", ["n", 3])]
    )
    estimator = clamp(model, np.ones(3), n_classes=3)
    with pytest.raises(ValueError, match=r"has the inputs \['x', 'x2'\]"):
        calibrate_onnx_model(model, estimator)


def test_to_torch_gives_the_whole_network(clamp):
    shape = (C, H, W)
    delta, X = a_delta(shape), draw(shape)
    estimator = clamp(Tuple(), delta, n_classes=K, output=1, feasible_range=(0, 1))
    module = to_torch(estimator)
    x = torch.from_numpy(X).requires_grad_()
    proba = module.train()(x)
    assert proba.dtype == torch.float32
    assert_allclose(proba.detach(), formula(X, delta, (0, 1)), atol=1e-6)
    proba[:, 0].sum().backward()
    inside = (X + delta > 0) & (X + delta < 1)
    assert_array_equal(x.grad.numpy() != 0, inside)
    assert not any(p.requires_grad for p in module.parameters())


def test_the_torch_module_saves_and_loads_its_state(clamp):
    shape = (C, H, W)
    X = torch.from_numpy(draw(shape))
    first, second = (
        to_torch(clamp(linear(), a_delta(shape) * s, n_classes=K, temperature=t))
        for s, t in ((1, 1.7), (3, 5.0))
    )
    with torch.no_grad():
        assert (first(X) - second(X)).abs().max() > 0.01
        second.load_state_dict(first.state_dict())
        assert_array_equal(second(X), first(X))
        wide = first.to(torch.float64)(X.double())
        assert wide.dtype == torch.float64
        assert_allclose(wide, second(X), atol=1e-6)


@pytest.mark.parametrize("name", ["NeuralClamping", "NeuralClampingCV"])
def test_what_was_fitted_is_what_is_served(name):
    demo = load_demo()
    X = (0.7 * demo.X_calibration + 0.3).astype(np.float32)[:150]
    estimator = getattr(clamping, name)(demo.model, cv=2)
    estimator.fit(X, demo.y_calibration[:150])
    assert estimator.delta_.any()
    calibrated = calibrate_onnx_model(demo.model, estimator)
    assert_allclose(run(calibrated, X), estimator.predict_proba(X), atol=1e-5)
    with torch.no_grad():
        proba = to_torch(estimator)(torch.from_numpy(X))
    assert_allclose(proba, estimator.predict_proba(X), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["torch", "onnx"])
def test_a_resnet_agrees_with_python(clamp, cifar_images, data_dir, source):
    module, X = cifar_images[0], cifar_images[1][:100]
    path = str(data_dir / "cifar10" / "resnet8d.onnx")
    delta = a_delta((3, 32, 32), 0.03)
    estimator = clamp(
        module if source == "torch" else path,
        delta,
        n_classes=10,
        feasible_range=(0, 1),
    )
    served = run(calibrate_onnx_model(None, estimator), X)
    expected = estimator.predict_proba(X)
    # The ONNX file serves logits; what torch writes, probabilities.
    proba = served if source == "torch" else softmax(served, axis=1)
    assert_allclose(proba, expected, atol=1e-5)
    with torch.no_grad():
        proba = to_torch(estimator)(torch.from_numpy(X))
    assert_allclose(proba, expected, atol=1e-6)
    if source == "torch":
        # Fitted on the module, deployed in an ONNX file of its owner.
        own = calibrate_onnx_model(path, estimator)
        assert_allclose(softmax(run(own, X), axis=1), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's import
def test_the_torch_module_is_compiled_as_one_graph():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
    options = {"perturbation": "full", "penalty": 0.1}
    module = to_torch(
        clamping.NeuralClamping(torch.nn.Linear(4, 3), **options).fit(X, y)
    )
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    X = torch.from_numpy(X)
    assert_allclose(compiled(X), module(X), atol=1e-6)
