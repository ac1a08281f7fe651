"""The risk-coverage curve and the area under it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skcalib.metrics import area_under_risk_coverage_curve, risk_coverage_curve


def draw(n=200, n_levels=None):
    rng = np.random.default_rng(0)
    second = rng.uniform(size=n)
    if n_levels:
        second = np.round(second * n_levels) / n_levels
    y = (rng.uniform(size=n) < second).astype(int)
    return y, np.column_stack([1 - second, second])


def test_the_curve_is_that_of_abstaining_below_each_threshold():
    y, proba = draw(n_levels=20)
    coverage, risk, thresholds = risk_coverage_curve(y, proba)
    confidence, wrong = proba.max(axis=1), proba.argmax(axis=1) != y
    assert_array_equal(thresholds, np.unique(confidence)[::-1])
    for share, error, threshold in zip(coverage, risk, thresholds, strict=True):
        accepted = confidence >= threshold
        assert share == pytest.approx(accepted.mean())
        assert error == pytest.approx(wrong[accepted].mean())
    assert coverage[-1] == 1


def test_the_area_is_that_under_the_mean_curve_of_random_orders_of_ties():
    y, proba = draw(n_levels=10)
    # Each row many times over: the mean over the rows becomes the integral.
    copies = 400
    wrong = np.repeat(proba.argmax(axis=1) != y, copies)
    confidence = np.repeat(proba.max(axis=1), copies)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(5):
        order = np.lexsort([rng.uniform(size=wrong.size), -confidence])
        n_accepted = np.arange(1, wrong.size + 1)
        areas.append(np.mean(np.cumsum(wrong[order]) / n_accepted))
    area = area_under_risk_coverage_curve(y, proba)
    assert area == pytest.approx(np.mean(areas), rel=2e-3)


def test_a_confidence_that_says_nothing_gives_the_error_rate():
    y = np.array([0, 1, 0, 0])
    assert area_under_risk_coverage_curve(y, np.full((4, 2), 0.5)) == 0.25


def test_the_extremes_of_ranking():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    assert area_under_risk_coverage_curve([0, 0, 0, 0], proba) == 0
    last_wrong = area_under_risk_coverage_curve([0, 0, 0, 1], proba)
    first_wrong = area_under_risk_coverage_curve([1, 0, 0, 0], proba)
    assert last_wrong == pytest.approx(0.25 - 0.75 * np.log(4 / 3))
    assert first_wrong == pytest.approx(0.25 + 0.25 * np.log(4))


def test_increasing_maps_change_nothing_but_the_thresholds():
    y, proba = draw()
    sharper = proba**3 / (proba**3).sum(axis=1, keepdims=True)
    assert_allclose(
        risk_coverage_curve(y, sharper)[:2], risk_coverage_curve(y, proba)[:2]
    )


@pytest.mark.parametrize("light", [1e-17, 1e-300, 1e-310])
def test_rows_of_hardly_any_weight_hardly_count(light):
    y, p = [0, 1, 0, 1], [0.2, 0.7, 0.9, 0.95]
    expected = area_under_risk_coverage_curve(y, p, sample_weight=[1, 0, 1, 0])
    for weight in ([1, light, 1, 0], [1, 0, 1, light], [1, light, 1, light]):
        area = area_under_risk_coverage_curve(y, p, sample_weight=weight)
        assert area == pytest.approx(expected, abs=1e-14)
        coverage, risk, _ = risk_coverage_curve(y, p, sample_weight=weight)
        assert np.isfinite(coverage).all()
        assert (np.diff(coverage) >= 0).all()
        assert np.isfinite(risk).all()


def test_weights_equal_repeated_rows_and_the_order_does_not_matter():
    y, proba = draw(50, n_levels=10)
    weight = np.arange(50) % 3
    repeated = np.repeat(np.arange(50), weight)[::-1]
    once = risk_coverage_curve(y, proba, sample_weight=weight)
    again = risk_coverage_curve(y[repeated], proba[repeated])
    for weighted, rows in zip(once, again, strict=True):
        assert_allclose(weighted, rows)
    assert area_under_risk_coverage_curve(
        y, proba, sample_weight=weight
    ) == pytest.approx(area_under_risk_coverage_curve(y[repeated], proba[repeated]))


def test_labels_name_the_columns_and_bad_rows_are_refused():
    y, proba = draw(30)
    names = np.array(["no", "yes"])
    named = area_under_risk_coverage_curve(names[y], proba, labels=names)
    assert named == area_under_risk_coverage_curve(y, proba)
    with pytest.raises(ValueError, match="Row 0 of the probabilities sums to 2"):
        risk_coverage_curve(y, np.ones((30, 2)))
