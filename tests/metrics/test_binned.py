"""ECE, AECE, SCE, MCE, RMSCE: each against a slow reading of its formula."""

import numpy as np
import pytest
from drawn_predictions import draw_predictions as draw
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skcalib.metrics import (
    CalibrationAccumulator,
    adaptive_expected_calibration_error,
    expected_calibration_error,
    ks_calibration_error,
    kuiper_calibration_error,
    maximum_calibration_error,
    predictive_entropy,
    root_mean_squared_calibration_error,
    smooth_calibration_error,
    static_calibration_error,
)
from skcalib.metrics._bins import bin_stats, uniform_edges
from skcalib.metrics._classwise import _block_stats, class_stats, exact_edges

ALL_METRICS = [
    adaptive_expected_calibration_error,
    expected_calibration_error,
    ks_calibration_error,
    kuiper_calibration_error,
    maximum_calibration_error,
    predictive_entropy,
    root_mean_squared_calibration_error,
    smooth_calibration_error,
    static_calibration_error,
]


def slow_gaps(score, hit, n_bins):
    """(rows, mean score, mean hit) of each bin (lo, hi] that is not empty."""
    bins = []
    for b in range(n_bins):
        inside = (score > b / n_bins) & (score <= (b + 1) / n_bins)
        if b == 0:
            inside |= score == 0
        if b == n_bins - 1:
            inside |= score > 1
        if inside.any():
            bins.append((inside.sum(), score[inside].mean(), hit[inside].mean()))
    return bins


def slow_rank_bins(score, hit, n_bins):
    """Equal-mass bins; equal scores first share their hits evenly."""
    even = hit.astype(float)
    for value in np.unique(score):
        even[score == value] = hit[score == value].mean()
    order = np.argsort(score)
    parts = zip(
        np.array_split(score[order], n_bins),
        np.array_split(even[order], n_bins),
        strict=True,
    )
    return [(len(s), s.mean(), h.mean()) for s, h in parts if len(s)]


def mean_gap(bins):
    n = sum(b[0] for b in bins)
    return sum(b[0] / n * abs(b[1] - b[2]) for b in bins)


def top(y, proba):
    return proba.max(axis=1), proba.argmax(axis=1) == y


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("decimals", [None, 1])
def test_each_binned_error_equals_its_formula(n_bins, decimals):
    y, proba = draw(decimals=decimals)
    score, hit = top(y, proba)
    width, mass = slow_gaps(score, hit, n_bins), slow_rank_bins(score, hit, n_bins)
    n = len(y)
    ece = expected_calibration_error(y, proba, n_bins=n_bins)
    aece = adaptive_expected_calibration_error(y, proba, n_bins=n_bins)
    mce = maximum_calibration_error(y, proba, n_bins=n_bins)
    rmsce = root_mean_squared_calibration_error(y, proba, n_bins=n_bins)
    assert ece == pytest.approx(mean_gap(width), abs=1e-12)
    assert aece == pytest.approx(mean_gap(mass), abs=1e-12)
    assert mce == pytest.approx(max(abs(c - a) for _, c, a in width), abs=1e-12)
    squares = sum(m / n * (c - a) ** 2 for m, c, a in width)
    assert rmsce == pytest.approx(squares**0.5, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3, 30])
def test_static_error_equals_its_formula(n_bins, dtype, n_classes):
    y, proba = draw(n_classes=n_classes)
    proba = proba.astype(dtype)
    exact = proba.astype(np.float64)
    expected = np.mean(
        [
            mean_gap(slow_gaps(exact[:, k], y == k, n_bins))
            for k in range(proba.shape[1])
        ]
    )
    error = static_calibration_error(y, proba, n_bins=n_bins)
    assert error == pytest.approx(expected, abs=1e-12 if dtype == np.float64 else 1e-7)


def test_static_error_of_equal_mass_equals_its_formula():
    y, proba = draw(decimals=1)
    expected = np.mean(
        [mean_gap(slow_rank_bins(proba[:, k], y == k, 7)) for k in range(4)]
    )
    error = static_calibration_error(y, proba, n_bins=7, strategy="quantile")
    assert error == pytest.approx(expected, abs=1e-12)


