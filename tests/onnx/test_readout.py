"""What scores are where the graph does not say it: settled on data or refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.pipeline import make_pipeline

from skcalib._onnx._session import open_session
from skcalib.calibrators import TemperatureScaling
from skcalib.exceptions import ModelFormatError
from skcalib.export import calibrate_onnx_model
from skcalib.export._verify import row_differences
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = pytest.mark.onnx

WEIGHT = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32) * 2


def model(nodes, row=(5,), scores=(3,), batch="n", **constants):
    inputs, outputs = [info("x", [batch, *row])], [info("p", [batch, *scores])]
    return make_model(nodes, inputs, outputs, constants, ml=2)


def run(proto, X):
    return ort.InferenceSession(proto.SerializeToString()).run(["p"], {"x": X})[0]


def draw_logits(n=300, scale=1.0):
    X = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    logits = scale * X @ WEIGHT
    y = np.random.default_rng(2).integers(0, 3, n)
    return X, logits, np.where(np.arange(n) % 3, logits.argmax(axis=1), y)


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_a_softmax_without_values_on_made_up_inputs_stays_one(op):
    nodes = [
        node(op, ["x"], ["f"]),
        node("MatMul", ["f", "W"], ["z"]),
        node("Softmax", ["z"], ["p"], axis=1),
    ]
    proto = model(nodes, W=WEIGHT)
    X, logits, y = draw_logits()
    features = np.exp(X) if op == "Log" else X**2
    logits = logits if op == "Log" else np.abs(X) @ WEIGHT
    calibrator = TemperatureScaling().fit(logits, y)
    served = run(calibrate_onnx_model(proto, calibrator), features)
    assert_allclose(served, calibrator.predict_proba(logits), atol=1e-5)


def normalised(width, W=WEIGHT):
    # Of an operator that the walk does not look into.
    nodes = [
        node("MatMul", ["x", "W"], ["z"]),
        node("Softmax", ["z"], ["q"], axis=1),
        node("Mul", ["q", "one"], ["p"]),
    ]
    return model(nodes, row=(width,), W=W, one=np.float32([1.0]))


@pytest.mark.parametrize("width", [5, None])
def test_probabilities_are_found_whatever_width_the_model_states(width):
    X, logits, y = draw_logits()
    calibrator = TemperatureScaling().fit(np.log(softmax(logits, axis=1)), y)
    served = run(calibrate_onnx_model(normalised(width), calibrator), X)
    assert_allclose(served, calibrator.predict_proba(logits), atol=1e-5)


def test_what_no_made_up_input_shows_is_not_taken_for_logits():
    # Rows of 5 * 300 entries, more than is tried.
    wide = np.repeat(WEIGHT, 300, axis=0) / 300
    proto = normalised(None, wide)
    X, logits, y = draw_logits()
    calibrator = TemperatureScaling().fit(np.log(softmax(logits, axis=1)), y)
    with pytest.raises(ModelFormatError, match="logits or probabilities"):
        calibrate_onnx_model(proto, calibrator)
    X = np.repeat(X, 300, axis=1)
    pipe = make_pipeline(OnnxLogits(proto).fit(X), calibrator)
    served = run(calibrate_onnx_model(proto, pipe), X)
    assert_allclose(served, calibrator.predict_proba(logits), atol=1e-5)


def test_a_file_that_serves_other_rows_than_it_was_given_is_refused():
    nodes = [
        node("Softmax", ["x"], ["q"], axis=1),
        node("Concat", ["q"] * 2, ["p"], axis=0),
    ]
    session = open_session(model(nodes, scores=(5,), batch="n"))
    X, *_ = draw_logits(4)
    with pytest.raises(ModelFormatError, match="8 rows of scores for 4 rows"):
        row_differences(session, "p", "proba", [({"x": X}, 4)], softmax(X, axis=1))


@pytest.mark.parametrize("scale", [1, 6, 30])
def test_the_logits_of_half_precision_inside_are_found(scale):
    # As convert_float_to_float16(keep_io_types=True) writes it.
    nodes = [
        node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
        node("MatMul", ["h", "W"], ["z"]),
        node("Softmax", ["z"], ["half"], axis=1),
        node("Cast", ["half"], ["p"], to=onnx.TensorProto.FLOAT),
    ]
    frozen = OnnxLogits(model(nodes, W=(scale * WEIGHT).astype(np.float16)))
    readout = frozen.fit(draw_logits()[0]).readout_
    assert (readout.tensor, readout.kind) == ("z", "logits")


@pytest.mark.parametrize("place", [0, 1])
def test_probabilities_are_read_where_the_softmax_runs_on_more_axes(place):
    nodes = [
        node("MatMul", ["x", "W"], ["z"]),
        node("Unsqueeze", ["z", "place"], ["z3"]),
        node("Softmax", ["z3"], ["p3"], axis=-1),
        node("Squeeze", ["p3", "place"], ["p"]),
    ]
    proto = model(nodes, W=WEIGHT, place=np.array([place]))
    X, logits, y = draw_logits()
    pipe = make_pipeline(OnnxLogits(proto), TemperatureScaling()).fit(X, y)
    assert (pipe[0].readout_.tensor, pipe[0].readout_.kind) == ("p", "proba")
    assert_allclose(
        softmax(pipe[0].transform(X), axis=1), softmax(logits, axis=1), atol=1e-6
    )
    for written in (pipe, pipe[-1]):
        served = run(calibrate_onnx_model(proto, written), X)
        assert_allclose(served, pipe.predict_proba(X), atol=1e-6)


def one_probability(batch):
    nodes = [
        node("MatMul", ["x", "W"], ["z"]),
        node("Sigmoid", ["z"], ["s"]),
        node("Mul", ["s", "one"], ["p"]),
    ]
    one = np.float32([1.0])
    return model(nodes, scores=(1,), batch=batch, W=WEIGHT[:, :1], one=one)


@pytest.mark.parametrize(("batch", "batch_size"), [(1, 256), (3, 256), ("n", 1)])
def test_one_probability_a_row_is_found_in_batches_of_one(batch, batch_size):
    X, logits, _ = draw_logits(40)
    proto = one_probability(batch)
    frozen = OnnxLogits(proto, batch_size=batch_size).fit(X)
    assert_allclose(frozen.transform(X), logits[:, :1], atol=1e-3)
    ts = TemperatureScaling().fit(logits[:, 0], np.arange(40) % 2)
    served = run(calibrate_onnx_model(proto, ts), X[:3] if batch == 3 else X[:1])
    assert_allclose(served[0, 0], ts.predict_proba(logits[:1, 0])[0, 1], atol=1e-6)


def test_one_column_of_few_rows_is_ambiguous():
    X, logits, _ = draw_logits(40)
    frozen = OnnxLogits(one_probability("n"))
    with pytest.raises(ModelFormatError, match="The 7 rows of the single column 'p'"):
        frozen.transform(X[:7])
    assert_allclose(frozen.fit(X).transform(X[:1]), logits[:1, :1], atol=1e-3)


def calling(body, *others):
    opsets = [onnx.helper.make_opsetid(*i) for i in (("", 17), ("own", 1))]
    proto = model([node("MatMul", ["x", "W"], ["z"]), body], W=WEIGHT)
    for name, inner in others:
        made = onnx.helper.make_function("own", name, ["a"], ["b"], [inner], opsets)
        proto.functions.append(made)
    proto.opset_import.append(opsets[1])
    return proto


def test_a_softmax_inside_a_function_is_found():
    proto = calling(
        node("outer", ["z"], ["p"], domain="own"),
        ("outer", node("inner", ["a"], ["b"], domain="own")),
        ("inner", node("Softmax", ["a"], ["b"], axis=1)),
    )
    X, logits, y = draw_logits()
    pipe = make_pipeline(OnnxLogits(proto), TemperatureScaling()).fit(X, y)
    assert pipe[0].readout_.kind == "logits"
    assert_allclose(pipe[0].transform(X), logits, atol=1e-5)
    served = run(calibrate_onnx_model(proto, pipe), X)
    assert_allclose(served, pipe.predict_proba(X), atol=1e-6)


def test_functions_that_call_each_other_are_refused():
    proto = calling(
        node("f", ["z"], ["p"], domain="own"),
        ("f", node("g", ["a"], ["b"], domain="own")),
        ("g", node("f", ["a"], ["b"], domain="own")),
    )
    with pytest.raises(ModelFormatError, match="call each other in a cycle"):
        OnnxLogits(proto).fit(np.zeros((9, 5)))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_model_without_a_batch_axis_is_told_so(n_classes):
    proto = model([node("MatMul", ["x", "W"], ["p"])], W=WEIGHT[:, :n_classes])
    proto.graph.input[0].CopyFrom(info("x", [5]))
    proto.graph.output[0].CopyFrom(info("p", [n_classes]))
    logits = draw_logits()[1][:, :n_classes]
    calibrator = TemperatureScaling().fit(logits, logits.argmax(axis=1))
    with pytest.raises(ModelFormatError, match="without a batch axis"):
        calibrate_onnx_model(proto, calibrator)
