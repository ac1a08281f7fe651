import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skcalib._validation import check_proba, check_proba_rows, check_top_label


@pytest.mark.parametrize(
    ("proba", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.6]], "Row 1 of the probabilities sums to 1.1"),
        ([[0.5, 0.5], [0.2, np.nan]], "Row 1 of the probabilities holds nan"),
        ([[1.2, -0.2]], "Row 0 of the probabilities holds 1.2"),
        ([[1.0, 0.0], [1.0, np.inf]], "Row 1 of the probabilities holds inf"),
        ([0.3, -0.1], "Row 1 of the probabilities holds -0.1"),
        ([0.3, 1.3], "Row 1 of the probabilities holds 1.3"),
        ([[0.3], [np.nan]], "Row 1 of the probabilities holds nan"),
        ([[[0.5, 0.5]]], "dim 3"),
        (np.empty((0, 3)), "0 sample"),
    ],
)
def test_bad_rows_are_named(proba, message):
    with pytest.raises(ValueError, match=message):
        check_proba_rows(proba)


def test_a_bad_row_is_found_in_any_block():
    proba = np.full((5000, 100), 0.01)
    proba[4321, 7] = 0.5
    with pytest.raises(ValueError, match=r"Row 4321 .* sums to 1\.49"):
        check_proba_rows(proba)


def test_good_input_is_returned_as_it_is():
    for dtype in (np.float32, np.float64):
        proba = np.full((3, 4), 0.25, dtype=dtype)
        assert check_proba_rows(proba) is proba


def test_other_types_become_float64():
    assert check_proba_rows(np.full((2, 2), 0.5, np.float16)).dtype == np.float64
    assert check_proba_rows([[1, 0], [0, 1]]).dtype == np.float64


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_column_is_the_second_class(shape):
    proba = np.array([0.25, 0.5, 1.0], dtype=np.float32).reshape(shape)
    checked = check_proba_rows(proba)
    assert_array_equal(checked, [[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
    assert checked.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rounded_rows_pass(dtype):
    rng = np.random.default_rng(0)
    check_proba_rows(rng.dirichlet(np.ones(10), size=500).astype(dtype))
    check_proba_rows(rng.dirichlet(np.ones(10), size=500).round(4))


def test_a_single_precision_sum_of_many_columns_passes():
    row = np.random.default_rng(0).dirichlet(np.ones(200_000))
    check_proba_rows(row.astype(np.float32)[np.newaxis])


def test_the_top_label_is_the_first_maximum():
    proba = [[0.4, 0.4, 0.2], [0.1, 0.3, 0.6]]
    confidence, hit, weight = check_top_label([1, 2], proba)
    assert_array_equal(confidence, [0.4, 0.6])
    assert_array_equal(hit, [False, True])
    assert_array_equal(weight, [1.0, 1.0])


def test_checking_needs_no_copy_of_the_data():
    proba = np.full((20_000, 100), 0.01, dtype=np.float32)
    y = np.zeros(20_000, dtype=np.intp)
    tracemalloc.start()
    check_top_label(y, proba)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < proba.nbytes / 2


PROBA = np.full((3, 3), 1 / 3)


@pytest.mark.parametrize(
    ("y", "labels", "codes"),
    [
        ([2, 0, 0], None, [2, 0, 0]),
        ([1, 1, 1], None, [1, 1, 1]),
        ([1, 2, 3], None, [0, 1, 2]),
        ([10, -5, 3], None, [2, 0, 1]),
        (["b", "c", "a"], None, [1, 2, 0]),
        (["b", "b", "a"], ["a", "b", "c"], [1, 1, 0]),
        ([2, 2, 1], [3, 2, 1], [1, 1, 2]),
        ([2.0, 3.0, 1.0], None, [1, 2, 0]),
        (np.array([2, 0, 1], dtype=np.uint8), None, [2, 0, 1]),
    ],
)
def test_labels_find_their_columns(y, labels, codes):
    assert_array_equal(check_proba(y, PROBA, labels)[0], codes)


def test_bool_labels_find_their_columns():
    assert_array_equal(check_proba([True, False], [0.5, 0.5])[0], [1, 0])
    only_true = check_proba([True, True], [0.5, 0.5], [False, True])
    assert_array_equal(only_true[0], [1, 1])


@pytest.mark.parametrize(
    ("y", "labels", "message"),
    [
        (["a", "b", "b"], None, r"3 columns but .* are \['a', 'b'\].*labels="),
        ([1, 2, 5], [1, 2, 3], r"labels does not name: \[5\]"),
        ([1, 2, 3], [1, 2], r"labels has shape \(2,\) but y_proba has 3 columns"),
        ([1, 2, 3], [1, 2, 2], "names a class twice"),
        ([0.5, 0.1, 0.2], None, "continuous"),
        ([0.0, np.nan, 1.0], None, "nan in row 1"),
        ([0, 1], None, "inconsistent numbers of samples"),
    ],
)
def test_unusable_labels_are_refused(y, labels, message):
    with pytest.raises(ValueError, match=message):
        check_proba(y, PROBA, labels)


def test_unusable_weights_are_refused():
    with pytest.raises(ValueError, match=r"negative value: -1\.0 in row 1"):
        check_proba([0, 1, 2], PROBA, sample_weight=[1, -1, 1])
    with pytest.raises(ValueError, match="zero"):
        check_proba([0, 1, 2], PROBA, sample_weight=[0, 0, 0])
