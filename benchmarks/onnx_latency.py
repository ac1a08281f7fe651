"""What a calibration costs at inference: calibrated against bare ONNX model.

The two sessions take turns, so that what else the machine does hits both alike; the
figure is the ratio of their median times in one process on one thread. Beside real
networks stands a tiny MLP made here, on which the calibration is as large a share as it
can be.

Needs the `onnx` extra, data.
"""

from functools import partial

import numpy as np
import onnx
import onnxruntime

from benchmarks._data import DATA
from benchmarks._measure import in_turns
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

NETWORKS = ("tiny MLP", "cifar10/resnet8d", "cifar100/resnet20", "fashion_mnist/cnn")
CHOICES = {"networks": NETWORKS}
TINY = {"networks": ("tiny MLP",), "repeats": 20}
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


def run(*, networks=NETWORKS, rows=1, repeats=300):
    for name in networks:
        own = name == "tiny MLP"
        model = tiny_mlp() if own else onnx.load(DATA / f"{name}.onnx")
        yield from compare(name, model, rows, repeats)


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
        sessions = [partial(s.run, None, {name_in: X}) for s in (bare, calibrated)]
        in_turns(sessions, repeats // 10)  # which warms both up
        before, after = (np.median(times) for times in in_turns(sessions, repeats)[0])
        yield {
            "network": name,
            "calibrator": type(calibrator).__name__,
            "bare us": 1e6 * before,
            "calibrated us": 1e6 * after,
            "ratio": after / before,
        }
