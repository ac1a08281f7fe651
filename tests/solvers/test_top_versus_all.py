"""The log-loss of the confidence in the predicted class, and its temperature."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from skcalib import TemperatureScaling
from skcalib._solvers._top_versus_all import summed_top_losses, summed_top_slopes


def draw(n=400, n_classes=5, temperature=2.0):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(n, n_classes))
    y = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, y


def plain(temperature, logits, y, weight):
    confidence = softmax(logits / temperature, axis=1).max(axis=1)
    hit = logits.argmax(axis=1) == y
    loss = np.where(hit, -np.log(confidence), -np.log1p(-confidence))
    return float(loss @ weight)


def test_the_loss_is_its_formula_and_the_slope_its_difference():
    logits, y = draw()
    weight = np.linspace(0, 1, 400)

    def at(u):
        return summed_top_losses(np.exp(u), logits, y, weight)

    assert at(-0.4) == pytest.approx(plain(np.exp(0.4), logits, y, weight), rel=1e-12)
    slope = summed_top_slopes(np.exp(-0.4), logits, y, weight)
    difference = (at(-0.4 + 1e-5) - at(-0.4 - 1e-5)) / 2e-5
    assert slope == pytest.approx(difference, rel=1e-7)


def test_the_temperature_is_that_of_a_general_minimiser():
    logits, y = draw()
    weight = np.random.default_rng(1).integers(0, 3, 400).astype(float)
    found = minimize_scalar(
        lambda u: plain(np.exp(u), logits, y, weight),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-10},
    )
    ts = TemperatureScaling(objective="top", prior=None)
    ts.fit(logits, y, sample_weight=weight)
    assert ts.temperature_ == pytest.approx(np.exp(found.x), rel=1e-6)
    assert ts.loss_ == pytest.approx(found.fun / weight.sum(), rel=1e-12)


def test_of_two_classes_it_is_the_log_loss():
    logits, y = draw(n_classes=2)
    top, plain_ = (
        TemperatureScaling(objective=objective).fit(logits, y).temperature_
        for objective in ("top", "log_loss")
    )
    assert top == pytest.approx(plain_, rel=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_give_finite_numbers(dtype):
    logits = np.array([[1e30, -1e30, 0], [0, 0, 0], [-1e9, 5, 4]], dtype=dtype)
    for codes in ([0, 0, 1], [1, 2, 0]):
        for function in (summed_top_losses, summed_top_slopes):
            value = function(1.0, logits, np.array(codes), np.ones(3))
            assert np.isfinite(value)
