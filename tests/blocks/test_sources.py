import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skcalib._blocks import (
    ArraySource,
    CalibrationData,
    MappedSource,
    MemmapSource,
    open_source,
)
from skcalib._blocks._rows import row_slices
from skcalib.calibrators import TemperatureScaling

STATUS = Path("/proc/self/status")


@pytest.fixture
def as_memmap(tmp_path):
    """Write an array to a file and map it."""

    def write(array, mode="r", name="logits.npy"):
        path = tmp_path / name
        np.save(path, array)
        return np.load(path, mmap_mode=mode)

    return write


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("f4", "f4"), ("f8", "f8"), ("f2", "f8"), ("i4", "f8"), ("?", "f8")],
)
def test_float32_stays_and_all_else_becomes_float64(dtype, expected):
    array = np.arange(6).reshape(3, 2).astype(dtype)
    source = open_source(array)
    assert source.dtype == np.dtype(expected)
    assert source.read(slice(0, 2)).dtype == np.dtype(expected)
    assert source.take(np.array([2, 0])).dtype == np.dtype(expected)
    assert_array_equal(source.take(np.array([2, 0])), array[[2, 0]])


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_column_is_the_log_odds_of_the_second_class(shape):
    z = np.array([0.5, -1.0, 3.0, 0.0], dtype=np.float32)
    source = open_source(z.reshape(shape))
    expected = np.column_stack([np.zeros(4), z])
    assert source.shape == (4, 2)
    assert source.dtype == np.float32
    assert_array_equal(source.read(slice(0, 4)), expected)


def test_a_mapped_source_maps_blocks_and_leaves_the_array_alone():
    array = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    before = array.copy()

    def double(block):
        block *= 2
        return block

    source = MappedSource(ArraySource(array), double)
    assert source.dtype == np.float64
    assert_array_equal(source.read(slice(1, 3)), 2.0 * before[1:3])
    assert_array_equal(source.take(np.array([4, 0])), 2.0 * before[[4, 0]])
    assert_array_equal(array, before)


@pytest.mark.parametrize("calibrator", [*CALIBRATORS, *VARIANTS], ids=identify)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fit_to_a_file_equals_that_to_an_array(
    as_memmap, draw_calibration_set, calibrator, dtype
):
    logits, y = draw_calibration_set(n_samples=600)
    logits = logits.astype(dtype)
    mapped = as_memmap(logits)
    expected = calibrator.fit(logits, y).predict_proba(logits)
    found = calibrator.fit(mapped, y).predict_proba(mapped)
    assert found.dtype == dtype
    assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_a_temperature_fitted_to_a_file_is_bitwise_that_of_the_array(
    as_memmap, draw_calibration_set
):
    logits, y = draw_calibration_set(n_samples=40_000)
    from_array = TemperatureScaling().fit(logits, y)
    from_file = TemperatureScaling().fit(as_memmap(logits), y)
    assert from_file.temperature_ == from_array.temperature_


@pytest.mark.parametrize(
    "cut",
    [
        np.s_[37:900],
        np.s_[::3],
        np.s_[::-1],
        np.s_[:, ::2],
        np.s_[5:, 1:3],
    ],
    ids=str,
)
def test_pieces_of_a_mapped_file_read_as_they_are(as_memmap, cut):
    array = np.random.default_rng(0).normal(size=(1000, 6))
    piece = as_memmap(array)[cut]
    source = open_source(piece)
    assert isinstance(source, MemmapSource)
    for _ in range(2):  # Once more after the pages have been given back.
        assert_array_equal(source.read(slice(0, piece.shape[0])), array[cut])
    rows = np.array([3, 0, 3])
    assert_array_equal(source.take(rows), array[cut][rows])


def test_column_order_and_integers_in_a_file_are_read_right(as_memmap):
    array = np.random.default_rng(0).integers(-9, 9, (500, 4)).astype(np.int16)
    source = open_source(as_memmap(np.asfortranarray(array)))
    assert_array_equal(source.read(slice(100, 200)), array[100:200].astype(float))


def resident():
    """Megabytes of files that this process holds."""
    return int(re.search(r"RssFile:\s+(\d+)", STATUS.read_text())[1]) / 1024


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("cut", [np.s_[:], np.s_[:, :2], np.s_[::50], np.s_[::-1]])
def test_a_file_is_given_back_whatever_its_order(tmp_path, order, cut):
    array = np.arange(6e6).reshape(-1, 3)
    path = tmp_path / "array"
    array.ravel(order).tofile(path)
    mapped = np.memmap(path, "f8", mode="r", shape=array.shape, order=order)[cut]
    source = MemmapSource(mapped)
    before = most = resident()
    for rows in row_slices(*source.shape):
        assert_array_equal(source.read(rows), array[cut][rows])
        most = max(most, resident())
    assert most - before < 24  # of 48 MB


def test_reading_keeps_unsaved_changes_of_a_private_mapping(as_memmap):
    private = as_memmap(np.zeros((2000, 4)), mode="c")
    private[:] = 7.0
    source = open_source(private)
    source.read(slice(0, 2000))
    assert_array_equal(source.read(slice(0, 2000)), np.full((2000, 4), 7.0))
    assert_array_equal(private, np.full((2000, 4), 7.0))


def test_reading_keeps_changes_of_a_shared_mapping(as_memmap):
    shared = as_memmap(np.zeros((2000, 4)), mode="r+")
    shared[:] = 7.0
    source = open_source(shared)
    source.read(slice(0, 2000))
    assert_array_equal(shared, np.full((2000, 4), 7.0))


