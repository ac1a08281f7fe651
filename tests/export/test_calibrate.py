"""Small classifiers that end in every usual way: read, calibrated and run again."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skcalib.calibrators import (
    BetaCalibration,
    HistogramBinning,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.exceptions import ModelFormatError
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits
from skcalib.model_selection import CalibratorSearch

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from graph_parts import info, make_model, node  # noqa: E402

pytestmark = [
    pytest.mark.onnx,
    # Made of the scores by an inner graph, see below.
    pytest.mark.filterwarnings("ignore:The outputs .'number'. look like labels"),
]

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
INT64, STRING = onnx.TensorProto.INT64, onnx.TensorProto.STRING
K, D = 4, 5
WEIGHT = np.random.default_rng(1).normal(size=(D, K)).astype(np.float32) * 2
BINARY = WEIGHT[:, :1]
NAMES = ["ant", "bee", "cat", "dog"]


def model(nodes, outputs, *, inputs=None, opset=17, constants=None, ir_version=8):
    constants = {"W": WEIGHT, "one": np.float32([1.0]), **(constants or {})}
    used = {name for made in nodes for name in made.input}
    for made in nodes:
        for attribute in made.attribute:
            used |= {n for inner in attribute.g.node for n in inner.input}
    return make_model(
        nodes,
        inputs or [info("x", ["n", D])],
        outputs,
        {name: value for name, value in constants.items() if name in used},
        opset=opset,
        ml=2,
        ir_version=ir_version,
    )


LINEAR = node("MatMul", ["x", "W"], ["z"])
SOFTMAX = node("Softmax", ["z"], ["p"], axis=1)


def zipmap(**labels):
    return onnx.helper.make_node(
        "ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", **labels
    )


def maps_info(key=INT64):
    value = onnx.helper.make_tensor_type_proto(FLOAT, None)
    entry = onnx.helper.make_map_type_proto(key, value)
    kind = onnx.helper.make_sequence_type_proto(entry)
    return onnx.helper.make_value_info("maps", kind)


def linear_classifier(post_transform):
    return onnx.helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "raw"],
        domain="ai.onnx.ml",
        coefficients=WEIGHT.T.ravel().tolist(),
        intercepts=[0.1, -0.2, 0.3, 0.0],
        classlabels_strings=NAMES,
        post_transform=post_transform,
    )


LEAVES = np.array([[5, 3, 1, 1], [0, 2, 7, 1], [4, 0, 4, 2], [1, 1, 2, 6]]) / 20


def forest(leaves=LEAVES, labels=(10, 20, 30, 40), post_transform="NONE"):
    # Two stumps on the first two features, with leaf weights for all classes.
    leaf = {"nodes_falsenodeids": 0, "nodes_truenodeids": 0}
    rows = [
        (0, 0, "BRANCH_LEQ", 0, 0.0, 1, 2),
        (0, 1, "LEAF", 0, 0.0, *leaf.values()),
        (0, 2, "LEAF", 0, 0.0, *leaf.values()),
        (1, 0, "BRANCH_LEQ", 1, 0.3, 1, 2),
        (1, 1, "LEAF", 0, 0.0, *leaf.values()),
        (1, 2, "LEAF", 0, 0.0, *leaf.values()),
    ]
    keys = ["treeids", "nodeids", "modes", "featureids", "values"]
    keys += ["truenodeids", "falsenodeids"]
    columns = zip(*rows, strict=True)
    nodes = {f"nodes_{k}": list(v) for k, v in zip(keys, columns, strict=True)}
    n_classes = len(labels)
    places = [(0, 1), (0, 2), (1, 1), (1, 2)]
    return onnx.helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        domain="ai.onnx.ml",
        **nodes,
        class_treeids=[t for t, _ in places for _ in range(n_classes)],
        class_nodeids=[i for _, i in places for _ in range(n_classes)],
        class_ids=list(range(n_classes)) * 4,
        class_weights=leaves.ravel().tolist(),
        classlabels_int64s=labels,
        post_transform=post_transform,
    )


def spelt(shift=True, reciprocal=False):
    axes = {"axes": [1], "keepdims": 1}
    nodes = [LINEAR]
    if shift:
        nodes += [
            node("ReduceMax", ["z"], ["m"], **axes),
            node("Sub", ["z", "m"], ["d"]),
        ]
    nodes += [
        node("Exp", ["d" if shift else "z"], ["e"]),
        node("ReduceSum", ["e"], ["s"], **axes),
    ]
    if reciprocal:
        nodes += [node("Reciprocal", ["s"], ["r"]), node("Mul", ["e", "r"], ["p"])]
    else:
        nodes.append(node("Div", ["e", "s"], ["p"]))
    return model(nodes, [info("p", ["n", K])], opset=12)


def spelt_with_expand():
    """The softmax of TensorFlow's converter, spread over the columns by Expand."""
    axes = {"axes": [1], "keepdims": 0}
    nodes = [
        LINEAR,
        node("Shape", ["z"], ["wide"]),
        node("ReduceMax", ["z"], ["m"], **axes),
        node("Reshape", ["m", "tall"], ["m1"]),
        node("Expand", ["m1", "wide"], ["m2"]),
        node("Sub", ["z", "m2"], ["d"]),
        node("Exp", ["d"], ["e"]),
        node("ReduceSum", ["e"], ["s"], **axes),
        node("Reshape", ["s", "tall"], ["s1"]),
        node("Expand", ["s1", "wide"], ["s2"]),
        node("Div", ["e", "s2"], ["p"]),
    ]
    constants = {"tall": np.array([-1, 1])}
    return model(nodes, [info("p", ["n", K])], opset=12, constants=constants)


