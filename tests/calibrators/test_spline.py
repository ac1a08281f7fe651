import numpy as np
import pytest
from numpy.testing import assert_allclose
from rows import normalise, require_top
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from skcalib.calibrators import SplineCalibration
from skcalib.metrics import expected_calibration_error, static_calibration_error

METHODS = ["top_label", "one_vs_rest"]


def natural_basis(x, knots, *, derivative=False):
    """Truncated powers, Hastie et al., "The Elements of Statistical Learning", 5.4."""

    def cubed(knot):
        positive = np.maximum(x - knot, 0)
        return 3 * positive**2 if derivative else positive**3

    last = knots[-1]
    d = [(cubed(knot) - cubed(last)) / (last - knot) for knot in knots[:-1]]
    linear = [np.zeros_like(x), np.ones_like(x)] if derivative else [np.ones_like(x), x]
    return np.stack([*linear, *(part - d[-1] for part in d[:-1])], axis=1)


def reference_values(proba, hit, n_knots=6):
    """Corrected probabilities of distinct scores, by normal equations."""
    n = len(proba)
    order = np.argsort(proba)
    fractile = np.arange(n + 1) / n
    curve = np.append(0, np.cumsum((hit - proba)[order])) / n
    weight = np.full(n + 1, 1.0)
    weight[[0, -1]] = 0.5
    design = natural_basis(fractile, np.linspace(0, 1, n_knots))
    gram = design.T @ (weight[:, None] * design)
    coef = np.linalg.solve(gram, design.T @ (weight * curve))
    corrected = np.empty(n)
    corrected[order] = proba[order] + n * np.diff(design @ coef)
    return np.clip(corrected, 0, 1)


def mixed_with_uniform(values, n, n_classes):
    return (n * values + 1 / n_classes) / (n + 1)


