"""float16 and bfloat16 are converted block by block, wherever they lie."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from stored_rows import in_hdf5, in_memmap, in_parquet, in_zarr

from skcalib import IsotonicCalibration, TemperatureScaling, VectorScaling
from skcalib.datasets import make_logits
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    expected_calibration_error,
    predictive_entropy,
    static_calibration_error,
)

METRICS = [
    expected_calibration_error,
    static_calibration_error,
    predictive_entropy,
    lambda y, proba: CalibrationAccumulator().update(y, proba).compute()["nll"],
]


def in_array(half, folder):
    return half


def in_data_frame(half, folder):
    return pytest.importorskip("pandas").DataFrame(half)


def in_tensor(half, folder):
    return pytest.importorskip("torch").from_numpy(half)


STORES = [in_array, in_memmap, in_hdf5, in_zarr, in_parquet, in_data_frame, in_tensor]


def draw():
    logits, y = make_logits(1000, 4, random_state=0)
    return logits.astype(np.float16), y


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def store(request, tmp_path):
    return lambda half: request.param(half, tmp_path)


@pytest.mark.parametrize(
    "calibrator",
    [TemperatureScaling(), VectorScaling(), IsotonicCalibration()],
    ids=lambda c: type(c).__name__,
)
def test_half_precision_gives_what_its_numbers_give(store, calibrator):
    half, y = draw()
    X = store(half)
    # A tensor of half precision counts as one of single precision.
    like = half.astype(np.float32 if hasattr(X, "is_cuda") else np.float64)
    expected = calibrator.fit(like, y).predict_proba(like)
    found = calibrator.fit(X, y).predict_proba(X)
    assert str(found.dtype).endswith(str(expected.dtype))
    assert_allclose(np.asarray(found), expected, rtol=1e-12, atol=1e-15)


def test_probabilities_of_half_precision_are_judged(store):
    half, y = draw()
    rows = TemperatureScaling().fit(half, y).predict_proba(half).astype(np.float16)
    proba = store(rows)
    for metric in METRICS:
        assert metric(y, proba) == pytest.approx(
            metric(y, rows.astype(np.float64)), abs=1e-6
        )
    found = calibration_report(y, proba, n_bootstrap=0)
    expected = calibration_report(y, rows.astype(np.float64), n_bootstrap=0)
    assert str(found) == str(expected)


def test_a_single_column_of_half_precision_is_one_of_log_odds():
    logits, y = make_logits(1000, 2, random_state=0)
    half = (logits[:, 1] - logits[:, 0]).astype(np.float16)
    for z in (half, half[:, np.newaxis]):
        calibrator = TemperatureScaling().fit(z, y)
        expected = TemperatureScaling().fit(z.astype(np.float64), y)
        assert calibrator.temperature_ == expected.temperature_
        assert calibrator.predict_proba(z).dtype == np.float64


def test_dask_chunks_of_half_precision_stay_there(dask_in_this_process):
    da = pytest.importorskip("dask.array")
    half, y = draw()
    X, labels = da.from_array(half, chunks=(300, 4)), da.from_array(y, chunks=300)
    expected = TemperatureScaling().fit(half, y)
    found = TemperatureScaling().fit(X, labels)
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-7)
    proba = found.predict_proba(X)
    assert proba.dtype == np.float64
    rows = proba.astype(np.float16)
    assert expected_calibration_error(labels, rows) == pytest.approx(
        expected_calibration_error(y, rows.compute()), rel=1e-6
    )


def test_bfloat16_gives_single_precision():
    torch = pytest.importorskip("torch")
    half, y = draw()
    X = torch.from_numpy(half).bfloat16()
    calibrator = TemperatureScaling().fit(X, y)
    expected = TemperatureScaling().fit(X.float().numpy(), y)
    assert calibrator.temperature_ == expected.temperature_
    proba = calibrator.predict_proba(X)
    assert proba.dtype == torch.float32
    error = expected_calibration_error(y, proba.bfloat16())
    assert error == pytest.approx(expected_calibration_error(y, proba), abs=0.01)


def test_no_copy_is_made_of_logits_and_probabilities(tmp_path):
    half, y = make_logits(40_000, 100, random_state=0, dtype=np.float32)
    half = half.astype(np.float16)
    out = np.empty(half.shape, dtype=np.float16)
    TemperatureScaling().fit(half[:100], y[:100])
    tracemalloc.start()
    calibrator = TemperatureScaling().fit(half, y)
    proba = calibrator.predict_proba(half, out=out)
    expected_calibration_error(y, proba)
    static_calibration_error(y, proba)
    CalibrationAccumulator(metrics=["nll", "brier", "ece"]).update(y, proba)
    calibration_report(y, proba, n_bootstrap=0, metrics=["accuracy", "ece", "nll"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert proba is out
    # What is kept of each row, and a few blocks, but not all rows in any precision.
    assert peak < half.nbytes
