import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skcalib._blocks import ArraySource, CalibrationData, MappedSource, open_source


@pytest.fixture
def data():
    """1,000 rows with weights that sum to far more than 1."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1000, 5))
    weight = rng.integers(1, 9, 1000).astype(float)
    return CalibrationData(ArraySource(logits), rng.integers(0, 5, 1000), weight)


def test_weights_sum_to_one_and_are_kept_as_they_came(data):
    assert data.weight.sum() == pytest.approx(1, rel=1e-12)
    assert_array_equal(data.sample_weight, np.rint(data.sample_weight))
    assert data.total_weight == data.sample_weight.sum()
    assert_allclose(data.weight * data.total_weight, data.sample_weight, rtol=1e-12)


def test_unit_weights_total_the_number_of_rows():
    data = CalibrationData(ArraySource(np.zeros((7, 3))), np.zeros(7, int), np.ones(7))
    assert (data.n_samples, data.n_classes, data.total_weight) == (7, 3, 7.0)


@pytest.mark.parametrize("block_elements", [1, 37, 10**9])
def test_sum_hands_each_row_with_its_own_code_and_weight(data, block_elements):
    def statistic(logits, codes, weight):
        own = logits[np.arange(codes.size), codes]
        return float(own @ weight), np.bincount(codes, weight, 5)

    total, mass = data.sum(statistic, block_elements=block_elements)
    own = data.logits[np.arange(1000), data.codes]
    assert total == pytest.approx(np.average(own, weights=data.weight), rel=1e-12)
    assert_allclose(mass, [data.weight[data.codes == k].sum() for k in range(5)])


def test_rows_come_back_in_order(data, monkeypatch):
    monkeypatch.setattr("skcalib._blocks._rows.n_threads", lambda: 3)
    own = data.rows(lambda logits, codes, weight: logits[np.arange(codes.size), codes])
    assert_array_equal(own, data.logits[np.arange(1000), data.codes])


def test_a_subset_keeps_the_ratios_of_its_weights(data):
    rows = np.array([5, 1, 900, 5])
    part = data.subset(rows)
    assert_array_equal(part.logits, data.logits[rows])
    assert_array_equal(part.codes, data.codes[rows])
    assert part.weight.sum() == pytest.approx(1)
    assert part.total_weight == pytest.approx(
        data.total_weight * data.weight[rows].sum()
    )
    assert_allclose(part.weight / part.weight[0], data.weight[rows] / data.weight[5])
    assert_array_equal(part.sample_weight, data.sample_weight[rows])


def test_labels_are_those_of_the_columns_and_stay_with_the_rows(data):
    assert_array_equal(data.labels, data.codes)
    names = np.array(list("vwxyz"))
    named = CalibrationData(data.source, data.codes, data.sample_weight, names)
    rows = np.flatnonzero(data.codes > 2)
    views = [
        named.subset(rows),
        named.subset(rows).columns(np.array([3, 4])),
        named.mapped(np.exp).subset(rows),
    ]
    for view in views:
        assert_array_equal(view.labels, names[data.codes[rows]])


def test_a_file_is_read_into_memory_once(tmp_path, data):
    np.save(tmp_path / "logits.npy", data.logits)
    file = open_source(np.load(tmp_path / "logits.npy", mmap_mode="r"))
    here = CalibrationData(file, data.codes, data.sample_weight).in_memory()
    assert type(here.source) is ArraySource
    assert np.shares_memory(here.logits, here.logits)
    assert_array_equal(here.logits, data.logits)


def test_mapped_logits_are_the_function_of_the_rows(data):
    before = data.logits.copy()

    def centre(block):
        block -= block.mean(axis=1, keepdims=True)
        return block

    mapped = data.mapped(centre)
    assert_allclose(mapped.logits, before - before.mean(axis=1, keepdims=True))
    assert_array_equal(data.logits, before)
    assert mapped.total_weight == pytest.approx(data.total_weight)
    assert_allclose(mapped.weight, data.weight, rtol=1e-12)


def test_a_file_is_mapped_block_by_block_and_an_array_once(tmp_path, data):
    calls = []

    def record(block):
        calls.append(block.shape[0])
        return block

    np.save(tmp_path / "logits.npy", data.logits)
    file = open_source(np.load(tmp_path / "logits.npy", mmap_mode="r"))
    from_file = CalibrationData(file, data.codes, data.weight).mapped(record)
    assert isinstance(from_file.source, MappedSource)
    assert calls == []
    assert_array_equal(from_file.logits, data.logits)
    assert sum(calls) == 1000
    calls.clear()
    in_memory = data.mapped(record)
    assert_array_equal(in_memory.logits, in_memory.logits)
    assert sum(calls) == 1000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mapped_logits_may_keep_their_type(dtype):
    logits = np.arange(12, dtype=dtype).reshape(4, 3)
    data = CalibrationData(ArraySource(logits), np.arange(4) % 3, np.ones(4))
    assert data.mapped(np.exp).logits.dtype == np.float64
    kept = data.mapped(np.exp, keep_type=True).logits
    assert kept.dtype == dtype
    assert_allclose(kept, np.exp(logits), rtol=1e-6)
