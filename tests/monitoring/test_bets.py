import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib.monitoring import _bets


def draw_rows(n_classes):
    """Rows of every kind: even, sharp, with exact zeros, and of one class only."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(n_classes, 0.2), 40)
    rows[:10] = rng.dirichlet(np.ones(n_classes), 10)
    rows[10:20, 0] = 0
    rows[20] = np.eye(n_classes)[1]
    return rows / rows.sum(axis=1, keepdims=True)


def gains_by_class(p, n_classes, tolerance):
    """What each bet gains on each row, (n_rows, n_classes, n_bets)."""
    tilts = np.random.default_rng(1).uniform(-1, 1, (2, n_classes))
    floored = _bets.floored(p.copy())
    per_class = []
    for k in range(n_classes):
        codes = np.full(len(p), k)
        fixed = _bets.fixed_bets(floored, codes, tolerance)
        learned = _bets.learned_bets(floored, codes, tilts, tolerance)
        per_class.append(np.concatenate([fixed, learned], axis=1))
    return np.exp(np.stack(per_class, axis=1))


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_no_bet_is_expected_to_gain_on_a_calibrated_row(n_classes):
    p = draw_rows(n_classes)
    gains = gains_by_class(p, n_classes, 0.0)
    expected = np.einsum("nk,nkj->nj", p, gains)
    assert expected.max() <= 1 + 1e-9
    # Where no probability is floored, nothing is given away either.
    assert_allclose(expected[:10], 1, rtol=1e-6)


@pytest.mark.parametrize("tolerance", [0.001, 0.1])
def test_no_bet_is_expected_to_gain_where_the_error_is_tolerated(tolerance):
    p = draw_rows(4)
    gains = gains_by_class(p, 4, tolerance)
    # The worst error moves as much as is tolerated, and is there, to the best class.
    worst = 0.0
    for row, gain in zip(p, gains, strict=True):
        for bet in gain.T:
            low, high = bet.argmin(), bet.argmax()
            moved = min(tolerance, row[low])
            worst = max(worst, row @ bet + moved * (bet[high] - bet[low]))
    assert worst <= 1 + 1e-9


def test_no_row_gains_more_than_tenfold():
    p = np.array([[1 - 2e-9, 1e-9, 1e-9], [1.0, 0.0, 0.0]])
    assert gains_by_class(p, 3, 0.0).max() <= _bets.LARGEST_GAIN * (1 + 1e-9)


def test_powers_and_tilts_are_those_of_the_formula():
    p = draw_rows(3)[:10]
    codes = np.arange(10) % 3
    got = np.exp(_bets.fixed_bets(p, codes, 0.0))
    own = p[np.arange(10), codes]
    for j, power in enumerate(np.exp(_bets.LOG_POWERS)):
        q = p**power / (p**power).sum(axis=1, keepdims=True)
        ratio = q / p
        stake = np.minimum(1, 9 / (ratio.max(axis=1) - 1))
        expected = 1 - stake + stake * q[np.arange(10), codes] / own
        assert_allclose(got[:, j], expected, rtol=1e-9)
    top = p == p.max(axis=1, keepdims=True)
    for family, chosen in enumerate([top, *np.eye(3)]):
        tilted = p * np.exp(_bets.TILTS[2] * chosen)
        tilted /= tilted.sum(axis=1, keepdims=True)
        j = _bets.LOG_POWERS.size + family * _bets.TILTS.size + 2
        assert_allclose(got[:, j], tilted[np.arange(10), codes] / own, rtol=1e-9)


def test_every_bet_says_what_it_holds_against_the_model():
    told = [_bets.describe(j, ["a", "b"]) for j in range(_bets.n_fixed(2) + 2)]
    assert told[0].startswith("over-confident: the logits are too large by a factor")
    assert told[11].startswith("under-confident")
    assert told[12] == (
        "the predicted class is right less often than stated: odds by 2.72"
    )
    assert told[17].startswith("the predicted class is right more often")
    assert told[18].startswith("class 'a' is less frequent")
    assert told[29].startswith("class 'b' is more frequent")
    assert told[30] == told[31]


def test_learned_tilts_of_two_classes_are_the_newton_step():
    # Both classes get half of the step of the one log-odds.
    residual, variance = np.array([-12.0, 12.0]), np.array([100.0, 100.0])
    tilts = _bets.learned_tilts(residual, variance)
    assert tilts[1] - tilts[0] == pytest.approx(12 / (100 + _bets.RIDGE))


def test_the_capital_is_spent_once():
    assert np.exp(_bets.log_weights(7, 2)).sum() == pytest.approx(1)
