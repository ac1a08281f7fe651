"""One column of probabilities: whose it is, in every metric and display."""

import inspect

import numpy as np
import pytest

from skcalib import metrics as m
from skcalib import plotting
from skcalib.exceptions import OneColumnWarning

NAMES = [
    name
    for name in m.__all__
    if name != "per_label"  # which reads every column as an event
    if inspect.isfunction(getattr(m, name))
    and "y_true" in inspect.signature(getattr(m, name)).parameters
    and {"y_proba", "proba_a"} & set(inspect.signature(getattr(m, name)).parameters)
]
DISPLAYS = [
    "ClasswiseReliabilityDisplay",
    "ProximityDisplay",
    "ReliabilityDisplay",
    "SmoothReliabilityDisplay",
]
OF_THE_PREDICTED_CLASS = [
    name
    for name in NAMES
    if name
    not in {
        "calibration_loss",
        "predictive_entropy",
        "refinement_loss",
        "squared_kernel_calibration_error",
        "static_calibration_error",
    }
]


def call(name, y, proba, **options):
    """Call a metric of this name, and return its numbers."""
    if name == "proximity_calibration_error":
        options["proximity"] = np.linspace(0, 1, len(y))
    if name == "calibration_report":
        report = m.calibration_report(y, proba, n_bootstrap=0, **options)
        return [value for value, _, _ in report.values()]
    if name == "calibration_test":
        result = m.calibration_test(y, proba, n_resamples=1, **options)
        return result.statistic
    if name == "compare_groups":
        found = m.compare_groups(y, proba, np.arange(len(y)) % 2, **options)
        return np.concatenate([found.gap, found.low, found.high])
    if name == "compare_calibration":
        other = 0.9 * np.asarray(proba) + 0.05
        result = m.compare_calibration(y, proba, other, n_resamples=1, **options)
        return [result.value_a, result.value_b]
    return np.concatenate(
        np.atleast_1d(getattr(m, name)(y, proba, **options)), axis=None
    )


@pytest.fixture(scope="module")
def frauds():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 200)
    return np.where(rng.random(200) < p, "fraud", "ok"), p


def test_the_metrics_of_probabilities_are_found():
    assert {"compare_calibration", "risk_coverage_curve"} < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pos_label_is_a_keyword_of_every_metric(name):
    parameter = inspect.signature(getattr(m, name)).parameters["pos_label"]
    assert parameter.kind == parameter.KEYWORD_ONLY
    assert parameter.default is None


@pytest.mark.parametrize("name", NAMES)
def test_a_named_column_equals_two_columns(frauds, name):
    y, p = frauds
    both = np.column_stack([p, 1 - p])  # fraud, ok
    expected = call(name, y, both)
    for labels in (None, ["fraud", "ok"], ["ok", "fraud"]):
        of_fraud = call(name, y, p, pos_label="fraud", labels=labels)
        of_ok = call(name, y, 1 - p, pos_label="ok", labels=labels)
        assert of_fraud == pytest.approx(expected, rel=1e-9)
        assert of_ok == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "predictive_entropy"])
def test_a_column_of_named_classes_is_refused_without_pos_label(frauds, name):
    with pytest.raises(ValueError, match="single column and the labels are 'fraud'"):
        call(name, *frauds)


@pytest.mark.parametrize("name", DISPLAYS)
def test_displays_take_pos_label(frauds, name):
    pytest.importorskip("matplotlib")
    y, p = frauds
    display, options = getattr(plotting, name), {"n_bootstrap": 0}
    if name == "ProximityDisplay":
        options["proximity"] = np.linspace(0, 1, len(y))
    with pytest.raises(ValueError, match="pos_label='ok'"):
        display.from_predictions(y, p, **options)
    one = display.from_predictions(y, p, pos_label="fraud", **options)
    both = display.from_predictions(y, np.column_stack([p, 1 - p]), **options)
    for attribute in ("error", "errors", "frequency", "accuracy", "classes"):
        if hasattr(both, attribute):
            np.testing.assert_equal(
                getattr(one, attribute), getattr(both, attribute), attribute
            )


@pytest.mark.parametrize("name", OF_THE_PREDICTED_CLASS)
def test_confidences_passed_for_probabilities_are_noticed(name):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 500)
    is_right = rng.random(500) < np.clip(confidence - 0.2, 0, 1)
    with pytest.warns(OneColumnWarning, match='pos_label="event"'):
        call(name, is_right, confidence)


def test_the_static_error_of_confidences_is_their_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 5000)
    is_right = rng.random(5000) < np.clip(confidence - 0.15, 0, 1)
    expected = 0
    for b in range(15):
        rows = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if rows.any():
            expected += abs((confidence - is_right)[rows].sum()) / 5000
    error = m.static_calibration_error(is_right, confidence)
    assert error == pytest.approx(expected, abs=1e-12)
    assert error == pytest.approx(0.15, abs=0.01)
