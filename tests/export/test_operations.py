"""Each operation gives the same numbers in Python, ONNX and torch."""

from dataclasses import dataclass

import numpy as np
import pytest
from drawn_maps import K, constant_table, drawn_maps, linear_table
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator

from skcalib import _maps as ops
from skcalib._blocks import ArraySource
from skcalib._maps import CalibrationMap, Table
from skcalib.export import to_onnx, to_torch
from skcalib.export._tables import pack_tables

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")


class Tiny(BaseEstimator):
    """The least that an export needs of a calibrator."""

    def __init__(self, *operations, n_features=K, classes=None):
        self._map = CalibrationMap(*operations)
        self.n_features_in_ = n_features
        n_classes = max(2, n_features)
        self.classes_ = np.arange(n_classes) if classes is None else classes

    def fit(self, X, y=None):
        return self

    def get_params(self, deep=True):
        return {}

    def calibration_map(self):
        return self._map

    def python(self, logits):
        columns = logits
        if self.n_features_in_ == 1:
            columns = np.hstack([np.zeros_like(logits), logits])
        return ops.evaluate(self._map, ArraySource(columns))

    def onnx(self, logits):
        model = to_onnx(self, dtype=logits.dtype)
        return run(model, logits)[0]

    def torch(self, logits):
        with torch.no_grad():
            return to_torch(self)(torch.from_numpy(logits)).numpy()


def run(model, logits):
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"logits": logits})


NAMES = sorted(drawn_maps(np.random.default_rng(0)))
EXTREME = np.array(
    [
        [1e4, -1e4, 0, 3, 2, 1, 0],
        [-1e30, 0, 0, 0, 0, 0, 0],
        [1e30, 1, 2, 3, 4, 5, 6],
        [0, 0, 0, 0, 0, 0, 0],
        [1e30, 1e30, 1e30, 1e30, 1e30, 1e30, 1e30],
        [3, 3, 1, 1, 1, 1, 1],
    ]
)