def sigmoid(*tail, shape):
    nodes = [node("MatMul", ["x", "B"], ["z"]), node("Sigmoid", ["z"], ["q"]), *tail]
    return model(nodes, [info("p", shape)], constants={"B": BINARY})


def constant_weights():
    value = onnx.numpy_helper.from_array(WEIGHT)
    weights = node("Constant", [], ["V"], value=value)
    return model(
        [weights, node("MatMul", ["x", "V"], ["z"]), SOFTMAX], [info("p", ["n", K])]
    )


def labels_by_number():
    nodes = [
        LINEAR,
        SOFTMAX,
        zipmap(classlabels_strings=NAMES),
        node("ArgMax", ["p"], ["top"], axis=1, keepdims=1),
        onnx.helper.make_node(
            "ArrayFeatureExtractor", ["names", "top"], ["wide"], domain="ai.onnx.ml"
        ),
        node("Reshape", ["wide", "flat"], ["label"]),
    ]
    constants = {"names": np.array(NAMES, dtype=object), "flat": np.array([-1])}
    outputs = [info("label", ["n"], STRING), maps_info(STRING)]
    return model(nodes, outputs, constants=constants)


def inner_graph():
    """An If whose branches read the scores from outside."""
    inner = onnx.helper.make_graph(
        [node("Identity", ["p"], ["inside"])], "branch", [], [info("inside", None)]
    )
    yes = onnx.numpy_helper.from_array(np.array(True))
    nodes = [
        LINEAR,
        SOFTMAX,
        node("Constant", [], ["yes"], value=yes),
        node("If", ["yes"], ["copy"], then_branch=inner, else_branch=inner),
        node("Softplus", ["copy"], ["soft"]),
        node("Cast", ["soft"], ["number"], to=INT64),
    ]
    return model(nodes, [info("p", ["n", K]), info("number", ["n", K], INT64)])


class Case(NamedTuple):
    """A model, the kind of its readout, and the tensor that is read."""

    model: object
    kind: str
    tensor: str
    output: str | None = None


PROBA = [info("p", ["n", K])]
CASES = {
    "logits": Case(model([LINEAR], [info("z", ["n", K])]), "logits", "z"),
    "softmax": Case(model([LINEAR, SOFTMAX], PROBA), "logits", "z"),
    "softmax_opset_9": Case(model([LINEAR, SOFTMAX], PROBA, opset=9), "logits", "z"),
    "softmax_opset_21": Case(model([LINEAR, SOFTMAX], PROBA, opset=21), "logits", "z"),
    "ir_version_3": Case(
        model(
            [
                node("Constant", [], ["V"], value=onnx.numpy_helper.from_array(WEIGHT)),
                node("MatMul", ["x", "V"], ["z"]),
                SOFTMAX,
            ],
            PROBA,
            ir_version=3,
            opset=9,
        ),
        "logits",
        "z",
    ),
    "softmax_identity_cast": Case(
        model(
            [
                LINEAR,
                SOFTMAX,
                node("Identity", ["p"], ["i"]),
                node("Cast", ["i"], ["wide"], to=onnx.TensorProto.DOUBLE),
            ],
            [info("wide", ["n", K], onnx.TensorProto.DOUBLE)],
        ),
        "logits",
        "z",
    ),
    "log_softmax": Case(
        model([LINEAR, node("LogSoftmax", ["z"], ["p"], axis=1)], PROBA), "logits", "z"
    ),
    "spelt": Case(spelt(), "logits", "z"),
    "spelt_with_expand": Case(spelt_with_expand(), "logits", "z"),
    "spelt_without_shift": Case(spelt(shift=False), "logits", "z"),
    "spelt_with_reciprocal": Case(spelt(reciprocal=True), "logits", "z"),
    "unknown_last_operator": Case(
        model([LINEAR, SOFTMAX, node("Relu", ["p"], ["r"])], [info("r", ["n", K])]),
        "proba",
        "r",
    ),
    "sigmoid": Case(
        sigmoid(node("Identity", ["q"], ["p"]), shape=["n", 1]), "log_odds", "z"
    ),
    "sigmoid_one_dimensional": Case(
        sigmoid(
            node("Flatten", ["q"], ["f"]), node("Squeeze", ["f"], ["p"]), shape=["n"]
        ),
        "log_odds",
        "z",
    ),
    "sigmoid_two_columns": Case(
        sigmoid(
            node("Sub", ["one", "q"], ["other"]),
            node("Concat", ["other", "q"], ["p"], axis=1),
            shape=["n", 2],
        ),
        "log_odds",
        "z",
    ),
    "scores_and_labels": Case(
        model(
            [LINEAR, SOFTMAX, node("ArgMax", ["z"], ["label"], axis=1, keepdims=0)],
            [info("label", ["n"], INT64), *PROBA],
        ),
        "logits",
        "z",
    ),
    "labels_only": Case(
        model(
            [LINEAR, SOFTMAX, node("ArgMax", ["p"], ["label"], axis=-1, keepdims=0)],
            [info("label", ["n"], INT64)],
        ),
        "logits",
        "z",
    ),
    "logits_and_softmax": Case(
        model([LINEAR, SOFTMAX], [info("z", ["n", K]), *PROBA]), "logits", "z"
    ),
    "zipmap_and_names": Case(labels_by_number(), "logits", "z"),
    "linear_classifier": Case(
        model(
            [
                linear_classifier("SOFTMAX"),
                onnx.helper.make_node(
                    "Normalizer", ["raw"], ["p"], domain="ai.onnx.ml", norm="L1"
                ),
                zipmap(classlabels_strings=NAMES),
            ],
            [info("label", ["n"], STRING), maps_info(STRING)],
        ),
        "logits",
        "raw_logits",
    ),
    "linear_classifier_logistic": Case(
        model(
            [
                linear_classifier("LOGISTIC"),
                onnx.helper.make_node(
                    "Normalizer", ["raw"], ["p"], domain="ai.onnx.ml", norm="L1"
                ),
            ],
            [info("label", ["n"], STRING), *PROBA],
        ),
        "proba",
        "p",
    ),
    "forest": Case(
        model([forest()], [info("label", ["n"], INT64), *PROBA]), "proba", "p"
    ),
    "fixed_batch": Case(
        model([LINEAR, SOFTMAX], [info("p", [7, K])], inputs=[info("x", [7, D])]),
        "logits",
        "z",
    ),
    "convolution_head": Case(
        model(
            [LINEAR, node("Reshape", ["z", "shape"], ["p"])],
            [info("p", ["n", K, 1, 1])],
            constants={"shape": np.array([-1, K, 1, 1])},
        ),
        "logits",
        "p",
    ),
    "half_precision": Case(
        model(
            [
                node("Cast", ["x"], ["h"], to=HALF),
                node("MatMul", ["h", "W"], ["z"]),
                SOFTMAX,
            ],
            [info("p", ["n", K], HALF)],
            constants={"W": WEIGHT.astype(np.float16)},
        ),
        "logits",
        "z",
    ),
    "constant_weights": Case(constant_weights(), "logits", "z"),
    "features_beside_logits": Case(
        model(
            [LINEAR, node("Relu", ["x"], ["f"])],
            [info("f", ["n", D]), info("z", ["n", K])],
        ),
        "logits",
        "z",
        "z",
    ),
    "scores_read_by_an_inner_graph": Case(inner_graph(), "logits", "z"),
}


