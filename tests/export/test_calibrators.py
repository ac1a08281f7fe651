"""Every calibrator gives the same probabilities in Python, ONNX and torch."""

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_allclose, assert_array_equal

from skcalib import (
    BetaCalibration,
    DensityRatioCalibration,
    IsotonicCalibration,
    PlattScaling,
    TemperatureScaling,
)
from skcalib.export import to_onnx, to_torch
from skcalib.meta import GroupCalibration

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.onnx, pytest.mark.torch]

# Density ratios look for neighbours; they have no map.
every_map = pytest.mark.parametrize(
    "calibrator",
    [
        calibrator
        for calibrator in [*CALIBRATORS, *VARIANTS]
        if not isinstance(calibrator, DensityRatioCalibration)
    ],
    ids=identify,
)


def exports(calibrator, logits):
    """Probabilities of the two exports, and the labels of the ONNX one."""
    model = to_onnx(calibrator, dtype=logits.dtype).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    proba, labels = session.run(None, {"logits": logits})
    with torch.no_grad():
        from_torch = to_torch(calibrator)(torch.from_numpy(logits)).numpy()
    return proba, from_torch, labels


def extreme(n_columns):
    rng = np.random.default_rng(3)
    large = rng.choice([-1e30, -1e4, -300, 0, 5, 300, 1e4], (60, n_columns))
    equal = np.repeat([[0], [7.5], [-1e4]], n_columns, axis=1)
    return np.vstack([large, equal])


@every_map
@pytest.mark.parametrize(("dtype", "near"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_exports_agree(calibrator, dtype, near, n_classes, draw_calibration_set):
    X, y = draw_calibration_set(400, n_classes)
    calibrator.fit(X.astype(dtype), y)
    rng = np.random.default_rng(1)
    new = rng.uniform(-50, 50, (300, n_classes)) * rng.uniform(0, 1, (300, 1))
    n_usual = len(X) + len(new)
    rows = np.vstack([X, new, extreme(n_classes)]).astype(dtype)
    expected = calibrator.predict_proba(rows)
    assert_allclose(expected[n_usual:].sum(axis=1), 1, atol=1e-6)
    proba, from_torch, labels = exports(calibrator, rows)
    for found in (proba, from_torch):
        assert_allclose(found[:n_usual], expected[:n_usual], rtol=0, atol=near)
        assert_allclose(found[n_usual:], expected[n_usual:], rtol=0, atol=1e-5)
    if dtype == np.float32:
        assert_array_equal(labels[:n_usual], calibrator.predict(rows[:n_usual]))


@pytest.mark.parametrize("calibrator", [PlattScaling(), BetaCalibration()])
@pytest.mark.parametrize("factor", [1e-2, 1e-9])
def test_curves_of_logits_in_small_units(calibrator, factor, draw_calibration_set):
    X, y = draw_calibration_set(400, 5)
    calibrator.fit(factor * X, y)
    rows = factor * np.vstack([X, extreme(5)])
    expected = calibrator.predict_proba(rows)
    assert expected[:400].max(axis=1).mean() > 0.4
    for proba in exports(calibrator, rows)[:2]:
        assert_allclose(proba, expected, rtol=0, atol=1e-12)


@every_map
def test_log_odds_in_one_column(calibrator, binary_calibration_set):
    z, y = binary_calibration_set
    calibrator.fit(z, y)
    column = z.reshape(-1, 1)
    expected = calibrator.predict_proba(z)
    for proba in exports(calibrator, column)[:2]:
        assert_allclose(proba, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "calibrator", [TemperatureScaling(), IsotonicCalibration()], ids=identify
)
def test_logits_of_a_real_network(calibrator, cifar100):
    calibrator.fit(cifar100.X_cal, cifar100.y_cal)
    expected = calibrator.predict_proba(cifar100.X_test)
    for proba in exports(calibrator, cifar100.X_test)[:2]:
        assert_allclose(proba, expected, rtol=0, atol=1e-6)


def test_classes_beyond_the_integers_of_onnx_are_refused(calibration_set):
    X, codes = calibration_set
    names = np.array([1, 2, 3, 2**63 + 5], dtype=np.uint64)
    calibrator = TemperatureScaling().fit(X, names[codes])
    with pytest.raises(ValueError, match="classes_ holds 9223372036854775813"):
        to_onnx(calibrator)
    names = np.array([1, 2, 3, 2**63 - 1], dtype=np.uint64)
    below = TemperatureScaling().fit(X, names[codes])
    logits = X.astype(np.float32)
    assert_array_equal(exports(below, logits)[2], below.predict(logits))


def test_groups_beyond_the_integers_of_onnx_are_refused(calibration_set):
    X, y = calibration_set
    groups = np.array([1, 2**63 + 5], dtype=np.uint64)[np.arange(len(y)) % 2]
    calibrator = GroupCalibration(TemperatureScaling()).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="groups_ holds 9223372036854775813"):
        to_onnx(calibrator)
