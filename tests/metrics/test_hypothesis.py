"""Tests of calibration: right size, known power, and values that can be checked."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from scipy.stats import kstest

from skcalib.metrics import calibration_test, squared_kernel_calibration_error
from skcalib.metrics._hypothesis import TEST_METRICS
from skcalib.metrics._registry import METRICS

FUNCTIONS = {
    name: METRICS[name].function for name in TEST_METRICS if METRICS[name].function
}
FAST = ["ks", "kuiper", "ece", "squared_ce", "sce", "skce"]


def draw(seed=0, n=200, n_classes=4, temperature=1.0):
    """Probabilities and labels; calibrated for a temperature of 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, n_classes))
    y = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1)


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_the_statistic_is_the_metric(metric):
    y, proba = draw(temperature=2)
    result = calibration_test(y, proba, metric=metric, n_resamples=2, random_state=0)
    assert result.statistic == pytest.approx(FUNCTIONS[metric](y, proba), rel=1e-9)
    assert result.metric == metric
    assert result.null_distribution.shape == (2,)


def test_the_squared_error_is_the_mean_product_of_two_residuals():
    y, proba = draw(temperature=2)
    confidence = proba.max(axis=1)
    residual = (proba.argmax(axis=1) == y) - confidence
    expected = 0
    for b in range(15):  # Of equal mass, 13 or 14 rows each.
        r = residual[np.argsort(confidence)][(np.arange(200) + 0.5) // (200 / 15) == b]
        pairs = np.outer(r, r)[~np.eye(len(r), dtype=bool)]
        expected += len(r) / 200 * pairs.mean()
    result = calibration_test(y, proba, metric="squared_ce", n_resamples=1)
    assert result.statistic == pytest.approx(expected, abs=1e-12)


def test_rows_of_equal_confidence_share_a_bin_of_the_squared_error():
    # Three confidences of 40, 30 and 30 rows: whole in whatever number of bins.
    confidence = np.repeat([0.6, 0.7, 0.9], [40, 30, 30])
    right = np.random.default_rng(0).random(100) < 0.6
    expected = 0
    for value in (0.6, 0.7, 0.9):
        r = right[confidence == value] - value
        expected += len(r) / 100 * np.outer(r, r)[~np.eye(len(r), dtype=bool)].mean()
    for order in (np.arange(100), np.random.default_rng(1).permutation(100)):
        result = calibration_test(
            right[order],
            confidence[order],
            metric="squared_ce",
            n_bins=7,
            n_resamples=1,
        )
        assert result.statistic == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_rows", [2, 10, 20])
def test_the_squared_error_has_no_bias_of_few_rows(n_rows):
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        confidence = rng.uniform(0.5, 0.9, n_rows)
        right = rng.random(n_rows) < confidence - 0.3
        options = {"metric": "squared_ce", "pos_label": "event", "n_resamples": 1}
        values.append(calibration_test(right, confidence, **options).statistic)
    error = np.std(values) / 20
    assert abs(np.mean(values) - 0.09) < 3 * error


def test_a_row_alone_in_its_bin_does_not_count():
    # Ten equal rows fill the first bin; of the last row alone nothing is known.
    confidence = np.repeat([0.6, 0.9], [10, 1])
    options = {"metric": "squared_ce", "n_resamples": 1, "pos_label": "event"}
    options["n_bins"] = 2
    with_last = calibration_test(np.zeros(11), confidence, **options)
    assert with_last.statistic == pytest.approx(0.36)


@pytest.mark.slow
@pytest.mark.parametrize("metric", FAST)
def test_the_p_value_of_a_calibrated_classifier_is_uniform(metric):
    p = [
        calibration_test(
            *draw(seed, n=100), metric=metric, n_resamples=59, random_state=seed
        ).pvalue
        for seed in range(120)
    ]
    assert kstest(p, "uniform").pvalue > 0.01
    # 12 are expected at a level of 10 %, with a standard deviation of 3.3.
    assert 4 <= np.count_nonzero(np.array(p) <= 0.1) <= 22


@pytest.mark.parametrize(
    ("metric", "temperature"),
    [
        ("ks", 1.4),
        ("kuiper", 1.5),
        ("ece", 1.7),
        ("squared_ce", 1.7),
        ("sce", 1.6),
        ("skce", 2.5),
    ],
)
def test_a_known_miscalibration_is_found(metric, temperature):
    p = [
        calibration_test(
            *draw(seed, n=400, temperature=temperature),
            metric=metric,
            n_resamples=79,
            random_state=seed,
        ).pvalue
        for seed in range(25)
    ]
    assert np.count_nonzero(np.array(p) <= 0.05) >= 20


def test_draws_follow_the_stated_probabilities():
    # Everything rests on the frequency of a column; with one bin it can be told.
    y = np.repeat([0, 1, 2], [10, 60, 30])
    proba = np.tile([0.1, 0.6, 0.3], (100, 1))
    result = calibration_test(
        y, proba, metric="sce", n_bins=1, n_resamples=4000, random_state=0
    )
    rng = np.random.default_rng(0)
    counts = rng.multinomial(100, proba[0], size=4000) / 100
    expected = np.abs(counts - proba[0]).mean(axis=1)
    quantiles = [0.1, 0.5, 0.9, 0.99]
    assert_allclose(
        np.quantile(result.null_distribution, quantiles),
        np.quantile(expected, quantiles),
        atol=0.005,
    )


@pytest.mark.parametrize("metric", ["ks", "kuiper", "aece", "ece"])
def test_draws_are_values_of_the_metric(metric):
    confidence = np.sort(np.random.default_rng(0).uniform(0.5, 1, 100).round(2))
    result = calibration_test(
        confidence < 0.9, confidence, metric=metric, n_resamples=3, pos_label="event"
    )
    random = np.random.RandomState(0)
    for value in result.null_distribution:
        hit = (random.random_sample(100) < confidence).astype(int)
        drawn = FUNCTIONS[metric](hit, confidence, pos_label="event")
        assert value == pytest.approx(drawn)


def test_the_p_value_counts_draws_as_large_as_the_value():
    y, proba = draw(temperature=1.2)
    result = calibration_test(y, proba, n_resamples=99, random_state=0)
    larger = np.count_nonzero(result.null_distribution >= result.statistic)
    assert result.pvalue == (1 + larger) / 100
    # Of one row all draws are equal up to rounding: no evidence at all.
    alone = calibration_test([1], [[0.5, 0.5]], n_resamples=19, random_state=0)
    assert alone.pvalue == 1


@pytest.mark.parametrize("metric", FAST)
def test_the_same_seed_gives_the_same_result(metric):
    y, proba = draw()
    first, again, other = (
        calibration_test(y, proba, metric=metric, n_resamples=9, random_state=seed)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first.null_distribution, again.null_distribution)
    assert (first.null_distribution != other.null_distribution).any()


@pytest.mark.parametrize("metric", FAST)
def test_weights_are_numbers_of_repetitions(metric):
    y, proba = draw(temperature=2)
    counts = np.random.default_rng(0).integers(0, 3, 200)
    options = {"metric": metric, "n_resamples": 9, "random_state": 0}
    weighted = calibration_test(y, proba, sample_weight=counts, **options)
    rows = np.repeat(np.arange(200), counts)
    repeated = calibration_test(y[rows], proba[rows], **options)
    assert_array_equal(weighted.null_distribution, repeated.null_distribution)
    assert weighted.pvalue == repeated.pvalue


def test_the_printed_result_is_short():
    result = calibration_test(*draw(), n_resamples=9, random_state=0)
    assert repr(result).startswith("CalibrationTestResult(metric='ks', statistic=0.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "nll"}, "metric='nll' is not known"),
        ({"n_resamples": -1}, "n_resamples=-1"),
        ({"n_resamples": 0, "metric": "ece"}, "known of .'ks', 'kuiper'. .* of 'ece'"),
        ({"n_bins": 0}, "n_bins=0"),
        ({"sample_weight": [1, 0.5]}, "holds 0.5 in row 1.*numbers of repetitions"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        calibration_test([0, 1], [0.2, 0.7], **options)


@pytest.mark.parametrize("metric", ["ks", "kuiper"])
def test_without_draws_the_p_value_is_that_of_many(metric):
    for temperature in (1.0, 1.1, 1.2):
        y, proba = draw(3, n=2000, temperature=temperature)
        limit = calibration_test(y, proba, metric=metric, n_resamples=0)
        drawn = calibration_test(y, proba, metric=metric, random_state=0)
        assert limit.statistic == drawn.statistic
        assert limit.null_distribution.shape == (0,)
        assert limit.pvalue == pytest.approx(drawn.pvalue, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ks", "kuiper"])
def test_without_draws_few_calibrated_classifiers_are_refused(metric):
    p = np.array(
        [
            calibration_test(*draw(seed, n=400), metric=metric, n_resamples=0).pvalue
            for seed in range(400)
        ]
    )
    # At a level of 10 %, 40 are expected at most, with a standard deviation of 6.
    assert 15 <= np.count_nonzero(p <= 0.1) <= 55


def test_without_draws_certainties_are_right_or_impossible():
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert calibration_test([0, 0, 1], sure, n_resamples=0).pvalue == 1
    assert calibration_test([0, 1, 1], sure, n_resamples=0).pvalue == 0


@pytest.mark.parametrize("metric", ["skce", "squared_ce"])
def test_pairs_need_two_rows(metric):
    with pytest.raises(ValueError, match=f"{metric}.*needs at least two rows"):
        calibration_test([1], [[0.3, 0.7]], metric=metric)


def test_a_sure_classifier_without_errors_is_no_surprise():
    # One error is expected: with a chance of 0.37 there is none.
    proba = np.tile([0.996, 0.002, 0.002], (200, 1))
    proba[::2] -= [0.002, -0.002, 0]
    few = calibration_test(np.zeros(200, int), proba, metric="skce", n_resamples=199)
    assert few.pvalue > 0.2
    y = np.repeat([0, 1, 2], [192, 5, 3])
    many = calibration_test(y, proba, metric="skce", n_resamples=199)
    assert many.pvalue == 0.005
    expected = squared_kernel_calibration_error(y, proba)
    assert many.statistic == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_a_good_classifier_is_seldom_refused():
    # 12 errors are expected. Of 150 sets 1.5 have such a p-value on average: of these
    # none has, and 3 if signs are drawn in place of labels.
    truth = np.tile([[0.97, 0.03], [0.99, 0.01]], (300, 1))
    rng = np.random.default_rng(0)
    refused = 0
    for seed in range(150):
        y = rng.random(600) < truth[:, 1]
        options = {"metric": "skce", "n_resamples": 99, "random_state": seed}
        refused += calibration_test(y, truth, **options).pvalue <= 0.01
    assert refused <= 2
