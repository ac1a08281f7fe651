"""Choices follow the one-standard-error rule."""

import numpy as np
import pytest

pytest.importorskip("torch")

from skcalib.clamping._candidates import Candidate, LogLossScore, ScoreTable

pytestmark = pytest.mark.torch


def candidate(log_odds, checked=True):
    """Return a candidate that gives the true class these log-odds, of two classes."""
    logits = np.column_stack([log_odds, np.zeros(len(log_odds))])
    n = len(log_odds)
    return Candidate(0, 4, 0.1, logits=logits, temperature=np.ones(n), checked=checked)


def table(candidates, weight=None):
    n = candidates[0].logits.shape[0]
    weight = np.ones(n) if weight is None else weight
    splits = [(None, np.arange(n))]
    result = ScoreTable(LogLossScore(), np.zeros(n, dtype=int), weight, splits)
    for each in candidates:
        result.add(each)
    return result


def test_the_first_that_the_best_does_not_beat_is_chosen():
    rng = np.random.default_rng(0)
    plain = rng.normal(1, 1, 400)
    noisy = candidate(plain + rng.normal(0.01, 1, 400))
    better = candidate(plain + 0.5)
    noise = rng.normal(0, 0.1, 400)
    hardly = candidate(plain + 0.5 + noise - noise.mean() + 0.008)
    simple = candidate(plain)
    every = [simple, better, hardly]
    assert table([simple, noisy]).choose([noisy, simple]) is simple
    scores = table(every)
    assert scores.choose(every) is better
    assert scores.choose(every, "best") is max(every, key=scores.mean) is hardly


@pytest.mark.parametrize(("n_errors", "wins"), [(0.99, False), (1.01, True)])
def test_the_best_has_to_win_by_more_than_one_standard_error(n_errors, wins):
    rng = np.random.default_rng(0)
    codes, noise = np.zeros(400, dtype=int), rng.normal(size=400)
    simple = candidate(rng.normal(1, 1, 400))
    # What is added to the score of a row is added to the logarithm of its probability.
    score = LogLossScore()(simple, codes, None, None) - 5
    simple = candidate(log_odds_of(score))
    noise = 0.1 * (noise - noise.mean()) / noise.std(ddof=1)
    complex_one = candidate(log_odds_of(score + noise + 0.1 * n_errors / 20))
    pair = [simple, complex_one]
    both = table(pair)
    mean, error = both.gain(complex_one, simple)
    assert mean / error == pytest.approx(n_errors)
    assert both.choose(pair) is (complex_one if wins else simple)
    assert both.helps(complex_one, simple) == wins


def log_odds_of(log_proba):
    return log_proba - np.log(-np.expm1(log_proba))


def test_only_those_are_chosen_among_which_is_chosen():
    plain = np.random.default_rng(0).normal(1, 1, 400)
    simple, better = candidate(plain), candidate(plain + 1)
    assert table([simple, better]).choose([simple]) is simple


def test_the_error_is_that_of_the_paired_difference_and_of_repeated_rows():
    rng = np.random.default_rng(0)
    first, second = candidate(rng.normal(size=50)), candidate(rng.normal(size=50))
    weight = rng.integers(0, 4, 50)
    mean, error = table([first, second], weight).gain(second, first)
    rows = np.repeat(np.arange(50), weight)
    score = LogLossScore()
    difference = score(second, np.zeros(50, int), None, None)
    difference = (difference - score(first, np.zeros(50, int), None, None))[rows]
    assert mean == pytest.approx(difference.mean())
    assert error == pytest.approx(difference.std(ddof=1) / len(rows) ** 0.5)
