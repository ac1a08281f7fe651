import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from skcalib import logits_from_proba
from skcalib._validation import check_proba, check_proba_rows, check_top_label
from skcalib.exceptions import OneColumnWarning


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


@pytest.mark.parametrize("value", [False, True])
def test_bool_labels_beside_one_column_are_two_classes_also_if_one_occurs(value):
    y, p = np.full(2, value), np.array([0.2, 0.7])
    for labels in (y, y.tolist()):
        for column in (p, p[:, np.newaxis]):
            codes, proba, _ = check_proba(labels, column)
            assert_array_equal(codes, [int(value)] * 2)
            assert_allclose(proba[:, 1], p)
    codes, proba, _ = check_proba(y, p, pos_label=False)
    assert_array_equal(codes, [int(value)] * 2)
    assert_allclose(proba[:, 0], p)
    with pytest.raises(ValueError, match="Name the class of each column"):
        check_proba(y, np.column_stack([1 - p, p]))


@pytest.mark.parametrize("value", [False, True])
def test_a_column_named_false_is_of_that_class_also_if_one_occurs(value):
    pandas = pytest.importorskip("pandas")
    p = np.array([0.2, 0.7])
    for name in (False, True):
        frame = pandas.DataFrame({str(name): p})
        codes, proba, _ = check_proba(np.full(2, value), frame)
        column = int(codes[0])
        assert_allclose(proba[:, column], p if name == value else 1 - p)


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


# One column.


def fraud(n=500, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.02, 0.98, n)
    return np.where(rng.random(n) < p, "fraud", "ok"), p


@pytest.mark.parametrize("check", [check_proba, check_top_label])
@pytest.mark.parametrize("labels", [None, ["fraud", "ok"]])
def test_one_column_of_named_classes_needs_a_pos_label(check, labels):
    y, p = fraud()
    with pytest.raises(ValueError, match=r"'fraud' and 'ok'.*pos_label='ok'"):
        check(y, p, labels)
    with pytest.raises(ValueError, match="single column"):
        check(y, p[:, np.newaxis], labels)


@pytest.mark.parametrize(
    ("y", "pos_label", "first"),
    [
        (["ok", "fraud"], "fraud", True),
        (["ok", "fraud"], "ok", False),
        (np.array(["ok", "fraud"], dtype=object), "fraud", True),
        ([1, 0], 0, True),
        ([1, 0], np.int64(1), False),
        ([True, False], False, True),
        ([2, 1], 1, True),
        ([3.0, 1.0], 1, True),
    ],
)
def test_pos_label_says_whose_column_it_is(y, pos_label, first):
    codes, proba, _ = check_proba(y, [0.1, 0.7], pos_label=pos_label)
    columns = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert_array_equal(codes, [1, 0])
    assert_allclose(proba, columns[:, ::-1] if first else columns, rtol=1e-15)


@pytest.mark.parametrize("y", [[0, 1], [-1, 1], [False, True], [0.0, 1.0]])
def test_of_the_usual_numbers_one_column_is_that_of_the_larger(y):
    codes, proba, _ = check_proba(y, [0.25, 0.75])
    assert_array_equal(codes, [0, 1])
    assert_array_equal(proba, [[0.75, 0.25], [0.25, 0.75]])


@pytest.mark.parametrize(
    ("y", "labels"), [([1, 2], None), ([0.0, 2.0], None), ([0, 1], [1, 0])]
)
def test_other_numbers_and_orders_need_a_pos_label(y, labels):
    with pytest.raises(ValueError, match="could be the probability of either"):
        check_proba(y, [0.25, 0.75], labels)


def test_labels_give_the_order_of_the_columns_that_pos_label_fills():
    codes, proba, _ = check_proba(
        ["ok", "ok"], [0.25, 0.75], labels=["ok", "fraud"], pos_label="ok"
    )
    assert_array_equal(codes, [0, 0])
    assert_array_equal(proba, [[0.25, 0.75], [0.75, 0.25]])


@pytest.mark.parametrize("proba", [[0.25, 0.75], [[0.75, 0.25], [0.25, 0.75]]])
def test_a_pos_label_that_does_not_occur_is_refused(proba):
    with pytest.raises(ValueError, match="'Fraud' is not one of the labels 'fraud'"):
        check_proba(["ok", "fraud"], proba, pos_label="Fraud")


def test_a_pos_label_among_several_classes_is_refused():
    with pytest.raises(ValueError, match=r"pos_label=1 .* y_proba has 3 columns"):
        check_proba([0, 1], np.full((2, 3), 1 / 3), pos_label=1)


def test_the_columns_of_two_classes_keep_their_meaning_beside_a_pos_label():
    proba = np.array([[0.75, 0.25], [0.25, 0.75]])
    checked = check_proba(["ok", "fraud"], proba, pos_label="fraud")[1]
    assert checked is proba


def test_one_column_of_three_classes_is_refused():
    with pytest.raises(ValueError, match="a single column, of one of two classes, but"):
        check_proba(["a", "b", "c"], [0.1, 0.2, 0.3], pos_label="a")