def test_debiased_error_equals_its_formula():
    y, proba = draw(n=600)
    bins = slow_rank_bins(*top(y, proba), 15)
    total = sum(m / 600 * ((c - a) ** 2 - a * (1 - a) / (m - 1)) for m, c, a in bins)
    error = root_mean_squared_calibration_error(y, proba, debiased=True)
    assert error == pytest.approx(max(total, 0) ** 0.5, abs=1e-12)


def test_debiasing_removes_the_bias_of_many_bins():
    # True squared error: confidence 0.8 everywhere, accuracy 0.7.
    rng = np.random.default_rng(0)
    confidence = np.linspace(0.79, 0.81, 200)
    plain, debiased = [], []
    for _ in range(300):
        y = (rng.random(200) < confidence - 0.1).astype(int)
        for errors, flag in ((plain, False), (debiased, True)):
            error = root_mean_squared_calibration_error(
                y, confidence, n_bins=20, strategy="quantile", debiased=flag
            )
            errors.append(error**2)
    assert np.mean(debiased) == pytest.approx(0.01, abs=0.002)
    assert np.mean(plain) > 0.025


def test_debiasing_takes_rows_of_equal_confidence_for_one_bin():
    hit = np.arange(300) < 270
    error = root_mean_squared_calibration_error(
        hit, np.full(300, 0.95), pos_label="event", debiased=True
    )
    assert error**2 == pytest.approx(0.05**2 - 0.9 * 0.1 / 299)


def test_debiasing_removes_no_more_than_the_bias_of_few_confidences():
    rng = np.random.default_rng(0)
    squared = []
    for _ in range(300):
        confidence = rng.choice([0.6, 0.8, 0.9], 500)
        hit = rng.random(500) < confidence - 0.1
        error = root_mean_squared_calibration_error(
            hit, confidence, pos_label="event", debiased=True
        )
        squared.append(error**2)
    assert np.mean(squared) == pytest.approx(0.01, abs=0.001)


def test_debiasing_needs_two_rows_a_bin():
    y, proba = draw(n=15)
    with pytest.raises(ValueError, match="total weight of 15 over 15 bins"):
        root_mean_squared_calibration_error(y, proba, debiased=True)
    with pytest.raises(ValueError, match="total weight of 1 over 2 bins"):
        root_mean_squared_calibration_error(
            y, proba, n_bins=2, debiased=True, sample_weight=np.full(15, 1 / 15)
        )


# Facts about edges and counts that published implementations get wrong.


def test_confidence_one_lies_in_the_last_bin():
    # Two rows of 1.0 and 0.99 share the bin (14/15, 1]: their gaps cancel.
    proba = [[1.0, 0.0], [0.99, 0.01], [1.0, 0.0], [1.0, 0.0]]
    error = expected_calibration_error([0, 0, 0, 1], proba)
    assert error == pytest.approx(abs(0.75 - 3.99 / 4))


@pytest.mark.parametrize("n_bins", [1, 2, 3, 10, 15])
def test_n_bins_means_n_bins(n_bins):
    middles = (np.arange(n_bins) + 0.5) / n_bins
    stats = bin_stats(middles, middles > 0, np.ones(n_bins), uniform_edges(n_bins))
    assert_allclose(stats.weight, np.ones(n_bins))


@pytest.mark.parametrize("n_bins", [2, 10, 15])
def test_bins_are_closed_on_the_right(n_bins):
    edges = np.arange(n_bins + 1) / n_bins
    stats = bin_stats(edges, edges, np.ones(n_bins + 1), uniform_edges(n_bins))
    assert_allclose(stats.weight, [2, *np.ones(n_bins - 1)])


@pytest.mark.parametrize("n_bins", [3, 7, 10, 15, 99])
def test_float32_edges_compare_like_exact_ones(n_bins):
    exact = uniform_edges(n_bins)
    near = exact.astype(np.float32)
    values = np.concatenate(
        [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1))]
    )
    edges = exact_edges(n_bins, np.dtype(np.float32))
    in_single = np.searchsorted(edges, values)
    in_double = np.searchsorted(exact, values.astype(np.float64))
    assert_allclose(in_single, in_double)


