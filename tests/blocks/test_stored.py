"""Files of other libraries are read in pieces, whatever their chunks are."""

import tracemalloc
from time import process_time

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.special import softmax
from stored_rows import in_hdf5, in_memmap, in_parquet, in_zarr

from skcalib import (
    CalibratorSearch,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    logits_from_proba,
)
from skcalib._blocks import _stored, open_source
from skcalib.datasets import make_logits
from skcalib.metrics import (
    CalibrationAccumulator,
    adaptive_expected_calibration_error,
    calibration_report,
    expected_calibration_error,
    predictive_entropy,
    static_calibration_error,
)


def in_zarr_shards(array, folder):
    zarr = pytest.importorskip("zarr")
    return zarr.create_array(
        folder / "a.zarr", data=array, chunks=(10, 4), shards=(200, 4)
    )


def in_parquet_list(array, folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"scores": list(array)})
    parquet.write_table(table, folder / "a.parquet", row_group_size=90)
    return parquet.ParquetFile(folder / "a.parquet")


def in_chunked_hdf5(array, folder):
    return in_hdf5(array, folder, chunks=(64, min(array.shape[1], 2)))


STORES = [
    in_hdf5,
    in_chunked_hdf5,
    in_zarr,
    in_zarr_shards,
    in_parquet,
    in_parquet_list,
]


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def store(request, tmp_path, monkeypatch):
    """What puts an array into a file; its pieces are small."""
    monkeypatch.setattr(_stored, "PIECE_ELEMENTS", 500)
    return lambda array: request.param(array, tmp_path)


