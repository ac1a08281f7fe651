"""Filters of the inputs written into networks: equal in Python, ONNX and torch."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

from skcalib.export import calibrate_onnx_model, to_torch

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
DOUBLE = onnx.TensorProto.DOUBLE
K = 4
SHAPES = {
    "images": (3, 6, 7),
    "images, channels last": (6, 7, 3),
    "grey images": (1, 6, 6),
    "signals": (2, 9),
    "features": (5,),
    "volumes": (2, 5, 6, 5),
}


def model_of(shape, element=FLOAT, opset=17):
    """A linear network: Flatten, MatMul, Softmax."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    weight = np.random.default_rng(1).normal(size=(int(np.prod(shape)), K))
    return make_model(
        [
            node("Flatten", ["x"], ["flat"], axis=1),
            node("MatMul", ["flat", "W"], ["z"]),
            node("Softmax", ["z"], ["p"], axis=1),
        ],
        [info("x", ["n", *shape], element)],
        [info("p", ["n", K], element)],
        {"W": weight.astype(dtype) / 3},
        opset=opset,
    )


def a_filter(shape, size, own, seed=0):
    channels = shape[-1] if shape[-1] == 3 and len(shape) == 3 else shape[0]
    taps = [size] * (len(shape) - 1)
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.3, size=(channels, 1 if own else channels, *taps))


def an_offset(shape, even):
    """The same for a channel, or for each entry."""
    rng = np.random.default_rng(2)
    if not even:
        return rng.normal(size=shape)
    last = shape[-1] == 3 and len(shape) == 3
    along = (1, 1, 3) if last else (shape[0], *[1] * (len(shape) - 1))
    return np.broadcast_to(rng.normal(size=along), shape)


def draw(shape, n=6):
    return np.random.default_rng(0).random((n, *shape)).astype(np.float32)


def run(model, X):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: X})[0]


def operators(model):
    return [n.op_type for n in model.graph.node if n.name.startswith("skcalib")]


@pytest.mark.parametrize(
    ("size", "even", "feasible_range"),
    [
        (1, True, None),
        (1, False, (0, 1)),
        (3, True, (0, 1)),
        (3, False, None),
        (5, True, None),
        (5, False, (0, 1)),
    ],
)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kind", SHAPES)
def test_all_evaluators_are_alike(clamp, kind, size, own, even, feasible_range):
    shape = SHAPES[kind]
    model, X = model_of(shape), draw(shape)
    estimator = clamp(
        model,
        an_offset(shape, even),
        kernel=a_filter(shape, size, own),
        n_classes=K,
        feasible_range=feasible_range,
    )
    calibrated = calibrate_onnx_model(model, estimator)
    onnx.checker.check_model(calibrated, full_check=True)
    expected = estimator.predict_proba(X)
    plain = clamp(model, np.zeros(shape), n_classes=K).predict_proba(X)
    assert np.abs(expected - plain).max() > 0.01
    assert_allclose(run(calibrated, X), expected, atol=1e-5)
    with torch.no_grad():
        assert_allclose(to_torch(estimator)(torch.from_numpy(X)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "size", "own", "even", "written"),
    [
        ("images", 3, True, True, ["Pad", "Conv"]),
        ("images", 3, False, False, ["Pad", "Conv", "Add"]),
        ("images", 1, False, True, ["Conv"]),
        ("images", 1, True, True, ["Mul", "Add"]),
        ("images, channels last", 1, False, True, ["Transpose", "Conv", "Transpose"]),
        ("features", 1, True, True, ["Mul", "Add"]),
        ("features", 1, False, True, ["MatMul", "Add"]),
    ],
)  # fmt: skip
def test_a_filter_is_one_convolution(clamp, kind, size, own, even, written):
    shape = SHAPES[kind]
    model = model_of(shape)
    estimator = clamp(
        model, an_offset(shape, even), kernel=a_filter(shape, size, own), n_classes=K
    )
    found = operators(calibrate_onnx_model(model, estimator))
    assert found[: len(written)] == written
    assert not set(written) & set(found[len(written) :]) - {"Mul"}