def test_static_error_averages_over_classes_that_never_occur():
    # K is the number of columns, not the largest label + 1, and columns are averaged.
    proba = np.array([[0.5, 0.3, 0.2, 0.0], [0.5, 0.3, 0.2, 0.0]])
    error = static_calibration_error([0, 1], proba)
    assert error == pytest.approx((0.0 + 0.2 + 0.2 + 0.0) / 4)


def test_static_error_counts_zero_probabilities():
    proba = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert static_calibration_error([0, 1], proba) == pytest.approx(0.5)


def test_adaptive_error_keeps_the_smallest_sample():
    # A bin of its own for each row: the smallest counts like the others.
    proba = np.array([0.6, 0.7, 0.8, 0.9])
    error = adaptive_expected_calibration_error([0, 1, 1, 1], proba, n_bins=4)
    assert error == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4)


def test_adaptive_error_of_equal_confidences_ignores_the_order_of_rows():
    proba = np.full(9, 0.8)
    y = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0])
    for order in (slice(None), slice(None, None, -1), [0, 6, 1, 7, 2, 8, 3, 4, 5]):
        error = adaptive_expected_calibration_error(y[order], proba, n_bins=4)
        assert error == pytest.approx(0.8 - 6 / 9, abs=1e-12)


@pytest.mark.parametrize("metric", ALL_METRICS)
def test_a_fold_that_lacks_a_class_has_a_value(metric):
    y, proba = draw()
    rows = y != 2
    names = np.array(["a", "b", "c", "d"])
    value = metric(names[y[rows]], proba[rows], labels=names)
    assert value == pytest.approx(metric(y[rows], proba[rows]), abs=1e-14)
    assert np.isfinite(value)


@pytest.mark.parametrize("metric", ALL_METRICS)
def test_a_single_row_has_a_value(metric):
    value = metric([1], [[0.3, 0.7]])
    assert type(value) is float
    expected = predictive_entropy if metric is predictive_entropy else None
    if expected is None and metric is not static_calibration_error:
        assert value == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize("metric", ALL_METRICS)
def test_perfect_and_opposite_predictions_are_the_ends_of_the_scale(metric):
    proba = np.eye(2)[[0, 1, 1, 0]]
    assert metric([0, 1, 1, 0], proba) == pytest.approx(0, abs=1e-12)
    if metric is not predictive_entropy:
        assert metric([1, 0, 0, 1], proba) == pytest.approx(1, abs=1e-6)


def test_the_errors_are_ordered():
    y, proba = draw(n=500)
    ece = expected_calibration_error(y, proba)
    rmsce = root_mean_squared_calibration_error(y, proba)
    assert ece < rmsce < maximum_calibration_error(y, proba)
    assert ks_calibration_error(y, proba) <= ece + 1 / 500


BINNED = [
    adaptive_expected_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    root_mean_squared_calibration_error,
    static_calibration_error,
]


@pytest.mark.parametrize("metric", BINNED)
@pytest.mark.parametrize("n_bins", [0, -1, 2.5, True, "10"])
def test_n_bins_has_to_be_a_whole_number(metric, n_bins):
    with pytest.raises(ValueError, match=r"n_bins=.* whole number"):
        metric([0, 1], [0.2, 0.7], n_bins=n_bins)


@pytest.mark.parametrize(
    "metric",
    [
        maximum_calibration_error,
        root_mean_squared_calibration_error,
        static_calibration_error,
    ],
)
def test_an_unknown_strategy_is_refused(metric):
    with pytest.raises(ValueError, match="strategy='kmeans' is not known"):
        metric([0, 1], [0.2, 0.7], strategy="kmeans")


# Invariants.

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([None, 1, 2])


@pytest.mark.parametrize("metric", ALL_METRICS)
@given(seed=seeds, decimals=kinds)
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_has_no_influence(metric, seed, decimals):
    y, proba = draw(seed, n=60, decimals=decimals)
    order = np.random.default_rng(seed).permutation(60)
    assert metric(y[order], proba[order]) == pytest.approx(
        metric(y, proba), rel=1e-6, abs=1e-12
    )


@pytest.mark.parametrize("metric", ALL_METRICS)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_the_order_of_classes_has_no_influence(metric, seed):
    y, proba = draw(seed, n=60)
    order = np.random.default_rng(seed).permutation(4)
    value = metric(y, proba[:, order], labels=order)
    assert value == pytest.approx(metric(y, proba), rel=1e-6, abs=1e-12)


