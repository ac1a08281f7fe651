from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows import normalise, require_top
from scipy.special import expit, logit, softmax
from sklearn.metrics import log_loss

from skcalib._blocks import CalibrationData, _scores, open_source
from skcalib._blocks._scores import one_vs_rest
from skcalib._numerics import log_odds
from skcalib._solvers import _histogram
from skcalib.calibrators import HistogramBinning

METHODS = ["one_vs_rest", "top_label"]
STRATEGIES = ["uniform", "quantile"]


def reference_bins(proba, hit, edges, n_bins):
    """Average the hits of each bin (lo, hi], one bin at a time."""
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    result = np.empty_like(proba)
    for low, high in pairwise(bounds):
        inside = (proba > low) & (proba <= high)
        if inside.any():
            result[inside] = hit[inside].mean()
    return result


def test_uniform_bins_are_averages_of_hits(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    edges = np.arange(1, 15) / 15
    curves = [reference_bins(proba[:, k], y == k, edges, 15) for k in range(4)]
    binning = HistogramBinning().fit(logits, y)
    expected = normalise(np.stack(curves, axis=1))
    assert_allclose(binning.predict_proba(logits), expected, atol=1e-12)


def test_quantile_bins_are_averages_of_equally_many_samples(binary_calibration_set):
    z, y = binary_calibration_set
    binning = HistogramBinning(n_bins=12, strategy="quantile").fit(z, y)
    order = np.argsort(z)
    expected = np.empty(z.size)
    for part in np.split(order, 12):
        expected[part] = y[part].mean()
    assert_allclose(binning.predict_proba(z)[:, 1], expected, atol=1e-12)


def test_top_label_replaces_the_confidence(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    hit, edges = proba.argmax(axis=1) == y, np.arange(1, 10) / 10
    confidence = reference_bins(proba.max(axis=1), hit, edges, 10)
    binning = HistogramBinning(n_bins=10, method="top_label").fit(logits, y)
    require_top(binning.predict_proba(logits), proba, confidence)


def test_bins_are_closed_on_the_right():
    # p = 1/2 exactly is the last probability of the lower of two bins.
    z = [-1.0, 0.0, 0.0, 1.0, 2.0]
    binning = HistogramBinning(n_bins=2).fit(z, [0, 0, 1, 1, 1])
    assert_array_equal(binning.edges_[1], [0.0])
    assert_allclose(binning.values_[1], [1 / 3, 1])
    proba = binning.predict_proba(z)
    assert_allclose(proba[:, 1], [1 / 3, 1 / 3, 1 / 3, 1, 1])
    assert_allclose(proba[:, 0], 1 - proba[:, 1], atol=1e-90)


def test_edges_are_log_odds_of_equal_steps():
    binning = HistogramBinning(n_bins=4).fit([-1.0, 1.0], [0, 1])
    assert_allclose(binning.edges_[1], logit([0.25, 0.5, 0.75]), atol=1e-15)


def test_a_bin_without_samples_gives_its_middle():
    binning = HistogramBinning(n_bins=4).fit([-3.0, 3.0], [0, 1])
    assert_allclose(binning.values_[1], [0, 0.375, 0.625, 1])


def test_equal_scores_are_never_parted():
    z = np.repeat([0.0, 1.0, 2.0], [5, 1, 2])
    y = [0, 0, 0, 0, 1, 0, 1, 1]
    binning = HistogramBinning(n_bins=4, strategy="quantile").fit(z, y)
    # A quarter and a half of the samples both end among the five zeros.
    assert_allclose(binning.edges_[1], [0.5, 1.5])
    assert_allclose(binning.values_[1], [0.2, 0, 1])


def test_scores_equal_up_to_rounding_are_never_parted():
    z = 3.0 + 1e-15 * np.arange(8)
    binning = HistogramBinning(n_bins=2, strategy="quantile")
    binning.fit(np.append(z, 4.0), [0, 1] * 4 + [1])
    assert_allclose(binning.edges_[1], [3.5])


def test_smoothing_adds_samples_at_the_middle():
    z = [-3.0, -3.0, -3.0, 3.0]
    binning = HistogramBinning(n_bins=2, smoothing=2).fit(z, [0, 0, 1, 1])
    # (1 + 2 * 1/4) / (3 + 2) and (1 + 2 * 3/4) / (1 + 2)
    assert_allclose(binning.values_[1], [0.3, 2.5 / 3])


def test_smoothing_counts_weights_as_samples():
    z = [-3.0, -3.0, -3.0, 3.0]
    binning = HistogramBinning(n_bins=2, smoothing=2)
    binning.fit(z, [0, 0, 1, 1], sample_weight=[10, 10, 10, 10])
    assert_allclose(binning.values_[1], [10.5 / 32, 11.5 / 12])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_blocks_of_rows_do_not_change_the_bins(calibration_set, monkeypatch, strategy):
    logits, y = calibration_set
    data = CalibrationData(open_source(logits), y, np.ones(y.size))
    options = {"n_bins": 7, "strategy": strategy, "smoothing": 0.5}
    whole = _histogram.fit_histogram(data, one_vs_rest, **options)
    for module in (_histogram, _scores):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", 28)
    pieces = _histogram.fit_histogram(data, one_vs_rest, **options)
    for one, other in zip(whole, pieces, strict=True):
        assert_array_equal(one.edges, other.edges)
        assert_allclose(one.values, other.values, atol=1e-14)


def test_a_row_that_all_bins_send_to_0_keeps_its_probabilities():
    # All rows are sure of a class and right; an equal row is in bins without hits.
    logits = 9 * np.eye(3)
    binning = HistogramBinning(n_bins=2).fit(logits, [0, 1, 2])
    row = np.array([[0.1, 0.0, -0.1]])
    assert_allclose(binning.predict_proba(row), softmax(row, axis=1), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_class_that_never_occurs_keeps_its_probability_in_narrow_bins():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 4))
    binning = HistogramBinning(n_bins=3).fit(logits, rng.integers(0, 3, 300))
    score = log_odds(logits)[:, 3]
    value = binning.values_[3][binning.edges_[3].searchsorted(score)]
    assert_allclose(value, expit(score), rtol=0.14)
    assert_allclose(binning.predict_proba(logits).sum(axis=1), 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_logits_give_the_class_shares(strategy, method):
    binning = HistogramBinning(strategy=strategy, method=method)
    binning.fit(np.zeros((6, 2)), [0, 0, 1, 1, 1, 1])
    assert_allclose(binning.predict_proba([[0.0, 0.0]]), [[1 / 3, 2 / 3]])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_bin_gives_the_class_shares(calibration_set, strategy):
    logits, y = calibration_set
    binning = HistogramBinning(n_bins=1, strategy=strategy).fit(logits, y)
    shares = np.bincount(y) / y.size
    assert_allclose(binning.predict_proba(logits[:3]), [shares] * 3)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_bins": 0}, "n_bins"),
        ({"strategy": "kmeans"}, "strategy"),
        ({"method": "shared"}, "method"),
        ({"smoothing": -1.0}, "smoothing"),
    ],
)
def test_wrong_parameters_are_refused(calibration_set, options, name):
    with pytest.raises(ValueError, match=name):
        HistogramBinning(**options).fit(*calibration_set)


def test_there_are_no_calibrated_logits(calibration_set):
    assert not hasattr(HistogramBinning().fit(*calibration_set), "decision_function")


def test_smoothed_bins_calibrate_a_real_network(cifar10):
    X = cifar10.X_test.astype(np.float64)
    before = log_loss(cifar10.y_test, softmax(X, axis=1))
    binning = HistogramBinning(strategy="quantile", smoothing=1.0)
    binning.fit(cifar10.X_cal, cifar10.y_cal)
    assert log_loss(cifar10.y_test, binning.predict_proba(X)) < before


def test_values_of_quantile_bins_follow_the_truth():
    rng = np.random.default_rng(0)
    z = rng.normal(scale=2, size=50_000)
    y = (rng.random(z.size) < expit(z / 2)).astype(int)
    binning = HistogramBinning(n_bins=20, strategy="quantile").fit(z, y)
    proba = binning.predict_proba(z)[:, 1]
    assert np.abs(proba - expit(z / 2)).mean() < 0.02
