"""Files with a filter before the network run alike elsewhere: OpenVINO, browsers, int8.

onnxruntime-web runs in Node.js: ``npm install onnxruntime-web``, and NODE_PATH names
the folder ``node_modules``.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from graph_parts import info, make_model  # noqa: E402

from skcalib import NeuralClamping  # noqa: E402
from skcalib.export import calibrate_onnx_model  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]

K = 4
# Shape of an input, taps, and whether a channel has a filter of its own.
FILTERS = {
    "depthwise": ((3, 8, 7), 3, True),
    "full": ((3, 8, 7), 3, False),
    "five taps": ((1, 8, 8), 5, True),
    "gain": ((3, 8, 7), 1, True),
    "channels last": ((8, 7, 3), 3, True),
    "signals": ((2, 9), 3, False),
    "features": ((5,), 1, True),
}
IN_NODE = """
const ort = require("onnxruntime-web"), fs = require("fs");
const [folder, shape] = [process.argv[1], JSON.parse(process.argv[2])];
ort.env.wasm.numThreads = 1;
(async () => {
  const model = fs.readFileSync(folder + "/model.onnx");
  const session = await ort.InferenceSession.create(model);
  const bytes = fs.readFileSync(folder + "/x.bin");
  const x = new Float32Array(new Uint8Array(bytes).buffer);
  const feed = {[session.inputNames[0]]: new ort.Tensor("float32", x, shape)};
  const found = (await session.run(feed))[session.outputNames[0]].data;
  console.log(JSON.stringify(Array.from(found)));
})();
"""


def calibrated(clamp, kind):
    """A small network with a filter before it, inputs, and what skcalib predicts."""
    shape, size, own = FILTERS[kind]
    rng = np.random.default_rng(0)
    last = kind == "channels last"
    channels, taps = shape[-1 if last else 0], [size] * (len(shape) - 1)
    kernel = rng.normal(scale=0.3, size=(channels, 1 if own else channels, *taps))
    along = [channels if axis == len(shape) - 1 else 1 for axis in range(len(shape))]
    if not last:
        along = [channels, *[1] * (len(shape) - 1)]
    delta = np.broadcast_to(rng.normal(size=along), shape)
    model = linear(shape)
    if kind in ("depthwise", "full", "gain"):
        model = convolutional(("Softmax", ["5"]))
    estimator = clamp(model, delta, kernel=kernel, n_classes=K)
    X = rng.random((6, *shape)).astype(np.float32)
    return calibrate_onnx_model(model, estimator), X, estimator.predict_proba(X)


def linear(shape):
    """Flatten, MatMul, Softmax."""
    weight = np.random.default_rng(1).normal(size=(int(np.prod(shape)), K)) / 3
    nodes = [("Flatten", ["x"]), ("MatMul", ["1", "W"]), ("Softmax", ["2"])]
    return model_of(nodes, shape, {"W": weight})


def convolutional(*last):
    """Conv, Relu, the mean over an image, MatMul: what is quantised."""
    rng = np.random.default_rng(1)
    weights = {"C": rng.normal(size=(8, 3, 3, 3)) / 3, "W": 4 * rng.normal(size=(8, K))}
    nodes = [
        ("Conv", ["x", "C"]),
        ("Relu", ["1"]),
        ("GlobalAveragePool", ["2"]),
        ("Flatten", ["3"]),
        ("MatMul", ["4", "W"]),
        *last,
    ]
    return model_of(nodes, (3, 8, 7), weights)


def model_of(nodes, shape, weights):
    made = [
        onnx.helper.make_node(op, inputs, [str(i) if i < len(nodes) else "p"])
        for i, (op, inputs) in enumerate(nodes, start=1)
    ]
    constants = {name: np.float32(value) for name, value in weights.items()}
    inputs, outputs = [info("x", ["n", *shape])], [info("p", ["n", K])]
    return make_model(made, inputs, outputs, constants)


def run(model, X):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": X})[0]


@pytest.mark.parametrize("kind", FILTERS)
def test_openvino_runs_the_file_alike(clamp, kind, tmp_path):
    openvino = pytest.importorskip("openvino")
    model, X, expected = calibrated(clamp, kind)
    onnx.save(model, tmp_path / "model.onnx")
    # Single precision: by default some processors compute in bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", options)
    assert_allclose(compiled([X])[0], run(model, X), atol=1e-5)
    assert_allclose(compiled([X])[0], expected, atol=1e-5)


@pytest.fixture(scope="module")
def node():
    command = shutil.which("node")
    found = command and subprocess.run(  # noqa: S603
        [command, "-e", "require('onnxruntime-web')"], capture_output=True
    )
    if not found or found.returncode:
        pytest.skip("Node.js with onnxruntime-web is not there")
    return command


@pytest.mark.parametrize("kind", FILTERS)
def test_onnxruntime_web_runs_the_file_alike(clamp, kind, node, tmp_path):
    model, X, expected = calibrated(clamp, kind)
    onnx.save(model, tmp_path / "model.onnx")
    X.tofile(tmp_path / "x.bin")
    words = [node, "-e", IN_NODE, str(tmp_path), json.dumps(X.shape)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
    found = np.reshape(json.loads(done.stdout), expected.shape)
    assert_allclose(found, run(model, X), atol=1e-5)
    assert_allclose(found, expected, atol=1e-5)


def quantised(model, X, kind, folder, **options):
    """The file with int8 weights, by onnxruntime's own tools."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, source)
    if kind == "dynamic":
        quantization.quantize_dynamic(source, target, **options)
        return onnx.load(target)

    class Rows(quantization.CalibrationDataReader):
        def __init__(self):
            self._left = iter([{"x": X}])

        def get_next(self):
            return next(self._left, None)

    quantization.quantize_static(source, target, Rows(), **options)
    return onnx.load(target)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_filter_of_an_int8_network_is_learned_and_written(kind, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.random((400, 3, 8, 7)).astype(np.float32)
    X *= rng.uniform(0, 3, (400, 3, 1, 1)).astype(np.float32)
    model = quantised(convolutional(), X, kind, tmp_path)
    assert any(
        "Integer" in n.op_type or "Linear" in n.op_type for n in model.graph.node
    )
    proba = softmax(run(model, X), axis=1)
    y = (proba.cumsum(1) < rng.random((400, 1))).sum(axis=1).clip(0, K - 1)
    cast = np.float32([0.2, 1, 1]).reshape(3, 1, 1)  # a camera that hardly sees red
    estimator = NeuralClamping(
        model, gamma=0, perturbation="gain", solver="gradient_free"
    )
    estimator.fit(cast * X, y)
    red, *others = estimator.filter_.ravel()
    assert 1 + red > 1.5 * (1 + max(others))
    # Dynamic quantisation has a scale for each batch: one batch for both.
    batch = cast * X[:100]
    logits = run(calibrate_onnx_model(model, estimator), batch)
    found = softmax(logits, axis=1)
    away = np.abs(found - estimator.predict_proba(batch)).max(axis=1)
    # A sum in another order may end on the other side of a step of an integer.
    assert np.median(away) < 1e-5
    assert away.max() < 0.05


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_file_with_a_filter_may_be_quantised_as_well(clamp, kind, tmp_path):
    model, X, expected = calibrated(clamp, "depthwise")
    own = [n.name for n in model.graph.node if n.name.startswith("skcalib")]
    small = quantised(model, X, kind, tmp_path, nodes_to_exclude=own)
    assert_allclose(run(small, X), expected, atol=0.03)