WITH_LABELS = [
    name
    for name, case in sorted(CASES.items())
    if any(value.name == "label" for value in case.model.graph.output)
]


@pytest.fixture(params=sorted(CASES))
def case(request):
    return CASES[request.param]


def draw_inputs(case, n=42):
    return np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)


def run(proto, X):
    """Run a model in pieces of 7 rows, which also suits a fixed batch."""
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    pieces = [session.run(None, {"x": X[i : i + 7]}) for i in range(0, len(X), 7)]
    joined = {}
    for name, parts in zip(names, zip(*pieces, strict=True), strict=True):
        if isinstance(parts[0], list):
            joined[name] = [entry for part in parts for entry in part]
        else:
            joined[name] = np.concatenate(parts)
    return joined


def as_matrix(scores):
    if isinstance(scores, list):
        return np.array([list(entry.values()) for entry in scores])
    return scores.reshape(len(scores), -1)


def fit(case, X, calibrator):
    frozen = OnnxLogits(case.model, output=case.output)
    logits = frozen.fit_transform(X).astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    noise = np.random.default_rng(2).gumbel(size=logits.shape)
    y = (logits / 2 + noise).argmax(axis=1)
    return make_pipeline(frozen, calibrator).fit(X, y)


def served(case):
    """The output that holds the scores, None where there are only labels."""
    outputs = [value.name for value in case.model.graph.output]
    scores = [name for name in ("p", "maps", "wide", "r", "z") if name in outputs]
    return scores[0] if scores else None


def test_the_logits_are_found(case):
    X = draw_inputs(case)
    frozen = OnnxLogits(case.model, output=case.output).fit(X)
    assert (frozen.readout_.kind, frozen.readout_.tensor) == (case.kind, case.tensor)
    logits = frozen.transform(X).astype(np.float64)
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if logits.shape[1] == 1:
        proba = 1 / (1 + np.exp(-logits))
    name = served(case)
    if name is None or case.model.graph.node[-1].op_type in ("LogSoftmax", "Reshape"):
        return
    scores = as_matrix(run(case.model, X)[name])
    if scores.shape != proba.shape:
        scores = scores[:, 1:]
    if np.allclose(scores.sum(axis=1), 1, atol=1e-2) or scores.shape[1] == 1:
        half = scores.dtype == np.float16
        assert_allclose(proba, scores, atol=2e-3 if half else 1e-6)


