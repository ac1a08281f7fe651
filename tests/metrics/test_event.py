"""Probabilities of an event beside whether it happened, such as top-1 confidences."""

import importlib
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone

from skcalib import logits_from_proba, metrics
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    calibration_test,
    compare_calibration,
    compare_groups,
    expected_calibration_error,
    maximum_calibration_error,
    root_mean_squared_calibration_error,
)
from tests.shared.every_calibrator import CALIBRATORS, identify

OTHERS = 40
TOP_LABEL = [
    "adaptive_expected_calibration_error",
    "area_under_risk_coverage_curve",
    "expected_calibration_error",
    "ks_calibration_error",
    "kuiper_calibration_error",
    "maximum_calibration_error",
    "overconfidence_error",
    "root_mean_squared_calibration_error",
    "smooth_calibration_error",
    "sweep_calibration_error",
    "top_label_calibration_error",
    "underconfidence_error",
]


def make_pairs(n=600):
    """Return confidences from 0.05 to 1, and whether each was right."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 1, n)
    return confidence, rng.random(n) < confidence**1.1


def as_many_classes(confidence, correct):
    """Return labels and rows of which the first class is the predicted one."""
    rest = np.repeat((1 - confidence[:, np.newaxis]) / OTHERS, OTHERS, axis=1)
    return np.where(correct, 0, 1), np.column_stack([confidence, rest])


@pytest.mark.parametrize("name", TOP_LABEL)
def test_pairs_have_the_error_of_the_rows_they_come_from(name):
    confidence, correct = make_pairs()
    metric = getattr(metrics, name)
    whole = metric(*as_many_classes(confidence, correct))
    assert metric(correct, confidence, pos_label="event") == pytest.approx(whole)


def test_pairs_have_the_kernel_error_of_the_rows_they_come_from():
    confidence, correct = make_pairs(200)
    options = {"kind": "top_label", "bandwidth": 0.05}
    whole = metrics.kde_calibration_error(
        *as_many_classes(confidence, correct), **options
    )
    pairs = metrics.kde_calibration_error(
        correct, confidence, pos_label="event", **options
    )
    assert pairs == pytest.approx(whole)


def test_a_report_reads_pairs_as_they_are():
    confidence, correct = make_pairs()
    names = [*metrics._registry.RANKED.keys() - {"squared_ce"}]
    pairs, whole = (
        calibration_report(*given, metrics=names, n_bootstrap=20, random_state=0, **how)
        for given, how in (
            ((correct, confidence), {"pos_label": "event"}),
            (as_many_classes(confidence, correct), {}),
        )
    )
    for name in names:
        assert_allclose(pairs[name], whole[name], rtol=1e-9, err_msg=name)
    assert pairs["accuracy"].value == pytest.approx(correct.mean())


def test_brier_score_and_log_loss_of_pairs_are_those_of_being_right():
    confidence, correct = make_pairs()
    report = calibration_report(
        correct, confidence, pos_label="event", metrics=["brier", "nll"], n_bootstrap=0
    )
    brier = np.mean((confidence - correct) ** 2)
    loss = -np.log(np.where(correct, confidence, 1 - confidence)).mean()
    assert report["brier"].value == pytest.approx(brier)
    assert report["nll"].value == pytest.approx(loss)


def test_an_accumulator_of_pairs_has_the_values_of_the_report():
    confidence, correct = make_pairs()
    accumulator = CalibrationAccumulator(pos_label="event")
    for part in np.array_split(np.arange(600), 4):
        accumulator.update(correct[part], confidence[part])
    exact = ["accuracy", "brier", "ece", "mce", "rmsce"]
    report = calibration_report(
        correct, confidence, pos_label="event", metrics=exact, n_bootstrap=0
    )
    for name in exact:
        assert accumulator.compute()[name] == pytest.approx(report[name].value)


def test_tests_read_pairs_as_they_are():
    confidence, correct = make_pairs()
    pairs = calibration_test(
        correct, confidence, metric="ece", pos_label="event", random_state=0
    )
    whole = calibration_test(
        *as_many_classes(confidence, correct), metric="ece", random_state=0
    )
    assert pairs.statistic == pytest.approx(whole.statistic)
    assert pairs.pvalue == whole.pvalue
    other = confidence**1.1
    compared = compare_calibration(
        correct, confidence, other, pos_label="event", random_state=0
    )
    wide = as_many_classes(confidence, correct), as_many_classes(other, correct)[1]
    whole = compare_calibration(*wide[0], wide[1], random_state=0)
    assert compared.difference == pytest.approx(whole.difference)
    assert compared.pvalue == whole.pvalue
    groups = np.where(np.arange(600) % 2, "odd", "even")
    compared = compare_groups(correct, confidence, groups, pos_label="event")
    assert_allclose(compared.confidence[0], confidence[::2].mean())


@pytest.mark.parametrize("name", ["ReliabilityDisplay", "SmoothReliabilityDisplay"])
def test_diagrams_show_pairs_as_they_are(name):
    pytest.importorskip("matplotlib")
    display = getattr(importlib.import_module("skcalib.plotting"), name)
    given = make_pairs()[::-1]
    options = {"n_bootstrap": 0}
    shown = display.from_predictions(*given, pos_label="event", **options)
    whole = display.from_predictions(*as_many_classes(*given[::-1]), **options)
    assert shown.error == pytest.approx(whole.error)


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=identify)
def test_every_calibrator_takes_pairs_of_a_real_network(data_dir, calibrator):
    # The confidences of ResNet-34 on ImageNet, among 1,000 classes.
    with np.load(data_dir / "logits" / "imagenet_resnet34_top1.npz") as stored:
        confidence = stored["confidence"].astype(np.float64)
        correct = stored["y"] == stored["yhat"]
    rows = np.random.default_rng(0).permutation(confidence.size)
    train, test = rows[:5000], rows[5000:]
    log_odds = logits_from_proba(confidence)
    fitted = clone(calibrator).fit(log_odds[train], correct[train])
    after = fitted.predict_proba(log_odds[test])[:, 1]
    before, after = (
        expected_calibration_error(correct[test], p, pos_label="event")
        for p in (confidence[test], after)
    )
    assert after < 0.75 * before


def test_errors_of_the_probability_of_class_1_are_not_those_of_the_predicted_class():
    # Both classes are over-stated by 0.2 below one half, and by 0.2 above.
    p = np.repeat([0.3, 0.8], 10)
    y = np.repeat([1, 0, 1, 0], [1, 9, 6, 4])
    assert expected_calibration_error(y, p, pos_label=1) == pytest.approx(0.2)
    assert expected_calibration_error(y, p, pos_label="event") == pytest.approx(0.2)
    assert maximum_calibration_error(y, p, pos_label="event", n_bins=1) == (
        pytest.approx(0.2)
    )
    assert maximum_calibration_error(y, p, pos_label=1, n_bins=1) == pytest.approx(0)
    assert root_mean_squared_calibration_error(y, p, pos_label="event") == (
        pytest.approx(0.2)
    )


def test_a_class_may_be_called_event():
    y, p = ["control", "event", "event"], [0.2, 0.7, 0.4]
    named = expected_calibration_error(y, p, pos_label="event")
    assert named == expected_calibration_error([0, 1, 1], p, pos_label=1)


def test_what_is_no_event_is_refused():
    def error(y, p, **options):
        return expected_calibration_error(y, p, pos_label="event", **options)

    with pytest.raises(ValueError, match="one column, but y_proba has 2"):
        error([0, 1], [[0.2, 0.8], [0.3, 0.7]])
    with pytest.raises(ValueError, match="y_true holds 2 in row 1"):
        error([0, 2], [0.2, 0.8])
    with pytest.raises(ValueError, match="y_true holds nan in row 0"):
        error([np.nan, 1], [0.2, 0.8])
    with pytest.raises(ValueError, match="Leave labels out"):
        error([0, 1], [0.2, 0.8], labels=[0, 1])
    with pytest.raises(ValueError, match=r"Row 1 of the probabilities holds 1\.8"):
        error([0, 1], [0.2, 1.8])


def test_booleans_among_objects_are_events():
    truth = np.array([True, False], dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = [
            expected_calibration_error(y, [0.1, 0.8], pos_label="event")
            for y in (truth, truth.astype(bool))
        ]
    assert errors[0] == errors[1]


def test_booleans_of_objects_are_events_in_chunks_too():
    array = pytest.importorskip("dask.array")
    confidence, correct = make_pairs()
    hit = correct.astype(object)
    found = [
        CalibrationAccumulator(pos_label="event").update(*pair).compute()["ece"]
        for pair in (
            (hit, confidence),
            (array.from_array(hit, 300), array.from_array(confidence, 300)),
        )
    ]
    assert found[0] == pytest.approx(found[1])
