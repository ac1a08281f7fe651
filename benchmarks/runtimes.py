"""Calibrated files in other runtimes: which run them, and how far they are from Python.

Three small models of digits, each with calibrators written into it: the network that
ships with skcalib, a linear classifier of ai.onnx.ml, and, with CatBoost, trees.
Every file is checked in full, run by the reference evaluator, by onnxruntime, in
Node.js by onnxruntime-node and by onnxruntime-web, which is what browsers run, and by
OpenVINO, and again by onnxruntime after onnxslim, onnxsim and quantize_dynamic; what is
not installed is left out. A file fails together with its original, or alone.

    npm install --ignore-scripts onnxruntime-node onnxruntime-web

brings those of Node.js, without the files for GPUs that the former's script would
fetch; NODE_PATH names the folder `node_modules`.

Quantising changes the network, to which a calibration belongs: the ECE is that of the
file, and `of quantised` that of a calibrator that was fitted to the quantised original.

Needs the `onnx` extra. Left out where missing: OpenVINO, onnxslim, onnxsim, CatBoost.
"""

import json
import logging
import shutil
import subprocess
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from benchmarks._tables import Table
from skcalib.calibrators import (
    IsotonicCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VennAbersCalibration,
)
from skcalib.datasets import load_demo
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits
from skcalib.metrics import expected_calibration_error
from skcalib.model_selection import CalibratorSearch

CALIBRATORS = {
    "temperature": TemperatureScaling(),
    "structured matrix": StructuredMatrixScaling(),
    "isotonic": IsotonicCalibration(),
    "Venn-Abers": VennAbersCalibration(),
    "the default search": CalibratorSearch(),
}
NAMES = ("network", "linear", "trees")
TINY = {"models": ("network",), "calibrators": ("temperature",)}
CHOICES = {"models": NAMES, "calibrators": tuple(CALIBRATORS)}


def of_network(demo, X):
    return onnx.load(demo.model)


def of_linear(demo, X):
    """A classifier as skl2onnx writes it, on the digits as rows."""
    fitted = LogisticRegression(C=0.02, max_iter=500).fit(X, demo.y_calibration)
    node = onnx.helper.make_node(
        "LinearClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        coefficients=fitted.coef_.ravel().tolist(),
        intercepts=fitted.intercept_.tolist(),
        classlabels_ints=fitted.classes_.tolist(),
        post_transform="SOFTMAX",
    )
    info, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [node],
        "linear",
        [info("X", types.FLOAT, ["n", X.shape[1]])],
        [
            info("label", types.INT64, ["n"]),
            info("probabilities", types.FLOAT, ["n", 10]),
        ],
    )
    opsets = [onnx.helper.make_opsetid(*of) for of in (("", 17), ("ai.onnx.ml", 3))]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def of_trees(demo, X):
    """Trees as CatBoost writes them: IR 3, and probabilities as maps."""
    catboost = import_module("catboost")
    fitted = catboost.CatBoostClassifier(iterations=40, verbose=0, thread_count=1)
    fitted.set_params(random_seed=0, allow_writing_files=False)
    fitted.fit(X, demo.y_calibration)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "trees.onnx"))
        fitted.save_model(path, format="onnx")
        return onnx.load(path)


MODELS = {"network": of_network, "linear": of_linear, "trees": of_trees}


def check(model, feed, output):
    onnx.checker.check_model(model, full_check=True)


def reference(model, feed, output):
    return ReferenceEvaluator(model).run([output], feed)[0]


def in_onnxruntime(model, feed, output):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run([output], feed)[0]


IN_NODE = """
const [, name, folder, input, output, shape] = process.argv;
const ort = require(name), fs = require("fs");
ort.env.wasm.numThreads = 1;
(async () => {
  const model = new Uint8Array(fs.readFileSync(folder + "/model.onnx"));
  const session = await ort.InferenceSession.create(model);
  const x = new Float32Array(new Uint8Array(fs.readFileSync(folder + "/x.bin")).buffer);
  const feed = {[input]: new ort.Tensor("float32", x, JSON.parse(shape))};
  const {[output]: {data, dims}} = await session.run(feed, [output]);
  console.log(JSON.stringify([dims, Array.from(data)]));
})();
"""


