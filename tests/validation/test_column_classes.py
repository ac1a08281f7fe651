"""Columns named after classes, in every calibrator, metric and search."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax
from sklearn.model_selection import KFold, cross_val_score

from skcalib import (
    BetaCalibration,
    CalibratedClassifier,
    DensityRatioCalibration,
    PlattScaling,
    TemperatureScaling,
    calibrate,
    logits_from_proba,
)
from skcalib._validation import in_another_order
from skcalib.exceptions import AbsentClassWarning
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    expected_calibration_error,
    sce_scorer,
    static_calibration_error,
)
from skcalib.model_selection import CalibratorSearch, compare_calibrators

pandas = pytest.importorskip("pandas")

# Neither in alphabetical order nor in its reverse.
NAMES = ["top", "trouser", "pullover", "dress"]


def as_pandas(values, names):
    return pandas.DataFrame(values, columns=names)


def as_polars(values, names):
    polars = pytest.importorskip("polars")
    return polars.DataFrame(values, schema=names)


def as_arrow(values, names):
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table(dict(zip(names, values.T, strict=True)))


@pytest.fixture
def named(calibration_set):
    """Logits, labels that name their column, and column numbers."""
    logits, y = calibration_set
    return logits, np.array(NAMES)[y], y


@pytest.mark.parametrize("frame", [as_pandas, as_polars, as_arrow])
@pytest.mark.parametrize(
    "calibrator",
    [
        TemperatureScaling(),
        PlattScaling(),
        DensityRatioCalibration(),
        CalibratorSearch([TemperatureScaling(), PlattScaling()]),
    ],
    ids=lambda calibrator: type(calibrator).__name__,
)
def test_columns_named_after_the_labels_are_their_columns(named, calibrator, frame):
    logits, labels, y = named
    X = frame(logits, NAMES)
    fitted = calibrator.fit(X, labels)
    assert fitted.classes_.tolist() == NAMES
    proba = fitted.predict_proba(X)
    assert_allclose(proba, calibrator.fit(logits, y).predict_proba(logits))


def test_logits_beside_features_keep_their_names(named):
    logits, labels, y = named
    features = np.random.default_rng(0).normal(size=(len(y), 2))
    X = as_pandas(np.hstack([logits, features]), [*NAMES, "length", "width"])
    fitted = DensityRatioCalibration(n_logits=4).fit(X, labels)
    assert fitted.classes_.tolist() == NAMES


def test_a_class_that_never_occurs_keeps_its_column(named):
    logits, labels, _ = named
    seen = labels != "pullover"
    X = as_pandas(logits[seen], NAMES)
    assert TemperatureScaling().fit(X, labels[seen]).classes_.tolist() == NAMES


@pytest.mark.parametrize(
    "names",
    [
        ["logit_0", "logit_1", "logit_2", "logit_3"],
        ["x1", "top", "dress", "x2"],
        ["0", "1", "2", "3"],
    ],
)
def test_the_classes_that_are_passed_go_before_other_names(named, names):
    logits, labels, y = named
    X = as_pandas(logits, names)
    fitted = TemperatureScaling(classes=NAMES).fit(X, labels)
    assert fitted.classes_.tolist() == NAMES
    expected = TemperatureScaling().fit(logits, y).temperature_
    assert fitted.temperature_ == pytest.approx(expected, rel=1e-12)


def test_columns_that_are_numbered_say_nothing_beside_classes(named):
    logits, _, y = named
    order = np.array([2, 0, 3, 1])
    for X in (logits, as_pandas(logits, range(4))):
        fitted = TemperatureScaling(classes=order).fit(X, order[y])
        assert fitted.classes_.tolist() == order.tolist()


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (NAMES, sorted(NAMES)),
        ([0, 1, 2, 3], ["2", "0", "3", "1"]),
        ([1.0, 2.0, 3.0, 4.0], [2, 1, 4, 3]),
        (NAMES, [f"proba_{name}" for name in sorted(NAMES)]),
    ],
)
@pytest.mark.parametrize("frame", [as_pandas, as_polars, as_arrow])
def test_names_that_contradict_the_classes_are_refused(
    calibration_set, frame, classes, names
):
    logits, y = calibration_set
    if frame is not as_pandas:
        names = [str(name) for name in names]
    labels, proba = np.array(classes)[y], frame(softmax(logits, axis=1), names)
    X = frame(logits, names)
    with pytest.raises(ValueError, match=r"named .* but by classes they stand for "):
        TemperatureScaling(classes=classes).fit(X, labels)
    for metric in (
        expected_calibration_error,
        calibration_report,
        CalibrationAccumulator(labels=classes).update,
    ):
        options = {} if metric.__name__ == "update" else {"labels": classes}
        with pytest.raises(ValueError, match=r"named .* but by labels they stand for "):
            metric(labels, proba, **options)


def test_a_dask_frame_that_contradicts_the_classes_is_refused(named):
    dd = pytest.importorskip("dask.dataframe")
    logits, labels, _ = named
    y = dd.from_pandas(pandas.Series(labels), npartitions=2)
    X, proba = (
        dd.from_pandas(as_pandas(values, sorted(NAMES)), npartitions=2)
        for values in (logits, softmax(logits, axis=1))
    )
    with pytest.raises(ValueError, match=r"named .* but by classes they stand for "):
        TemperatureScaling(classes=NAMES).fit(X, y)
    with pytest.raises(ValueError, match=r"named .* but by labels they stand for "):
        expected_calibration_error(y, proba, labels=NAMES)


def test_a_single_column_of_another_class_than_its_name_is_refused(
    binary_calibration_set,
):
    log_odds, y = binary_calibration_set
    X, labels = pandas.Series(log_odds, name="bad"), np.where(y == 1, "bad", "ok")
    proba = pandas.Series(expit(log_odds), name="bad")
    fitted = PlattScaling(classes=["ok", "bad"]).fit(X, labels)
    assert (fitted.coef_ > 0).all()
    with pytest.raises(ValueError, match=r"\['bad'\], but by classes .* \['ok'\]"):
        PlattScaling(classes=["bad", "ok"]).fit(X, labels)
    with pytest.raises(ValueError, match=r"\['bad'\], but by pos_label .* \['ok'\]"):
        expected_calibration_error(labels, proba, pos_label="ok")


def test_labels_that_exclude_nothing_are_not_named_in_another_order(named):
    logits, _, y = named
    proba = as_pandas(expit(logits), sorted(NAMES))
    with pytest.raises(ValueError, match="but by labels they stand for "):
        calibration_report(np.eye(4)[y], proba, labels=NAMES, multilabel=True)


def test_names_of_some_labels_only_are_refused(named):
    logits, labels, _ = named
    X = as_pandas(logits, ["top", "trouser", "jumper", "dress"])
    message = (
        r"\['dress', 'top', 'trouser'\] are names of columns and \['pullover'\] are "
        r"not; the columns are \['top', .*classes=\[\.\.\.\]"
    )
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(X, labels)
    with pytest.raises(ValueError, match=r"are not; .*labels=\[\.\.\.\]"):
        expected_calibration_error(labels, as_pandas(softmax(logits, 1), X.columns))


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["y1", "y0", "y3", "y2"]])
def test_names_of_no_label_say_nothing(named, names):
    logits, labels, y = named
    X = as_pandas(logits, names)
    assert TemperatureScaling().fit(X, y).classes_.tolist() == [0, 1, 2, 3]
    assert PlattScaling().fit(X, labels).classes_.tolist() == sorted(NAMES)


@pytest.mark.parametrize("first", [0, 1])
def test_columns_that_were_numbered_by_default_say_nothing(named, first):
    logits, _, y = named
    for names in (range(4), ["0", "1", "2", "3"]):
        fitted = TemperatureScaling().fit(as_pandas(logits, names), y + first)
        assert_array_equal(fitted.classes_, np.arange(4) + first)


@pytest.mark.parametrize("kind", [int, str, float])
@pytest.mark.parametrize("name_kind", [int, str])
def test_numbers_that_name_columns_are_compared_as_text(named, kind, name_kind):
    logits, _, y = named
    numbers = np.array([30, 10, 20, 11])
    X = as_pandas(logits, [name_kind(k) for k in numbers])
    labels = numbers.astype(kind)
    seen = y != 2
    fitted = TemperatureScaling().fit(X[seen], labels[y[seen]])
    assert fitted.classes_.tolist() == labels.tolist()
    assert fitted.classes_.dtype.kind == labels.dtype.kind


def test_columns_numbered_in_another_order_are_those_numbers(named):
    logits, _, y = named
    order = [2, 0, 3, 1]
    X = as_pandas(logits, range(4))
    moved = TemperatureScaling().fit(X[order], y)
    assert moved.classes_.tolist() == order
    assert_allclose(moved.temperature_, TemperatureScaling().fit(X, y).temperature_)
    with pytest.raises(ValueError, match=r"are \[0, 1, 2, 3\], those seen in fit are "):
        moved.predict_proba(X)


def test_names_that_may_be_numbers_of_columns_are_refused(named):
    logits, _, y = named
    X = as_pandas(logits, ["1", "2", "3", "4"])
    seen = y > 0
    with pytest.raises(ValueError, match=r"\[1, 2, 3\] in y may be names or numbers"):
        TemperatureScaling().fit(X[seen], y[seen])
    with pytest.raises(ValueError, match=r"\[1, 2, 3\] are names .* and \[0\] are not"):
        TemperatureScaling().fit(X, y)


def test_a_column_of_another_kind_than_the_labels_is_refused(named):
    logits, _, y = named
    X = as_pandas(logits, ["0", "1", "2", "other"])
    seen = y < 3
    with pytest.raises(ValueError, match=r"may be names or numbers"):
        TemperatureScaling().fit(X[seen], y[seen])
    X.columns = ["10", "11", "12", "other"]
    with pytest.raises(ValueError, match=r"\[10, 11, 12\]; not all of the columns"):
        TemperatureScaling().fit(X[seen], y[seen] + 10)


@pytest.mark.parametrize("frame", ["column", "series"])
@pytest.mark.parametrize(("name", "classes"), [("bad", "ok bad"), ("ok", "bad ok")])
def test_a_single_column_is_that_of_its_own_class(
    binary_calibration_set, frame, name, classes
):
    log_odds, y = binary_calibration_set
    bad = np.where(y == 1, "bad", "ok")
    values = log_odds if name == "bad" else -log_odds
    X = pandas.Series(values, name=name)
    fitted = PlattScaling().fit(X if frame == "series" else X.to_frame(), bad)
    assert fitted.classes_.tolist() == classes.split()
    assert (fitted.coef_ > 0).all()


def test_frames_in_another_order_are_refused_at_prediction(named):
    logits, labels, _ = named
    X = as_pandas(logits, NAMES)
    fitted = PlattScaling().fit(X, labels)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict_proba(X[sorted(NAMES)])
    with pytest.raises(ValueError, match="feature names should match"):
        compare_calibrators([PlattScaling()], X, labels, X_test=X[sorted(NAMES)],
                            y_test=labels)  # fmt: skip


def test_comparison_folds_and_wrappers_keep_the_names(named):
    logits, labels, y = named
    X = as_pandas(logits, NAMES)
    tables = [
        compare_calibrators([PlattScaling()], *data, cv=3).to_dict()
        for data in ((X, labels), (logits, y))
    ]
    for name, row in tables[0].items():
        assert row["nll"] == pytest.approx(tables[1][name]["nll"])
    scores = [
        cross_val_score(PlattScaling(), *data, cv=KFold(3), scoring=sce_scorer)
        for data in ((X, labels), (logits, y))
    ]
    assert_allclose(*scores)


def test_names_of_features_are_no_names_of_classes(named):
    logits, labels, _ = named
    X = as_pandas(logits, ["top", "length", "width", "dress"])
    assert CalibratedClassifier().fit(X, labels).classes_.tolist() == sorted(NAMES)


@pytest.mark.parametrize("frame", [as_pandas, as_polars, as_arrow])
def test_probabilities_keep_their_names_on_the_way_to_logits(named, frame):
    logits, labels, _ = named
    proba = frame(softmax(logits, axis=1), NAMES)
    X = logits_from_proba(proba)
    assert type(X) is type(proba)
    fitted = PlattScaling().fit(X, labels)
    assert fitted.classes_.tolist() == NAMES


@pytest.mark.parametrize("frame", [as_pandas, as_polars, as_arrow, pandas.Series])
def test_a_single_column_keeps_its_name_on_the_way_to_logits(
    binary_calibration_set, frame
):
    log_odds, y = binary_calibration_set
    labels, good = np.where(y == 1, "bad", "ok"), expit(-log_odds)
    proba = (
        frame(good, name="ok")
        if frame is pandas.Series
        else frame(good[:, None], ["ok"])
    )
    fitted = PlattScaling().fit(logits_from_proba(proba), labels)
    assert fitted.classes_.tolist() == ["bad", "ok"]
    assert_allclose(fitted.coef_, PlattScaling().fit(log_odds, y).coef_, rtol=1e-6)
    # What is told of before is the same for every calibrator.
    options = {"calibrator": PlattScaling(), "n_bootstrap": 0}
    report = calibrate(proba=proba, y=labels, **options).report
    before = calibration_report(labels, proba, n_bootstrap=0)
    assert report["before"]["nll"].value == pytest.approx(before["nll"].value)


@pytest.mark.filterwarnings("ignore:X has feature names")
def test_names_that_a_fit_did_not_see_are_held_against_its_classes(named):
    logits, labels, y = named
    fitted = TemperatureScaling(classes=NAMES).fit(logits, labels)
    mixed = as_pandas(logits, [f"logit_{name}" for name in sorted(NAMES)])
    with pytest.raises(ValueError, match="those seen in fit are of"):
        fitted.predict_proba(mixed)
    one = PlattScaling().fit(logits[:, 0] - logits[:, 1], y == 0)
    with pytest.raises(ValueError, match=r"\['False'\], those seen in fit are of"):
        one.predict_proba(pandas.Series(logits[:, 0], name="False"))


@pytest.mark.parametrize("frame", [as_pandas, as_polars, as_arrow])
@pytest.mark.parametrize(
    "metric",
    [
        expected_calibration_error,
        static_calibration_error,
        lambda y, proba: calibration_report(y, proba, n_bootstrap=0)["nll"].value,
    ],
    ids=["ece", "sce", "report"],
)
def test_metrics_find_the_columns_by_name(named, metric, frame):
    logits, labels, y = named
    proba = softmax(logits, axis=1)
    assert metric(labels, frame(proba, NAMES)) == pytest.approx(metric(y, proba))


@pytest.mark.parametrize("names", [["a", "b", "a", "c"], [0, 1, 0, 1]])
def test_two_columns_of_one_name_are_refused(named, names):
    logits, _, y = named
    X = as_pandas(logits, names)
    with pytest.raises(ValueError, match=rf"Columns of one name: \[{names[0]!r}"):
        TemperatureScaling().fit(X, y)
    # The second are words of scikit-learn, which may look first.
    with pytest.raises(ValueError, match=r"Columns of one name|unique column names"):
        expected_calibration_error(y, as_pandas(softmax(logits, axis=1), names))


@pytest.mark.parametrize(
    "name", ["id", "Index", "sample_id", "imageId", "Unnamed: 0", "row"]
)
def test_an_index_is_no_class(named, name):
    logits, labels, y = named
    X = as_pandas(logits, NAMES)
    X.insert(0, name, 1000 + np.random.default_rng(0).permutation(len(y)))
    for target in (labels, y):
        with pytest.raises(ValueError, match=f"column '{name}' of X numbers the rows"):
            TemperatureScaling().fit(X, target)
    # Whoever names its class means it.
    with pytest.warns(AbsentClassWarning, match="1 of 5 classes: 'none'"):
        fitted = BetaCalibration(classes=["none", *NAMES]).fit(X, labels)
    assert fitted.classes_.tolist() == ["none", *NAMES]


def test_classes_with_names_of_indices_are_classes():
    # Whole numbers, all different, but a label.
    X = pandas.DataFrame({"no": [3, -1, 0, 2], "yes": [0, 1, 2, 4]})
    fitted = TemperatureScaling().fit(X, ["no", "yes", "yes", "no"])
    assert fitted.classes_.tolist() == ["no", "yes"]
    rng = np.random.default_rng(0)
    X = pandas.DataFrame({"id": rng.normal(size=50), "en": rng.normal(size=50)})
    assert PlattScaling().fit(X, np.arange(50) % 2).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["logit_c", "logit_a", "logit_b"], ["c", "a", "b"]),
        (["class_2", "class_0", "class_1"], [2, 0, 1]),
        (["p(2)", "p(0)", "p(1)"], [2, 0, 1]),
        (["2.0", "0.0", "1.0"], [2, 0, 1]),
        (["1.0", "0.0"], [1, 0]),
        (["1", "0"], [True, False]),
        (["class_1", "class_0"], [True, False]),
        ([str(k) for k in range(11)], [str(k) for k in range(11)]),
    ],
)
def test_what_all_names_share_does_not_hide_the_classes(
    draw_calibration_set, names, labels
):
    logits, y = draw_calibration_set(n_classes=len(names))
    ts = TemperatureScaling().fit(as_pandas(logits, names), np.array(labels)[y])
    assert ts.classes_.tolist() == labels
    assert in_another_order(names, np.array(sorted(labels))) == (names != sorted(names))


@pytest.mark.parametrize("names", [["p0", "p2", "p1"], ["x_1", "x_2", "x_3"]])
def test_other_names_leave_numbers_of_columns_what_they_are(calibration_set, names):
    logits, y = calibration_set
    few = y < 2
    ts = TemperatureScaling().fit(as_pandas(logits[few][:, :3], names), y[few])
    assert ts.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("label", [False, True])
def test_columns_named_false_and_true_are_both_there_where_one_label_occurs(label):
    p = np.random.default_rng(0).uniform(size=60)
    frame = pandas.DataFrame({"True": p, "False": 1 - p})
    alone, both = np.full(60, label), p > 0.5
    known = {"labels": [True, False]}
    expected = expected_calibration_error(alone, frame.to_numpy(), **known)
    assert expected_calibration_error(alone, frame) == expected
    for parts in ([both, alone], [alone, both]):
        accumulator = CalibrationAccumulator()
        for y in parts:
            accumulator.update(y, frame)
        y, proba = np.concatenate(parts), np.tile(frame.to_numpy(), (2, 1))
        report = calibration_report(y, proba, n_bootstrap=0, **known)
        assert accumulator.compute()["nll"] == pytest.approx(report["nll"].value)


def test_a_column_that_is_named_neither_false_nor_true_is_no_bool():
    frame = pandas.DataFrame({"yes": [0.2, 0.9], "False": [0.8, 0.1]})
    message = r"not all of the columns \['yes', 'False'\] are of that kind"
    with pytest.raises(ValueError, match=message):
        expected_calibration_error([False, False], frame)
