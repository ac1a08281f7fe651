"""Array functions, and the choice of a candidate within one standard error."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skcalib._numerics import choose, distinct, largest_column, mean_and_error


def scores_with_a_gap_of(n_errors, weight):
    """Scores of two candidates; the second is better by so many standard errors."""
    rng = np.random.default_rng(0)
    simple = rng.normal(size=weight.size)
    difference = rng.normal(size=weight.size)
    mean, error = mean_and_error(difference, weight)
    return np.stack([simple, simple + difference - mean + n_errors * error])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n_errors", "chosen"), [(0.01, 0), (0.99, 0), (1.01, 1)])
def test_the_best_has_to_win_by_more_than_one_standard_error(
    n_errors, chosen, weighted
):
    weight = np.arange(1.0, 41) if weighted else np.ones(40)
    scores = scores_with_a_gap_of(n_errors, weight)
    assert choose(scores, weight, one_standard_error=True) == chosen
    assert choose(scores, weight, one_standard_error=False) == 1


def test_the_error_is_that_of_repeated_units():
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=(3, 50)), rng.integers(0, 4, 50)
    mean, error = mean_and_error(values, weight.astype(float))
    repeated = np.repeat(values, weight, axis=1)
    np.testing.assert_allclose(mean, repeated.mean(axis=1))
    expected = repeated.std(axis=1, ddof=1) / repeated.shape[1] ** 0.5
    np.testing.assert_allclose(error, expected)


@pytest.mark.parametrize("weight", [[1.0], [0.0, 1.0]])
def test_the_error_of_a_single_unit_is_unknown(weight):
    scores = np.array([[0.0] * len(weight), [1.0] * len(weight)])
    mean, error = mean_and_error(scores, np.array(weight))
    assert_array_equal(mean, [0, 1])
    assert_array_equal(error, np.inf)
    assert choose(scores, np.array(weight), one_standard_error=True) == 0
    assert choose(scores, np.array(weight), one_standard_error=False) == 1


def test_equal_candidates_leave_the_choice_to_the_first():
    assert choose(np.zeros((3, 5)), np.ones(5), one_standard_error=True) == 0


@pytest.mark.parametrize("n_columns", [1, 2, 10, 32, 33, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_column_is_the_first_that_holds_the_maximum(n_columns, dtype):
    block = np.random.default_rng(0).integers(0, 4, (500, n_columns)).astype(dtype)
    top, largest = largest_column(block)
    assert_array_equal(top, block.argmax(axis=1))
    assert_array_equal(largest, block.max(axis=1), strict=True)
    block[3, -1] = np.nan
    assert np.isnan(largest_column(block)[1][3])


@pytest.mark.parametrize(
    "values",
    [
        np.array([127, -128, 127, 0], dtype=np.int8),
        np.array([2**63 + 5, 2**63, 2**63 + 5], dtype=np.uint64),
        np.array([-(2**62), 2**62]),
        np.array([5]),
        np.array([], dtype=int),
        np.array(["b", "a", "b"]),
        np.array([0.5, -1.0, 0.5]),
        np.array(["b", "a", "b"], dtype=object),
        np.array([(2, 1), (1,), (2, 1), None], dtype=object)[:3],
    ],
    ids=[
        "near",
        "large",
        "far apart",
        "one",
        "none",
        "texts",
        "fractions",
        "str",
        "tuples",
    ],
)
def test_distinct_values_are_those_of_a_sort(values):
    found, expected = distinct(values), np.unique(values, return_inverse=True)
    for part, other in zip(found, expected, strict=True):
        assert_array_equal(part, other, strict=True)
