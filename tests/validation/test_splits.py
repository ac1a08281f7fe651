import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import GroupKFold, LeaveOneOut, ShuffleSplit

from skcalib._blocks import open_source
from skcalib._validation import lone_class, make_splits, number_equal_rows

CODES = np.repeat([0, 1, 2], [30, 12, 1])
X = np.random.default_rng(0).normal(size=(43, 3))
ONES = np.ones(43)


def test_an_integer_deals_every_class_out_over_the_folds():
    splits = make_splits(5, X, CODES, ONES, 0)
    assert_array_equal(np.sort(np.concatenate([test for _, test in splits])), range(43))
    for train, test in splits:
        assert_array_equal(np.sort(np.concatenate([train, test])), range(43))
        assert np.bincount(CODES[test])[0] == 6
        assert np.bincount(CODES[test])[1] in (2, 3)


def test_folds_that_are_not_balanced_leave_no_class_of_two_rows_to_one_of_them():
    codes = np.repeat(np.arange(40), 2)
    rows = np.random.default_rng(0).normal(size=(80, 3))
    counts = []
    for seed in range(5):
        splits = make_splits(4, rows, codes, np.ones(80), seed, balanced=False)
        assert all(np.unique(codes[train]).size == 40 for train, _ in splits)
        counts += [np.bincount(codes[test] < 20, minlength=2)[1] for _, test in splits]
    assert np.ptp(counts) > 4  # Ten of twenty rows each where they are balanced.


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


# Equal rows


@pytest.mark.parametrize("form", ["array", "float32", "source", "memmap", "images"])
def test_equal_rows_of_a_class_share_a_fold(tmp_path, form):
    rows = np.random.default_rng(0).integers(0, 43, 400)
    repeated, codes = X[rows], CODES[rows]
    if form == "float32":
        repeated = repeated.astype(np.float32)
    if form == "images":
        repeated = np.arange(43 * 75, dtype=np.uint8).reshape(43, 3, 5, 5)[rows]
    if form == "memmap":
        np.save(tmp_path / "X.npy", repeated)
        repeated = np.load(tmp_path / "X.npy", mmap_mode="r")
    if form in ("source", "memmap"):
        repeated = open_source(repeated)
    splits = make_splits(5, repeated, codes, np.ones(400), 0)
    assert_array_equal(np.sort(np.concatenate([b for _, b in splits])), range(400))
    for train, test in splits:
        assert not np.intersect1d(rows[train], rows[test]).size


@pytest.mark.parametrize("order", ["together", "one copy after the other"])
def test_folds_do_not_depend_on_how_often_a_row_is_repeated(order):
    every = np.arange(43)
    times = np.random.default_rng(0).integers(1, 5, 43)
    rows = np.repeat(every, times)
    if order != "together":
        rows = np.concatenate([every, rows[np.arange(rows.size) % 3 > 0]])
    once = make_splits(4, X, CODES, ONES, 0)
    often = make_splits(4, X[rows], CODES[rows], np.ones(rows.size), 0)
    for (_, a), (_, b) in zip(once, often, strict=True):
        assert_array_equal(a, np.unique(rows[b]))


def test_equal_rows_of_two_classes_are_two_samples():
    codes = np.repeat([0, 1], 20)
    number = number_equal_rows(np.zeros((40, 2)), codes)
    assert_array_equal(number, codes)


def test_signed_zeros_and_round_numbers_are_told_apart_by_value():
    grid = np.array(np.meshgrid([-2.0, -1.0, 0.0, 1.0, 2.0], range(300), range(8)))
    rows = grid.reshape(3, -1).T
    for dtype in (np.float64, np.float32, np.int64):
        number = number_equal_rows(rows.astype(dtype), np.zeros(len(rows), int))
        assert_array_equal(number, range(len(rows)))
    pair = np.array([[0.0, 1.0], [-0.0, 1.0]])
    assert_array_equal(number_equal_rows(pair, np.zeros(2, int)), [0, 0])


# Groups


@pytest.mark.parametrize("cv", [3, GroupKFold(3)])
def test_a_group_stays_on_one_side(cv):
    groups = np.random.default_rng(0).permutation(43) // 4
    splits = make_splits(cv, X, CODES, ONES, 0, groups)
    assert_array_equal(np.sort(np.concatenate([b for _, b in splits])), range(43))
    for train, test in splits:
        assert not np.intersect1d(groups[train], groups[test]).size


