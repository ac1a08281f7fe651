"""A graph that was written in train mode is refused, whatever reads it."""

import numpy as np
import pytest

from skcalib._onnx._files import open_model, parse_model
from skcalib.exceptions import ModelFormatError
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = pytest.mark.onnx

CONSTANTS = {
    "ones": np.ones(3, np.float32),
    "zeros": np.zeros(3, np.float32),
    "half": np.array(0.5, np.float32),
    "nothing": np.array(0, np.float32),
    "true": np.array(True),
    "false": np.array(False),
}
NORM = ["x", "ones", "zeros", "zeros", "ones"]


def model(nodes, version=17):
    return make_model(nodes, [info("x")], [info("p")], CONSTANTS, opset=version)


def training_norm(output="p"):
    return node("BatchNormalization", NORM, [output, "m", "v"], training_mode=1)


def branch():
    body = onnx.helper.make_graph([training_norm("q")], "body", [], [info("q")])
    return node("If", ["true"], then_branch=body, else_branch=body)


IN_TRAINING = {
    "batch norm": ([training_norm()], 17),
    "batch norm of old": ([node("BatchNormalization", NORM, "pmvst")], 11),
    "in a branch": ([branch()], 17),
    "dropout": ([node("Dropout", ["x", "half", "true"])], 17),
    "dropout of a half": ([node("Dropout", ["x", "", "true"])], 17),
}
IN_INFERENCE = {
    "batch norm": ([node("BatchNormalization", NORM)], 17),
    "dropout": ([node("Dropout", ["x", "half", "false"])], 17),
    "dropout of nothing": ([node("Dropout", ["x", "nothing", "true"])], 17),
    "dropout of old": ([node("Dropout", ["x"], "pm", ratio=0.5)], 11),
}


@pytest.mark.parametrize("form", IN_TRAINING)
def test_a_graph_in_training_mode_is_refused(form):
    written = model(*IN_TRAINING[form])
    X = np.eye(3, dtype=np.float32)
    with pytest.raises(ModelFormatError, match="export the network in eval mode"):
        OnnxLogits(written).fit(X)


@pytest.mark.parametrize("form", IN_INFERENCE)
def test_a_graph_in_eval_mode_is_read(form):
    parse_model(open_model(model(*IN_INFERENCE[form])))


@pytest.mark.torch
def test_neural_clamping_refuses_it_too():
    pytest.importorskip("torch")
    from skcalib import NeuralClamping

    X = np.eye(3, dtype=np.float32)
    with pytest.raises(ModelFormatError, match="export the network in eval mode"):
        NeuralClamping(model([training_norm()])).fit(X, [0, 1, 2])
