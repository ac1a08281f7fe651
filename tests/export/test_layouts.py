"""Networks of several labels, of pixels and of tokens: calibrated and run again."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax

from skcalib import (
    DenseCalibration,
    IsotonicCalibration,
    MultiLabelCalibration,
    OptionCalibration,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    as_rows,
    pad_options,
)
from skcalib.exceptions import ModelFormatError
from skcalib.export import calibrate_onnx_model, to_onnx, to_torch
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = pytest.mark.onnx

FLOAT, INT64, BOOL = (getattr(onnx.TensorProto, n) for n in ("FLOAT", "INT64", "BOOL"))
D, K = 3, 4


def model(nodes, inputs, outputs, **constants):
    return make_model(nodes, inputs, outputs, constants)


def run(served, x):
    onnx.checker.check_model(served)
    session = ort.InferenceSession(
        served.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def labels_model(ending, *outputs):
    weight = np.random.default_rng(1).normal(size=(D, K)).astype(np.float32) * 2
    nodes = [node("MatMul", ["x", "W"], ["z"]), *ending]
    return model(nodes, [info("x", ["n", D])], [*outputs], W=weight)


SIGMOID = node("Sigmoid", ["z"], ["p"])


def draw_labels(served, calibrator, **options):
    """Fit on the log-odds of a model; return inputs and what Python says of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, D)).astype(np.float32)
    scores = run(served, x)
    z = scores["z"] if "z" in scores else np.log(scores["p"] / (1 - scores["p"]))
    y = (rng.random(z.shape) < expit(z / 2 - 0.3)).astype(int)
    multi = MultiLabelCalibration(calibrator, **options).fit(z, y)
    return x, multi, multi.predict_proba(z)


@pytest.mark.parametrize(
    "calibrator", [TemperatureScaling(), PlattScaling(), IsotonicCalibration()]
)
@pytest.mark.parametrize("shared", [False, True])
def test_sigmoids_are_calibrated_in_their_place(calibrator, shared):
    served = labels_model([SIGMOID], info("p", ["n", K]), info("z", ["n", K]))
    x, multi, expected = draw_labels(served, calibrator, shared=shared)
    written = run(calibrate_onnx_model(served, multi), x)
    assert_allclose(written["p"], expected, rtol=0, atol=1e-6)
    # An output of the log-odds behind them keeps its meaning.
    assert_allclose(expit(written["z"]), expected, rtol=0, atol=1e-6)


def test_log_odds_stay_log_odds():
    served = labels_model([], info("z", ["n", K]))
    x, multi, expected = draw_labels(served, None)
    written = calibrate_onnx_model(served, multi, add_probabilities=True)
    given = run(written, x)
    assert_allclose(expit(given["z"]), expected, rtol=0, atol=1e-6)
    assert_allclose(given["probabilities"], expected, rtol=0, atol=1e-6)


def test_sigmoids_spelt_out_are_probabilities():
    ending = [
        node("Neg", ["z"], ["minus"]),
        node("Exp", ["minus"], ["e"]),
        node("Add", ["e", "one"], ["under"]),
        node("Reciprocal", ["under"], ["p"]),
    ]
    served = labels_model(ending, info("p", ["n", K]))
    served.graph.initializer.append(
        onnx.numpy_helper.from_array(np.float32([1]), "one")
    )
    x, multi, expected = draw_labels(served, PlattScaling())
    given = run(calibrate_onnx_model(served, multi, keep_original=True), x)
    assert_allclose(given["p_calibrated"], expected, rtol=0, atol=2e-6)
    assert_array_equal(given["p"], run(served, x)["p"])


def test_thresholded_labels_are_named():
    ending = [SIGMOID, node("Greater", ["p", "half"], ["is_set"])]
    outputs = [info(name, ["n", K]) for name in "pz"]
    outputs.append(info("is_set", ["n", K], BOOL))
    served = labels_model(ending, *outputs)
    served.graph.initializer.append(
        onnx.numpy_helper.from_array(np.float32(0.5), "half")
    )
    x, multi, expected = draw_labels(served, None)
    with pytest.warns(UserWarning, match=r"\['is_set'\] look like labels"):
        written = calibrate_onnx_model(served, multi)
    assert_allclose(run(written, x)["p"], expected, rtol=0, atol=1e-6)


