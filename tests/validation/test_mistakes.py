import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from skcalib import (
    CalibratedClassifier,
    CalibratorSearch,
    PlattScaling,
    ProbabilityFloor,
    TemperatureScaling,
    VectorScaling,
    logits_from_proba,
)
from skcalib.datasets import make_logits
from skcalib.exceptions import OneColumnWarning, ProbabilitiesAsLogitsWarning
from skcalib.metrics import (
    calibration_report,
    expected_calibration_error,
    static_calibration_error,
)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("to_proba", [False, True])
def test_fit_asks_whether_labels_and_logits_are_swapped(n_classes, as_text, to_proba):
    logits, y = make_logits(100, n_classes, random_state=0)
    scores = softmax(logits, axis=1) if to_proba else logits
    labels = y.astype(str) if as_text else y
    with pytest.raises(ValueError, match=r"y has shape \(100, .*are they swapped"):
        TemperatureScaling().fit(labels, scores)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(
    "metric",
    [expected_calibration_error, static_calibration_error, calibration_report],
)
def test_metrics_ask_whether_their_arguments_are_swapped(metric, n_classes):
    logits, y = make_logits(100, n_classes, random_state=0)
    with pytest.raises(ValueError, match=r"y_true has shape .*are they swapped"):
        metric(softmax(logits, axis=1), y)


@pytest.mark.parametrize("labels", [[0, 1, 1], [0.0, 1.0, 1.0], [[0], [1], [1]], "abb"])
@pytest.mark.parametrize("as_column", [False, True])
def test_metrics_ask_whether_a_column_of_probabilities_is_swapped(labels, as_column):
    p = np.array([0.2, 0.7, 0.9])
    p = p[:, np.newaxis] if as_column else p
    for metric in (expected_calibration_error, calibration_report):
        with pytest.raises(ValueError, match=r"are they swapped.* and comes first"):
            metric(p, list(labels))
    with pytest.raises(ValueError, match=r"such as 0\.2, .*swapped\? y is the class"):
        TemperatureScaling().fit(list(labels), p)


def test_a_missing_label_is_no_fraction():
    with pytest.raises(ValueError, match="y_true holds nan in row 2"):
        expected_calibration_error([0.0, 1.0, np.nan], [0, 1, 1])


def test_shares_of_two_classes_beside_one_column_are_not_swapped():
    shares = np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    hard = np.array([[0, 1], [0, 1], [1, 0]])
    calibrator = TemperatureScaling().fit([0.1, 2.0, -3.0], shares)
    assert calibrator.classes_.tolist() == [0, 1]
    assert calibration_report(hard, [0, 1, 0], n_bootstrap=0)["accuracy"].value == 2 / 3


@pytest.mark.parametrize("n_classes", [5, 300])
def test_labels_from_1_without_the_last_are_warned_of(n_classes):
    logits, y = make_logits(1000, n_classes, random_state=0)
    from_1, kept = y + 1, y < n_classes - 1
    logits, from_1 = logits[kept], from_1[kept]
    with pytest.warns(match=rf"classes=range\(1, {n_classes + 1}\)") as told:
        TemperatureScaling().fit(logits, from_1)
    assert len(told) == 1
    proba = softmax(logits, axis=1)
    with pytest.warns(match=rf"labels=range\(1, {n_classes + 1}\)") as told:
        expected_calibration_error(from_1, proba)
    assert len(told) == 1
    names = range(1, n_classes + 1)
    named = TemperatureScaling(classes=names).fit(logits, from_1)
    numbered = TemperatureScaling().fit(logits, from_1 - 1)
    assert named.temperature_ == numbered.temperature_
    error = expected_calibration_error(from_1, proba, labels=names)
    assert error == expected_calibration_error(from_1 - 1, proba)


def test_labels_without_0_are_not_warned_of_where_they_are_right_or_named():
    logits, y = make_logits(1000, 5, random_state=0)
    kept = y > 0
    TemperatureScaling().fit(logits[kept], y[kept])
    expected_calibration_error(y[kept], softmax(logits[kept], axis=1))
    wrong = np.roll(logits[kept], -1, axis=1)
    TemperatureScaling(classes=range(5)).fit(wrong, y[kept])
    with pytest.warns(ConvergenceWarning, match="equal") as told:
        TemperatureScaling().fit(np.zeros_like(wrong), y[kept])
    assert len(told) == 1


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), CalibratorSearch()])
def test_probabilities_read_as_logits_are_warned_of_once(calibrator):
    logits, y = make_logits(300, 4, random_state=0)
    proba = softmax(logits, axis=1)
    with pytest.warns(ProbabilitiesAsLogitsWarning, match="logits_from_proba") as told:
        fitted = calibrator.fit(proba, y)
    assert len(told) == 1
    # Their meaning is the same as that of any other logits.
    silent = type(calibrator)().fit(proba - 1, y)
    assert_allclose(fitted.predict_proba(proba), silent.predict_proba(proba - 1))


def test_the_warning_of_probabilities_can_be_silenced():
    logits, y = make_logits(300, 4, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbabilitiesAsLogitsWarning)
        TemperatureScaling().fit(softmax(logits, axis=1), y)