def test_the_logits_behind_probabilities_on_a_grid_are_found():
    # As static quantisation writes them: every result goes through a pair.
    def pair(tensor, result):
        return [
            node(
                "QuantizeLinear", [tensor, f"{tensor}_scale", "zero"], [f"{tensor}_q"]
            ),
            node(
                "DequantizeLinear", [f"{tensor}_q", f"{tensor}_scale", "zero"], [result]
            ),
        ]

    grid = {"z_scale": np.float32(0.1), "s_scale": np.float32(1 / 255)}
    softmax = node("Softmax", ["z_d"], ["s"], axis=1)
    quantised = model(
        [LINEAR, *pair("z", "z_d"), softmax, *pair("s", "p")],
        PROBA,
        constants={**grid, "zero": np.uint8(0)},
    )
    case = Case(quantised, "logits", "z_d")
    X = np.abs(draw_inputs(case))
    pipe = fit(case, X, TemperatureScaling())
    readout = pipe[0].readout_
    assert (readout.tensor, readout.kind, readout.meaning) == ("z_d", "logits", "proba")
    calibrated = run(calibrate_onnx_model(quantised, pipe), X)["p"]
    assert_allclose(calibrated, pipe.predict_proba(X), atol=1e-6)
    assert_allclose(calibrated.sum(axis=1), 1, atol=1e-6)


LOGITS = ("logits", "convolution_head", "features_beside_logits")


def meant(case, pipe, X):
    """The calibrated scores, as what the model's output held."""
    if any(case is CASES[name] for name in LOGITS) and hasattr(
        pipe, "decision_function"
    ):
        return pipe.decision_function(X)
    proba = pipe.predict_proba(X)
    if case is CASES["log_softmax"] or any(case is CASES[name] for name in LOGITS):
        return np.log(proba)
    return proba


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), BetaCalibration()])
def test_calibrated_scores_take_the_place_of_the_scores(case, calibrator):
    X = draw_inputs(case)
    pipe = fit(case, X, calibrator)
    before = case.model.SerializeToString()
    proto = calibrate_onnx_model(case.model, pipe)
    assert case.model.SerializeToString() == before
    results = run(proto, X)
    name = served(case) or "probabilities"
    scores = as_matrix(results[name])
    expected = meant(case, pipe, X)
    if scores.shape[1] == 1:
        expected = expected[:, 1:]
    half = scores.dtype == np.float16
    assert_allclose(scores, expected, atol=1e-3 if half else 1e-6)
    if served(case) != name:
        return
    old, new = (
        [v for v in m.graph.output if v.name == name] for m in (case.model, proto)
    )
    assert old == new
    assert [v.version for v in proto.opset_import] == [
        v.version for v in case.model.opset_import
    ]


@pytest.mark.parametrize("case", WITH_LABELS, indirect=True)
def test_labels_follow_the_calibrated_scores(case):
    X = draw_inputs(case)
    # The vector map below turns the order of the classes around.
    pipe = fit(case, X, Backwards())
    results = run(calibrate_onnx_model(case.model, pipe), X)
    columns = pipe.predict_proba(X).argmax(axis=1)
    known = run(case.model, X)["label"]
    if known.dtype.kind in "OU":
        expected = np.array(NAMES, dtype=object)[columns]
    else:
        expected = columns if known.max() < 10 else 10 * (columns + 1)
    assert_array_equal(results["label"], expected)


class Backwards(TemperatureScaling):
    """Temperature -1: the least likely class becomes the most likely one."""

    keeps_class = False

    def fit_calibration(self, data):
        self.temperature_ = -1.0


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), Backwards()])
def test_beside_the_original_outputs_nothing_changes(case, calibrator):
    X = draw_inputs(case)
    pipe = fit(case, X, calibrator)
    proto = calibrate_onnx_model(case.model, pipe, keep_original=True)
    before, after = run(case.model, X), run(proto, X)
    for name, values in before.items():
        if isinstance(values, list):
            assert values == after[name]
        else:
            assert_array_equal(values, after[name])
    name = served(case) or pipe[0].readout_.score
    scores = as_matrix(after[f"{name}_calibrated"])
    expected = meant(case, pipe, X)
    if scores.shape[1] == 1:
        expected = expected[:, 1:]
    # The runtime may keep more digits inside a half-precision model than it shows.
    half = case is CASES["half_precision"]
    assert_allclose(scores, expected, atol=1e-3 if half else 1e-6)
    if "label" in before:
        changed = after["label_calibrated"] != before["label"]
        assert changed.any() == isinstance(calibrator, Backwards)


def test_a_bare_calibrator_is_written_like_its_pipeline(case):
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling())
    output = case.output
    bare = calibrate_onnx_model(case.model, pipe[-1], output=output)
    assert bare == calibrate_onnx_model(case.model, pipe)


def test_the_calibration_is_recorded():
    case = CASES["softmax"]
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling(objective="focal", gamma=0.5))
    proto = calibrate_onnx_model(case.model, pipe)
    again = calibrate_onnx_model(proto, pipe)
    (entry,) = again.metadata_props
    content = json.loads(entry.value)
    assert entry.key == "skcalib.calibration"
    assert content["method"] == "TemperatureScaling"
    assert content["params"]["gamma"] == 0.5
    assert content["learned"]["temperature_"] == pipe[-1].temperature_
    assert content["classes"] == [0, 1, 2, 3]


@pytest.mark.parametrize("rule", ["best", "stack"])
def test_the_note_of_a_search_says_what_was_chosen(rule):
    case = CASES["softmax"]
    X = draw_inputs(case)
    candidates = [TemperatureScaling(), VectorScaling()]
    pipe = fit(case, X, CalibratorSearch(candidates, rule=rule, cv=2))
    (entry,) = calibrate_onnx_model(case.model, pipe).metadata_props
    learned = json.loads(entry.value)["learned"]
    assert learned["best_name_"] == pipe[-1].best_name_
    assert "best_index_" not in learned
    if rule == "stack":
        assert learned["weights_"] == pipe[-1].weights_