def test_top_label_adds_the_slope_of_the_spline(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    corrected = reference_values(proba.max(axis=1), proba.argmax(axis=1) == y)
    expected = mixed_with_uniform(corrected, y.size, 4)
    result = SplineCalibration().fit(logits, y).predict_proba(logits)
    require_top(result, proba, expected, atol=1e-9)


@pytest.mark.parametrize("n_knots", [2, 3, 6, 10])
def test_one_vs_rest_adds_the_slope_for_every_class(calibration_set, n_knots):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    curves = [reference_values(proba[:, k], y == k, n_knots) for k in range(4)]
    expected = normalise(mixed_with_uniform(np.stack(curves, axis=1), y.size, 4))
    spline = SplineCalibration(method="one_vs_rest", n_knots=n_knots).fit(logits, y)
    assert_allclose(spline.predict_proba(logits), expected, atol=1e-8)


def test_the_sum_over_samples_of_the_paper_is_near():
    rng = np.random.default_rng(0)
    z = rng.normal(scale=3, size=20_000)
    hit = rng.random(z.size) < expit(z / 2)
    proba = np.sort(expit(z))
    fractile = np.linspace(0, 1, z.size)
    curve = np.cumsum((hit - expit(z))[np.argsort(z)]) / z.size
    knots = np.linspace(0, 1, 6)
    coef = np.linalg.lstsq(natural_basis(fractile, knots), curve, rcond=None)[0]
    paper = proba + natural_basis(fractile, knots, derivative=True) @ coef
    spline = SplineCalibration(method="one_vs_rest").fit(z, hit.astype(int))
    ours = spline.predict_proba(np.sort(z))[:, 1]
    assert_allclose(ours, np.clip(paper, 0, 1), atol=1e-3)


def test_the_probability_of_the_old_class_is_calibrated(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=40_000)
    fit, test = slice(0, 20_000), slice(20_000, None)
    spline = SplineCalibration().fit(logits[fit], y[fit])
    top = logits[test].argmax(axis=1)
    hit = (top == y[test]).astype(int)

    def error(proba):
        confidence = proba[np.arange(top.size), top]
        pairs = np.column_stack([1 - confidence, confidence])
        return static_calibration_error(hit, pairs)

    assert error(softmax(logits[test], axis=1)) > 0.1
    assert error(spline.predict_proba(logits[test])) < 0.015


def test_a_calibrated_score_is_left_alone():
    # The hits of every score are just as many as its probability says.
    z = np.repeat(np.log([1 / 4, 2 / 3, 1.0, 3 / 2, 4.0]), [10, 10, 10, 10, 10])
    y = np.concatenate([np.arange(10) < 10 * p for p in (0.2, 0.4, 0.5, 0.6, 0.8)])
    spline = SplineCalibration(method="one_vs_rest").fit(z, y.astype(int))
    assert_allclose(spline.splines_, 0, atol=1e-12)
    expected = mixed_with_uniform(expit(z), 50, 2)
    assert_allclose(spline.predict_proba(z)[:, 1], expected, atol=1e-12)


def test_few_distinct_scores_get_their_share_of_hits():
    z = np.repeat([-1.0, 0.5, 2.0], [20, 40, 20])
    y = np.concatenate(
        [np.arange(n) < hits for n, hits in [(20, 5), (40, 10), (20, 18)]]
    )
    spline = SplineCalibration(method="one_vs_rest").fit(z, y.astype(int))
    expected = mixed_with_uniform(np.array([0.25, 0.25, 0.9]), 80, 2)
    assert_allclose(spline.values_[1], expected, atol=1e-12)


def test_a_class_and_its_complement_get_complementary_curves(binary_calibration_set):
    z, y = binary_calibration_set
    spline = SplineCalibration(method="one_vs_rest").fit(z, y)
    assert_allclose(spline.knots_[0], -spline.knots_[1][::-1])
    assert_allclose(spline.values_[0], 1 - spline.values_[1][::-1], atol=1e-9)


def test_no_probability_is_0_or_1():
    z = np.linspace(-5, 5, 100)
    spline = SplineCalibration(method="one_vs_rest").fit(z, (z > 0).astype(int))
    proba = spline.predict_proba(np.append(z, [-1e4, 1e4]))
    assert proba.min() == pytest.approx(1 / 202)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_scores_equal_up_to_rounding_share_their_hits(rounded_set):
    spline = SplineCalibration(method="one_vs_rest").fit(*rounded_set)
    assert_allclose(spline.values_[0], [mixed_with_uniform(0.25, 200, 8)])


@pytest.mark.parametrize("method", METHODS)
def test_equal_logits_give_the_class_shares(method):
    spline = SplineCalibration(method=method)
    spline.fit(np.zeros((6, 2)), [0, 0, 1, 1, 1, 1])
    share = mixed_with_uniform(1 / 3, 6, 2)
    assert_allclose(spline.predict_proba([[0.0, 0.0]]), [[share, 1 - share]])


@pytest.mark.parametrize(
    ("options", "name"), [({"method": "shared"}, "method"), ({"n_knots": 1}, "n_knots")]
)
def test_wrong_parameters_are_refused(calibration_set, options, name):
    with pytest.raises(ValueError, match=name):
        SplineCalibration(**options).fit(*calibration_set)


def test_there_are_no_calibrated_logits(calibration_set):
    spline = SplineCalibration().fit(*calibration_set)
    assert not hasattr(spline, "decision_function")


def test_it_calibrates_a_real_network(cifar10):
    X = cifar10.X_test.astype(np.float64)
    before = softmax(X, axis=1)
    after = SplineCalibration().fit(cifar10.X_cal, cifar10.y_cal).predict_proba(X)
    assert log_loss(cifar10.y_test, after) < log_loss(cifar10.y_test, before)
    assert expected_calibration_error(cifar10.y_test, before) > 0.05
    assert expected_calibration_error(cifar10.y_test, after) < 0.015