def test_groups_of_unequal_sizes_spread_the_classes_evenly():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 250, 3000) % 100
    codes = (groups % 7 + rng.integers(0, 2, 3000)) % 7
    splits = make_splits(5, rng.normal(size=(3000, 7)), codes, np.ones(3000), 0, groups)
    for _, test in splits:
        assert test.size == pytest.approx(600, abs=60)
        assert_array_equal(np.bincount(codes[test], minlength=7) > 0, True)


def test_folds_of_groups_count_a_weight_as_repetition():
    rng = np.random.default_rng(0)
    groups, weight = rng.integers(0, 12, 43), rng.integers(0, 4, 43)
    rows = np.repeat(np.arange(43), weight)
    args = X[rows], CODES[rows], np.ones(rows.size), 0, groups[rows]
    weighted = make_splits(4, X, CODES, weight.astype(float), 0, groups)
    for (_, a), (_, b) in zip(weighted, make_splits(4, *args), strict=True):
        assert_array_equal(a, np.unique(rows[b]))


def test_no_more_folds_than_groups():
    assert len(make_splits(5, X, CODES, ONES, 0, np.arange(43) % 3)) == 3


def test_a_single_group_is_refused():
    with pytest.raises(ValueError, match="groups holds one group only: 'a'"):
        make_splits(5, X, CODES, ONES, 0, ["a"] * 43)


def test_groups_of_another_length_are_refused():
    with pytest.raises(
        ValueError, match=r"groups has shape .* needs one entry for each of the 43"
    ):
        make_splits(5, X, CODES, ONES, 0, np.arange(42))


def test_a_split_that_leaves_one_class_to_fit_on_is_found():
    codes = np.array([0, 0, 0, 1])
    splits = make_splits(2, X[:4], codes, ONES[:4], 0)
    number, lone = lone_class(splits, codes)
    assert lone == 0
    assert 3 in splits[number][1]
    assert lone_class(splits[:number], codes) is None


def test_rows_that_only_share_a_score_are_not_left_out_together():
    # A tree of four leaves: its scores say no more of two rows than that.
    scores = np.repeat([0.0, 1.0, 2.0, 3.0], [400, 60, 30, 1])[:, np.newaxis]
    y = np.zeros(491, dtype=int)
    for train, test in make_splits(5, scores, y, np.ones(491), 0):
        for value in (0.0, 1.0, 2.0):
            share = (scores[test] == value).sum() / (scores == value).sum()
            assert share == pytest.approx(0.2, abs=0.1)
        assert set(scores[train].ravel()) >= {0.0, 1.0, 2.0}


@pytest.mark.parametrize("levels", [1, 3, 10, 40])
def test_rows_of_two_classes_that_share_a_score_are_left_out_evenly(levels):
    rng = np.random.default_rng(0)
    score = np.repeat(np.arange(levels, dtype=float), 4000 // levels)
    y = (rng.random(score.size) < 0.3 + 0.4 * score / levels).astype(int)
    for train, test in make_splits(5, score[:, None], y, np.ones(score.size), 0):
        for value in range(levels):
            every = y[score == value].mean()
            own = y[train][score[train] == value].mean()
            assert own == pytest.approx(every, abs=0.1)
            assert (score[test] == value).any()


def test_two_scores_that_tell_the_classes_apart_are_left_out_evenly():
    y = np.arange(1000) % 2
    for train, test in make_splits(5, np.eye(2)[y], y, np.ones(1000), 0):
        assert np.bincount(y[train]).tolist() == [400, 400]
        assert np.bincount(y[test]).tolist() == [100, 100]


def test_scores_that_are_shared_are_dealt_alike_in_a_set_that_is_repeated():
    rng = np.random.default_rng(0)
    score, y = rng.integers(0, 12, 60).astype(float)[:, None], rng.integers(0, 2, 60)
    rows = np.repeat(np.arange(60), 2)
    once = make_splits(5, score, y, np.ones(60), 0)
    twice = make_splits(5, score[rows], y[rows], np.ones(120), 0)
    for (_, a), (_, b) in zip(once, twice, strict=True):
        assert_array_equal(2 * np.bincount(y[a]), np.bincount(y[rows[b]]))
        assert_array_equal(
            np.sort(np.repeat(score[a, 0], 2)), np.sort(score[rows[b], 0])
        )


@pytest.mark.parametrize("times", [2, 8, 30])
def test_a_set_that_is_repeated_as_a_whole_has_its_rows_together(times):
    X = np.random.default_rng(0).normal(size=(60, 3))
    rows = np.repeat(np.arange(60), times)
    y = np.arange(60) % 2
    for train, test in make_splits(5, X[rows], y[rows], np.ones(rows.size), 0):
        assert not set(rows[train]) & set(rows[test])