def test_labels_of_logits_before_a_cast_follow():
    nodes = [
        node("Cast", ["x"], ["h"], to=HALF),
        node("MatMul", ["h", "W"], ["z"]),
        node("Cast", ["z"], ["single"], to=FLOAT),
        node("Softmax", ["single"], ["p"], axis=1),
        node("ArgMax", ["z"], ["label"], axis=1, keepdims=0),
    ]
    weight = {"W": WEIGHT.astype(np.float16)}
    proto = model(nodes, [*PROBA, info("label", ["n"], INT64)], constants=weight)
    case, X = Case(proto, "logits", "single"), draw_inputs(None)
    results = run(calibrate_onnx_model(proto, fit(case, X, Backwards())), X)
    assert_array_equal(results["label"], results["p"].argmax(axis=1))
    assert (results["label"] != run(proto, X)["label"]).any()


@pytest.mark.parametrize("keep_original", [False, True])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("of", ["p", "z4"])
def test_labels_of_scores_with_more_axes_keep_theirs(of, keepdims, keep_original):
    nodes = [
        LINEAR,
        node("Reshape", ["z", "shape"], ["z4"]),
        node("Softmax", ["z4"], ["p"], axis=1),
        node("ArgMax", [of], ["top"], axis=1, keepdims=keepdims),
        node("Cast", ["top"], ["short"], to=onnx.TensorProto.INT32),
    ]
    shape = ["n", 1, 1, *[1] * keepdims]
    outputs = [
        info("p", ["n", K, 1, 1]),
        info("top", shape, INT64),
        info("short", shape, onnx.TensorProto.INT32),
    ]
    constants = {"shape": np.array([-1, K, 1, 1])}
    case = Case(model(nodes, outputs, constants=constants), "logits", "z4")
    X = draw_inputs(None)
    pipe = fit(case, X, Backwards())
    results = run(
        calibrate_onnx_model(case.model, pipe, keep_original=keep_original), X
    )
    expected = pipe.predict(X).reshape(-1, *shape[1:])
    for name in ("top", "short"):
        labels = results[f"{name}_calibrated" if keep_original else name]
        assert_array_equal(labels, expected)


def test_labels_of_logits_of_more_axes_are_warned_of():
    nodes = [
        LINEAR,
        node("Unsqueeze", ["z", "axis"], ["z3"]),
        node("Squeeze", ["z3", "axis"], ["z2"]),
        node("Softmax", ["z2"], ["p"], axis=1),
        node("ArgMax", ["z3"], ["label"], axis=2),
    ]
    outputs = [*PROBA, info("label", ["n", 1, 1], INT64)]
    proto = model(nodes, outputs, constants={"axis": np.array([1])})
    pipe = fit(Case(proto, "logits", "z2"), draw_inputs(None), TemperatureScaling())
    with pytest.warns(UserWarning, match=r"\['label'\] look like labels"):
        calibrate_onnx_model(proto, pipe)


def test_what_is_no_longer_needed_is_dropped():
    case = CASES["softmax"]
    pipe = fit(case, draw_inputs(case), TemperatureScaling())
    proto = calibrate_onnx_model(case.model, pipe)
    softmaxes = [made for made in proto.graph.node if made.op_type == "Softmax"]
    assert len(softmaxes) == 1


def test_labels_that_cannot_follow_are_warned_of():
    nodes = [
        LINEAR,
        SOFTMAX,
        node("TopK", ["p", "k"], ["largest", "top"], axis=1),
        node("Squeeze", ["top", "axis"], ["label"]),
    ]
    constants = {"k": np.array([1]), "axis": np.array([1])}
    proto = model(nodes, [*PROBA, info("label", ["n"], INT64)], constants=constants)
    case = Case(proto, "logits", "z")
    pipe = fit(case, draw_inputs(case), TemperatureScaling())
    with pytest.warns(UserWarning, match=r"\['label'\] look like labels"):
        calibrate_onnx_model(proto, pipe)
    calibrate_onnx_model(proto, pipe, keep_original=True)


@pytest.mark.parametrize("of", ["p", "z"])
def test_outputs_made_of_the_scores_are_warned_of(of):
    largest = node("ReduceMax", [of], ["confidence"], axes=[1], keepdims=0)
    features = node("Relu", ["x"], ["f"])
    outputs = [*PROBA, info("confidence", ["n"]), info("f", ["n", D])]
    proto = model([LINEAR, SOFTMAX, largest, features], outputs)
    pipe = fit(Case(proto, "logits", "z"), draw_inputs(None), TemperatureScaling())
    with pytest.warns(UserWarning, match=r"\['confidence'\] .* made of the scores"):
        calibrate_onnx_model(proto, pipe)
    calibrate_onnx_model(proto, pipe, keep_original=True)


