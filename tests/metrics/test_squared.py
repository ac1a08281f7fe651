"""The interval of the squared error: its formula, its coverage, its limits."""

import numpy as np
import pytest
from scipy.special import expit, logit

from skcalib.metrics import calibration_test, squared_calibration_interval


def draw(rng, n, temperature):
    """Confidences, whether each is right, and how far they are from the truth."""
    confidence = rng.uniform(0.5, 1, n)
    truth = expit(logit(confidence) / temperature)
    return rng.random(n) < truth, confidence, truth - confidence


def interval_of(hit, confidence, **options):
    return squared_calibration_interval(hit, confidence, pos_label="event", **options)


def test_the_value_is_that_of_the_test_of_calibration():
    hit, confidence, _ = draw(np.random.default_rng(0), 400, 2.0)
    options = {"pos_label": "event", "metric": "squared_ce", "n_resamples": 1}
    test = calibration_test(hit, confidence, **options)
    assert interval_of(hit, confidence).value == pytest.approx(test.statistic)


def test_the_interval_of_one_bin_follows_the_formulas():
    hit, confidence, _ = draw(np.random.default_rng(0), 500, 3.0)
    u = hit - confidence
    n, m, v = 500, u.mean(), u.var(ddof=1)
    first = (4 * m**2 * np.mean(u**2) - 3 * m**4 - m**4) / n
    second = 2 * v**2 / (n * (n - 1))
    deviation = np.sqrt(first - second)
    growth = (first - 2 * second) / m**2
    value, low, high = interval_of(hit, confidence, n_bins=1, confidence_level=0.9)
    assert value == pytest.approx(m**2 - v / n)
    assert low == pytest.approx(value - 1.6448536 * deviation)
    there = np.sqrt(deviation**2 + growth * (high - value))
    assert high == pytest.approx(value + 1.6448536 * there)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature", "covered"), [(1.0, 0.997), (1.1, 0.998), (1.5, 0.950), (2.5, 0.973)]
)
def test_the_interval_covers_about_as_often_as_it_says(temperature, covered):
    # The guide tells these shares.
    rng = np.random.default_rng(0)
    _, confidence, gap = draw(rng, 200_000, temperature)
    bins = np.array_split(gap[np.argsort(confidence)], 15)
    truth = np.mean([part.mean() ** 2 for part in bins])
    inside = 0
    for _ in range(600):
        _, low, high = interval_of(*draw(rng, 1000, temperature)[:2])
        inside += low <= truth <= high
    assert inside / 600 == pytest.approx(covered, abs=0.005)


@pytest.mark.slow
def test_the_interval_of_a_sure_classifier_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    confidence = np.maximum(rng.beta(60, 0.6, 200_000), 0.5)
    bins = np.array_split((confidence**3 - confidence)[np.argsort(confidence)], 15)
    truth = np.mean([part.mean() ** 2 for part in bins])
    inside = 0
    for _ in range(800):
        confidence = np.maximum(rng.beta(60, 0.6, 1000), 0.5)
        _, low, high = interval_of(rng.random(1000) < confidence**3, confidence)
        inside += low <= truth <= high
    # With the variance of the value in place of that of the upper end, 0.894.
    assert inside / 800 == pytest.approx(0.945, abs=0.015)


def test_no_end_is_negative_and_none_collapses():
    rng = np.random.default_rng(1)
    for _ in range(50):
        value, low, high = interval_of(*draw(rng, 100, 1.0)[:2])
        assert 0 <= low <= max(value, 0) < high


def test_a_value_below_zero_has_the_interval_of_zero():
    # Bins that are right by half the rows each, to the last: less than chance adds.
    value, low, _ = interval_of(np.tile([1, 0], 100), np.full(200, 0.5))
    assert value < 0 == low
    deviation = np.sqrt(2 * (0.25 * 200 / 199) ** 2 / (200 * 199))
    one_bin = interval_of(np.tile([1, 0], 100), np.full(200, 0.5), n_bins=1)
    assert one_bin.high == pytest.approx(1.959964 * deviation)


def test_the_value_and_both_ends_are_plain_numbers():
    hit, confidence, _ = draw(np.random.default_rng(0), 200, 3.0)
    for number in interval_of(hit, confidence):
        assert type(number) is float
        assert number > 0


def test_weights_are_numbers_of_repetitions():
    hit, confidence, _ = draw(np.random.default_rng(0), 200, 2.0)
    counts = np.random.default_rng(1).integers(0, 4, 200)
    repeated = interval_of(np.repeat(hit, counts), np.repeat(confidence, counts))
    assert interval_of(hit, confidence, sample_weight=counts) == repeated
    with pytest.raises(ValueError, match=r"holds 0\.5 in row 0.*numbers of repet"):
        interval_of(hit, confidence, sample_weight=np.full(200, 0.5))


def test_too_few_rows_and_a_level_out_of_range_are_refused():
    with pytest.raises(ValueError, match="29 rows over 15 bins leave fewer than two"):
        interval_of(*draw(np.random.default_rng(0), 29, 1.0)[:2])
    with pytest.raises(ValueError, match=r"confidence_level=95 .* 95 % is 0\.95"):
        interval_of([1] * 30, [0.9] * 30, confidence_level=95)


def test_the_predicted_class_counts():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(4), 300)
    y = rng.integers(0, 4, 300)
    expected = interval_of(proba.argmax(axis=1) == y, proba.max(axis=1))
    assert squared_calibration_interval(y, proba) == pytest.approx(expected)