def test_rounded_probabilities_are_warned_of_too():
    logits, y = make_logits(300, 10, random_state=0)
    with pytest.warns(ProbabilitiesAsLogitsWarning):
        TemperatureScaling().fit(softmax(logits, axis=1).round(3), y)


def test_logits_with_a_row_that_is_no_distribution_are_not_warned_of():
    logits, y = make_logits(300, 4, random_state=0)
    for scores in (
        logits,
        np.abs(logits),
        logits_from_proba(softmax(logits, axis=1)),
        softmax(logits, axis=1) - 0.25,  # centred
        np.eye(4)[logits.argmax(axis=1)],  # votes show nothing
    ):
        TemperatureScaling().fit(scores, y)


def test_a_column_of_the_other_class_is_warned_of():
    logits, y = make_logits(2000, 2, random_state=0)
    log_odds = logits[:, 1] - logits[:, 0]
    labels = np.array(["ok", "fraud"])[y]  # sorted, "fraud" is the first
    with pytest.warns(OneColumnWarning, match=r"classes=\['ok', 'fraud'\]"):
        TemperatureScaling().fit(log_odds, labels)
    named = TemperatureScaling(classes=["ok", "fraud"]).fit(log_odds, labels)
    assert named.predict([3.0]).tolist() == ["fraud"]
    PlattScaling().fit(log_odds, labels)  # learns the sign


def test_a_column_that_says_nothing_is_not_warned_of():
    rng = np.random.default_rng(0)
    for _ in range(100):
        TemperatureScaling().fit(rng.normal(size=300), rng.integers(2, size=300))


def test_one_hot_labels_are_refused_with_a_way_out_elsewhere():
    logits, y = make_logits(300, 4, random_state=0)
    one_hot = np.eye(4)[y]
    with pytest.raises(ValueError, match=r"y_true\.argmax.*calibration_report takes"):
        expected_calibration_error(one_hot, softmax(logits, axis=1))
    with pytest.raises(ValueError, match=r"y\.argmax.*MultiLabelCalibration"):
        CalibratedClassifier(LogisticRegression()).fit(logits, one_hot)


def test_the_message_of_a_row_that_does_not_sum_to_1_does_not_contradict_itself():
    y, thousandth_off = [0, 1], [[0.5, 0.3, 0.199], [0.2, 0.3, 0.5]]
    assert expected_calibration_error(y, thousandth_off) >= 0
    with pytest.raises(ValueError, match=r"sums to 1\.002; .* off by 0\.001.*rounded"):
        expected_calibration_error(y, [[0.5, 0.3, 0.202], [0.2, 0.3, 0.5]])


def test_normalise_divides_rounded_rows_by_their_sums():
    logits, _ = make_logits(500, 10, random_state=0)
    proba = softmax(logits, axis=1)
    rounded = proba.round(2)
    with pytest.raises(ValueError, match="normalise=True"):
        logits_from_proba(rounded)
    back = np.exp(logits_from_proba(rounded, normalise=True))
    assert_allclose(back.sum(axis=1), 1, rtol=1e-9)
    assert_allclose(back, proba, atol=0.04)
    assert_allclose(
        logits_from_proba([0.3, 0.9], normalise=True), logits_from_proba([0.3, 0.9])
    )


@pytest.mark.parametrize("row", [[0.0, 0.0], [-0.1, 1.1], [np.nan, 1.0]])
def test_normalise_refuses_what_no_sum_makes_probabilities(row):
    with pytest.raises(ValueError, match=r"Row 1 of the probabilities is \["):
        logits_from_proba([[0.5, 0.5], row], normalise=True)


def test_probabilities_of_labels_are_not_normalised():
    with pytest.raises(ValueError, match="normalise=True divides rows"):
        logits_from_proba([[0.5, 0.9]], normalise=True, multilabel=True)


def test_equal_log_odds_have_no_wrong_sign():
    with pytest.warns(ConvergenceWarning, match="equal") as told:
        TemperatureScaling().fit(np.zeros((100, 2)), np.arange(100) % 2)
    assert len(told) == 1


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), ProbabilityFloor()])
def test_columns_in_another_order_than_the_classes_are_warned_of(calibrator):
    logits, y = make_logits(1000, 4, random_state=0)
    for X in (-logits, logits[:, [1, 2, 3, 0]], np.float32(1e38 * -np.sign(logits))):
        with pytest.warns(UserWarning, match=r"columns those of the classes \[0, 1, "):
            calibrator.fit(X, y)


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), VectorScaling()])
def test_logits_that_say_nothing_or_are_turned_by_a_fit_are_not_warned_of(calibrator):
    logits, y = make_logits(1000, 4, random_state=0)
    X = logits[::-1] if calibrator.keeps_class else -logits
    calibrator.fit(X, y)
    calibrator.fit(np.tile(X[:1], (200, 1)), y[:200])


def test_rows_in_a_file_are_divided_by_their_sums_too(tmp_path):
    rows = np.array([[0.2, 0.3, 0.4], [0.5, 0.2, 0.2]])
    np.save(tmp_path / "rows.npy", rows)
    in_file = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found = logits_from_proba(in_file, normalise=True)
    assert_array_equal(found, logits_from_proba(rows, normalise=True))
