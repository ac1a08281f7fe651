"""The log-loss of the confidence in the predicted class, and its temperature."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize, minimize_scalar
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from skcalib import TemperatureScaling, VectorScaling
from skcalib._blocks import ArraySource, CalibrationData
from skcalib._solvers._top_versus_all import (
    summed_top_losses,
    summed_top_slopes,
    top_expansion_of_block,
)
from skcalib._solvers._vector import fit_top_vector, fit_vector


def draw(n=400, n_classes=5, temperature=2.0):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(n, n_classes))
    y = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, y


def plain(temperature, logits, y, weight):
    return plain_vector([1 / temperature, 0.0], logits, y, weight)


def plain_vector(x, logits, y, weight):
    top = logits.argmax(axis=1)
    confidence = softmax(x[0] * logits + x[1], axis=1)[np.arange(len(y)), top]
    hit = top == y
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


@pytest.mark.parametrize("calibrator", [TemperatureScaling, VectorScaling])
def test_of_two_classes_it_is_the_log_loss(calibrator):
    logits, y = draw(n_classes=2)
    top, plain_ = (
        calibrator(objective=objective).fit(logits, y)
        for objective in ("top", "log_loss")
    )
    assert top.loss_ == pytest.approx(plain_.loss_, rel=1e-12)
    assert_allclose(top.predict_proba(logits), plain_.predict_proba(logits), atol=1e-7)


def test_the_loss_of_a_vector_is_its_formula_and_the_gradient_its_differences():
    logits, y = draw()
    weight = np.linspace(0, 1, 400)
    x = np.random.default_rng(1).normal(size=(2, 5))
    loss, gradient = top_expansion_of_block(x, logits, y, weight)
    assert loss == pytest.approx(plain_vector(x, logits, y, weight), rel=1e-12)
    for entry in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[entry] = 1e-5
        ahead, behind = (plain_vector(x + s, logits, y, weight) for s in (step, -step))
        assert gradient[entry] == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_the_vector_is_that_of_a_general_minimiser():
    logits, y = draw()
    logits[:, 0] += 1
    weight = np.random.default_rng(1).integers(0, 3, 400).astype(float)
    share = weight / weight.sum()
    start = np.repeat([[0.5], [0.0]], 5, axis=1)

    def penalised(flat):
        x = flat.reshape(2, 5)
        return plain_vector(x, logits, y, share) + 0.01 * ((x - start) ** 2).sum()

    found = minimize(penalised, start.ravel(), options={"gtol": 1e-7})
    data = CalibrationData(ArraySource(logits), y, weight)
    penalty = np.full((2, 5), 0.01)
    result = fit_top_vector(data, start, penalty=penalty, tol=1e-20, max_iter=100)
    assert result.converged
    assert result.loss <= found.fun + 1e-12
    assert_allclose(result.x.ravel(), found.x, atol=1e-5)
    assert result.gradient_norm < 1e-7


@pytest.mark.parametrize("truth", ["the third class", "the last class"])
def test_the_vector_starts_from_the_lower_of_two_points(truth):
    # Where the errors are of one kind an offset mends them; where they are what the
    # logits speak against most, the log-loss gives up the top to pay for the last.
    logits, y = draw()
    wrong = logits.argmax(axis=1) != y
    y[wrong] = 2 if truth == "the third class" else logits[wrong].argmin(axis=1)
    data = CalibrationData(ArraySource(logits), y, np.ones(400))
    start = np.repeat([[0.5], [0.0]], 5, axis=1)
    penalty = np.full((2, 5), 1e-3)
    options = {"penalty": penalty, "max_iter": 100}
    # A search that is content at once ends where it starts.
    first = fit_top_vector(data, start, tol=np.inf, **options)
    other = fit_vector(data, start, tol=1e-6, **options).x
    losses = [
        plain_vector(x, logits, y, data.weight) + (penalty * (x - start) ** 2).sum()
        for x in (start, other)
    ]
    lower = start if truth == "the last class" else other
    assert np.argmin(losses) == (lower is other)
    assert_allclose(first.x, lower, rtol=1e-12)
    assert first.loss == pytest.approx(min(losses), rel=1e-12)
    assert fit_top_vector(data, start, tol=1e-20, **options).loss < min(losses)


def test_a_vector_without_passes_left_warns_and_keeps_the_best_point():
    logits, y = draw()
    logits[:, 0] += 2
    scaling = VectorScaling(objective="top", max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter was reached"):
        scaling.fit(logits, y)
    temperature = TemperatureScaling(objective="top").fit(logits, y)
    assert scaling.loss_ < temperature.loss_


def test_a_vector_of_repeated_rows_is_that_of_integer_weights():
    logits, y = draw()
    weight = np.random.default_rng(1).integers(0, 3, 400)
    weighted = VectorScaling(objective="top").fit(logits, y, sample_weight=weight)
    repeated = VectorScaling(objective="top")
    repeated.fit(np.repeat(logits, weight, axis=0), np.repeat(y, weight))
    assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)
    assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-6)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_class_without_samples_is_left_out_of_the_predicted_ones():
    logits, y = draw()
    logits, y = logits[y < 4], y[y < 4]
    assert (logits.argmax(axis=1) == 4).any()
    scaling = VectorScaling(objective="top", prior=None).fit(logits, y)
    without = VectorScaling(objective="top", prior=None).fit(logits[:, :4], y)
    assert_allclose(scaling.coef_[:4], without.coef_, rtol=1e-4)
    assert scaling.coef_[4] == pytest.approx(scaling.coef_[:4].mean())


def test_an_interrupt_ends_the_fit_of_a_vector(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("skcalib._solvers._lbfgs._Search.step_from", interrupted)
    with pytest.raises(KeyboardInterrupt):
        VectorScaling(objective="top").fit(*draw())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_give_finite_numbers(dtype):
    logits = np.array([[1e30, -1e30, 0], [0, 0, 0], [-1e9, 5, 4]], dtype=dtype)
    for codes in ([0, 0, 1], [1, 2, 0]):
        for function in (summed_top_losses, summed_top_slopes):
            value = function(1.0, logits, np.array(codes), np.ones(3))
            assert np.isfinite(value)
        x = np.repeat([[1.0], [0.0]], 3, axis=1)
        loss, gradient = top_expansion_of_block(x, logits, np.array(codes), np.ones(3))
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()