def test_a_decision_on_the_way_to_the_scores_is_no_label():
    # A gate chooses one of the rows of `shift`, which is added to the scores.
    nodes = [
        LINEAR,
        node("ArgMax", ["z"], ["expert"], axis=1, keepdims=0),
        node("Gather", ["shift", "expert"], ["moved"], axis=0),
        node("Add", ["z", "moved"], ["sum"]),
        node("Softmax", ["sum"], ["p"], axis=1),
    ]
    constants = {"shift": WEIGHT[:K, :K]}
    outputs = [*PROBA, info("expert", ["n"], INT64)]
    case = Case(model(nodes, outputs, constants=constants), "logits", "sum")
    X = draw_inputs(case)
    pipe = fit(case, X, Backwards())
    with pytest.warns(UserWarning, match="look like labels"):
        proto = calibrate_onnx_model(case.model, pipe)
    results = run(proto, X)
    assert_allclose(results["p"], pipe.predict_proba(X), atol=1e-6)
    assert_array_equal(results["expert"], run(case.model, X)["expert"])


def test_labels_of_other_scores_follow_if_they_name_the_classes():
    # As in naive Bayes: the label is the largest joint likelihood.
    nodes = [
        LINEAR,
        node("ReduceLogSumExp", ["z"], ["total"], axes=[1]),
        node("Sub", ["z", "total"], ["log_p"]),
        node("Exp", ["log_p"], ["p"]),
        node("ArgMax", ["z"], ["top"], axis=1, keepdims=0),
        node("Gather", ["names", "top"], ["label"], axis=0),
    ]
    constants = {"names": np.array(NAMES, dtype=object)}
    outputs = [*PROBA, info("label", ["n"], STRING)]
    case = Case(model(nodes, outputs, constants=constants), "proba", "p")
    X = draw_inputs(case)
    pipe = fit(case, X, Backwards())
    results = run(calibrate_onnx_model(case.model, pipe), X)
    expected = np.array(NAMES)[results["p"].argmax(axis=1)]
    assert_array_equal(results["label"], expected)
    assert (results["label"] != run(case.model, X)["label"]).any()


def test_a_calibrator_for_other_columns_is_refused():
    case = CASES["softmax"]
    other = TemperatureScaling().fit(np.eye(3), [0, 1, 1])
    with pytest.raises(ValueError, match=r"has 4 columns of logits but .* on 3"):
        calibrate_onnx_model(case.model, other)


def test_a_longer_pipeline_is_refused():
    case = CASES["softmax"]
    pipe = make_pipeline(OnnxLogits(case.model), "passthrough", TemperatureScaling())
    with pytest.raises(TypeError, match="one of exactly two steps"):
        calibrate_onnx_model(case.model, pipe)


def test_something_else_than_a_calibrator_is_refused():
    with pytest.raises(TypeError, match="no calibrator of skcalib"):
        calibrate_onnx_model(CASES["softmax"].model, object())


@pytest.mark.parametrize(
    ("nodes", "outputs", "match"),
    [
        (
            [node("Cast", ["x"], ["i"], to=INT64)],
            [info("i", ["n", D], INT64)],
            "no classif",
        ),
        (
            [node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["b"])],
            [info("a", ["n", D]), info("b", ["n", D])],
            "several outputs that could be its scores",
        ),
        (
            [node("Reshape", ["x", "shape"], ["a"])],
            [info("a", ["n", D, "h", "w"])],
            "shape .* for 42 rows",
        ),
        ([LINEAR, node("Sigmoid", ["z"], ["p"])], PROBA, "4 independent sigmoids"),
        (
            [linear_classifier("LOGISTIC")],
            [info("raw", ["n", K])],
            "4 independent sigmoids",
        ),
        ([forest(post_transform="LOGISTIC")], PROBA, "4 independent sigmoids"),
    ],
)
def test_a_model_that_is_no_classifier_is_refused(nodes, outputs, match):
    constants = {"shape": np.array([-1, 1, 2, 3])}
    proto = model(nodes, outputs, constants=constants)
    with pytest.raises(ModelFormatError, match=match):
        OnnxLogits(proto).fit(draw_inputs(None))


def test_independent_sigmoids_are_read_before_the_sigmoid_if_named():
    proto = model([LINEAR, node("Sigmoid", ["z"], ["p"])], PROBA)
    X = draw_inputs(None)
    logits = OnnxLogits(proto, output="z").fit_transform(X)
    assert_allclose(logits, X @ WEIGHT, atol=1e-5)


def test_half_precision_probabilities_are_refused():
    nodes = [
        LINEAR,
        SOFTMAX,
        node("Cast", ["p"], ["h"], to=HALF),
        node("Relu", ["h"], ["r"]),
    ]
    proto = model(nodes, [info("r", ["n", K], HALF)])
    with pytest.raises(ModelFormatError, match="half precision, too coarse"):
        OnnxLogits(proto).fit(draw_inputs(None))


def test_old_opsets_are_refused():
    case = CASES["softmax"]
    proto = model([LINEAR, SOFTMAX], PROBA, opset=8)
    pipe = fit(case, draw_inputs(case), TemperatureScaling())
    with pytest.raises(ValueError, match="opset 8; writing a calibration needs 9"):
        calibrate_onnx_model(proto, pipe[-1])


def test_an_unknown_output_is_refused():
    with pytest.raises(ModelFormatError, match=r"no output or inner tensor named 'q'"):
        OnnxLogits(CASES["softmax"].model, output="q").fit(draw_inputs(None))


