"""Tensors are calibrated and judged where they lie.

Without a GPU, the path of another device is taken by tensors of the CPU that are said
to lie elsewhere: every step of it is the same, but for the device.
"""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skcalib import (
    BetaCalibration,
    CalibratorSearch,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
    metrics,
)
from skcalib._blocks import _memory
from skcalib.datasets import make_logits

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

ON_DEVICE = [
    TemperatureScaling(),
    TemperatureScaling(objective="brier"),
    TemperatureScaling(objective="focal"),
    EnsembleTemperatureScaling(),
    VectorScaling(),
    MatrixScaling(off_diagonal_penalty=0.1, intercept_penalty=0.1),
    MatrixScaling(cv=2),
    DirichletCalibration(off_diagonal_penalty=0.1, intercept_penalty=0.1),
    StructuredMatrixScaling(),
    PlattScaling(),
    PlattScaling(fit_on="logits"),
    BetaCalibration(),
    OrderPreservingScaling(),
    HistogramBinning(),
]
ON_HOST = [
    IsotonicCalibration(),
    SplineCalibration(),
    VennAbersCalibration(),
    HistogramBinning(strategy="quantile"),
    TemperatureScaling(objective="ece"),
    CalibratorSearch(),
]
METRICS = [
    "expected_calibration_error",
    "adaptive_expected_calibration_error",
    "maximum_calibration_error",
    "root_mean_squared_calibration_error",
    "static_calibration_error",
    "ks_calibration_error",
    "kuiper_calibration_error",
    "predictive_entropy",
]


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    if request.param == "device":
        monkeypatch.setattr(_memory, "HOST", ())
    return request.param


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(_memory, "HOST", ())


def name_of(calibrator):
    return str(calibrator).replace("\n", "")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("place", "calibrator"),
    [("host", VectorScaling()), *(("device", c) for c in ON_DEVICE)],
    indirect=["place"],
    ids=name_of,
)
def test_a_tensor_gives_what_an_array_gives(place, calibrator, dtype):
    logits, y = make_logits(600, 4, random_state=0)
    weight = np.random.default_rng(0).uniform(0, 2, 600)
    weight[::7] = 0
    array = logits.astype(dtype)
    expected = calibrator.fit(array, y, sample_weight=weight).predict_proba(array)
    labels = calibrator.predict(array)
    X = torch.tensor(array, requires_grad=True)
    calibrator.fit(X, torch.tensor(y), sample_weight=torch.tensor(weight))
    proba = calibrator.predict_proba(X)
    assert isinstance(proba, torch.Tensor)
    assert proba.dtype == X.dtype
    assert not proba.requires_grad
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    assert_allclose(proba.numpy(), expected, rtol=0, atol=tolerance)
    assert_array_equal(calibrator.predict(X).numpy(), labels)
    # What was fitted on tensors is as good as any: it holds none.
    pickled = pickle.dumps(calibrator)
    assert b"torch" not in pickled
    again = pickle.loads(pickled)  # noqa: S301
    assert_allclose(again.predict_proba(array), expected, rtol=0, atol=tolerance)