def _debiased(y, proba, **options):
    return root_mean_squared_calibration_error(y, proba, debiased=True, **options)


def _static_mass(y, proba, **options):
    return static_calibration_error(y, proba, strategy="quantile", **options)


@pytest.mark.parametrize("metric", [*ALL_METRICS, _debiased, _static_mass])
@given(seed=seeds, decimals=kinds)
@settings(max_examples=25, deadline=None)
def test_whole_weights_equal_repetition(metric, seed, decimals):
    y, proba = draw(seed, n=60, decimals=decimals)
    counts = np.random.default_rng(seed).integers(0, 4, 60)
    repeated = metric(np.repeat(y, counts), np.repeat(proba, counts, axis=0))
    weighted = metric(y, proba, sample_weight=counts)
    assert weighted == pytest.approx(repeated, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("metric", ALL_METRICS)
@given(seed=seeds, factor=st.sampled_from([1e-9, 0.3, 1e9, 1e60]))
@settings(max_examples=25, deadline=None)
def test_the_unit_of_fractional_weights_has_no_influence(metric, seed, factor):
    y, proba = draw(seed, n=60)
    weight = np.random.default_rng(seed).uniform(0.1, 0.9, 60)
    value = metric(y, proba, sample_weight=factor * weight)
    assert value == pytest.approx(
        metric(y, proba, sample_weight=weight), rel=1e-6, abs=1e-12
    )


@given(seed=seeds, cut=st.integers(1, 59), decimals=kinds)
@settings(max_examples=25, deadline=None)
def test_sums_of_chunks_add_up(seed, cut, decimals):
    y, proba = draw(seed, n=60, decimals=decimals)
    weight = np.random.default_rng(seed).random(60)
    score, hit = top(y, proba)
    edges = uniform_edges(15)

    def stats_of(rows):
        return (
            bin_stats(score[rows], hit[rows], weight[rows], edges),
            class_stats(proba[rows], y[rows], weight[rows], 15),
        )

    parts = zip(stats_of(slice(cut)), stats_of(slice(cut, None)), strict=True)
    for (first, second), whole in zip(parts, stats_of(slice(None)), strict=True):
        total = first + second
        assert_allclose(total.weight, whole.weight, atol=1e-12)
        assert_allclose(total.confidence, whole.confidence, atol=1e-12)
        assert_allclose(total.hit, whole.hit, atol=1e-12)


def test_many_blocks_give_what_one_gives(monkeypatch):
    y, proba = draw(n=1000, n_classes=10)
    one = static_calibration_error(y, proba)
    monkeypatch.setattr("skcalib.metrics._classwise.BLOCK_ELEMENTS", 70)
    assert static_calibration_error(y, proba) == pytest.approx(one, abs=1e-14)


@pytest.mark.parametrize("n_rows", [40, 150])
def test_static_error_of_many_classes_equals_its_formula(monkeypatch, n_rows):
    y, proba = draw(n=n_rows, n_classes=500)
    monkeypatch.setattr("skcalib.metrics._classwise.BLOCK_ELEMENTS", 500)
    expected = np.mean(
        [mean_gap(slow_gaps(proba[:, k], y == k, 15)) for k in range(500)]
    )
    error = static_calibration_error(y, proba, labels=range(500))
    assert error == pytest.approx(expected, rel=1e-12)
    summed = CalibrationAccumulator(labels=range(500)).update(y, proba).compute()
    assert summed["sce"] == pytest.approx(expected, rel=1e-12)


def test_the_blocks_of_many_classes_have_more_rows_than_bins(monkeypatch):
    y, proba = draw(n=60, n_classes=500)
    monkeypatch.setattr("skcalib.metrics._classwise.BLOCK_ELEMENTS", 500)
    monkeypatch.setattr("skcalib.metrics._sums.BLOCK_ELEMENTS", 500)
    heights = []

    def stats_of(block, *beside):
        heights.append(block.shape[0])
        return _block_stats(block, *beside)

    monkeypatch.setattr("skcalib.metrics._classwise._block_stats", stats_of)
    static_calibration_error(y, proba, labels=range(500))
    CalibrationAccumulator(labels=range(500)).update(y, proba).compute()
    assert min(heights) > 15
