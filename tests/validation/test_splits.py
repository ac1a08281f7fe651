import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import LeaveOneOut, ShuffleSplit

from skcalib._validation import make_splits

CODES = np.repeat([0, 1, 2], [30, 12, 1])
X = np.zeros((43, 3))
ONES = np.ones(43)


def test_an_integer_deals_every_class_out_over_the_folds():
    splits = make_splits(5, X, CODES, ONES, 0)
    assert_array_equal(np.sort(np.concatenate([test for _, test in splits])), range(43))
    for train, test in splits:
        assert_array_equal(np.sort(np.concatenate([train, test])), range(43))
        assert np.bincount(CODES[test])[0] == 6
        assert np.bincount(CODES[test])[1] in (2, 3)


def test_none_is_five_folds():
    five, default = (make_splits(cv, X, CODES, ONES, 0) for cv in (5, None))
    for a, b in zip(five, default, strict=True):
        assert_array_equal(a[1], b[1])


def test_no_more_folds_than_rows():
    assert len(make_splits(20, X[:6], CODES[-6:], ONES[:6], 0)) == 6


@pytest.mark.parametrize("cv", [4, ShuffleSplit(3, random_state=0)])
def test_rows_of_weight_0_are_in_no_split(cv):
    weight = (np.arange(43) % 5 > 0).astype(float)
    for pair in make_splits(cv, X, CODES, weight, 0):
        assert (weight[np.concatenate(pair)] > 0).all()


def test_an_integer_sees_a_row_of_weight_0_as_removed():
    weight = (np.arange(43) % 5 > 0).astype(float)
    used = np.flatnonzero(weight)
    removed = make_splits(4, X[used], CODES[used], ONES[used], 0)
    for a, b in zip(make_splits(4, X, CODES, weight, 0), removed, strict=True):
        assert_array_equal(a[1], used[b[1]])


def test_boolean_masks_and_row_numbers_are_the_same_split():
    mask = np.arange(43) < 20
    masks = make_splits([(mask, ~mask)], X, CODES, ONES, 0)
    numbers = make_splits([(range(20), range(20, 43))], X, CODES, ONES, 0)
    for a, b in zip(masks[0], numbers[0], strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("cv", [0, 1, -3])
def test_fewer_than_two_folds_are_refused(cv):
    with pytest.raises(ValueError, match=f"cv={cv} is not an integer above 1"):
        make_splits(cv, X, CODES, ONES, 0)


def test_a_leave_one_out_row_of_weight_0_is_named():
    weight = (np.arange(43) != 7).astype(float)
    with pytest.raises(ValueError, match="Split 7 of cv has 42 rows to fit on and 0"):
        make_splits(LeaveOneOut(), X, CODES, weight, 0)
