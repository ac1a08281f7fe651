"""The simplest candidate within one standard error of the best, no more and no less."""

import numpy as np
import pytest

from skcalib._numerics import choose, mean_and_error


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


def test_equal_candidates_leave_the_choice_to_the_first():
    assert choose(np.zeros((3, 5)), np.ones(5), one_standard_error=True) == 0
