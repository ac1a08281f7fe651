"""SKCE, against sums over single pairs."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import softmax

from skcalib.metrics import calibration_test, squared_kernel_calibration_error


def draw(n=70, n_classes=3, seed=0, temperature=2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, n_classes))
    y = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1)


def slow_h(y, proba, kernel, bandwidth):
    n, k = proba.shape
    h = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            d = np.linalg.norm(proba[i] - proba[j])
            power = d / bandwidth if kernel == "laplacian" else (d / bandwidth) ** 2 / 2
            h[i, j] = np.exp(-power) * np.dot(
                np.eye(k)[y[i]] - proba[i], np.eye(k)[y[j]] - proba[j]
            )
    return h


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
@pytest.mark.parametrize("bandwidth", [0.1, 1.0])
def test_every_estimator_equals_its_formula(kernel, bandwidth):
    y, proba = draw()
    h = slow_h(y, proba, kernel, bandwidth)
    n = len(y)

    def error(**options):
        return squared_kernel_calibration_error(
            y, proba, kernel=kernel, bandwidth=bandwidth, **options
        )

    assert error(estimator="biased") == pytest.approx(h.mean(), rel=1e-9)
    unbiased = (h.sum() - np.trace(h)) / (n * (n - 1))
    assert error() == pytest.approx(unbiased, rel=1e-9)
    pairs = np.mean([h[i, i + 1] for i in range(0, n - 1, 2)])
    assert error(estimator="block") == pytest.approx(pairs, rel=1e-9)
    blocks = [h[i : i + 6, i : i + 6] for i in range(0, n - 5, 6)]
    means = np.mean([(b.sum() - np.trace(b)) / 30 for b in blocks])
    assert error(estimator="block", block_size=6) == pytest.approx(means, rel=1e-9)


def test_the_default_bandwidth_is_the_root_mean_square_distance():
    y, proba = draw()
    squares = ((proba[:, np.newaxis] - proba) ** 2).sum(axis=2)
    assert squared_kernel_calibration_error(y, proba) == pytest.approx(
        squared_kernel_calibration_error(
            y, proba, bandwidth=float(np.sqrt(squares.mean()))
        )
    )


def test_equal_rows_have_a_value():
    # The kernel is 1; residuals (0.3, -0.3) twice and (-0.7, 0.7) once.
    value = squared_kernel_calibration_error([0, 0, 1], [[0.7, 0.3]] * 3)
    assert value == pytest.approx((2 * 0.09 - 4 * 0.21) * 2 / 6)


@pytest.mark.parametrize("estimator", ["unbiased", "block"])
def test_equal_rows_that_are_all_wrong_have_a_large_error(estimator):
    y, proba = np.full(300, 2), np.tile([0.5, 0.3, 0.2], (300, 1))
    error = squared_kernel_calibration_error(y, proba, estimator=estimator)
    assert error == pytest.approx(0.25 + 0.09 + 0.64)
    assert calibration_test(y, proba, metric="skce", n_resamples=99).pvalue == 0.01


@pytest.mark.parametrize("estimator", ["unbiased", "block"])
def test_the_error_does_not_depend_on_the_spread_of_nearly_equal_rows(estimator):
    rng = np.random.default_rng(0)
    away = rng.normal(size=100)[:, np.newaxis] * [1, -1]
    near, nearer = (
        squared_kernel_calibration_error(
            np.zeros(100, int), [0.6, 0.4] + spread * away, estimator=estimator
        )
        for spread in (1e-5, 1e-9)
    )
    assert nearer == pytest.approx(near, rel=1e-3)


def test_the_unbiased_estimators_are_right_on_average():
    values = [
        [
            squared_kernel_calibration_error(
                *draw(40, seed=seed, temperature=1), estimator=name, bandwidth=0.5
            )
            for name in ("unbiased", "block", "biased")
        ]
        for seed in range(300)
    ]
    mean, error = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(300)
    assert abs(mean[0]) < 3 * error[0]
    assert abs(mean[1]) < 3 * error[1]
    assert mean[2] > 10 * error[2]


def test_many_tiles_give_what_one_gives(monkeypatch):
    y, proba = draw(100)
    one = squared_kernel_calibration_error(y, proba)
    monkeypatch.setattr("skcalib.metrics._kernel_pairs.TILE", 7)
    monkeypatch.setattr("skcalib.metrics._skce.BATCH_ELEMENTS", 50)
    assert squared_kernel_calibration_error(y, proba) == pytest.approx(one, rel=1e-10)
    whole = squared_kernel_calibration_error(
        y, proba, estimator="block", block_size=100
    )
    assert whole == pytest.approx(one, rel=1e-10)


def test_memory_does_not_grow_with_the_pairs():
    y, proba = draw(5000, 10)
    tracemalloc.start()
    squared_kernel_calibration_error(y, proba)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All pairs would take 200 MB.
    assert peak < 20e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "linear"}, "estimator='linear' is not known"),
        ({"kernel": "rbf"}, "kernel='rbf' is not known"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0"),
        ({"estimator": "block", "block_size": 1}, "block_size=1"),
        ({"estimator": "block", "block_size": 3}, "2 rows do not fill a block of 3"),
        (
            {"estimator": "block", "sample_weight": [0.5, 1.5]},
            "needs whole weights",
        ),
        ({"sample_weight": [1, 0]}, "total weight of 1 makes no pair"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        squared_kernel_calibration_error([0, 1], [0.2, 0.7], **options)


def test_huge_weights_do_not_overflow():
    y, proba = draw()
    weight = np.random.default_rng(0).uniform(1, 2, len(y))
    biased = squared_kernel_calibration_error(
        y, proba, sample_weight=weight, estimator="biased"
    )
    # Of so many rows it does not matter that each is counted with itself.
    huge = squared_kernel_calibration_error(y, proba, sample_weight=1e160 * weight)
    assert huge == pytest.approx(biased, rel=1e-9)