@pytest.mark.parametrize("keep_original", [False, True])
def test_the_probabilities_are_added_on_request(case, keep_original):
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling())
    proto = calibrate_onnx_model(
        case.model, pipe, keep_original=keep_original, add_probabilities=True
    )
    (entry,) = proto.metadata_props
    outputs = json.loads(entry.value)["outputs"]
    half = case is CASES["half_precision"]
    found = run(proto, X)
    expected = pipe.predict_proba(X)
    assert_allclose(found[outputs["probabilities"]], expected, atol=1e-6 + 1e-3 * half)
    assert outputs["scores"] in found


def test_what_the_output_holds_stands_in_the_metadata():
    def holds(name):
        case = CASES[name]
        X = draw_inputs(case)
        proto = calibrate_onnx_model(case.model, fit(case, X, TemperatureScaling()))
        outputs = json.loads(proto.metadata_props[0].value)["outputs"]
        return outputs["scores"], outputs["meaning"], outputs["probabilities"]

    assert holds("logits") == ("z", "logits", None)
    assert holds("softmax") == ("p", "proba", None)
    assert holds("log_softmax") == ("p", "log_proba", None)
    assert holds("forest") == ("p", "proba", None)
    assert holds("labels_only") == ("probabilities", "proba", None)


@pytest.mark.parametrize("name", ["logits", "softmax", "log_softmax", "forest"])
def test_what_was_calibrated_can_be_calibrated_again(name):
    case = CASES[name]
    X = draw_inputs(case)
    first = calibrate_onnx_model(case.model, fit(case, X, BetaCalibration()))
    again = Case(first, "", "")
    pipe = fit(again, X, TemperatureScaling())
    second = calibrate_onnx_model(first, pipe)
    scores = run(second, X)[served(case)].astype(float)
    if name == "log_softmax":
        scores = np.exp(scores)
    elif name == "logits":
        assert (scores < 0).any()
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert_allclose(scores, pipe.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("keep_original", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_calibrating_again_warns_of_the_other_output_of_the_first_time(
    keep_original, is_first
):
    case = CASES["logits"]
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling())
    beside = {"keep_original": keep_original, "add_probabilities": True}
    first = calibrate_onnx_model(case.model, pipe, **beside)
    both = ["z_calibrated" if keep_original else "z", "probabilities"]
    named, other = both if is_first else reversed(both)
    again = Case(first, "", "", output=named)
    pipe = fit(again, X, VectorScaling())
    with pytest.warns(UserWarning, match=rf"The outputs \['{other}'\] look like"):
        second = calibrate_onnx_model(first, pipe)
    assert_array_equal(run(second, X)[other], run(first, X)[other])


def test_one_column_of_log_odds_stays_one():
    proto = model(
        [node("MatMul", ["x", "B"], ["z"])],
        [info("z", ["n", 1])],
        constants={"B": BINARY},
    )
    case = Case(proto, "logits", "z")
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling())
    log_odds = run(calibrate_onnx_model(proto, pipe), X)["z"]
    assert log_odds.shape == (len(X), 1)
    assert_allclose(log_odds[:, 0], pipe.decision_function(X), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_probability_of_zero_has_a_finite_logit():
    # Histogram binning gives a class probability 0 in bins without hits.
    case = CASES["logits"]
    X = draw_inputs(case)
    calibrator = HistogramBinning(classes=[0, 1, 2, 3])
    pipe = make_pipeline(OnnxLogits(case.model), calibrator)
    pipe.fit(X, np.arange(len(X)) % 3)
    logits = run(calibrate_onnx_model(case.model, pipe), X)["z"].astype(float)
    assert np.isfinite(logits).all()
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba = shifted / shifted.sum(axis=1, keepdims=True)
    assert_allclose(proba, pipe.predict_proba(X), atol=1e-6)
    assert (logits[pipe.predict_proba(X) == 0] < -200).all()


@pytest.mark.parametrize("through", ["z", "copy"])
def test_an_output_of_the_logits_behind_the_probabilities_is_calibrated_too(through):
    nodes = [LINEAR, SOFTMAX, node("Identity", ["z"], ["copy"])]
    outputs = [*PROBA, info(through, ["n", K])]
    case = Case(model(nodes, outputs), "logits", "z")
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling())
    before = run(case.model, X)
    after = run(calibrate_onnx_model(case.model, pipe), X)
    expected = before[through] / pipe[-1].temperature_
    assert_allclose(after[through], expected, rtol=1e-5)
    assert_allclose(after["p"], pipe.predict_proba(X), atol=1e-6)
    kept = run(calibrate_onnx_model(case.model, pipe, keep_original=True), X)
    assert_array_equal(kept[through], before[through])


