"""What a calibration costs at inference: calibrated against bare ONNX model.

The two sessions take turns, so that what else the machine does hits both alike; the
figure is the ratio of their median times in one process on one thread. Networks are
those of the folder named by SKCALIB_DATA (default ../shared/data), and a tiny MLP made
here, on which the calibration is as large a share as it can be.

    python benchmarks/onnx_latency.py [--rows 1] [--repeats 300]
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from skcalib.calibrators import (
    IsotonicCalibration,
    OrderPreservingScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits
from skcalib.model_selection import CalibratorSearch

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDER = Path(os.environ.get("SKCALIB_DATA", BESIDE_REPOSITORY))
NETWORKS = ["cifar10/resnet8d", "cifar100/resnet20", "fashion_mnist/cnn"]
CALIBRATORS = [
    TemperatureScaling(),
    VectorScaling(),
    StructuredMatrixScaling(),
    IsotonicCalibration(),
    OrderPreservingScaling(),
    CalibratorSearch(),
]


def tiny_mlp(n_inputs=32, n_hidden=64, n_classes=10):
    """A network of two small layers."""
    rng = np.random.default_rng(0)
    shapes = {"W1": (n_inputs, n_hidden), "W2": (n_hidden, n_classes)}
    weights = [
        onnx.numpy_helper.from_array(np.float32(rng.normal(size=shape)), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "W1"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("MatMul", ["r", "W2"], ["z"]),
        onnx.helper.make_node("Softmax", ["z"], ["p"], axis=1),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "mlp",
        [info("x", onnx.TensorProto.FLOAT, ["n", n_inputs])],
        [info("p", onnx.TensorProto.FLOAT, ["n", n_classes])],
        weights,
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def open_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def seconds(sessions, feeds, repeats):
    """Time the sessions in turns; return the median of each."""
    times = np.empty((repeats, len(sessions)))
    for i in range(-repeats // 10, repeats):
        for k, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(None, feeds)
            times[max(i, 0), k] = time.perf_counter() - start
    return np.median(times, axis=0)


def compare(name, model, rows, repeats):
    name_in, shape = model.graph.input[0].name, model.graph.input[0].type.tensor_type
    lengths = [dim.dim_value for dim in shape.shape.dim][1:]
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(rows, *lengths)).astype(np.float32)
    # Any fit will do: its cost at inference does not depend on the data.
    n_classes = OnnxLogits(model).fit_transform(X).shape[1]
    logits = rng.normal(scale=3, size=(20 * n_classes + 1000, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    bare = open_session(model)
    for calibrator in CALIBRATORS:
        calibrator.fit(logits, y)
        calibrated = open_session(calibrate_onnx_model(model, calibrator))
        before, after = seconds([bare, calibrated], {name_in: X}, repeats)
        print(
            f"{name:18s} {type(calibrator).__name__:24s} {1e6 * before:9.1f} us"
            f" {1e6 * after:9.1f} us   ratio {after / before:.3f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    print(f"{'network':18s} {'calibrator':24s} {'bare':>12s} {'calibrated':>12s}")
    compare("tiny MLP", tiny_mlp(), options.rows, options.repeats)
    for name in NETWORKS:
        path = FOLDER / f"{name}.onnx"
        if path.is_file():
            compare(name, onnx.load(path), options.rows, options.repeats)


if __name__ == "__main__":
    main()
