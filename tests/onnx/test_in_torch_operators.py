"""Each ONNX operator in torch, against onnxruntime and against finite differences."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from skcalib._onnx._files import open_model, parse_model  # noqa: E402
from skcalib._onnx._in_torch import differentiable_network  # noqa: E402, F401
from skcalib._onnx._in_torch._nodes import Graph  # noqa: E402
from skcalib._onnx._in_torch._plan import Compiler, run_steps  # noqa: E402
from skcalib._onnx._in_torch._registry import Place  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]

ML = "ai.onnx.ml"


class Case(NamedTuple):
    """One node: its input (an array or a shape), its other inputs, its attributes."""

    op: str
    x: Any
    others: tuple[Any, ...]
    attributes: dict[str, Any]
    opset: int
    domain: str
    output: int
    smooth: bool


def case(
    op, x=(2, 3, 4), *others, opset=17, domain="", output=0, smooth=True, **attributes
):
    return Case(op, x, others, attributes, opset, domain, output, smooth)


def single_node(c):
    """A model of one node; its last inputs are initializers."""
    value = onnx.helper.make_tensor_value_info
    names = ["x", *(f"c{i}" if a is not None else "" for i, a in enumerate(c.others))]
    made = max(c.output + 1, 2 if c.op == "TopK" else 1)
    outputs = [f"y{i}" for i in range(made)]
    node = onnx.helper.make_node(
        c.op, names, outputs, domain=c.domain, name="n", **c.attributes
    )
    constants = [
        onnx.numpy_helper.from_array(np.asarray(a), f"c{i}")
        for i, a in enumerate(c.others)
        if a is not None
    ]
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [value("x", 1, None)],
        [onnx.ValueInfoProto(name=outputs[c.output])],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", c.opset), onnx.helper.make_opsetid(ML, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def in_torch(model, dtype=torch.float32):
    """The model as a function of a tensor."""
    source = open_model(model)
    graph = Graph(parse_model(source), source)
    target = model.graph.output[0].name
    plan = Compiler(graph, ["x"]).plan(target)
    place = Place(dtype, torch.device("cpu"))
    constants = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in plan.buffers.items()
    }

    def run(x):
        values = {**plan.literals, **constants, 0: x}
        run_steps(plan.steps, values, place)
        return values[plan.slots[target]]

    return run


def in_onnxruntime(model, x):
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def drawn(x):
    if isinstance(x, np.ndarray):
        return x.astype(np.float32)
    return np.random.default_rng(0).normal(size=x).astype(np.float32)


def weights(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


POSITIVE = np.random.default_rng(2).uniform(0.2, 0.9, size=(2, 3, 4))
F32 = np.float32

ELEMENTWISE = [
    *(case(op) for op in ("Abs", "Neg", "Exp", "Sin", "Cos", "Tan", "Atan", "Sinh")),
    *(case(op) for op in ("Cosh", "Asinh", "Erf", "Relu", "Sigmoid", "Tanh")),
    *(case(op) for op in ("Softplus", "Softsign", "HardSwish", "Identity", "Elu")),
    *(case(op, POSITIVE) for op in ("Log", "Sqrt", "Reciprocal", "Asin", "Acos")),
    case("Atanh", POSITIVE),
    case("Acosh", 1.5 + POSITIVE),
    *(case(op, smooth=False) for op in ("Floor", "Ceil", "Sign")),
    case("Round", np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4]), smooth=False),
    case("Mish", opset=18),
    case("LeakyRelu", alpha=0.3),
    case("Elu", alpha=0.7),
    case("Celu", alpha=0.7),
    case("Selu"),
    case("Selu", alpha=1.2, gamma=0.8),
    case("ThresholdedRelu", alpha=0.4),
    case("HardSigmoid", alpha=0.3, beta=0.4),
    case("Gelu", opset=20),
    case("Gelu", opset=20, approximate="tanh"),
    case("Shrink", lambd=0.3, bias=0.1),
    case("PRelu", (2, 3, 4), weights(3, 1)),
    case("Add", (2, 3, 4), weights(3, 1)),
    case("Sub", (2, 3, 4), weights(4)),
    case("Mul", (2, 3, 4), weights(2, 1, 1)),
    case("Div", (2, 3, 4), 2 + POSITIVE.astype(F32)),
    case("Pow", POSITIVE, F32(2.5)),
    case("Pow", POSITIVE, ints(3)),
    case("Mod", POSITIVE, F32(0.35), fmod=1),
    case("Sum", (2, 3), weights(3), weights(2, 1)),
    case("Mean", (2, 3), weights(3), weights(2, 1)),
    case("Min", (2, 3), weights(3), weights(2, 1)),
    case("Max", (2, 3), weights(3), weights(2, 1)),
    case("Clip", (2, 3), F32(-0.4), F32(0.6)),
    case("Clip", (2, 3), None, F32(0.6)),
    case("Clip", (2, 3), min=-0.4, max=0.6, opset=6),
    case("Cast", to=7, smooth=False),
    case("CastLike", (2, 3), ints(1), smooth=False),
    case("Greater", (2, 3), F32(0.1), smooth=False),
    case("LessOrEqual", (2, 3), F32(0.1), smooth=False),
    case("Equal", np.array([1.0, 2.0]), F32(2), smooth=False),
    case("IsNaN", np.array([1.0, np.nan]), smooth=False),
    case("IsInf", np.array([1.0, -np.inf, np.inf]), detect_negative=0, smooth=False),
    *(
        case(op, axis=axis, opset=opset)
        for op in ("Softmax", "LogSoftmax")
        for axis, opset in ((1, 11), (1, 13), (-1, 13), (2, 12))
    ),
    case("Hardmax", axis=1, opset=11, smooth=False),
    case("Hardmax", axis=1, opset=13, smooth=False),
    case("Dropout", (2, 3), F32(0.5), opset=13),
    case("Dropout", (2, 3), ratio=0.5, opset=10),
]

SHAPES = [
    case("Shape", smooth=False),
    case("Shape", start=1, end=-1, smooth=False),
    case("Size", smooth=False),
    case("Reshape", (2, 3, 4), ints(0, -1, 2)),
    case("Reshape", (2, 0, 4), ints(0, 8), allowzero=1, smooth=False),
    *(case("Flatten", axis=axis) for axis in (0, 1, 2, 3, -1)),
    case("Squeeze", (2, 1, 4, 1), ints(1)),
    case("Squeeze", (2, 1, 4, 1)),
    case("Squeeze", (2, 1, 4, 1), axes=[3], opset=11),
    case("Unsqueeze", (2, 3), ints(-1, 0)),
    case("Unsqueeze", (2, 3), axes=[1], opset=11),
    case("Transpose", perm=[1, 2, 0]),
    case("Transpose"),
    case("Concat", (2, 3), weights(2, 2), axis=1),
    case("Split", (2, 5), ints(2, 3), axis=1, output=1),
    case("Split", (2, 5), split=[1, 4], axis=-1, output=1, opset=11),
    case("Split", (2, 5), axis=1, output=2, opset=18, num_outputs=3),
    case("Slice", (4, 5, 6), ints(1, -4), ints(3, 99), ints(0, -1)),
    case("Slice", (4, 5), ints(-1, 0), ints(-99, 5), ints(0, 1), ints(-2, 3)),
    case("Slice", (4, 5), ints(3), ints(1)),
    case("Slice", (4, 5), starts=[1], ends=[-1], axes=[1], opset=9),
    case("Expand", (3, 1), ints(2, 1, 4)),
    case("Expand", (2, 3, 4), ints(1)),
    case("Tile", (2, 3), ints(2, 2)),
    case("Pad", (2, 3, 4), ints(0, 1, 2, 0, -1, 0), F32(1.5)),
    case("Pad", (2, 3, 4), ints(0, 1, 2, 0, 2, 1), mode="reflect"),
    case("Pad", (2, 3, 4), ints(0, 1, 2, 1, 2, 1), mode="edge"),
    case("Pad", (2, 3, 4), ints(0, 1, 2, 1, 2, 1), mode="wrap", opset=19),
    case("Pad", (2, 3), ints(1, 2), F32(0), ints(-1), opset=18),
    case("Pad", (2, 3), pads=[0, 1, 0, 2], value=0.3, opset=2),
    case("DepthToSpace", (2, 8, 2, 3), blocksize=2),
    case("DepthToSpace", (2, 8, 2, 3), blocksize=2, mode="CRD"),
    case("SpaceToDepth", (2, 3, 4, 6), blocksize=2),
    case("EyeLike", (3, 4), k=1, dtype=1, smooth=False),
]

INDEXING = [
    case("Gather", (4, 5), ints(0, -1, 2)),
    case("Gather", (4, 5), np.array([[0, 2], [1, 1]]), axis=1),
    case("Gather", (4, 5), np.array(3), axis=-1),
    case("GatherElements", (2, 3), np.array([[0, -1], [2, 0]]), axis=1),
    case("GatherND", (2, 3, 4), np.array([[0, 1], [1, -1]])),
    case("GatherND", (2, 3, 4), np.array([[1], [-1]]), batch_dims=1),
    case("ScatterElements", (2, 3), np.array([[1], [-1]]), weights(2, 1), axis=1),
    case(
        "ScatterElements", (2, 3), np.array([[1], [0]]), weights(2, 1), reduction="add"
    ),
    case("ScatterND", (4, 3), np.array([[1], [3]]), weights(2, 3)),
    case("ScatterND", (4, 3), np.array([[1], [1]]), weights(2, 3), reduction="add"),
    case("TopK", (2, 5), ints(3)),
    case("TopK", (2, 5), ints(2), axis=0, largest=0, output=1, smooth=False),
    case("ArgMax", (2, 5), axis=1, keepdims=0, smooth=False),
    case("ArgMin", (2, 5), axis=0, select_last_index=1, smooth=False),
    case("CumSum", (2, 5), np.array(1)),
    case("CumSum", (2, 5), np.array(-1), exclusive=1, reverse=1),
    case("Trilu", (3, 4), np.array(1), upper=0),
    case("Trilu", (3, 4)),
    case("Compress", (3, 4), np.array([True, False, True]), axis=0),
    case("NonZero", np.array([[1.0, 0.0], [0.0, 2.0]]), smooth=False),
]

REDUCTIONS = [
    *(
        case(f"Reduce{op}", POSITIVE, axes=[1], keepdims=0, opset=11)
        for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")
    ),
    *(
        case(f"Reduce{op}", POSITIVE, ints(0, -1), opset=18)
        for op in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum")
    ),
    case("ReduceLogSumExp", (2, 3), ints(1), opset=18),
    case("ReduceSum", (2, 3), ints(1)),
    case("ReduceSum", (2, 3), noop_with_empty_axes=1),
    case("ReduceMean", (2, 3), keepdims=0),
]

IMAGE = (2, 4, 7, 6)
LAYERS = [
    case("Conv", IMAGE, weights(6, 4, 3, 3), weights(6), pads=[1, 1, 1, 1]),
    case("Conv", IMAGE, weights(6, 2, 3, 2), group=2, strides=[2, 1]),
    case("Conv", IMAGE, weights(6, 4, 3, 3), dilations=[2, 1], pads=[0, 1, 2, 0]),
    case("Conv", IMAGE, weights(6, 4, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", IMAGE, weights(6, 4, 3, 2), auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", IMAGE, weights(6, 4, 3, 2), auto_pad="VALID"),
    case("Conv", (2, 3, 9), weights(4, 3, 3), weights(4), pads=[2, 1]),
    case("Conv", (2, 3, 5, 5, 4), weights(4, 3, 3, 2, 2), pads=[1, 0, 0, 1, 0, 0]),
    case("ConvTranspose", IMAGE, weights(4, 3, 3, 3), weights(3), strides=[2, 2]),
    case(
        "ConvTranspose",
        IMAGE,
        weights(4, 3, 3, 3),
        weights(3),
        strides=[2, 3],
        pads=[1, 0, 1, 2],
        output_padding=[1, 1],
    ),
    case("ConvTranspose", IMAGE, weights(4, 2, 3, 3), group=2, dilations=[2, 2]),
    case(
        "ConvTranspose",
        IMAGE,
        weights(4, 3, 3, 3),
        strides=[2, 2],
        output_shape=[14, 12],
    ),
    case(
        "ConvTranspose",
        IMAGE,
        weights(4, 3, 3, 3),
        strides=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    case("Gemm", (2, 3), weights(3, 4), weights(4)),
    case("Gemm", (3, 2), weights(4, 3), weights(2, 4), transA=1, transB=1, alpha=0.5),
    case("Gemm", (2, 3), weights(4, 3), weights(2, 1), transB=1, beta=0.3),
    case("MatMul", (2, 3, 4), weights(4, 5)),
    case("Attention", (2, 2, 4, 3), weights(2, 2, 5, 3), weights(2, 2, 5, 3), opset=23),
    case(
        "Attention",
        (2, 4, 12),
        *(weights(2, 4, 6), weights(2, 4, 6)),
        opset=23,
        q_num_heads=4,
        kv_num_heads=2,
        is_causal=1,
    ),
    case("Einsum", (2, 3, 4), weights(4, 5), equation="bij, jk -> bik"),
    *(
        case(op, IMAGE, kernel_shape=[3, 2], **more)
        for op in ("MaxPool", "AveragePool", "LpPool")
        for more in (
            {"strides": [2, 2]},
            {"pads": [1, 1, 1, 1]},
            {"pads": [2, 0, 0, 1], "strides": [2, 1]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
        )
    ),
    *(
        case(
            op,
            IMAGE,
            kernel_shape=[3, 3],
            strides=[2, 2],
            ceil_mode=1,
            opset=19,
            **more,
        )
        for op in ("MaxPool", "AveragePool")
        for more in ({}, {"pads": [1, 1, 1, 1]})
    ),
    case("MaxPool", (2, 3, 9), kernel_shape=[3], dilations=[2], pads=[1, 1]),
    case("MaxPool", (2, 3, 5, 5, 4), kernel_shape=[2, 2, 2]),
    *(
        case(
            "AveragePool",
            IMAGE,
            kernel_shape=[3, 3],
            pads=pads,
            strides=[2, 2],
            count_include_pad=1,
            ceil_mode=ceil,
            opset=19,
        )
        for pads in ([1, 1, 1, 1], [1, 0, 1, 1])
        for ceil in (0, 1)
    ),
    case("GlobalAveragePool", IMAGE),
    case("GlobalMaxPool", IMAGE),
    case("GlobalLpPool", IMAGE, p=3),
]

NORMALISATION = [
    case(
        "BatchNormalization",
        IMAGE,
        weights(4),
        weights(4),
        weights(4),
        1 + weights(4) ** 2,
        epsilon=1e-3,
    ),
    case("InstanceNormalization", IMAGE, weights(4), weights(4), epsilon=1e-3),
    case("LayerNormalization", (2, 3, 4), weights(4), weights(4)),
    case("LayerNormalization", (2, 3, 4), weights(3, 4), axis=1, epsilon=1e-3),
    case("LayerNormalization", (2, 3, 4), weights(4), output=2),
    case("GroupNormalization", IMAGE, weights(2), weights(2), num_groups=2, opset=18),
    case("GroupNormalization", IMAGE, weights(4), weights(4), num_groups=2, opset=21),
    case("RMSNormalization", (2, 3, 4), weights(4), opset=23),
    case("MeanVarianceNormalization", IMAGE),
    case("LpNormalization", (2, 3), axis=1),
    case("LpNormalization", (2, 3), axis=0, p=1),
    case("LRN", IMAGE, size=3, alpha=0.1, beta=0.6, bias=1.5),
]


def resizing(scales=None, sizes=None, x=(1, 2, 5, 4), **attributes):
    scales = np.array(scales or [], dtype=np.float32)
    others = [np.array([], dtype=np.float32), scales]
    if sizes:
        others.append(np.array(sizes))
    return case(
        "Resize", x, *others, opset=19 if "axes" in attributes else 13, **attributes
    )


RESIZING = [
    *(
        resizing([1, 1, 2, 1.5], mode=mode, coordinate_transformation_mode=place)
        for mode in ("nearest", "linear", "cubic")
        for place in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    *(
        resizing([1, 1, 0.6, 1.7], mode="nearest", nearest_mode=rule)
        for rule in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")
    ),
    resizing(sizes=[1, 2, 9, 3], mode="linear"),
    resizing(sizes=[1, 2, 1, 3], mode="cubic"),
    resizing([1, 1, 2, 2], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    case(
        "Upsample", (1, 2, 3, 4), np.array([1, 1, 2, 3], F32), opset=9, mode="nearest"
    ),
    case("Upsample", (1, 2, 3, 4), np.array([1, 1, 2, 2], F32), opset=9, mode="linear"),
    case("Upsample", (1, 2, 3, 4), scales=[1.0, 1.0, 2.0, 2.0], opset=7),
    case("Resize", (1, 2, 3, 4), np.array([1, 1, 2, 2], F32), opset=10, mode="linear"),
]


def recurrent(op, gates, directions=1, states=False, **attributes):
    size = 3
    state = [weights(directions, 2, size) for _ in range(1 + (op == "LSTM"))]
    return case(
        op,
        (5, 2, 4),
        weights(directions, gates * size, 4),
        weights(directions, gates * size, size),
        weights(directions, 2 * gates * size),
        None,
        *(state if states else []),
        hidden_size=size,
        **attributes,
    )


RECURRENT = [
    recurrent("RNN", 1, states=True),
    recurrent("RNN", 1, activations=["Relu"]),
    recurrent("GRU", 3, states=True),
    recurrent("GRU", 3, linear_before_reset=1),
    recurrent("LSTM", 4, states=True),
    recurrent(
        "LSTM", 4, directions=2, direction="bidirectional", states=True, output=2
    ),
    recurrent("LSTM", 4, direction="reverse", output=1),
    case(
        "LSTM",
        (5, 2, 4),
        *(weights(1, 12, 4), weights(1, 12, 3), weights(1, 24), None),
        *(weights(1, 2, 3), weights(1, 2, 3), weights(1, 9)),
        hidden_size=3,
    ),
]

QUANTISED = [
    case("QuantizeLinear", (2, 3, 4), F32(0.05), np.uint8(120), smooth=False),
    case("QuantizeLinear", (2, 3, 4), F32(0.05), np.int8(-3), smooth=False),
    case(
        "QuantizeLinear",
        (2, 3, 4),
        np.array([0.1, 0.2, 0.3], F32),
        np.zeros(3, np.int8),
        axis=1,
        smooth=False,
    ),
]

CLASSICAL = [
    case("Scaler", (3, 2), domain=ML, offset=[0.5, 1.0], scale=[2.0, 3.0]),
    *(case("Normalizer", POSITIVE[0], domain=ML, norm=n) for n in ("MAX", "L1", "L2")),
    case(
        "Imputer",
        np.array([[1, np.nan], [3, 4]]),
        domain=ML,
        imputed_value_floats=[7.0, 8.0],
        replaced_value_float=float("nan"),
        smooth=False,
    ),
    case("ArrayFeatureExtractor", (3, 4), ints(0, 2), domain=ML),
    case("FeatureVectorizer", (3, 4), domain=ML, inputdimensions=[4]),
    case(
        "LinearRegressor",
        (3, 2),
        domain=ML,
        targets=2,
        coefficients=[1.0, 2.0, 3.0, 4.0],
        intercepts=[0.5, 0.6],
    ),
    *(
        case(
            "LinearClassifier",
            (3, 2),
            domain=ML,
            output=1,
            post_transform=transform,
            coefficients=[1.0, 2.0, 3.0, 4.0, -1.0, 0.3],
            intercepts=[0.5, 0.6, 0.1],
            classlabels_ints=[0, 1, 2],
        )
        for transform in ("NONE", "SOFTMAX", "LOGISTIC")
    ),
]

CASES = [
    *ELEMENTWISE,
    *SHAPES,
    *INDEXING,
    *REDUCTIONS,
    *LAYERS,
    *NORMALISATION,
    *RESIZING,
    *RECURRENT,
    *QUANTISED,
    *CLASSICAL,
]


def name_of(c):
    shape = c.x.shape if isinstance(c.x, np.ndarray) else c.x
    options = "-".join(f"{k}={v}" for k, v in c.attributes.items())
    return f"{c.op}-{c.opset}-{'x'.join(map(str, shape))}-{options}".replace(" ", "")


@pytest.mark.parametrize("c", CASES, ids=name_of)
def test_an_operator_agrees_with_onnxruntime(c):
    model = single_node(c)
    x = drawn(c.x)
    expected = in_onnxruntime(model, x)
    found = in_torch(model)(torch.from_numpy(x)).numpy()
    assert found.shape == expected.shape
    assert_allclose(found.astype(np.float64), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("c", [c for c in CASES if c.smooth], ids=name_of)
def test_the_gradient_of_an_operator_agrees_with_differences(c):
    function = in_torch(single_node(c), torch.float64)
    x = torch.from_numpy(drawn(c.x)).double().requires_grad_()
    value = function(x)
    rng = np.random.default_rng(3)
    weight = torch.from_numpy(rng.normal(size=tuple(value.shape)))
    (gradient,) = torch.autograd.grad((value * weight).sum(), x)
    direction = torch.from_numpy(rng.normal(size=tuple(x.shape)))
    with torch.no_grad():
        ahead, behind = (function(x + s * 1e-6 * direction) for s in (1, -1))
        slope = float(((ahead - behind) * weight).sum()) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(
        slope, rel=1e-5, abs=1e-6
    )
