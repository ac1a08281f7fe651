"""Logits of options from the most probable tokens that an interface tells."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

from skcalib import OptionCalibration, logits_from_top_logprobs

LETTERS = ["A", "B", "C", "D"]


def told(**proba):
    return {token: np.log(value) for token, value in proba.items()}


def test_options_that_are_told_keep_their_log_probabilities():
    top = [told(A=0.5, B=0.2, C=0.1, D=0.05, x=0.1), told(D=0.4, C=0.3, B=0.2, A=0.1)]
    logits = logits_from_top_logprobs(top, LETTERS)
    expected = [[0.5, 0.2, 0.1, 0.05], [0.1, 0.2, 0.3, 0.4]]
    assert_allclose(np.exp(logits), expected)


def test_the_rest_is_spread_over_the_missing_options():
    top = [told(A=0.7, B=0.2, x=0.08)]
    assert_allclose(
        np.exp(logits_from_top_logprobs(top, LETTERS)), [[0.7, 0.2, 0.01, 0.01]]
    )


def test_no_missing_option_has_more_than_the_least_that_was_told():
    top = [told(A=0.3, x=0.05)]
    assert_allclose(
        np.exp(logits_from_top_logprobs(top, LETTERS)), [[0.3, 0.05, 0.05, 0.05]]
    )


def test_the_rest_is_spread_over_a_known_vocabulary():
    top = [told(A=0.7, x=0.2)]
    logits = logits_from_top_logprobs(top, ["A", "B"], vocabulary_size=102)
    assert_allclose(np.exp(logits), [[0.7, 0.001]])


def test_a_lumped_row_sums_to_one_and_lacks_what_is_not_told():
    top = [told(A=0.7, B=0.2, x=0.08), told(C=0.6, A=0.4)]
    logits = logits_from_top_logprobs(top, LETTERS, rest="lump")
    proba = np.exp(logits)
    assert_allclose(proba[0], [0.7, 0.2, 0, 0, 0.1])
    assert_allclose(proba.sum(axis=1), 1)
    fitted = OptionCalibration(position_offset=False).fit(
        np.repeat(logits, 20, axis=0), [0] * 19 + [4] + [2] * 15 + [0] * 5
    )
    served = fitted.predict_proba(logits)
    assert (served[0] == 0).tolist() == [False, False, True, True, False]


def test_tokens_that_say_the_same_option_are_added():
    top = [{"A": np.log(0.5), " A": np.log(0.25), "B": np.log(0.125)}]
    logits = logits_from_top_logprobs(top, [("A", " A", "(A"), ("B", " B")])
    assert_allclose(np.exp(logits), [[0.75, 0.125]])


def test_tokens_may_be_numbers_and_a_sure_one_rounded_up():
    logits = logits_from_top_logprobs([{32: 1e-7, 33: -20.0}], [32, 33])
    assert_allclose(logits, [[1e-7, -20]])


def test_each_question_may_have_options_of_its_own():
    top = [told(A=0.6, B=0.4), told(yes=0.5, no=0.3, maybe=0.2)]
    rows = logits_from_top_logprobs(top, [["A", "B"], ["yes", "no", "maybe"]])
    assert [row.shape for row in rows] == [(2,), (3,)]
    fitted = OptionCalibration().fit(rows, [0, 2])
    assert_allclose([row.sum() for row in fitted.predict_proba(rows)], 1)


def test_the_order_of_the_told_options_survives_truncation():
    rng = np.random.default_rng(0)
    full = softmax(rng.normal(0, 2, (200, 50)), axis=1)
    names = [f"t{k}" for k in range(50)]
    top = [
        {names[k]: float(np.log(row[k])) for k in np.argsort(row)[-5:]} for row in full
    ]
    logits = logits_from_top_logprobs(top, names[:4], vocabulary_size=50)
    least = np.array([min(row.values()) for row in top])
    is_told = logits > least[:, np.newaxis] - 1e-12
    assert_allclose(logits[is_told], np.log(full[:, :4])[is_told])
    assert is_told.any(axis=1).mean() > 0.3
    assert (
        logits[~is_told] <= np.broadcast_to(least[:, None], (200, 4))[~is_told]
    ).all()


@pytest.mark.parametrize(
    ("top", "options", "message"),
    [
        ([told(A=0.5), {}], ["A", "B"], "Question 1: The top tokens are {}"),
        ([{"A": 0.3}], ["A", "B"], "Question 0: The token 'A' .* 0.3"),
        ([{"A": np.nan}], ["A", "B"], "log-probability nan"),
        ([{"A": -0.1, "B": -0.2}], ["A", "B"], "Question 0: .* sum to 1.724"),
        ([told(A=0.5)], ["A"], "at least two are needed"),
        ([told(A=0.5)], [("A", "B"), "B"], "no token in two"),
        ([told(A=0.5)] * 3, [["A", "B"]] * 2, "2 lists of options and 3"),
    ],
)
def test_bad_logprobs_are_refused_and_named(top, options, message):
    with pytest.raises(ValueError, match=message):
        logits_from_top_logprobs(top, options)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='neither "spread" nor "lump"'):
        logits_from_top_logprobs([told(A=0.5)], ["A", "B"], rest="drop")
    for size in (1.5, 0, True):
        with pytest.raises(ValueError, match=f"vocabulary_size={size}.*whole number"):
            logits_from_top_logprobs([told(A=0.5)], ["A", "B"], vocabulary_size=size)
    with pytest.raises(ValueError, match="Question 0: vocabulary_size=4, but 5 tokens"):
        logits_from_top_logprobs([told(A=0.5, x=0.1)], LETTERS, vocabulary_size=4)


@pytest.mark.parametrize("rest", ["spread", "lump"])
def test_options_none_of_which_is_told_are_warned_of(rest):
    missed, told = {" B": -0.05, " A": -3.2}, {"A": -0.05, " A": -3.2}
    with pytest.warns(UserWarning, match="the first tells ' B', ' A'"):
        logits_from_top_logprobs([missed], ["A", "B"], rest=rest)
    assert len(logits_from_top_logprobs([missed, told], ["A", "B"], rest=rest)) == 2