def test_the_one_logit_behind_two_columns_of_probabilities_stays_one():
    case = CASES["sigmoid_two_columns"]
    proto = onnx.ModelProto.FromString(case.model.SerializeToString())
    proto.graph.output.append(info("z", ["n", 1]))
    X = draw_inputs(None)
    pipe = fit(Case(proto, "log_odds", "z"), X, TemperatureScaling())
    log_odds = run(calibrate_onnx_model(proto, pipe), X)["z"]
    assert_allclose(log_odds[:, 0], pipe.decision_function(X), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_logits_laid_out_otherwise_than_a_row_a_sample_are_warned_of(axis):
    op = ["Squeeze", "Unsqueeze"][axis]
    nodes = [LINEAR, SOFTMAX, node(op, ["z", "axis"], ["logits"])]
    outputs = [info("p", [1, K]), info("logits", [[K], [1, 1, K]][axis])]
    constants = {"axis": np.array([axis])}
    inputs = [info("x", [1, D])]
    proto = model(nodes, outputs, inputs=inputs, constants=constants)
    X = draw_inputs(None)
    pipe = fit(Case(proto, "logits", "z", "p"), X, TemperatureScaling())
    with pytest.warns(UserWarning, match=r"\['logits'\] .* made of the scores"):
        calibrated = calibrate_onnx_model(proto, pipe)
    session = ort.InferenceSession(calibrated.SerializeToString())
    served, logits = session.run(None, {"x": X[:1]})
    assert_allclose(served, pipe.predict_proba(X[:1]), atol=1e-6)
    assert_allclose(logits.ravel(), pipe[0].transform(X[:1])[0], atol=1e-6)


def test_a_function_called_zipmap_is_none():
    opset = onnx.helper.make_opsetid("", 17)
    body = node("Softmax", ["z"], ["p"], axis=1)
    function = onnx.helper.make_function("my", "ZipMap", ["z"], ["p"], [body], [opset])
    proto = model([LINEAR, node("ZipMap", ["z"], ["p"], domain="my")], PROBA)
    proto.functions.append(function)
    proto.opset_import.append(onnx.helper.make_opsetid("my", 1))
    case = Case(proto, "", "p")
    X = draw_inputs(case)
    pipe = fit(case, X, TemperatureScaling())
    served = run(calibrate_onnx_model(proto, pipe), X)["p"]
    assert_allclose(served, pipe.predict_proba(X), atol=1e-6)


def test_trees_that_serve_scores_alone_are_read_as_any_operator():
    # The newer operator of ai.onnx.ml names no classes.
    stumps = onnx.helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["z"],
        domain="ai.onnx.ml",
        n_targets=3,
        aggregate_function=1,
        tree_roots=[0, 1, 2],
        nodes_featureids=[0, 1, 2],
        nodes_modes=onnx.numpy_helper.from_array(np.zeros(3, dtype=np.uint8)),
        nodes_splits=onnx.numpy_helper.from_array(np.zeros(3, dtype=np.float32)),
        nodes_truenodeids=[0, 2, 4],
        nodes_trueleafs=[1, 1, 1],
        nodes_falsenodeids=[1, 3, 5],
        nodes_falseleafs=[1, 1, 1],
        leaf_targetids=[0, 1, 1, 2, 2, 0],
        leaf_weights=onnx.numpy_helper.from_array(np.float32([1, 0.5, 1, -1, 1, 2])),
    )
    label = node("ArgMax", ["z"], ["label"], axis=1, keepdims=0)
    outputs = [info("z", ["n", 3]), info("label", ["n"], INT64)]
    proto = model([stumps, label], outputs)
    proto.opset_import[1].version = 5
    X = draw_inputs(None)
    pipe = fit(Case(proto, "logits", "z"), X, Backwards())
    results = run(calibrate_onnx_model(proto, pipe), X)
    assert_allclose(results["z"], pipe.decision_function(X), atol=1e-6)
    assert_array_equal(results["label"], pipe.predict(X))
    del proto.graph.output[1]
    assert_allclose(OnnxLogits(proto).fit_transform(X), pipe[0].transform(X))


def test_two_columns_of_trees_take_a_calibrator_of_their_difference():
    # onnxruntime says nothing of how wide the scores before a ZipMap are.
    trees = forest(np.array([[4, 1], [2, 3], [3, 2], [1, 4]]) / 10, labels=(10, 20))
    proto = model(
        [trees, zipmap(classlabels_int64s=[10, 20])],
        [info("label", ["n"], INT64), maps_info()],
    )
    X = np.random.default_rng(0).normal(size=(40, D)).astype(np.float32)
    before = as_matrix(run(proto, X)["maps"])
    assert_allclose(before.sum(axis=1), 1)
    difference = np.log(before[:, 1]) - np.log(before[:, 0])
    y = np.where(np.arange(40) % 4, (difference > 0), np.arange(40) % 2)
    ts = TemperatureScaling().fit(difference, y)
    results = run(calibrate_onnx_model(proto, ts), X)
    assert_allclose(as_matrix(results["maps"]), ts.predict_proba(difference), atol=1e-6)
    assert_array_equal(results["label"], np.where(difference > 0, 20, 10))


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), VectorScaling()])
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_two_columns"])
def test_one_sigmoid_takes_a_calibrator_of_two_log_probabilities(name, calibrator):
    # As MLPClassifier gives them, which has predict_log_proba alone.
    case, X = CASES[name], draw_inputs(None)
    z = X @ BINARY
    rows = -np.logaddexp(0, np.hstack([z, -z]))
    noise = np.random.default_rng(2).logistic(size=len(X))
    calibrator = clone(calibrator).fit(rows, (z[:, 0] / 2 + noise > 0).astype(int))
    proba = as_matrix(run(calibrate_onnx_model(case.model, calibrator), X)["p"])
    expected = calibrator.predict_proba(rows)[:, -proba.shape[1] :]
    assert_allclose(proba, expected, atol=1e-6)