BACKENDS = [
    pytest.param("onnx", marks=pytest.mark.onnx),
    pytest.param("torch", marks=pytest.mark.torch),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_exports_give_the_numbers_of_python(backend, name, seed, dtype, atol):
    rng = np.random.default_rng(seed)
    calibrator = Tiny(*drawn_maps(rng)[name])
    logits = rng.uniform(-50, 50, (200, K)).astype(dtype)
    logits[:100] /= 20
    proba = getattr(calibrator, backend)(logits)
    assert proba.dtype == dtype
    assert_allclose(proba, calibrator.python(logits), rtol=0, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_give_the_same_normalised_rows(backend, name, dtype):
    calibrator = Tiny(*drawn_maps(np.random.default_rng(0))[name])
    logits = EXTREME.astype(dtype)
    if "matrix" in name or name == "log_of_mixture":
        logits = logits[np.abs(logits).max(axis=1) < 1e5]
    proba = getattr(calibrator, backend)(logits)
    if "column" not in name:  # labels that exclude nothing
        assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert_allclose(proba, calibrator.python(logits), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_nan_becomes_no_probability(backend, name):
    calibrator = Tiny(*drawn_maps(np.random.default_rng(0))[name])
    gaps = np.vstack([np.eye(K, dtype=bool), np.ones(K, dtype=bool)])
    logits = np.tile(np.linspace(-1, 1, K), (2 * len(gaps) + 1, 1))
    logits[1::2][gaps] = np.nan
    missing = np.isnan(getattr(calibrator, backend)(logits))
    assert missing[1::2][gaps].all()
    assert not missing[::2].any()
    if "column" not in name:
        assert missing[1::2].all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_knots_of_flat_stretches_are_left_out(backend):
    knots = np.arange(1000.0)
    values = np.repeat([0.1, 0.4, 0.4, 0.7, 0.9], 200)
    full = Table(knots, values, "linear")
    assert pack_tables([full]).knots.shape == (1, 15)
    calibrator = Tiny(ops.Lookup((full,)), n_features=K)
    logits = np.linspace(-10, 1010, 300 * K).reshape(300, K)
    proba = getattr(calibrator, backend)(logits)
    assert_allclose(proba, calibrator.python(logits), rtol=0, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_a_table_is_exact_at_and_beside_its_knots(backend, kind):
    rng = np.random.default_rng(0)
    table = {"linear": linear_table, "constant": constant_table}[kind](rng, 37)
    knots = np.concatenate(
        [
            np.nextafter(table.knots, -np.inf),
            table.knots,
            np.nextafter(table.knots, np.inf),
            [-1e300, 1e300],
        ]
    )
    logits = np.stack([np.zeros_like(knots), knots], axis=1)
    tables = (ops.Table(np.zeros(1), np.ones(2), "constant"), table)
    calibrator = Tiny(ops.Lookup(tables), n_features=2)
    exact = table.kind == "constant"
    assert_allclose(
        getattr(calibrator, backend)(logits),
        calibrator.python(logits),
        rtol=0,
        atol=0 if exact else 1e-14,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_column_is_the_log_odds_of_the_second_class(backend):
    calibrator = Tiny(ops.Scale(0.5), ops.Softmax(), n_features=1)
    z = np.array([[-3.0], [0.0], [2.0], [1e30]])
    expected = 1 / (1 + np.exp(-z[:, 0] / 2))
    assert_allclose(getattr(calibrator, backend)(z)[:, 1], expected, rtol=1e-12)


@pytest.mark.onnx
@pytest.mark.parametrize(
    "classes",
    [
        np.array(["ant", "bee", "cat"]),
        np.array(["ant", "bee", "cat"], dtype=object),
        np.array([3, 5, 9], dtype=np.int32),
        np.array([0.5, 1.5, 2.5]),
    ],
)
def test_labels_come_from_the_classes(classes):
    calibrator = Tiny(ops.Softmax(), n_features=3, classes=classes)
    logits = np.array([[0, 2, 1], [3, 3, 1], [0, 0, 0.5]], dtype=np.float32)
    _, labels = run(to_onnx(calibrator), logits)
    assert labels.tolist() == classes[[1, 0, 2]].tolist()


def test_labels_without_a_type_in_onnx_are_refused():
    calibrator = Tiny(ops.Softmax(), n_features=2, classes=np.array([None, 1]))
    with pytest.raises(ValueError, match="Encode the labels before"):
        to_onnx(calibrator)


@dataclass(frozen=True)
class Halve(ops.Operation):
    """An operation that is not to be exported."""

    def in_numpy(self, x):
        return x / 2


@pytest.mark.parametrize(("backend", "title"), [("onnx", "ONNX"), ("torch", "torch")])
def test_an_operation_without_a_form_says_what_to_define(backend, title):
    calibrator = Tiny(Halve(), ops.Softmax())
    logits = np.ones((2, K))
    assert_allclose(calibrator.python(logits), 1 / K)
    with pytest.raises(
        TypeError, match=rf"Halve has no {title} form .* Define in_{backend}\(self, "
    ):
        {"onnx": to_onnx, "torch": to_torch}[backend](calibrator)


def test_other_types_than_single_and_double_are_refused():
    with pytest.raises(ValueError, match="is neither numpy"):
        to_onnx(Tiny(ops.Softmax()), dtype=np.float16)


@pytest.mark.slow
@pytest.mark.onnx
@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 18, 21])
def test_every_operation_runs_in_old_and_new_opsets(opset, monkeypatch):
    monkeypatch.setattr("skcalib.export._to_onnx._OPSET", opset)
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (50, K))
    for operation in drawn_maps(rng).values():
        calibrator = Tiny(*operation)
        assert_allclose(
            calibrator.onnx(logits), calibrator.python(logits), rtol=0, atol=1e-12
        )


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_every_torch_operation(name):
    calibrator = Tiny(*drawn_maps(np.random.default_rng(0))[name])
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(0, 2, (5, K))).requires_grad_()
    module = to_torch(calibrator)
    if "constant" in name or "knot" in name or "one_point" in name:
        # Flat pieces have the gradient zero, or none at all.
        assert torch.isfinite(module(logits)).all()
        return
    assert torch.autograd.gradcheck(module, logits, eps=1e-6, atol=1e-5)


@pytest.mark.torch
def test_a_torch_module_keeps_its_precision_and_follows_the_device():
    rng = np.random.default_rng(0)
    module = to_torch(Tiny(*drawn_maps(rng)["mixed_tables"]))
    assert not list(module.parameters())
    assert {b.dtype for b in module.half().buffers()} == {torch.float64}
    assert {b.device.type for b in module.to("meta").buffers()} == {"meta"}


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_types_come_out_in_single_precision(dtype):
    module = to_torch(Tiny(ops.Softmax()))
    assert module(torch.zeros(2, K, dtype=dtype)).dtype == torch.float32


@pytest.mark.torch
def test_a_torch_module_refuses_other_shapes_and_types():
    module = to_torch(Tiny(ops.Softmax()))
    with pytest.raises(ValueError, match="fitted on 7 columns"):
        module(torch.zeros(2, K + 1))
    with pytest.raises(TypeError, match="floating point is needed"):
        module(torch.zeros(2, K, dtype=torch.int64))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mixed_tables", "gap_power"])
def test_a_torch_module_can_be_saved_and_loaded(name, tmp_path):
    rng = np.random.default_rng(0)
    first, second = (to_torch(Tiny(*drawn_maps(rng)[name])) for _ in range(2))
    torch.save(first.state_dict(), tmp_path / "calibration.pt")
    state = torch.load(tmp_path / "calibration.pt", weights_only=True)
    second.load_state_dict(state)
    logits = torch.from_numpy(rng.normal(size=(5, K)))
    assert torch.equal(first(logits), second(logits))
