import numpy as np
import pytest
from numpy.testing import assert_allclose
from streams import draw_stream

from skcalib.monitoring import _bets
from skcalib.monitoring._wealth import BLOCK, SLACK, Wealth, kept

N_CLASSES = 3


def feed(wealth, y, proba, sizes):
    """Add the rows in parts of these sizes."""
    start = 0
    for size in sizes:
        p = _bets.floored(proba[start : start + size].copy())
        codes = y[start : start + size]
        fixed = _bets.fixed_bets(p, codes, 0.0)
        wealth.update(fixed, p, codes, start)
        start += size
    return wealth


def test_the_wealth_is_the_mixture_over_all_starts():
    y, proba = draw_stream(np.random.default_rng(0), 5 * BLOCK, N_CLASSES, factor=1.5)
    wealth = feed(Wealth(N_CLASSES, 0.0), y, proba, [5 * BLOCK])
    gains = _bets.fixed_bets(_bets.floored(proba.copy()), y, 0.0)
    for j in (0, 8, 20):
        sums = [gains[s * BLOCK :, j].sum() for s in range(5)]
        terms = [(kept(s) - kept(s + 1)) * np.exp(sums[s]) for s in range(5)]
        assert np.exp(wealth.wealth[j]) == pytest.approx(sum(terms), rel=1e-9)
        slack = [SLACK * BLOCK * (4 - s) for s in range(5)]
        assert wealth.best[j] == pytest.approx(np.subtract(sums, slack).max())
        assert wealth.start[j] == BLOCK * np.subtract(sums, slack).argmax()


def test_batches_make_no_difference():
    y, proba = draw_stream(np.random.default_rng(0), 200, N_CLASSES, factor=1.5)
    whole = feed(Wealth(N_CLASSES, 0.0), y, proba, [200])
    parts = feed(Wealth(N_CLASSES, 0.0), y, proba, [1, 31, 5, 63, 100])
    assert_allclose(parts.wealth, whole.wealth, rtol=1e-9)
    assert_allclose(parts.residual, whole.residual, rtol=1e-9)
    assert parts.evidence == pytest.approx(whole.evidence, abs=1e-9)


def test_learned_bets_know_the_past_only(monkeypatch):
    # The second block is bet on alike, whatever its labels are.
    y, proba = draw_stream(np.random.default_rng(0), 2 * BLOCK, N_CLASSES, bias=1)
    other = np.concatenate([y[:BLOCK], (y[BLOCK:] + 1) % N_CLASSES])
    learned_bets, tilts = _bets.learned_bets, []

    def watched(p, codes, by, tolerance):
        tilts.append(by)
        return learned_bets(p, codes, by, tolerance)

    monkeypatch.setattr(_bets, "learned_bets", watched)
    for labels in (y, other):
        feed(Wealth(N_CLASSES, 0.0), labels, proba, [2 * BLOCK])
    assert np.abs(tilts[1]).max() > 0.05
    assert_allclose(tilts[1], tilts[3])


def test_merged_streams_multiply_bet_by_bet():
    rng = np.random.default_rng(0)
    a, b = (
        feed(Wealth(N_CLASSES, 0.0), *draw_stream(rng, n, N_CLASSES, factor=1.5), [n])
        for n in (50, 70)
    )
    expected = np.logaddexp(a.wealth, np.log(kept(2) - kept(3))) + b.plain
    a.merge(b, 50)
    assert_allclose(a.wealth, expected)
    assert a.n_rows == 120


def test_the_price_of_a_late_start_grows_slowly():
    assert kept(0) == 1
    assert -np.log(kept(1000) - kept(1001)) < 11.5