def draw(dtype=np.float64):
    return make_logits(1000, 4, random_state=0, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_slice_and_any_rows_are_those_of_the_array(store, dtype):
    logits, _ = draw(dtype)
    source = open_source(_open(store(logits)))
    assert source.dtype == dtype
    for rows in (slice(0, 1), slice(199, 201), slice(80, 700), slice(999, 1000)):
        assert_array_equal(source.read(rows), logits[rows])
    assert_array_equal(source.read(slice(0, 5000)), logits)
    rows = np.random.default_rng(0).integers(0, 1000, 300)
    assert_array_equal(source.take(rows), logits[rows])


def _open(rows):
    from skcalib._validation import readable

    return readable(rows)


def test_a_temperature_is_that_of_the_array(store):
    logits, y = draw()
    expected = TemperatureScaling().fit(logits, y).temperature_
    found = TemperatureScaling().fit(store(logits), y).temperature_
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("store", [in_chunked_hdf5, in_parquet], indirect=True)
@pytest.mark.parametrize(
    "calibrator",
    [
        VectorScaling(),
        MatrixScaling(max_iter=30, off_diagonal_penalty=0.01, intercept_penalty=0.01),
        HistogramBinning(),
        IsotonicCalibration(),
    ],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_calibrators_learn_and_predict_the_same(store, calibrator):
    logits, y = draw()
    expected = calibrator.fit(logits, y).predict_proba(logits)
    rows = store(logits)
    got = calibrator.fit(rows, y).predict_proba(rows)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("store", [in_chunked_hdf5, in_parquet], indirect=True)
def test_a_search_reads_files(store):
    logits, y = draw()
    expected = CalibratorSearch(random_state=0).fit(logits, y)
    found = CalibratorSearch(random_state=0).fit(store(logits), y)
    assert found.best_name_ == expected.best_name_
    np.testing.assert_allclose(
        found.predict_proba(logits), expected.predict_proba(logits), rtol=1e-10
    )


WITH_MEMMAP = pytest.mark.parametrize(
    "store", [in_memmap, *STORES], indirect=True, ids=lambda store: store.__name__
)


@WITH_MEMMAP
@pytest.mark.parametrize(
    "metric",
    [
        expected_calibration_error,
        adaptive_expected_calibration_error,
        static_calibration_error,
        predictive_entropy,
    ],
)
def test_metrics_are_those_of_the_array(store, metric):
    logits, y = draw()
    proba = softmax(logits, axis=1)
    weight = np.arange(1000) % 3
    assert metric(y, store(proba), sample_weight=weight) == pytest.approx(
        metric(y, proba, sample_weight=weight), rel=1e-13
    )


@WITH_MEMMAP
def test_a_report_is_that_of_the_array(store):
    logits, y = draw()
    proba = softmax(logits, axis=1)
    options = {"n_bootstrap": 20, "random_state": 0}
    expected = calibration_report(y, proba, **options)
    got = calibration_report(y, store(proba), **options)
    assert got.to_dict()["n_samples"] == 1000
    for name, estimate in expected.items():
        assert got[name] == pytest.approx(estimate, rel=1e-12, abs=1e-15), name


@WITH_MEMMAP
def test_an_accumulator_reads_files_too(store):
    logits, y = draw()
    proba = softmax(logits, axis=1)
    values = CalibrationAccumulator().update(y, store(proba)).compute()
    expected = CalibrationAccumulator().update(y, proba).compute()
    assert values == pytest.approx(expected, rel=1e-12)


def test_an_accumulator_reads_few_rows_of_a_file(tmp_path):
    logits, y = draw()
    y, proba = y[:9], softmax(logits[:9], axis=1)
    values = CalibrationAccumulator().update(y, in_hdf5(proba, tmp_path)).compute()
    assert values == CalibrationAccumulator().update(y, proba).compute()


def test_a_bootstrap_needs_rows_of_positive_weight(store):
    logits, y = draw()
    rows, weight = store(softmax(logits, axis=1)), np.arange(1000) % 2
    with pytest.raises(ValueError, match=r"0 in 500 rows of a file.*n_bootstrap=0"):
        calibration_report(y, rows, sample_weight=weight)
    report = calibration_report(y, rows, sample_weight=weight, n_bootstrap=0)
    assert report.n_samples == 500


def test_metrics_of_a_mapped_file_hold_a_few_blocks_of_it(tmp_path):
    # Half precision, which an array would have to be converted from as a whole.
    proba = np.full((10_000, 1_000), 0.001, np.float16)
    rows, y = in_memmap(proba, tmp_path), np.zeros(10_000, dtype=np.intp)
    metrics = [
        expected_calibration_error,
        static_calibration_error,
        lambda y, proba: calibration_report(y, proba, n_bootstrap=0),
        lambda y, proba: CalibrationAccumulator().update(y, proba),
    ]
    for metric in metrics:
        metric(y[:10], rows[:10])  # What is imported on the way is not counted.
        tracemalloc.start()
        metric(y, rows)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < rows.nbytes / 2


def test_a_report_keeps_some_numbers_of_each_row(tmp_path):
    logits, y = make_logits(40_000, 50, random_state=0, dtype=np.float32)
    rows = in_memmap(softmax(logits, axis=1), tmp_path)
    calibration_report(y[:10], rows[:10], n_bootstrap=0)
    tracemalloc.start()
    calibration_report(y, rows, n_bootstrap=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250 * 40_000  # 152 on 200,000 rows, and a few blocks.


def test_a_column_is_the_second_class(store):
    logits, y = make_logits(300, 2, random_state=0)
    odds = (logits[:, 1] - logits[:, 0])[:, np.newaxis]
    expected = TemperatureScaling().fit(odds, y).temperature_
    assert TemperatureScaling().fit(store(odds), y).temperature_ == expected


def test_labels_and_weights_may_be_in_files_too(tmp_path):
    logits, y = draw()
    weight = np.arange(1000) % 3 + 1.0
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name, array in (("logits", logits), ("y", y), ("weight", weight)):
            file[name] = array
        fitted = TemperatureScaling().fit(
            file["logits"], file["y"], sample_weight=file["weight"]
        )
    expected = TemperatureScaling().fit(logits, y, sample_weight=weight)
    assert fitted.temperature_ == pytest.approx(expected.temperature_, rel=1e-12)


def test_a_bad_row_is_named(store):
    logits, y = draw()
    logits[777, 2] = np.nan
    rows = store(logits)
    with pytest.raises(ValueError, match="row 777 holds nan"):
        TemperatureScaling().fit(rows, y)
    with pytest.raises(ValueError, match="Row 0 of the probabilities"):
        expected_calibration_error(y, rows)


def test_shape_and_type_are_checked(tmp_path):
    y = [0, 1]
    with pytest.raises(
        ValueError, match=r"X is a Dataset of h5py of shape \(2, 2, 2\)"
    ):
        TemperatureScaling().fit(in_hdf5(np.zeros((2, 2, 2)), tmp_path), y)


def test_missing_values_and_text_of_a_parquet_file_are_told(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for values, message in (
        ([1.0, None], "Column 'b' misses 1 values"),
        (["x", "y"], "Column 'b' holds values of type string"),
    ):
        table = pyarrow.table({"a": [0.5, 1.5], "b": values})
        parquet.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=message):
            TemperatureScaling().fit(
                parquet.ParquetFile(tmp_path / "t.parquet"), [0, 1]
            )


def test_columns_of_a_parquet_file_are_classes_by_name(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    logits, y = draw()
    names = np.array(["d", "b", "a", "c"])
    table = pyarrow.table(dict(zip(names, logits.T, strict=True)))
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=90)
    fitted = TemperatureScaling().fit(
        parquet.ParquetFile(tmp_path / "t.parquet"), names[y]
    )
    assert fitted.classes_.tolist() == names.tolist()
    expected = TemperatureScaling().fit(logits, y)
    assert fitted.temperature_ == pytest.approx(expected.temperature_, rel=1e-12)


def test_what_needs_all_rows_at_once_says_so(store):
    logits, _ = draw()
    with pytest.raises(TypeError, match=r"file of 1,000 rows, .* Pass proba\[:\]"):
        logits_from_proba(store(softmax(logits, axis=1)))


def test_few_pieces_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(_stored, "PIECE_ELEMENTS", 500)
    source = open_source(in_chunked_hdf5(np.zeros((10_000, 4)), tmp_path))
    for start in range(0, 10_000, 100):
        source.read(slice(start, start + 100))
    assert len(source._pieces) == _stored.PIECES_KEPT
    assert sum(piece.size for piece in source._pieces.values()) < 4 * 500


def test_each_chunk_is_read_once_a_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(_stored, "PIECE_ELEMENTS", 1)  # a chunk each
    rows = in_chunked_hdf5(np.zeros((1000, 4)), tmp_path)
    source = open_source(rows)
    reads = []

    class Counted:
        def __getitem__(self, part):
            reads.append(part.start)
            return rows[part]

    monkeypatch.setattr(source, "_rows", Counted())
    for start in range(0, 1000, 10):
        source.read(slice(start, start + 10))
    assert reads == list(range(0, 1000, 64))


def test_shuffled_rows_of_many_pieces_are_sorted_not_compared(tmp_path, monkeypatch):
    logits = np.arange(200_000.0).reshape(100_000, 2)
    source = open_source(in_chunked_hdf5(logits[:64], tmp_path))
    monkeypatch.setattr(source, "_rows", logits)
    monkeypatch.setattr(source, "_edges", np.arange(0, 100_001, 5))
    rows = np.random.default_rng(0).permutation(100_000)
    start = process_time()
    found = source.take(rows)
    # Comparing all rows with each of 20,000 pieces took 6 seconds, sorting 0.3.
    assert process_time() - start < 2
    assert_array_equal(found, logits[rows])