@pytest.mark.parametrize(
    ("element", "dtype", "atol"),
    [(HALF, np.float16, 3e-3), (DOUBLE, np.float64, 1e-6)],
)
def test_other_precisions_are_filtered_in_single(clamp, element, dtype, atol):
    shape = (3, 6, 7)
    model, X = model_of(shape, element), draw(shape).astype(dtype)
    estimator = clamp(
        model, an_offset(shape, True), kernel=a_filter(shape, 3, True), n_classes=K
    )
    proba = run(calibrate_onnx_model(model, estimator), X)
    assert proba.dtype == dtype
    assert_allclose(proba, estimator.predict_proba(X), atol=atol)


@pytest.mark.parametrize("opset", [9, 12, 21])
def test_old_and_new_models_are_written(clamp, opset):
    shape = (3, 6, 7)
    model, X = model_of(shape, opset=opset), draw(shape)
    estimator = clamp(
        model, an_offset(shape, True), kernel=a_filter(shape, 3, True), n_classes=K
    )
    calibrated = calibrate_onnx_model(model, estimator)
    assert_allclose(run(calibrated, X), estimator.predict_proba(X), atol=1e-5)


def test_an_inner_tensor_is_filtered(clamp):
    table = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(15, K)).astype(np.float32)
    model = make_model(
        [
            node("Gather", ["table", "tokens"], ["embedded"]),
            node("Flatten", ["embedded"], ["flat"], axis=1),
            node("MatMul", ["flat", "W"], ["z"]),
        ],
        [info("tokens", ["n", 5], onnx.TensorProto.INT64)],
        [info("z", ["n", K])],
        {"table": table, "W": weight},
    )
    X = np.random.default_rng(2).integers(7, size=(9, 5))
    for bounds in (None, (-1, 1)):
        estimator = clamp(
            model,
            an_offset((5, 3), False),
            kernel=a_filter((5, 3), 3, True),
            n_classes=K,
            site="embedded",
            feasible_range=bounds,
        )
        expected = estimator.predict_proba(X)
        calibrated = calibrate_onnx_model(None, estimator)
        assert_allclose(softmax(run(calibrated, X), axis=1), expected, atol=1e-5)
        module = to_torch(estimator)
        assert_allclose(module(torch.from_numpy(X)), expected, atol=1e-6)


def test_the_metadata_have_the_weights(clamp):
    shape = (3, 6, 7)
    kernel = a_filter(shape, 3, True)
    model = model_of(shape)
    estimator = clamp(model, np.zeros(shape), kernel=kernel, n_classes=K)
    (entry,) = calibrate_onnx_model(model, estimator).metadata_props
    assert_allclose(
        json.loads(entry.value)["perturbation"]["filter"], kernel, rtol=1e-6
    )


def test_the_original_outputs_cannot_be_kept_beside_a_filter(clamp):
    shape = (3, 6, 7)
    model = model_of(shape)
    kernel = a_filter(shape, 3, True)
    estimator = clamp(model, np.zeros(shape), kernel=kernel, n_classes=K)
    with pytest.raises(ValueError, match="keep_original=True cannot be had"):
        calibrate_onnx_model(model, estimator, keep_original=True)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_the_torch_module_filters_inputs_of_other_types(dtype, own):
    from skcalib.clamping._change import Change
    from skcalib.export._clamping_torch import ClampedNetwork

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 1 if own else 3, 3, 3)).astype(np.float32)
    delta = rng.normal(size=(3, 4, 5)).astype(np.float32)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, K))
    change = Change(delta, kernel)
    module = ClampedNetwork(network, change, None, torch.nn.Softmax(dim=1))
    x = torch.tensor(rng.normal(size=(6, 3, 4, 5)).astype(np.float16))
    found = module(x.to(getattr(torch, dtype)))
    assert_allclose(found, module(x.float()), atol=1e-6)