def test_top_versus_all_is_minimised_where_a_tensor_lies(on_device):
    logits, y = make_logits(600, 4, random_state=0)
    scaling = VectorScaling(objective="top")
    expected = scaling.fit(logits, y).predict_proba(logits)
    X = torch.tensor(logits)
    proba = scaling.fit(X, torch.tensor(y)).predict_proba(X)
    # A search by the loss alone ends where its rounding hides the rest.
    assert_allclose(proba.numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("calibrator", ON_HOST, ids=name_of)
def test_what_sorts_refuses_a_tensor_on_a_device(on_device, calibrator):
    logits, y = make_logits(100, 3, random_state=0)
    X = torch.tensor(logits)
    with pytest.raises(TypeError, match=r"not moved unasked. Pass (X|tensor)\.cpu\(\)"):
        calibrator.fit(X, torch.tensor(y))


@pytest.mark.parametrize(
    ("dtype", "read"),
    [
        ("float64", "float64"),
        ("float32", "float32"),
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("int64", "float64"),
    ],
)
def test_half_precisions_are_read_as_float32(place, dtype, read):
    logits, y = make_logits(400, 3, random_state=0)
    X = torch.tensor(logits).to(getattr(torch, dtype))
    array = X.to(getattr(torch, read)).numpy()
    expected = VectorScaling().fit(array, y)
    fitted = VectorScaling().fit(X, y)
    assert_allclose(fitted.coef_, expected.coef_, rtol=1e-6)
    proba = fitted.predict_proba(X)
    assert proba.dtype == getattr(torch, read)
    assert_allclose(proba.numpy(), expected.predict_proba(array), atol=1e-6)


def test_inference_mode_is_no_obstacle(place):
    logits, y = make_logits(200, 3, random_state=0)
    with torch.inference_mode():
        X = torch.tensor(logits)
        fitted = TemperatureScaling().fit(X, torch.tensor(y))
    assert isinstance(fitted.temperature_, float)
    assert_allclose(fitted.predict_proba(X).sum(dim=1).numpy(), 1)
    assert_allclose(fitted.fit(X, y).predict_proba(X).sum(dim=1).numpy(), 1)


def test_log_odds_are_the_columns_0_and_z(place):
    logits, y = make_logits(300, 2, random_state=0)
    z = logits[:, 1] - logits[:, 0]
    expected = BetaCalibration().fit(z, y).predict_proba(z)
    for X in (torch.tensor(z), torch.tensor(z[:, np.newaxis])):
        fitted = BetaCalibration().fit(X, torch.tensor(y))
        assert_allclose(fitted.predict_proba(X).numpy(), expected, atol=1e-12)
        scores = TemperatureScaling().fit(X, y).decision_function(X)
        assert scores.shape == (300,)


def test_labels_that_are_texts_stay_an_array(place):
    logits, y = make_logits(100, 3, random_state=0)
    labels = np.array(["ant", "bee", "cat"])[y]
    fitted = TemperatureScaling().fit(torch.tensor(logits), labels)
    expected = np.array(["ant", "bee", "cat"])[logits.argmax(axis=1)]
    assert_array_equal(fitted.predict(torch.tensor(logits)), expected)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_the_first_row_that_is_not_finite_is_named(place, value):
    logits, y = make_logits(100, 3, random_state=0)
    logits[41, 2] = value
    with pytest.raises(ValueError, match=f"row 41 holds {value}"):
        TemperatureScaling().fit(torch.tensor(logits), y)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (torch.zeros(3, 2, 2), ValueError, "X is a tensor of shape"),
        (torch.zeros(0, 2), ValueError, "X is a tensor of shape"),
        (torch.zeros(3, 2, dtype=torch.complex64), ValueError, "needs real numbers"),
        (torch.zeros(3, 2).to_sparse(), TypeError, r"Pass X\.to_dense\(\)"),
        (torch.zeros(3, 2, device="meta"), TypeError, "lies on meta, which holds no"),
        (torch.zeros(4, 2), ValueError, "inconsistent numbers of samples"),
    ],
)
def test_tensors_that_are_no_logits_are_refused(place, X, error, message):
    with pytest.raises(error, match=message):
        TemperatureScaling().fit(X, [0, 1, 1])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -2.0, 1.0], "negative value: -2.0 in row 1"),
        ([1.0, 2.0, np.nan], "NaN|holds nan in row 2"),
        ([0.0, 0.0, 0.0], "[zZ]ero"),
        ([[1.0, 1.0]] * 3, "1D|1d"),
        ([1.0, 0.0, 0.0], "y holds one class only: 0"),
    ],
)
def test_weights_are_looked_at_where_they_lie(place, weight, message):
    X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(X, [0, 1, 1], sample_weight=torch.tensor(weight))