def test_a_softmax_is_no_model_of_several_labels():
    served = labels_model([node("Softmax", ["z"], ["p"], axis=1)], info("p", ["n", K]))
    _, multi, _ = draw_labels(labels_model([], info("z", ["n", K])), None)
    with pytest.raises(ModelFormatError, match="classes exclude each other"):
        calibrate_onnx_model(served, multi)
    sigmoids = labels_model([SIGMOID], info("p", ["n", K]))
    with pytest.raises(ModelFormatError, match="for a MultiLabelCalibration, which"):
        OnnxLogits(sigmoids).fit(np.zeros((20, D), dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_calibration_of_labels_is_a_model_and_a_module(dtype):
    served = labels_model([], info("z", ["n", K]))
    x, multi, expected = draw_labels(served, IsotonicCalibration())
    z = run(served, x)["z"].astype(dtype)
    session = ort.InferenceSession(to_onnx(multi, dtype=dtype).SerializeToString())
    proba, label = session.run(None, {"logits": z})
    assert_allclose(proba, expected, rtol=0, atol=1e-6)
    assert_array_equal(label, (proba > 0.5).astype(np.int64))
    torch = pytest.importorskip("torch")
    assert_allclose(
        to_torch(multi)(torch.from_numpy(z)).numpy(), expected, rtol=0, atol=1e-6
    )


def pixels_model(ending, *outputs, height="h", width="w"):
    """Return a convolution from (n, 3, h, w) to (n, K, h, w)."""
    weight = np.random.default_rng(1).normal(size=(K, D, 3, 3)).astype(np.float32)
    nodes = [node("Conv", ["x", "W"], ["z"], pads=[1, 1, 1, 1]), *ending]
    return model(nodes, [info("x", ["n", D, height, width])], [*outputs], W=weight)


def tokens_model(ending, *outputs):
    """Return a linear map from (n, t, 3) to (n, t, K)."""
    weight = np.random.default_rng(1).normal(size=(D, K)).astype(np.float32) * 2
    nodes = [node("MatMul", ["x", "W"], ["z"]), *ending]
    return model(nodes, [info("x", ["n", "t", D])], [*outputs], W=weight)


def draw_places(served, calibrator, shape, class_axis):
    """Fit on the logits of every place; return inputs and what Python says."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    z = run(served, x)["z"]
    noise = rng.gumbel(size=z.shape)
    y = (z / 2 + noise).argmax(axis=class_axis)
    dense = DenseCalibration(calibrator, class_axis=class_axis).fit(z, y)
    return x, dense, dense.predict_proba(z)


@pytest.mark.parametrize(
    "calibrator", [TemperatureScaling(), StructuredMatrixScaling(), PlattScaling()]
)
@pytest.mark.parametrize("size", ["dynamic", "fixed"])
def test_pixels_are_calibrated_in_their_place(calibrator, size):
    places = ["h", "w"] if size == "dynamic" else [6, 5]
    served = pixels_model(
        [
            node("Softmax", ["z"], ["p"], axis=1),
            node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
        ],
        info("z", ["n", K, *places]),
        info("p", ["n", K, *places]),
        info("label", ["n", *places], INT64),
        height=places[0],
        width=places[1],
    )
    x, dense, expected = draw_places(served, calibrator, (20, D, 6, 5), 1)
    written = run(calibrate_onnx_model(served, dense, output="p"), x)
    assert_allclose(written["p"], expected, rtol=0, atol=1e-6)
    assert_allclose(softmax(written["z"], axis=1), expected, rtol=0, atol=1e-6)
    assert_array_equal(written["label"], expected.argmax(axis=1))


def test_tokens_are_calibrated_in_their_place():
    ending = [node("LogSoftmax", ["z"], ["log_p"], axis=-1)]
    outputs = info("log_p", ["n", "t", K]), info("z", ["n", "t", K])
    served = tokens_model(ending, *outputs)
    x, dense, expected = draw_places(served, PlattScaling(), (30, 7, D), -1)
    written = run(calibrate_onnx_model(served, dense, output="log_p"), x)
    assert_allclose(np.exp(written["log_p"]), expected, rtol=0, atol=1e-6)


def test_a_calibrator_of_rows_is_told_the_axis():
    served = tokens_model([], info("z", ["n", "t", K]))
    x, dense, expected = draw_places(served, None, (30, 7, D), -1)
    rows = as_rows(run(served, x)["z"], class_axis=-1)
    assert_allclose(dense.calibrator_.predict_proba(rows).reshape(30, 7, K), expected)
    written = calibrate_onnx_model(
        served,
        dense.calibrator_,
        class_axis=2,
        keep_original=True,
        add_probabilities=True,
    )
    given = run(written, x)
    assert_allclose(given["probabilities"], expected, rtol=0, atol=1e-6)
    assert_allclose(softmax(given["z_calibrated"], axis=2), expected, atol=1e-6)
    assert_array_equal(given["z"], run(served, x)["z"])


def test_probabilities_of_places_are_all_there_need_be():
    # A softmax that no operator names.
    ending = [
        node("Exp", ["z"], ["e"]),
        node("ReduceL2", ["e"], ["norm"], axes=[2]),
        node("Div", ["e", "norm"], ["unit"]),
        node("Mul", ["unit", "unit"], ["p"]),
    ]
    served = tokens_model(ending, info("p", ["n", 5, K]))
    served.graph.input[0].CopyFrom(info("x", ["n", 5, D]))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5, D)).astype(np.float32) / 4
    p = run(served, x)["p"]
    y = (np.log(p) / 2 + rng.gumbel(size=p.shape)).argmax(axis=2)
    dense = DenseCalibration(class_axis=-1).fit(np.log(p), y)
    written = calibrate_onnx_model(served, dense)
    expected = dense.predict_proba(np.log(p))
    assert_allclose(run(written, x)["p"], expected, rtol=0, atol=1e-6)


def test_a_mask_of_one_sigmoid_has_two_classes():
    weight = np.random.default_rng(1).normal(size=(1, D, 1, 1)).astype(np.float32)
    nodes = [node("Conv", ["x", "W"], ["z"]), node("Sigmoid", ["z"], ["p"])]
    outputs = [info("p", ["n", 1, "h", "w"]), info("z", ["n", 1, "h", "w"])]
    served = model(nodes, [info("x", ["n", D, "h", "w"])], outputs, W=weight)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, D, 6, 5)).astype(np.float32)
    z = run(served, x)["z"]
    y = (rng.random(z.shape) < expit(z / 2))[:, 0].astype(int)
    dense = DenseCalibration().fit(z, y)
    expected = dense.predict_proba(z)
    assert expected.shape == (30, 2, 6, 5)
    given = run(calibrate_onnx_model(served, dense, output="p"), x)
    assert_allclose(given["p"], expected[:, 1:], rtol=0, atol=1e-6)
    assert_allclose(expit(given["z"]), expected[:, 1:], rtol=0, atol=1e-6)


def test_an_axis_or_output_that_does_not_fit_is_refused():
    served = pixels_model([], info("z", ["n", K, 6, 5]), height=6, width=5)
    _, dense, _ = draw_places(served, None, (20, D, 6, 5), 1)
    rows = dense.calibrator_
    with pytest.raises(ValueError, match=r"has 6 columns .* Is class_axis the"):
        calibrate_onnx_model(served, rows, class_axis=2)
    with pytest.raises(ValueError, match="class_axis=0 is not an axis of classes"):
        calibrate_onnx_model(served, rows, class_axis=0)
    with pytest.raises(ModelFormatError, match="class_axis="):
        calibrate_onnx_model(served, rows)
    twice = pixels_model(
        [node("Identity", ["z"], ["aux"])],
        info("z", ["n", K, 6, 5]),
        info("aux", ["n", K, 6, 5]),
        height=6,
        width=5,
    )
    with pytest.raises(ModelFormatError, match=r"\['z', 'aux'\] may hold scores"):
        calibrate_onnx_model(twice, dense)


@pytest.mark.parametrize("missing", [-np.inf, None])
def test_options_are_calibrated_in_the_graph(missing):
    rng = np.random.default_rng(5)
    truth = [rng.normal(0, 2, rng.integers(2, 5)) for _ in range(300)]
    y = [rng.choice(len(z), p=softmax(z)) for z in truth]
    options = OptionCalibration().fit([2 * z + (z == z[0]) for z in truth], y)
    rows = pad_options([z.astype(np.float32) for z in truth])
    if missing is not None:
        rows[rows == rows.min()] = missing
    expected = options.predict_proba(rows)
    assert (expected == 0).any()
    served = to_onnx(options)
    session = ort.InferenceSession(
        served.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    proba = dict(
        zip(
            [value.name for value in session.get_outputs()],
            session.run(None, {session.get_inputs()[0].name: rows}),
            strict=True,
        )
    )["probabilities"]
    assert_allclose(proba, expected, atol=1e-6)
    torch = pytest.importorskip("torch")
    told = to_torch(options)(torch.from_numpy(rows))
    assert_allclose(told.numpy(), expected, atol=1e-6)


def test_options_are_calibrated_inside_a_model():
    weight = np.random.default_rng(1).normal(size=(D, K)).astype(np.float32) * 2
    mask = np.array([0, 0, 0, -np.inf], dtype=np.float32)
    nodes = [
        node("MatMul", ["x", "W"], ["raw"]),
        node("Add", ["raw", "mask"], ["z"]),
        node("Softmax", ["z"], ["p"]),
    ]
    outputs = [info("z", ["n", K]), info("p", ["n", K])]
    net = model(nodes, [info("x", ["n", D])], outputs, W=weight, mask=mask)
    x = np.random.default_rng(2).normal(size=(200, D)).astype(np.float32)
    logits = run(net, x)["z"]
    y = np.random.default_rng(3).integers(0, 3, 200)
    options = OptionCalibration().fit(logits, y)
    served = run(calibrate_onnx_model(net, options), x)
    expected = options.predict_proba(logits)
    assert_allclose(served["p"], expected, atol=1e-6)
    assert_allclose(softmax(served["z"], axis=1), expected, atol=1e-6)