def test_a_block_of_a_file_is_a_copy(as_memmap):
    mapped = as_memmap(np.ones((10, 2)), mode="r+")
    open_source(mapped).read(slice(0, 10))[:] = 5.0
    assert_array_equal(mapped, np.ones((10, 2)))


def test_a_memmap_without_a_file_is_an_array_in_memory():
    source = open_source(np.full((10, 2), 2.0).view(np.memmap))
    assert not isinstance(source, MemmapSource)
    assert_array_equal(source.read(slice(0, 10)), np.full((10, 2), 2.0))


class SentSource(ArraySource):
    """Rows whose statistics travel, as to another process."""

    def sum(self, statistic, *beside, **options):
        sent = pickle.dumps(statistic)
        assert len(sent) < 20_000
        return super().sum(pickle.loads(sent), *beside, **options)  # noqa: S301

    def mapped(self, function, n_columns=None, dtype=float):
        function = pickle.loads(pickle.dumps(function))  # noqa: S301
        mapped = super().mapped(function, n_columns, dtype)
        return SentSource(mapped.read(slice(0, self.shape[0])))


@pytest.mark.parametrize(
    "calibrator",
    [c for c in CALIBRATORS if hasattr(c, "fit_calibration")],
    ids=identify,
)
def test_the_statistics_of_a_fit_are_small_and_can_be_sent(
    draw_calibration_set, calibrator
):
    # 96 kB of logits, so that none of them is sent along.
    logits, y = draw_calibration_set(n_samples=4000)
    n_classes = logits.shape[1]
    data = CalibrationData(SentSource(logits), y, np.ones(4000), np.arange(n_classes))
    sent = clone(calibrator)
    sent.n_features_in_ = n_classes
    sent._learn(data)
    expected = clone(calibrator).fit(logits, y)
    assert_array_equal(sent.predict_proba(logits), expected.predict_proba(logits))


def test_a_mapped_file_stays_on_the_disk_however_often_it_is_mapped(as_memmap):
    source = open_source(as_memmap(np.ones((6, 3)))).mapped(np.negative).mapped(np.exp)
    assert isinstance(source, MappedSource)
    assert_array_equal(source.read(slice(2, 4)), np.full((2, 3), np.exp(-1.0)))


def test_results_go_where_they_are_told(as_memmap, draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=3000)
    scaling = TemperatureScaling().fit(logits, y)
    expected = scaling.predict_proba(logits)
    for out in (np.zeros(logits.shape), as_memmap(np.zeros(logits.shape), mode="r+")):
        assert scaling.predict_proba(logits, out=out) is out
        assert_array_equal(out, expected)
    rows = as_memmap(logits, mode="r+", name="rows.npy")
    scaling.predict_proba(rows, out=rows)
    assert_array_equal(np.load(rows.filename), expected)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((5, 2)), ValueError, r"out has shape \(5, 2\); .* have \(9, 3\)"),
        (np.zeros((9, 3), int), TypeError, "out is an array of int64; it must be"),
        ([0.5] * 9, TypeError, "out is <class 'list'>; it must be a NumPy array"),
    ],
)
def test_a_place_that_does_not_hold_the_results_is_refused(out, error, message):
    logits, y = 4 * np.eye(3)[np.arange(9) % 3], [0, 1, 2, 0, 1, 2, 0, 1, 1]
    scaling = TemperatureScaling().fit(logits, y)
    with pytest.raises(error, match=message):
        scaling.predict_proba(logits, out=out)


MEASURE = """
import re, sys
import numpy as np
from skcalib._blocks import open_source
from skcalib.calibrators import TemperatureScaling, VectorScaling

def peak():  # ru_maxrss would begin at that of the parent.
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024

rng = np.random.default_rng(0)
small = rng.normal(size=(500, 100)).astype(np.float32)
y = np.where(rng.random(500) < 0.3, 0, small.argmax(axis=1))
scaling = TemperatureScaling().fit(small, y)
vector = VectorScaling().fit(small, y)
scaling.predict(small), vector.predict(small)
before = peak()
logits = np.memmap(sys.argv[1], dtype=np.float32, mode="r", shape=(100_000, 100))
scaling.fit(logits, np.tile(np.load(sys.argv[2]), 2))
assert np.array_equal(scaling.predict(logits)[:50], logits[:50].argmax(axis=1))
assert vector.predict(logits).shape == (100_000,)
open_source(logits).take(np.arange(0, 100_000, 1000))
out = np.memmap(sys.argv[3], dtype=np.float32, mode="w+", shape=(100_000, 100))
assert scaling.predict_proba(logits, out=out)[-1].sum() > 0.999
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_neither_fit_nor_predict_holds_a_file_in_memory(tmp_path):
    path, labels = tmp_path / "logits.f4", tmp_path / "y.npy"
    rng = np.random.default_rng(0)
    block = rng.normal(size=(50_000, 100)).astype(np.float32)
    np.save(labels, np.where(rng.random(50_000) < 0.3, 0, block.argmax(axis=1)))
    with path.open("wb") as file:
        for _ in range(2):
            block.tofile(file)
    assert path.stat().st_size == 40_000_000
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", MEASURE, path, labels, tmp_path / "proba.f4"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 25


def test_what_was_found_of_rows_stays_with_them_and_not_with_a_copy():
    data = CalibrationData(ArraySource(np.eye(3)), np.arange(3), np.ones(3))
    assert data.once("answer", lambda: 1) == 1
    assert data.once("answer", lambda: 2) == 1
    assert copy.copy(data).once("answer", lambda: 3) == 3