def test_one_fit_holds_only_sums_of_rows_on_the_host(on_device, monkeypatch):
    from skcalib._blocks._device_array import DeviceArray

    logits, y = make_logits(5000, 5, random_state=0)
    sizes = []
    bring = DeviceArray.on_host

    def on_host(self):
        sizes.append(self.size)
        return bring(self)

    monkeypatch.setattr(DeviceArray, "on_host", on_host)
    X, codes = torch.tensor(logits), torch.tensor(y)
    for calibrator in (VectorScaling(), PlattScaling(), HistogramBinning()):
        calibrator.fit(X, codes)
    # The first rows, in which the typical size of a logit is looked for, are the most.
    assert sorted(sizes)[-1] <= 5000 * 5
    assert np.median(sizes) <= 100


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_tensors_are_those_of_arrays(place, name):
    logits, y = make_logits(2000, 5, random_state=0)
    weight = np.random.default_rng(0).uniform(0, 2, 2000)
    proba = torch.softmax(torch.tensor(logits), dim=1)
    function = getattr(metrics, name)
    expected = function(y, proba.numpy(), sample_weight=weight)
    found = function(torch.tensor(y), proba, sample_weight=torch.tensor(weight))
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-12)


def test_metrics_of_a_tensor_need_no_label_0(place):
    proba = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    y = np.random.default_rng(1).integers(1, 4, 200)
    expected = metrics.calibration_report(y, proba, n_bootstrap=0)
    report = metrics.calibration_report(y, torch.tensor(proba), n_bootstrap=0)
    for key, estimate in expected.items():
        assert report[key].value == pytest.approx(estimate.value, rel=1e-12)


def test_a_report_of_tensors_is_that_of_arrays(place):
    logits, y = make_logits(500, 4, random_state=0)
    proba = torch.softmax(torch.tensor(logits), dim=1)
    weight = np.where(np.arange(500) % 5, 1.0, 0.0)
    options = {"n_bootstrap": 20, "random_state": 0, "sample_weight": weight}
    expected = metrics.calibration_report(y, proba.numpy(), **options)
    report = metrics.calibration_report(torch.tensor(y), proba, **options)
    for key, estimate in expected.items():
        assert report[key].value == pytest.approx(estimate.value, rel=1e-12)
        assert report[key].low == pytest.approx(estimate.low, rel=1e-9, abs=1e-12)


def test_a_bad_row_of_probabilities_is_named(place):
    proba = torch.full((10, 4), 0.25)
    proba[6, 1] = -0.5
    with pytest.raises(ValueError, match=r"Row 6 of the probabilities holds -0\.5"):
        metrics.expected_calibration_error(np.zeros(10, int), proba)


def test_what_needs_probabilities_in_memory_says_so(on_device):
    proba = torch.full((10, 4), 0.25)
    y = np.arange(10) % 4
    with pytest.raises(TypeError, match=r"pass y_proba\.cpu\(\)"):
        metrics.static_calibration_error(y, proba, strategy="quantile")


def test_nothing_is_put_where_it_cannot_go(on_device):
    logits, y = make_logits(50, 3, random_state=0)
    X = torch.tensor(logits)
    fitted = TemperatureScaling().fit(X, y)
    with pytest.raises(TypeError, match="Leave out away"):
        fitted.predict_proba(X, out=np.empty((50, 3)))


def test_blocks_give_what_all_rows_at_once_give(on_device, monkeypatch):
    from skcalib._blocks import _tensor

    logits, y = make_logits(3000, 3, random_state=0)
    X = torch.tensor(logits)
    whole = VectorScaling().fit(X, y)
    monkeypatch.setattr(_tensor, "LARGER", 1)
    monkeypatch.setattr(_tensor, "BLOCK_ELEMENTS", 1 << 10)
    blocks = VectorScaling().fit(X, y)
    assert_allclose(blocks.coef_, whole.coef_, rtol=1e-10)
    assert_allclose(blocks.predict_proba(X).numpy(), whole.predict_proba(X).numpy())