def in_node(package, model, feed, output):
    """Run in Node.js, by the package of this name."""
    node = shutil.which("node")
    there = [node, "-e", f"require.resolve({package!r})"]
    if node is None or subprocess.run(there, capture_output=True).returncode:
        raise ModuleNotFoundError(name=package)
    [(name, X)] = feed.items()
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder, "model.onnx"))
        Path(folder, "x.bin").write_bytes(np.float32(X).tobytes())
        words = [package, folder, name, output, json.dumps(X.shape)]
        done = subprocess.run(
            [node, "-e", IN_NODE, *words], capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    shape, values = json.loads(done.stdout)
    return np.float32(values).reshape(shape)


def in_openvino(model, feed, output):
    openvino = import_module("openvino")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(path, "CPU", options)
        return compiled(feed)[output]


def slimmed(model, feed, output):
    return in_onnxruntime(import_module("onnxslim").slim(model), feed, output)


def simplified(model, feed, output):
    simple, _ = import_module("onnxsim").simplify(model)
    return in_onnxruntime(simple, feed, output)


def quantised(model):
    quantization = import_module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "full.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, paths[0])
        quantization.quantize_dynamic(*paths)
        return onnx.load(paths[1])


def in_int8(model, feed, output):
    return in_onnxruntime(quantised(model), feed, output)


RUNTIMES = {
    "checker": check,
    "reference": reference,
    "onnxruntime": in_onnxruntime,
    "onnxruntime-node": partial(in_node, "onnxruntime-node"),
    "onnxruntime-web": partial(in_node, "onnxruntime-web"),
    "OpenVINO": in_openvino,
    "onnxslim": slimmed,
    "onnxsim": simplified,
    "int8": in_int8,
}


def attempt(use, *given):
    """What a runtime returns, or the name of what it raises."""
    try:
        return use(*given), "runs"
    except ModuleNotFoundError as error:
        return None, f"{error.name} is missing"
    except Exception as error:
        return None, f"fails: {type(error).__name__}"


def as_array(found):
    """Probabilities; of a sequence of maps, in the order of their keys."""
    if isinstance(found, list):
        return np.array([[row[key] for key in sorted(row)] for row in found])
    return np.asarray(found)


def run(*, models=NAMES, calibrators=tuple(CALIBRATORS)):
    onnxruntime.set_default_logger_severity(3)
    logging.getLogger().setLevel(logging.ERROR)
    demo = load_demo()
    for name in models:
        images = [demo.X_calibration, demo.X_test]
        fit, test = (
            images if name == "network" else [x.reshape(len(x), -1) for x in images]
        )
        try:
            model = MODELS[name](demo, fit)
        except ModuleNotFoundError:
            continue
        for calibrator in calibrators:
            yield from tried(name, model, calibrator, fit, test, demo)


def tried(name, model, calibrator, X, X_test, demo):
    """Rows of one model with one calibrator, one a runtime."""
    written, expected = calibrated(model, calibrator, X, demo.y_calibration, X_test)
    output = "probabilities"
    feed = {model.graph.input[0].name: X_test}
    for runtime, use in RUNTIMES.items():
        found, outcome = attempt(use, written, feed, output)
        row = {"model": name, "calibrator": calibrator, "runtime": runtime}
        row |= {
            "outcome": outcome,
            "difference": -1.0,
            "ECE": -1.0,
            "of quantised": -1.0,
        }
        if outcome.startswith("fails"):
            row["original"] = attempt(use, model, feed, output)[1]
        else:
            row["original"] = "runs"
        if found is not None:
            proba = as_array(found)
            row["difference"] = float(np.abs(proba - expected).max())
            row["ECE"] = 100 * ece(demo.y_test, proba)
        if runtime == "int8" and found is not None:
            small, told = attempt(quantised, model)
            if told == "runs":
                mended, _ = calibrated(small, calibrator, X, demo.y_calibration, X_test)
                proba = as_array(in_onnxruntime(mended, feed, output))
                row["of quantised"] = 100 * ece(demo.y_test, proba)
        yield row


def calibrated(model, calibrator, X, y, X_test):
    """The file with a calibrator fitted on X, and what Python says of X_test."""
    network = OnnxLogits(model, output="probabilities").fit(X)
    fitted = clone(CALIBRATORS[calibrator]).fit(network.transform(X), y)
    pipeline = Pipeline([("logits", network), ("calibrator", fitted)])
    return calibrate_onnx_model(model, pipeline), pipeline.predict_proba(X_test)


def ece(y, proba):
    proba = proba / proba.sum(axis=1, keepdims=True)
    return expected_calibration_error(y, proba.astype(np.float64))


def matrix(rows):
    """A line a model and runtime, a column a calibrator: the largest difference."""
    lines = {}
    for row in rows:
        if row["runtime"] != "int8":
            cells = lines.setdefault((row["model"], row["runtime"]), {})
            cells[row["calibrator"]] = outcome_text(row)
    shown = list(dict.fromkeys(row["calibrator"] for row in rows))
    return Table(
        ["model", "runtime", *shown],
        [
            [*case, *(cells[calibrator] for calibrator in shown)]
            for case, cells in lines.items()
        ],
    )


def outcome_text(row):
    if row["outcome"].startswith("fails"):
        return "fails" if row["original"] == "runs" else "fails, as the original"
    if row["outcome"] != "runs":
        return "not tried"
    if row["difference"] < 0:
        return "passes"
    return f"{row['difference']:.0e}" if row["difference"] else "0"


def int8(rows):
    """The ECE before and after quantising, and of a calibration made afterwards."""
    plain = {
        (row["model"], row["calibrator"]): row["ECE"]
        for row in rows
        if row["runtime"] == "onnxruntime"
    }
    return Table(
        ["model", "calibrator", "ECE, %", "quantised afterwards", "quantised before"],
        [
            [
                row["model"],
                row["calibrator"],
                f"{plain[row['model'], row['calibrator']]:.2f}",
                f"{row['ECE']:.2f}",
                f"{row['of quantised']:.2f}",
            ]
            for row in rows
            if row["runtime"] == "int8" and row["of quantised"] >= 0
        ],
    )


def summary(rows):
    return [matrix(rows), int8(rows)]


TABLES = {"matrix": matrix, "int8": int8}