# Confidences, beside whether each was right.


def confidences(n=2000, gap=0.15, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1, n)
    return (rng.random(n) < np.clip(confidence - gap, 0, 1)).astype(int), confidence


@pytest.mark.parametrize("gap", [0.1, -0.1])
def test_confidences_of_several_classes_are_recognised(gap):
    right, confidence = confidences(gap=gap)
    with pytest.warns(OneColumnWarning, match='pos_label="event"'):
        check_top_label(right, confidence)
    with pytest.warns(OneColumnWarning, match="too (large|small) both below and"):
        check_proba(right == 1, confidence[:, np.newaxis], top_label=True)


def test_confidences_that_are_asked_about_or_named_are_not_warned_of():
    right, confidence = confidences()
    check_proba(right, confidence)  # The predicted class is not judged.
    check_top_label(right, confidence, pos_label=1)
    check_top_label(right, np.column_stack([1 - confidence, confidence]))


@pytest.mark.parametrize("n", [300, 30_000])
@pytest.mark.parametrize("centre", [-2, 0, 2])
@pytest.mark.parametrize("spread", [0.5, 2])
@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_two_classes_at_any_temperature_are_not_warned_of(n, centre, spread, factor):
    for seed in range(20 if n == 300 else 2):
        rng = np.random.default_rng(seed)
        logits = rng.normal(centre, spread, n)
        y = (rng.random(n) < expit(logits)).astype(int)
        check_top_label(y, expit(factor * logits))


def test_one_confidence_of_zero_does_not_silence_the_warning():
    right, confidence = confidences()
    confidence[0] = 0
    with pytest.warns(OneColumnWarning, match='pos_label="event"'):
        check_top_label(right, confidence)


@pytest.mark.parametrize("shift", [0.5, 1])
def test_probabilities_of_a_class_whose_share_has_moved_cancel_like_confidences(shift):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 5000)
    y = (rng.random(5000) < expit(logits - shift)).astype(int)
    with pytest.warns(OneColumnWarning, match="too large both below and above 0.5"):
        check_top_label(y, expit(logits))
    check_top_label(y, expit(logits), pos_label=1)


def log_floor(proba, zeros):
    """The logarithm that "auto" gives to the zeros, which are all of one value."""
    logits = logits_from_proba(proba, floor="auto")
    (value,) = np.unique(logits[zeros])
    return float(value)


def test_auto_puts_the_zeros_of_a_lattice_at_half_a_step():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(40, [0.7, 0.2, 0.07, 0.03], size=200) / 40
    for proba in (votes, votes.astype(np.float32)):
        zeros = proba == 0
        assert log_floor(proba, zeros) == pytest.approx(np.log(1 / 80), rel=1e-6)
    # A single tree of forty that never votes alone.
    even = votes[(np.round(votes * 40) != 1).all(axis=1)]
    assert log_floor(even, even == 0) == pytest.approx(np.log(1 / 80), rel=1e-6)


def test_auto_keeps_small_numbers_and_takes_the_default_for_other_zeros():
    deep = np.array([[1 - 1e-30, 1e-30, 0.0], [0.5, 0.3, 0.2], [0.61, 0.29, 0.1]])
    tiny = np.log(np.finfo(np.float32).tiny)
    assert log_floor(deep, deep == 0) == pytest.approx(tiny)
    assert logits_from_proba(deep, floor="auto")[0, 1] == pytest.approx(np.log(1e-30))
    odd = np.array([[1.0, 0.0, 0.0], [0.512, 0.2881, 0.1999], [0.9, 0.1, 0.0]])
    assert log_floor(odd, odd == 0) == pytest.approx(np.log(1e-12))


def test_denormal_numbers_are_no_lattice():
    proba = np.array([[1.0, 3 * 5e-324, 0.0], [1.0, 5e-324, 0.0], [0.3, 0.5, 0.2]])
    tiny = np.log(np.finfo(np.float32).tiny)
    assert log_floor(proba, proba == 0) == pytest.approx(tiny)


@pytest.mark.parametrize("floor", ["car", "0.1", 0, 1.5])
def test_another_floor_is_refused(floor):
    with pytest.raises(ValueError, match='neither a number between 0 and 1 nor "auto"'):
        logits_from_proba([[0.5, 0.5]], floor=floor)


@pytest.mark.parametrize("floor", [None, [1e-3], 1j])
def test_a_floor_that_is_no_number_is_named(floor):
    with pytest.raises(TypeError, match=r"floor=.* is neither a number"):
        logits_from_proba([[0.5, 0.5]], floor=floor)


def test_a_floor_below_single_precision_is_its_smallest_number():
    proba = np.array([[1, 0], [0.5, 0.5]], np.float32)
    logits = logits_from_proba(proba, floor=1e-50)
    assert np.isfinite(logits).all()
    assert logits_from_proba(proba, floor=np.float64(1e-12)).dtype == np.float32
