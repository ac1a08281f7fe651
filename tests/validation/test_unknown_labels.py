"""Labels that are not known, by a mask or as NaN or NaT, are no classes."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib import (
    DenseCalibration,
    GroupCalibration,
    MultiLabelCalibration,
    TemperatureScaling,
)
from skcalib.metrics import CalibrationAccumulator, expected_calibration_error
from skcalib.monitoring import CalibrationMonitor

DAYS = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[us]")


@pytest.fixture
def set_of_three(draw_calibration_set):
    return draw_calibration_set(n_samples=120, n_classes=3)


def masked(values):
    return np.ma.array(values, mask=np.arange(len(values)) < 9)


def test_masked_labels_and_weights_are_refused(set_of_three):
    X, y = set_of_three
    fitted = TemperatureScaling().fit(X, y)
    proba = fitted.predict_proba(X)
    for call in (
        lambda: TemperatureScaling().fit(X, masked(y)),
        lambda: TemperatureScaling().fit(X, y, sample_weight=masked(y + 1.0)),
        lambda: fitted.score(X, masked(y)),
        lambda: GroupCalibration().fit(X, y, groups=masked(y)),
        lambda: expected_calibration_error(masked(y), proba),
        lambda: CalibrationMonitor().update(masked(y), proba),
        lambda: DenseCalibration().fit(X.T.reshape(1, 3, -1), masked(y).reshape(1, -1)),
    ):
        with pytest.raises(ValueError, match=r"9 entries .* are masked"):
            call()
    shares = np.ma.array(np.eye(3)[y], mask=np.eye(3)[y] > 2)
    shares[0, 0] = np.ma.masked
    with pytest.raises(ValueError, match="y is a masked array"):
        TemperatureScaling().fit(X, shares)
    TemperatureScaling().fit(X, np.ma.array(y))


def test_masked_labels_of_several_are_those_that_are_not_known(set_of_three):
    X, y = set_of_three
    is_set = np.eye(3)[y]
    unknown = np.random.default_rng(0).random(is_set.shape) < 0.2
    told = np.ma.array(is_set, mask=unknown)
    expected = MultiLabelCalibration().fit(X, np.where(unknown, np.nan, is_set))
    found = MultiLabelCalibration().fit(X, told)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X))


def test_missing_texts_and_dates_are_no_class(set_of_three):
    X, y = set_of_three
    proba = TemperatureScaling().fit(X, y).predict_proba(X)
    texts = np.array(["a", "b"])[y % 2].tolist()
    texts[4] = np.nan
    dates = np.where(np.arange(y.size) == 4, np.datetime64("NaT"), DAYS[y])
    for labels in (texts, dates, dates.tolist()):
        for call in (TemperatureScaling().fit, CalibrationMonitor().update):
            scores = X if call.__name__ == "fit" else proba
            pair = (scores, labels) if call.__name__ == "fit" else (labels, scores)
            with pytest.raises(ValueError, match=r"holds (nan|NaT|None) in row 4"):
                call(*pair)
    with pytest.raises(ValueError, match="holds NaT in row 4"):
        expected_calibration_error(dates, proba)


@pytest.mark.parametrize("unit", ["ns", "us", "s", "D"])
@pytest.mark.parametrize("as_text", [False, True])
def test_dates_of_any_unit_name_columns(set_of_three, unit, as_text):
    pandas = pytest.importorskip("pandas")
    X, y = set_of_three
    labels = DAYS.astype(f"M8[{unit}]")[y]
    names = DAYS.astype("M8[D]").astype(str) if as_text else pandas.DatetimeIndex(DAYS)
    order = [2, 0, 1]
    frame = pandas.DataFrame(X[:, order], columns=names[order])
    expected = TemperatureScaling().fit(X, y).temperature_
    found = TemperatureScaling().fit(frame, labels)
    assert found.temperature_ == pytest.approx(expected)
    named = TemperatureScaling(classes=DAYS).fit(X, labels)
    assert named.temperature_ == pytest.approx(expected)


@pytest.mark.parametrize("kind", [CalibrationAccumulator, CalibrationMonitor])
@pytest.mark.parametrize("labels", [DAYS, np.array([b"a", b"b", b"c"])])
def test_a_state_that_names_classes_as_text_goes_on(set_of_three, kind, labels):
    X, y = set_of_three
    proba = TemperatureScaling().fit(X, y).predict_proba(X)
    options = {"labels": labels} if kind is CalibrationAccumulator else {}
    first, other = (kind(**options).update(labels[y], proba) for _ in range(2))
    again = kind.from_dict(json.loads(json.dumps(first.to_dict())))
    if labels is DAYS:
        again.update(labels[y], proba)
        other.merge(again)
    assert len(again.classes_) == 3


def test_classes_are_no_view_of_what_was_passed(set_of_three):
    X, y = set_of_three
    classes = np.arange(3)
    fitted = TemperatureScaling(classes=classes).fit(X, y)
    classes[:] = classes[::-1].copy()
    assert fitted.classes_.tolist() == [0, 1, 2]
