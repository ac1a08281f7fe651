"""The paired comparison of two classifiers."""

from functools import partial

import numpy as np
import pytest
from drawn_predictions import draw_with_truth
from scipy.special import expit

from skcalib.metrics import calibration_report, compare_calibration
from skcalib.metrics._paired import COMPARED_METRICS

draw = partial(draw_with_truth, n=400, n_classes=4)


def p_values(problem, n_repetitions, **options):
    return np.array(
        [
            compare_calibration(
                *problem(np.random.default_rng(seed)),
                n_resamples=59,
                random_state=seed,
                **options,
            ).pvalue
            for seed in range(n_repetitions)
        ]
    )


def over_and_under(rng, n=600):
    truth = rng.uniform(0.6, 0.9, n)
    return (rng.random(n) < truth).astype(int), truth + 0.07, truth - 0.07


def fine_and_coarse(rng, n=400):
    truth = rng.uniform(0.55, 0.95, n)
    y = (rng.random(n) < truth).astype(int)
    return y, truth, np.where(truth > 0.75, 0.85, 0.65)


def good_and_bad(rng, n=800):
    truth = rng.uniform(0.6, 0.9, n)
    return (rng.random(n) < truth).astype(int), truth, truth + 0.1


@pytest.mark.slow
def test_equal_errors_are_seldom_told_apart():
    # 6 of 60 are expected at most, with a standard deviation of 2.3.
    assert np.count_nonzero(p_values(over_and_under, 60) <= 0.1) <= 13
    # Both calibrated, one of them more sharply.
    assert np.count_nonzero(p_values(fine_and_coarse, 60) <= 0.1) <= 13


def test_a_better_classifier_is_found():
    assert np.count_nonzero(p_values(good_and_bad, 30) <= 0.05) >= 25
    assert (
        np.count_nonzero(p_values(good_and_bad, 30, alternative="less") <= 0.05) >= 27
    )
    assert p_values(good_and_bad, 5, alternative="greater").min() > 0.9


def test_a_classifier_that_is_always_wrong_is_found_from_14_rows():
    y, confidence = np.tile([0, 1], 7), np.linspace(0.6, 0.9, 14)
    wrong, right = np.abs(y - confidence), np.abs(1 - y - confidence)
    result = compare_calibration(y, right, wrong)
    assert result.value_b == pytest.approx(np.mean(confidence**2), abs=0.01)
    assert result.value_a < 0.1
    assert result.pvalue < 0.01


def test_two_temperatures_of_one_classifier_are_told_apart():
    # The rows of a bin of equal mass are the same at both, so that chance cancels;
    # with bins of equal width 0 of 20 are found.
    def temperatures(rng, n=500):
        z = rng.normal(scale=2.5, size=n)
        y = (rng.random(n) < expit(z)).astype(int)
        return y, expit(1.6 * z), expit(1.4 * z)

    assert np.count_nonzero(p_values(temperatures, 20) <= 0.05) >= 14


@pytest.mark.parametrize("metric", COMPARED_METRICS)
def test_exchanging_the_classifiers_changes_the_sign(metric):
    y, a, b = draw()
    options = {"metric": metric, "n_resamples": 19, "random_state": 0}
    one = compare_calibration(y, a, b, **options)
    other = compare_calibration(y, b, a, **options)
    assert one.difference == -other.difference == one.value_a - one.value_b
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), rel=1e-9)
    assert one.pvalue == other.pvalue


@pytest.mark.parametrize("metric", ["ece", "sce", "nll", "sweep_ece"])
def test_the_values_are_those_of_the_report(metric):
    y, a, b = draw()
    result = compare_calibration(y, a, b, metric=metric, n_resamples=9)
    for value, proba in ((result.value_a, a), (result.value_b, b)):
        report = calibration_report(y, proba, metrics=[metric], n_bootstrap=0)
        assert value == report[metric].value


def test_the_interval_of_a_mean_is_that_of_theory():
    y, a, b = draw(n=1000)
    result = compare_calibration(
        y, a, b, metric="nll", n_resamples=3000, random_state=0
    )
    rows = np.arange(1000)
    gain = np.log(b[rows, y]) - np.log(a[rows, y])
    error = 1.96 * gain.std() / np.sqrt(1000)
    assert result.difference == pytest.approx(gain.mean())
    assert result.low == pytest.approx(gain.mean() - error, abs=0.1 * error)
    assert result.high == pytest.approx(gain.mean() + error, abs=0.1 * error)


def test_a_classifier_does_not_differ_from_itself():
    y, a, _ = draw()
    result = compare_calibration(y, a, a, n_resamples=9)
    assert (result.difference, result.low, result.high, result.pvalue) == (0, 0, 0, 1)


def test_weights_are_numbers_of_repetitions():
    y, a, b = draw()
    counts = np.random.default_rng(0).integers(0, 3, 400)
    rows = np.repeat(np.arange(400), counts)
    options = {"n_resamples": 19, "random_state": 0}
    weighted = compare_calibration(y, a, b, sample_weight=counts, **options)
    assert weighted.__dict__ == (
        compare_calibration(y[rows], a[rows], b[rows], **options).__dict__
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "skce"}, "metric='skce' is not known"),
        ({"alternative": "a"}, "alternative='a' is not known"),
        ({"n_resamples": 0}, "n_resamples=0"),
        ({"confidence_level": 95}, "95 % is 0.95"),
        ({"n_bins": 0}, "n_bins=0"),
        ({"sample_weight": [1, 0.5]}, "holds 0.5 in row 1"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compare_calibration([0, 1], [0.2, 0.7], [0.3, 0.6], **options)


def test_a_row_of_either_that_is_no_distribution_is_named():
    good, bad = [[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.6]]
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="Row 1 of the probabilities sums to"):
            compare_calibration([0, 1], *pair)
