import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from skcalib.datasets import make_logits


def log_loss(logits, y, temperature=1.0):
    log_proba = log_softmax(logits / temperature, axis=1)
    return -log_proba[np.arange(y.shape[0]), y].mean()


def best_temperature(logits, y):
    def loss(temperature):
        return log_loss(logits, y, temperature)

    found = minimize_scalar(
        loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-4}
    )
    return found.x


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_best_temperature_is_the_one_asked_for(temperature):
    X, y = make_logits(
        20_000, 5, temperature=temperature, class_bias=0, noise=0, random_state=0
    )
    assert best_temperature(X, y) == pytest.approx(temperature, rel=0.03)


def test_the_true_probabilities_are_calibrated_and_unbeaten():
    X, y, proba = make_logits(20_000, 3, return_proba=True, random_state=0)
    hit = np.eye(3)[y]
    # The mean residual in every region vanishes within four standard errors.
    for low, high in [(0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)]:
        inside = (proba > low) & (proba <= high)
        residual = (hit - proba)[inside]
        assert abs(residual.mean()) < 4 * residual.std() / np.sqrt(residual.shape[0])
    assert log_loss(np.log(proba), y) < log_loss(X, y, best_temperature(X, y))


def test_without_bias_and_noise_the_logits_are_the_scaled_true_ones():
    X, _, proba = make_logits(
        50, 4, temperature=2.5, class_bias=0, noise=0, return_proba=True, random_state=0
    )
    np.testing.assert_allclose(softmax(X / 2.5, axis=1), proba, rtol=1e-9)


def test_the_bias_is_the_same_in_every_row():
    def draw(bias):
        return make_logits(20, 6, class_bias=bias, noise=0, random_state=3)[0]

    added = draw(2.0) - draw(0.0)
    assert added.std(axis=0).max() < 1e-12
    assert 1 < added[0].std() < 4


def test_the_same_seed_gives_the_same_data():
    first, second, other = (
        make_logits(30, 12, random_state=seed) for seed in (5, 5, 6)
    )
    assert_array_equal(first[0], second[0])
    assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], other[1])


def test_float32_data_are_the_rounded_float64_data():
    double, y = make_logits(30, 12, random_state=0)
    single, y_single = make_logits(30, 12, dtype=np.float32, random_state=0)
    assert single.dtype == np.float32
    assert_array_equal(single, double.astype(np.float32))
    assert_array_equal(y, y_single)


@pytest.mark.slow
def test_the_benchmark_set_at_a_thousand_classes():
    X, y = make_logits(5_000, 1000, dtype=np.float32, random_state=0)
    assert (X.argmax(axis=1) == y).mean() == pytest.approx(0.765, abs=0.02)
    temperature = best_temperature(X, y)
    assert temperature == pytest.approx(1.716, abs=0.04)
    assert log_loss(X, y) == pytest.approx(0.90, abs=0.05)
    assert log_loss(X, y, temperature) == pytest.approx(0.755, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"n_classes": 1}, "n_classes"),
        ({"temperature": 0}, "temperature"),
        ({"noise": -1}, "noise"),
        ({"class_bias": -1}, "class_bias"),
        ({"dtype": int}, "dtype"),
    ],
)
def test_impossible_parameters_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        make_logits(**arguments)
