"""Losses of cached logits against plain formulas and differences."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

from skcalib import TemperatureScaling
from skcalib._solvers._focal_brier import (
    mean_loss,
    row_losses,
    summed_losses,
    summed_slopes,
)
from skcalib._solvers._temperature_search import best_temperature

LOSSES = [("focal", 0.0), ("focal", 0.5), ("focal", 2.0), ("brier", 0.0)]


def draw(n=30, n_classes=4, scale=3.0):
    rng = np.random.default_rng(0)
    return scale * rng.normal(size=(n, n_classes)), rng.integers(0, n_classes, n)


def plain(scores, codes, loss, gamma):
    proba = softmax(scores, axis=1)
    own = proba[np.arange(len(codes)), codes]
    if loss == "brier":
        return ((proba - np.eye(scores.shape[1])[codes]) ** 2).sum(axis=1)
    return -((1 - own) ** gamma) * np.log(own)


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
def test_losses_are_their_formulas(loss, gamma):
    scores, codes = draw()
    losses = row_losses(scores.copy(), codes, loss, gamma)[0]
    assert_allclose(losses, plain(scores, codes, loss, gamma), rtol=1e-9)


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
def test_gradients_are_differences(loss, gamma):
    scores, codes = draw()
    residual = row_losses(scores.copy(), codes, loss, gamma)[1]
    for k in range(scores.shape[1]):
        step = 1e-6 * np.eye(scores.shape[1])[k]
        above = plain(scores + step, codes, loss, gamma)
        below = plain(scores - step, codes, loss, gamma)
        assert_allclose(residual[:, k], (above - below) / 2e-6, atol=1e-7)


def test_the_root_gives_the_hessian_of_the_log_loss():
    scores, codes = draw(n=1)
    _, _, proba, root = row_losses(scores.copy(), codes, "focal", 0.0)
    change = np.eye(4)
    centred = change - (proba[0] @ change)
    factor = root[0][:, np.newaxis] * centred
    assert_allclose(factor.T @ factor, np.diag(proba[0]) - np.outer(proba, proba))


@pytest.mark.parametrize("loss", ["focal", "brier"])
def test_extreme_scores_give_finite_numbers(loss):
    scores = np.array([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]])
    found = row_losses(scores.copy(), np.array([0, 0, 0]), loss, 0.5)
    assert all(np.isfinite(part).all() for part in found)


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
def test_the_best_temperature_is_that_of_temperature_scaling(loss, gamma):
    logits, codes = draw(400)
    codes[:250] = logits[:250].argmax(axis=1)
    weight = np.random.default_rng(1).integers(0, 3, 400).astype(float)
    weight[:5] = 0
    objective = loss if gamma or loss == "brier" else "log_loss"
    options = {"gamma": gamma, "prior": None, "classes": range(4)}
    ts = TemperatureScaling(objective=objective, **options)
    ts.fit(logits, codes, sample_weight=weight)
    found = best_temperature(logits, codes, weight, loss, gamma)
    assert found.x[0] == ts.temperature_
    loss_there = mean_loss(logits, codes, weight, ts.temperature_, loss, gamma)
    assert loss_there == pytest.approx(ts.loss_, rel=1e-9)


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
def test_sums_of_a_block_are_those_of_its_rows(loss, gamma):
    logits, codes = draw()
    weight = np.linspace(0, 1, codes.size)

    def at(log_beta):
        return summed_losses(loss, gamma, np.exp(log_beta), logits, codes, weight)

    scores = np.exp(0.3) * logits
    rows = row_losses(scores.copy(), codes, loss, gamma)
    assert at(0.3) == pytest.approx(rows[0] @ weight, rel=1e-12)
    slope = summed_slopes(loss, gamma, np.exp(0.3), logits, codes, weight)
    assert slope == pytest.approx((at(0.3 + 1e-5) - at(0.3 - 1e-5)) / 2e-5, rel=1e-7)
    assert slope == pytest.approx((rows[1] * scores).sum(axis=1) @ weight, rel=1e-12)


@pytest.mark.parametrize("gamma", [0, 1])
def test_tiny_logits_of_single_precision_have_the_temperature_of_double(gamma):
    logits, codes = draw(300)
    single = (1e-37 * logits).astype(np.float32)
    weight = np.full(300, 1 / 300)
    found, expected = (
        best_temperature(scores, codes, weight, "focal", gamma).x[0]
        for scores in (single, single.astype(np.float64))
    )
    assert found == pytest.approx(expected, rel=1e-12)
