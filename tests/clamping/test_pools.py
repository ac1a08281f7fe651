"""Slots of classes, and what the linear model loses by them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

pytest.importorskip("torch")

from linearised import linearised

from skcalib.clamping._pools import LOST, Pools

pytestmark = pytest.mark.torch


def draw(n=150, n_classes=30, dim=5):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(n, n_classes))
    jacobian = rng.normal(size=(n, n_classes, dim))
    codes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    weight = rng.uniform(0, 1, n)
    return logits, jacobian, codes, weight / weight.sum()


def test_the_slots_of_a_row_cover_its_classes_but_for_the_most_probable():
    logits, _, codes, weight = draw()
    proba = softmax(logits, axis=1)
    pools = Pools(proba, codes, weight)
    assert 150 < pools.n_slots < 150 * 15
    for i, place in enumerate(pools.place):
        first, last = pools.starts[i : i + 2]
        assert place[proba[i].argmax()] == pools.n_slots
        own = np.delete(place, proba[i].argmax())
        assert set(own) == set(range(first, last))
        assert (place == place[codes[i]]).sum() == 1
        sums = np.bincount(own - first, np.delete(pools.share[i], proba[i].argmax()))
        assert_allclose(sums, 1)
        pooled = own == own[np.bincount(own - first)[own - first].argmax()]
        if pooled.sum() > 1:
            assert np.delete(proba[i], proba[i].argmax())[pooled].max() < 0.5


@pytest.mark.parametrize(("n_classes", "lost"), [(9, 0.0), (4, 0.9)])
def test_slots_of_single_classes_are_all_but_one(n_classes, lost):
    logits, _, codes, weight = draw(n_classes=n_classes)
    pools = Pools(softmax(logits, axis=1), codes, weight, lost)
    assert (pools.counts == n_classes - 1).all()
    assert (pools.share == 1).all()


def test_probabilities_of_zero_are_pooled_evenly():
    proba = np.tile([1.0, 0, 0, 0, 0], (2, 1))
    pools = Pools(proba, np.array([0, 1]), np.ones(2), 0.5)
    assert pools.counts.tolist() == [1, 2]
    assert_allclose(pools.share[0, 1:], 1 / 4)
    assert_allclose(pools.share[1, 2:], 1 / 3)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_gradient_is_that_of_every_class_and_the_curvature_nearly_so(gamma):
    logits, jacobian, codes, weight = draw()
    x = np.zeros(6)  # T = 1, where the slots come from
    every = linearised(logits, jacobian, codes, "focal", gamma)
    pooled = linearised(logits, jacobian, codes, "focal", gamma, LOST)
    assert pooled.jacobian.shape[0] < every.jacobian.shape[0] / 2
    value, gradient = every.evaluate(x, weight, 0.0)
    found = pooled.evaluate(x, weight, 0.0)
    assert found[0] == value
    assert_allclose(found[1], gradient, atol=1e-12)
    whole, part = (m.curvature(0.0, weight) for m in (every, pooled))
    assert np.linalg.eigvalsh((whole - part)[:-1, :-1]).min() > 0
    assert np.trace(whole - part) < 1.5 * LOST * np.trace(whole)
    assert_allclose(part[-1], whole[-1], atol=0.01 * whole[-1, -1])


def test_the_curvature_is_that_of_slots_written_out():
    logits, jacobian, codes, weight = draw(n=20, n_classes=8)
    model = linearised(logits, jacobian, codes, "focal", 0.0, 0.3)
    moves = np.append(model.jacobian, np.zeros((1, 5)), axis=0)[model.pools.place]
    same = linearised(logits, moves, codes, "focal", 0.0)
    assert model.pools.n_slots < same.pools.n_slots
    rows = np.array([7, 2, 11])
    found = model.curvature(0.5, weight, rows)
    assert_allclose(found, same.curvature(0.5, weight, rows), atol=1e-12)


def test_directions_weigh_the_logits_of_slots():
    logits, _, codes, weight = draw(n=12, n_classes=9)
    pools = Pools(softmax(logits, axis=1), codes, weight, 0.2)
    rows = np.array([4, 0, 9])
    directions = np.stack(list(pools.directions(rows)), axis=1)
    found = np.matmul(directions, logits[rows, :, np.newaxis])[..., 0]
    assert_array_equal(pools.has_slot(rows), directions.any(axis=2))
    slots = pools.of_rows(rows)[0]
    expected = pools.mean_change(logits)[slots]
    assert_allclose(found[directions.any(axis=2)], expected, rtol=1e-6, atol=1e-6)
