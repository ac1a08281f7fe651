import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows import normalise, require_top
from scipy.special import expit, gamma, gammaln, logit, softmax
from sklearn.metrics import log_loss

from skcalib._numerics import log_odds
from skcalib.calibrators import BayesianBinning, HistogramBinning

METHODS = ["one_vs_rest", "top_label"]


def reference_model(score, hit, n_bins, strength=2.0):
    """Log marginal likelihood and posterior means of one histogram, bin by bin."""
    n = score.size
    order = np.argsort(score)
    stops = [-(-n * b // n_bins) for b in range(n_bins + 1)]
    ends = [(score[order[s - 1]] + score[order[s]]) / 2 for s in stops[1:-1]]
    bounds = [0, *expit(ends), 1]
    values = np.empty(n)
    evidence = 0.0
    for b in range(n_bins):
        part = order[stops[b] : stops[b + 1]]
        prior = strength / n_bins
        middle = (bounds[b] + bounds[b + 1]) / 2
        alpha, beta = prior * middle, prior * (1 - middle)
        hits, misses = hit[part].sum(), (~hit[part]).sum()
        evidence += gammaln(prior) - gammaln(prior + part.size)
        evidence += gammaln(hits + alpha) - gammaln(alpha)
        evidence += gammaln(misses + beta) - gammaln(beta)
        values[part] = (hits + alpha) / (part.size + prior)
    return evidence, values


def reference(score, hit, numbers, strength=2.0):
    models = [reference_model(score, hit, n_bins, strength) for n_bins in numbers]
    evidence = np.array([model[0] for model in models])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    return weights, weights @ np.array([model[1] for model in models])


@pytest.mark.parametrize("strength", [0.5, 2.0, 20.0])
def test_binary_agrees_with_the_formula(binary_calibration_set, strength):
    z, y = binary_calibration_set
    binning = BayesianBinning(prior_strength=strength).fit(z, y)
    # 600^(1/3) = 8.43
    assert_array_equal(binning.n_bins_, np.arange(1, 86))
    weights, values = reference(z, y == 1, binning.n_bins_, strength)
    assert_allclose(binning.weights_[1], weights, atol=1e-12)
    proba = binning.predict_proba(z)
    assert_allclose(proba[:, 1], values, atol=1e-12)
    assert_allclose(proba.sum(axis=1), 1, atol=1e-15)


def test_one_vs_rest_averages_for_every_class(calibration_set):
    logits, y = calibration_set
    odds = log_odds(logits.copy())
    curves = [reference(odds[:, k], y == k, range(1, 86))[1] for k in range(4)]
    binning = BayesianBinning().fit(logits, y)
    expected = normalise(np.stack(curves, axis=1))
    assert_allclose(binning.predict_proba(logits), expected, atol=1e-12)


def test_top_label_averages_for_the_confidence(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    hit = proba.argmax(axis=1) == y
    _, confidence = reference(logit(proba.max(axis=1)), hit, range(1, 21))
    binning = BayesianBinning(method="top_label", max_bins=20).fit(logits, y)
    require_top(binning.predict_proba(logits), proba, confidence, atol=1e-10)


def test_the_evidence_of_one_bin_is_a_beta_binomial():
    z = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    binning = BayesianBinning(max_bins=2).fit(z, [0, 0, 1, 1, 1])
    # One bin: alpha = beta = 1. Two: of three and two samples, parted at 0.5.
    one = gamma(3 + 1) * gamma(2 + 1) / gamma(5 + 2) * gamma(2)
    low, high = expit(0.5) / 2, (expit(0.5) + 1) / 2
    two = gamma(1 + low) * gamma(3 - low) / gamma(4) / gamma(low) / gamma(1 - low)
    two *= gamma(2 + high) / gamma(3) / gamma(high)
    assert_allclose(binning.weights_[1], [one / (one + two), two / (one + two)])


def test_one_number_of_bins_is_a_smoothed_histogram(binary_calibration_set):
    z, y = binary_calibration_set
    binning = BayesianBinning(max_bins=1).fit(z, y)
    histogram = HistogramBinning(n_bins=1, smoothing=2.0).fit(z, y)
    at = np.linspace(-9, 9, 50)
    assert_allclose(binning.predict_proba(at), histogram.predict_proba(at), atol=1e-14)


def test_more_samples_earn_more_bins():
    rng = np.random.default_rng(0)
    best = []
    for n in (200, 20_000):
        z = rng.normal(scale=2, size=n)
        y = (rng.random(n) < expit(z / 2)).astype(int)
        binning = BayesianBinning().fit(z, y)
        best.append(binning.n_bins_ @ binning.weights_[1])
    assert best[1] > 2 * best[0]
    # 20,000^(1/3) = 27.1
    assert_array_equal(binning.n_bins_[[0, -1]], [2, 272])
    at = np.linspace(-3, 3, 61)
    assert_allclose(binning.predict_proba(at)[:, 1], expit(at / 2), atol=0.1)


def test_equal_scores_are_never_parted():
    z = np.repeat([0.0, 1.0, 2.0], [5, 1, 2])
    binning = BayesianBinning(max_bins=8).fit(z, [0, 0, 0, 0, 1, 0, 1, 1])
    assert_allclose(binning.edges_[1], [0.5, 1.5])


def test_no_probability_is_0_or_1():
    z = np.linspace(-40, 40, 400)
    binning = BayesianBinning().fit(z, (z > 0).astype(int))
    proba = binning.predict_proba(np.append(z, [-1e4, 1e4]))
    assert (proba > 0).all()
    assert_allclose(proba[[0, -1], [1, 0]], 0, atol=1e-3)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_class_that_never_occurs_is_left_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 4))
    binning = BayesianBinning().fit(logits, rng.integers(0, 3, 300))
    proba = binning.predict_proba(logits)
    assert (proba > 0).all()
    score = log_odds(logits)[:, 3]
    value = binning.values_[3][binning.edges_[3].searchsorted(score)]
    assert_allclose(value, expit(score), rtol=0.14)


@pytest.mark.parametrize("method", METHODS)
def test_equal_logits_give_almost_the_class_shares(method):
    binning = BayesianBinning(method=method).fit(np.zeros((6, 2)), [0, 0, 1, 1, 1, 1])
    # (4 + 1) / (6 + 2)
    assert_allclose(binning.predict_proba([[0.0, 0.0]]), [[3 / 8, 5 / 8]])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"method": "shared"}, "method"),
        ({"max_bins": 0}, "max_bins"),
        ({"prior_strength": 0.0}, "prior_strength"),
    ],
)
def test_wrong_parameters_are_refused(calibration_set, options, name):
    with pytest.raises(ValueError, match=name):
        BayesianBinning(**options).fit(*calibration_set)


def test_there_are_no_calibrated_logits(calibration_set):
    assert not hasattr(BayesianBinning().fit(*calibration_set), "decision_function")


def test_it_calibrates_a_real_network(cifar10):
    X = cifar10.X_test.astype(np.float64)
    before = log_loss(cifar10.y_test, softmax(X, axis=1))
    binning = BayesianBinning().fit(cifar10.X_cal, cifar10.y_cal)
    assert log_loss(cifar10.y_test, binning.predict_proba(X)) < before
