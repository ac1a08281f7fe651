"""Which output of several is read: the scores, not what is served beside them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

from skcalib import TemperatureScaling
from skcalib.exceptions import ModelFormatError
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = pytest.mark.onnx

D, K = 5, 3
INT64, STRING = onnx.TensorProto.INT64, onnx.TensorProto.STRING
RNG = np.random.default_rng(0)
CONSTANTS = {
    "V": RNG.normal(size=(D, D)).astype(np.float32),
    "W": RNG.normal(size=(D, K)).astype(np.float32),
    "g": RNG.normal(size=(D, 1)).astype(np.float32),
    "k": np.array([K]),
    "most": np.float32(0.99),
    "half": np.float32(0.5),
    "second": np.array(1),
    "names": np.array(["ant", "bee", "cat"], dtype=object),
}
X = RNG.normal(size=(200, D)).astype(np.float32)
OUTPUTS = {
    "label": info("label", ["n"], INT64),
    "name": info("name", ["n"], STRING),
    "confidence": info("confidence", ["n"]),
    "second_p": info("second_p", ["n"]),
    "embedding": info("embedding", ["n", D]),
    "attention": info("attention", ["n", D]),
    "is_valid": info("is_valid", ["n", 1]),
}

EMBEDDING = node("MatMul", ["x", "V"], ["embedding"])
LOGITS = node("MatMul", ["embedding", "W"], ["z"])
SOFTMAX = node("Softmax", ["z"], ["p"], axis=1)
LARGEST = {"axis": 1, "keepdims": 0}
LABEL, LABEL_OF_Z = (node("ArgMax", [t], ["label"], **LARGEST) for t in "pz")
NAME = node("Gather", ["names", "label"], ["name"])
CONFIDENCE = node("ReduceMax", ["p"], ["confidence"], axes=[1], keepdims=0)
TOP = node("TopK", ["p", "k"], ["top", "places"], axis=1)
ATTENTION = [
    node("Softmax", ["embedding"], ["attention"], axis=1),
    node("Mul", ["x", "attention"], ["h"]),
    node("MatMul", ["h", "W"], ["z"]),
]
GATE = [
    node("MatMul", ["x", "g"], ["gate"]),
    node("Sigmoid", ["gate"], ["is_valid"]),
    node("MatMul", ["x", "W"], ["z0"]),
    node("Mul", ["z0", "is_valid"], ["z"]),
]


def model(nodes, outputs):
    nodes = [EMBEDDING, *nodes]
    used = {name for made in nodes for name in made.input}
    return make_model(
        nodes,
        [info("x", ["n", D])],
        [OUTPUTS.get(name) or info(name, ["n", K]) for name in outputs],
        {name: CONSTANTS[name] for name in CONSTANTS if name in used},
    )


def run(proto):
    session = ort.InferenceSession(proto.SerializeToString())
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": X}), strict=True))


BODY = [LOGITS, SOFTMAX]
CASES = {
    "label, confidence": ([*BODY, LABEL, CONFIDENCE], "z", None),
    "label, embedding": ([*BODY, LABEL], "z", None),
    "name, confidence": ([*BODY, LABEL, NAME, CONFIDENCE], "z", None),
    "p, label, confidence, embedding": ([*BODY, LABEL, CONFIDENCE], "z", "p"),
    "top": ([*BODY, TOP], "z", None),
    "top, p": ([*BODY, TOP], "z", "p"),
    "z, attention, label": ([*ATTENTION, LABEL_OF_Z], "z", "z"),
    # What was read before, and is on.
    "z, p": (BODY, "z", "p"),
    "embedding, p": (BODY, "z", "p"),
    "z, label": ([*BODY, LABEL], "z", "z"),
    "clipped, label": (
        [*BODY, LABEL, node("Clip", ["p", "", "most"], ["clipped"])],
        "clipped",
        "clipped",
    ),
    "label, z": (
        [
            LOGITS,
            node("Mul", ["z", "half"], ["cold"]),
            node("ArgMax", ["cold"], ["label"], **LARGEST),
        ],
        "z",
        "z",
    ),
    "label, second_p": (
        [*BODY, LABEL, node("Gather", ["p", "second"], ["second_p"], axis=1)],
        "second_p",
        "second_p",
    ),
}


@pytest.mark.parametrize("outputs", CASES)
def test_the_scores_are_told_from_what_is_served_beside_them(outputs):
    nodes, tensor, output = CASES[outputs]
    proto = model(nodes, outputs.replace(" ", "").split(","))
    readout = OnnxLogits(proto).fit(X).readout_
    assert (readout.tensor, readout.output) == (tensor, output)


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        (ATTENTION, ["z", "attention"]),
        (GATE, ["z", "is_valid"]),
        ([LOGITS, LABEL_OF_Z], ["embedding", "label"]),
    ],
)
def test_an_output_that_only_looks_like_scores_is_asked_about(nodes, outputs):
    proto = model(nodes, outputs)
    with pytest.raises(ModelFormatError, match=r"Name the right one: output=\.\.\."):
        OnnxLogits(proto).fit(X)
    assert OnnxLogits(proto, output="z").fit(X).readout_.tensor == "z"


def test_what_stands_beside_labels_is_left_alone():
    proto = model([*BODY, LABEL], ["embedding", "label"])
    before = run(proto)
    y = (before["embedding"] @ CONSTANTS["W"] / 2 + RNG.gumbel(size=(200, K))).argmax(1)
    pipe = make_pipeline(OnnxLogits(proto), TemperatureScaling()).fit(X, y)
    after = run(calibrate_onnx_model(proto, pipe))
    assert_array_equal(after["embedding"], before["embedding"])
    assert_array_equal(after["label"], before["label"])
    assert_allclose(after["probabilities"], pipe.predict_proba(X), atol=1e-6)
