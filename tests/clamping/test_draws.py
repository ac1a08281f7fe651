"""Rows drawn by how much they pull: the mean stays, the noise goes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from skcalib.clamping._draws import Draws  # noqa: E402

pytestmark = pytest.mark.torch

N = 50
ROWS = np.arange(0, N, 2)


def make(pull, weight=None):
    weight = np.ones(N) if weight is None else weight
    weight = weight / weight.mean()
    return Draws(torch.as_tensor(weight), ROWS, pull), weight


def random_pull(seed=0):
    return np.random.default_rng(seed).exponential(size=N) ** 3


def test_weighted_draws_have_the_mean_of_all_rows():
    rng = np.random.RandomState(0)
    weight = rng.exponential(size=N)
    draws, weight = make(random_pull(), weight)
    values = rng.normal(size=(N, 3))
    own = weight[ROWS] / weight[ROWS].sum()
    found = []
    for _ in range(4000):
        order = draws.order(rng)
        found.append(draws.weight.numpy()[order] @ values[order])
    total = weight[ROWS].sum() * own @ values[ROWS]
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - total) < 4 * error)


def test_as_many_draws_as_rows_and_only_of_them():
    draws, _ = make(random_pull())
    order = draws.order(np.random.RandomState(0))
    assert len(order) == len(ROWS)
    assert np.isin(order, ROWS).all()


def test_rows_come_by_pull_within_rounding():
    pull = random_pull()
    draws, _ = make(pull)
    share = pull[ROWS] / pull[ROWS].sum()
    expected = 0.5 + 0.5 * len(ROWS) * share
    for seed in range(20):
        order = draws.order(np.random.RandomState(seed))
        counts = np.bincount(order, minlength=N)[ROWS]
        assert np.all(np.abs(counts - expected) <= 1)


@pytest.mark.parametrize("pull", [np.ones(N), np.zeros(N)])
def test_rows_of_equal_pull_come_once_each_at_their_own_weight(pull):
    draws, weight = make(pull)
    order = draws.order(np.random.RandomState(0))
    assert_array_equal(np.sort(order), ROWS)
    assert not np.array_equal(order, ROWS)
    assert_allclose(draws.weight.numpy()[ROWS], weight[ROWS])


def test_rows_without_weight_are_never_drawn():
    weight = np.ones(N)
    weight[[0, 10, 48]] = 0
    draws, _ = make(random_pull(), weight)
    for seed in range(50):
        order = draws.order(np.random.RandomState(seed))
        assert not np.isin([0, 10, 48], order).any()


def test_what_a_visit_shows_counts_from_then_on():
    draws, _ = make(np.ones(N))
    gradient = torch.tensor([[30.0, -40.0], [0.0, 0.0]])
    draws.note(torch.tensor([4, 6]), gradient)
    order = draws.order(np.random.RandomState(0))
    assert np.sum(order == 4) > 5
    assert float(draws.weight[4]) < 0.2 < 1 < float(draws.weight[6])
