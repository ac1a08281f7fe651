"""The linearised network against slow references."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

pytest.importorskip("torch")

from linearised import linearised

from skcalib._solvers._temperature_search import best_temperature

pytestmark = pytest.mark.torch

LOSSES = [("focal", 0.0), ("focal", 1.0), ("brier", 0.0)]


def draw(n=200, n_classes=3, dim=6):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(n, n_classes))
    jacobian = rng.normal(size=(n, n_classes, dim))
    noise = rng.gumbel(size=logits.shape)
    codes = (logits / 2 + noise + 0.3 * jacobian[:, :, 0]).argmax(axis=1)
    weight = rng.uniform(0, 1, n)
    return logits, jacobian, codes, weight / weight.sum()


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
def test_gradients_are_differences(loss, gamma):
    logits, jacobian, codes, weight = draw()
    linear = linearised(logits, jacobian, codes, loss, gamma)
    x = np.append(np.random.default_rng(1).normal(size=6) / 5, 0.4)
    _, gradient = linear.evaluate(x, weight, 0.1)
    for j in range(7):
        step = 1e-5 * np.eye(7)[j]
        above, below = (linear.evaluate(x + s * step, weight, 0.1)[0] for s in (1, -1))
        assert gradient[j] == pytest.approx((above - below) / 2e-5, abs=1e-8)


def test_the_hessian_of_the_log_loss_at_its_temperature_is_that_of_differences():
    # The Gauss-Newton form leaves out the bend of z / T in log T, which vanishes at the
    # best temperature.
    logits, jacobian, codes, weight = draw()
    linear = linearised(logits, jacobian, codes, "focal", 0.0)
    log_t = np.log(best_temperature(logits, codes, weight).x[0])
    x = np.append(np.zeros(6), log_t)
    found = linear.curvature(log_t, weight, np.arange(200))
    step = 1e-5
    columns = [
        (
            linear.evaluate(x + step * e, weight, 0.0)[1]
            - linear.evaluate(x - step * e, weight, 0.0)[1]
        )
        / (2 * step)
        for e in np.eye(7)
    ]
    assert_allclose(found[:6, :6], np.array(columns)[:6, :6], atol=1e-7)
    assert found[6, 6] == pytest.approx(columns[6][6], abs=1e-6)


def test_curvatures_of_parts_add_up():
    logits, jacobian, codes, weight = draw()
    linear = linearised(logits, jacobian, codes, "focal", 1.0)
    whole = linear.curvature(0.3, weight, np.arange(200))
    parts = [linear.curvature(0.3, weight, r) for r in np.split(np.arange(200), [70])]
    assert_allclose(sum(parts), whole)


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_the_fit_is_the_optimum_of_a_slow_reference(loss, gamma, penalty):
    logits, jacobian, codes, weight = draw()
    linear = linearised(logits, jacobian, codes, loss, gamma)
    x = np.append(np.zeros(6), 0.5)
    hessian = linear.curvature(0.5, weight, np.arange(200))
    result = linear.fit(x, weight, penalty, hessian, tol=1e-12)
    slow = minimize(
        linear.evaluate, x, (weight, penalty), jac=True, options={"gtol": 1e-9}
    )
    assert result.loss == pytest.approx(slow.fun, abs=1e-9)
    assert result.n_iter < 30


def test_masked_rows_of_a_fit_count_for_nothing():
    logits, jacobian, codes, _ = draw()
    kept = np.arange(0, 200, 2)
    masked = np.zeros(200)
    masked[kept] = 1 / 100
    x = np.append(np.zeros(6), 0.5)
    whole = linearised(logits, jacobian, codes, "focal", 1.0)
    part = linearised(logits[kept], jacobian[kept], codes[kept], "focal", 1.0)
    value, gradient = whole.evaluate(x, masked, 0.1)
    expected = part.evaluate(x, masked[kept], 0.1)
    assert value == pytest.approx(expected[0])
    assert_allclose(gradient, expected[1], atol=1e-12)


@pytest.mark.parametrize(("loss", "gamma"), LOSSES)
def test_more_coordinates_than_rows_have_a_fit_without_penalty(loss, gamma):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 2)).astype(np.float32)
    jacobian = rng.normal(size=(20, 2, 192)).astype(np.float32)
    codes = rng.integers(2, size=20)
    weight = np.full(20, 1 / 20)
    linear = linearised(logits, jacobian, codes, loss, gamma)
    x = np.zeros(193)
    hessian = linear.curvature(0.0, weight, np.arange(20))
    result = linear.fit(x, weight, 0.0, hessian, tol=1e-6)
    assert np.isfinite(result.x).all()
    assert result.loss < 0.01 * linear.evaluate(x, weight, 0.0)[0]


def test_the_units_of_the_inputs_do_not_count():
    logits, jacobian, codes, weight = draw()
    x = np.append(np.zeros(6), 0.5)
    results = []
    for unit in (1.0, 1e-4, 1e4):
        linear = linearised(logits, unit * jacobian, codes, "focal", 1.0)
        hessian = linear.curvature(0.5, weight, np.arange(200))
        results.append(linear.fit(x, weight, 1e-3 * unit**2, hessian, tol=1e-9))
    assert [r.loss for r in results] == pytest.approx([results[0].loss] * 3, rel=1e-8)
    assert len({r.n_iter for r in results}) == 1


@pytest.mark.parametrize("size", [1e30, 1e300])
def test_a_point_too_far_for_the_logits_has_no_loss(size):
    logits, jacobian, codes, weight = draw()
    logits, jacobian = logits.astype(np.float32), jacobian.astype(np.float32)
    linear = linearised(logits, 1e9 * jacobian, codes, "focal", 1.0)
    value, gradient = linear.evaluate(np.append(np.full(6, size), 0.5), weight, 1.0)
    assert not np.isfinite(value)
    assert not np.isfinite(gradient).all()
