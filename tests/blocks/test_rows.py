import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skcalib._blocks import map_blocks, row_slices, sum_blocks


@pytest.fixture(params=[1, 2, 5])
def threads(request, monkeypatch):
    monkeypatch.setattr("skcalib._blocks._rows.n_threads", lambda: request.param)
    return request.param


@given(
    st.integers(0, 300), st.integers(0, 40), st.integers(1, 200).map(lambda n: 10 * n)
)
def test_slices_cover_every_row_once_and_stay_within_the_block(
    n_rows, n_columns, block_elements
):
    slices = row_slices(n_rows, n_columns, block_elements)
    covered = [row for rows in slices for row in range(rows.start, rows.stop)]
    assert covered == list(range(n_rows))
    for rows in slices:
        n_taken = rows.stop - rows.start
        assert n_taken == 1 or n_taken * n_columns <= block_elements


def test_a_row_longer_than_a_block_is_one_slice():
    assert row_slices(3, 1000, 10) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_a_slice_has_as_many_rows_as_are_asked_for():
    assert row_slices(5, 1000, 10, min_rows=3) == [slice(0, 3), slice(3, 5)]
    assert row_slices(5, 2, 8, min_rows=3) == [slice(0, 4), slice(4, 5)]


def test_results_come_in_the_order_of_the_slices(threads):
    slices = row_slices(100, 1, 1)
    late = threading.Event()

    def start_of(rows):
        # With threads, the first block is ready only after the second.
        if rows.start == 0 and threads > 1:
            late.wait(timeout=5)
        if rows.start == 1:
            late.set()
        return rows.start

    assert list(map_blocks(start_of, slices)) == list(range(100))


def test_sum_equals_that_of_all_rows_at_once(threads):
    x = np.random.default_rng(0).normal(size=(1000, 3))

    def of_block(rows):
        return float(x[rows].sum()), x[rows].T @ x[rows]

    total, gram = sum_blocks(of_block, row_slices(1000, 3, 30))
    assert total == pytest.approx(x.sum(), rel=1e-12)
    np.testing.assert_allclose(gram, x.T @ x, rtol=1e-12)


def test_sum_does_not_depend_on_the_number_of_threads(monkeypatch):
    x = np.random.default_rng(0).normal(size=(5000, 3)) * 10.0 ** np.arange(-8, 1, 4)
    sums = []
    for n in (1, 2, 3, 8):
        monkeypatch.setattr("skcalib._blocks._rows.n_threads", lambda n=n: n)
        sums.append(
            sum_blocks(lambda rows: x[rows].sum(axis=0), row_slices(5000, 3, 7))
        )
    for other in sums[1:]:
        assert_array_equal(other, sums[0])


def test_an_array_of_sums_is_not_taken_apart(threads):
    total = sum_blocks(lambda rows: np.array([1.0, 2.0]), row_slices(10, 1, 1))
    assert_array_equal(total, [10.0, 20.0])


def test_an_error_in_a_block_reaches_the_caller(threads):
    def fail(rows):
        if rows.start == 7:
            raise ZeroDivisionError("block 7")
        return 1

    with pytest.raises(ZeroDivisionError, match="block 7"):
        sum_blocks(fail, row_slices(50, 1, 1))


def test_reading_only_the_first_results_stops_the_rest(threads):
    started = []
    results = map_blocks(started.append, row_slices(500, 1, 1))
    next(results)
    results.close()
    assert len(started) <= 4 * threads + 1
