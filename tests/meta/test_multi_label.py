"""Labels that may occur together."""

import pickle
import sys
from functools import partial

import numpy as np
import pytest
from every_calibrator import MAPS, identify
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from skcalib import (
    CalibratedClassifier,
    DensityRatioCalibration,
    IsotonicCalibration,
    MatrixScaling,
    MultiLabelCalibration,
    PlattScaling,
    TemperatureScaling,
    as_rows,
    load,
    logits_from_proba,
    save,
)
from skcalib.exceptions import AbsentClassWarning
from skcalib.meta._scores import LabelScores
from skcalib.metrics import (
    calibration_report,
    expected_calibration_error,
    get_scorer,
    per_label,
)

TEMPERATURES = [0.5, 1.0, 2.0, 4.0]


def make_labels(n=2000, seed=0):
    """Return logits that are off by `TEMPERATURES`, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 2, (n, 4))
    y = (rng.random((n, 4)) < expit(logits)).astype(int)
    return logits * TEMPERATURES, y


@pytest.mark.parametrize("calibrator", MAPS, ids=identify)
def test_each_label_has_the_map_of_its_own_column(calibrator):
    logits, y = (part[:, 1:3] for part in make_labels(300))
    multi = MultiLabelCalibration(calibrator).fit(logits, y)
    proba = multi.predict_proba(logits)
    for k in range(2):
        alone = clone(calibrator).fit(logits[:, k], y[:, k])
        assert_allclose(proba[:, k], alone.predict_proba(logits[:, k])[:, 1], atol=1e-9)
        part = multi.calibrators_[k].predict_proba(logits[:, k])[:, 1]
        assert_allclose(proba[:, k], part, atol=1e-12)
    assert_allclose(expit(multi.decision_function(logits)), proba, atol=1e-12)


def test_the_temperatures_are_found():
    multi = MultiLabelCalibration().fit(*make_labels(20000))
    found = [part.temperature_ for part in multi.calibrators_]
    assert_allclose(found, TEMPERATURES, rtol=0.05)


def test_a_shared_map_is_that_of_all_entries():
    logits, y = make_labels()
    weight = np.random.default_rng(0).uniform(0, 2, len(y))
    multi = MultiLabelCalibration(shared=True).fit(logits, y, weight)
    alone = TemperatureScaling().fit(logits.ravel(), y.ravel(), np.repeat(weight, 4))
    assert multi.calibrators_[0].temperature_ == pytest.approx(alone.temperature_)
    expected = alone.predict_proba(logits.ravel())[:, 1].reshape(-1, 4)
    assert_allclose(multi.predict_proba(logits), expected, atol=1e-12)


@pytest.mark.parametrize("missing", [-1, np.nan])
@pytest.mark.parametrize("shared", [False, True])
def test_labels_that_are_not_known_are_left_out(missing, shared):
    logits, y = make_labels()
    hidden = np.random.default_rng(0).random(y.shape) < 0.3
    partly = np.where(hidden, missing, y)
    multi = MultiLabelCalibration(shared=shared).fit(logits, partly)
    known = ~hidden if shared else ~hidden[:, 1]
    z, codes = (logits, y) if shared else (logits[:, 1], y[:, 1])
    alone = TemperatureScaling().fit(z[known], codes[known])
    part = multi.calibrators_[0 if shared else 1]
    assert part.temperature_ == pytest.approx(alone.temperature_)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "int64[pyarrow]", "object"])
def test_missing_values_of_pandas_are_not_known(dtype):
    pandas = pytest.importorskip("pandas")
    if dtype == "int64[pyarrow]":
        pytest.importorskip("pyarrow")
    logits, y = make_labels(500)
    frame = pandas.DataFrame(y == 1 if dtype == "boolean" else y).astype(dtype)
    frame = frame.mask(np.random.default_rng(0).random(y.shape) < 0.3, pandas.NA)
    partly = np.where(frame.isna(), np.nan, y)
    found, expected = (MultiLabelCalibration().fit(logits, z) for z in (frame, partly))
    assert_array_equal(found.predict_proba(logits), expected.predict_proba(logits))
    assert found.score(logits, frame) == expected.score(logits, partly)
    errors = per_label(expected_calibration_error, frame, expit(logits))
    assert_array_equal(
        errors, per_label(expected_calibration_error, partly, expit(logits))
    )


@pytest.mark.parametrize("pandas", [True, False])
def test_labels_that_are_none_are_not_known(pandas, monkeypatch):
    if not pandas:
        monkeypatch.delitem(sys.modules, "pandas", raising=False)
    logits, y = make_labels(500)
    hidden = np.random.default_rng(0).random(y.shape) < 0.3
    found = MultiLabelCalibration().fit(logits, np.where(hidden, None, y))
    expected = MultiLabelCalibration().fit(logits, np.where(hidden, -1, y))
    assert_array_equal(found.predict_proba(logits), expected.predict_proba(logits))


def test_weights_are_repetitions():
    logits, y = make_labels(500)
    times = np.random.default_rng(0).integers(0, 3, 500)
    weighted = MultiLabelCalibration(PlattScaling()).fit(logits, y, times)
    repeated = MultiLabelCalibration(PlattScaling()).fit(
        np.repeat(logits, times, axis=0), np.repeat(y, times, axis=0)
    )
    assert_allclose(
        weighted.predict_proba(logits), repeated.predict_proba(logits), atol=1e-6
    )
    accuracy = weighted.score(logits, y, times)
    assert accuracy == pytest.approx(
        weighted.score(np.repeat(logits, times, axis=0), np.repeat(y, times, axis=0))
    )


def test_a_label_that_never_varies_stays_as_it_is():
    logits, y = make_labels()
    y[:, 2] = 0
    y[:, 3] = -1
    with pytest.warns(AbsentClassWarning, match=r"2 of 4 labels .*: \[2, 3\]"):
        multi = MultiLabelCalibration().fit(logits, y)
    assert multi.calibrators_[2] is None
    proba = multi.predict_proba(logits)
    assert_allclose(proba[:, 2:], expit(logits[:, 2:]), atol=1e-12)


def test_labels_are_named_by_data_frames():
    pandas = pytest.importorskip("pandas")
    logits, y = make_labels(200)
    names = ["mass", "oedema", "fracture", "other"]
    frame = pandas.DataFrame(logits, columns=names)
    multi = MultiLabelCalibration().fit(frame, pandas.DataFrame(y, columns=names))
    assert multi.classes_.tolist() == names
    with pytest.raises(ValueError, match="Pass both in the same order"):
        MultiLabelCalibration().fit(frame, pandas.DataFrame(y, columns=names[::-1]))
    named = MultiLabelCalibration(classes=names).fit(logits, y)
    assert named.classes_.tolist() == names


def test_labels_of_two_levels_are_named_by_tuples():
    pandas = pytest.importorskip("pandas")
    logits, y = make_labels(200)
    names = [("chest", "mass"), ("chest", "oedema"), ("hand", "fracture"), ("hand", "")]
    columns = pandas.MultiIndex.from_tuples(names)
    frame = pandas.DataFrame(logits, columns=columns)
    for multi in (MultiLabelCalibration(), MultiLabelCalibration(classes=names)):
        fitted = multi.fit(frame, y)
        assert fitted.classes_.tolist() == names
        assert fitted.score(frame, pandas.DataFrame(y, columns=columns)) > 0
    proba = pandas.DataFrame(expit(logits), columns=columns)
    report = calibration_report(y, proba, multilabel=True, n_bootstrap=0)
    assert list(report.labels) == names


def test_a_fitted_one_is_saved_cloned_and_pickled(tmp_path):
    logits, y = make_labels(400)
    y[:, 2] = 1
    with pytest.warns(AbsentClassWarning):
        multi = MultiLabelCalibration(IsotonicCalibration()).fit(logits, y)
    save(multi, tmp_path / "multi.json")
    expected = multi.predict_proba(logits)
    twin = pickle.loads(pickle.dumps(multi))  # noqa: S301
    for copy in (load(tmp_path / "multi.json"), twin):
        assert_array_equal(copy.predict_proba(logits), expected)
    assert not hasattr(clone(multi), "calibrators_")


def test_float32_memmaps_and_tensors_are_read(tmp_path):
    logits, y = make_labels(400)
    logits = logits.astype(np.float32)
    expected = MultiLabelCalibration().fit(logits, y).predict_proba(logits)
    assert expected.dtype == np.float32
    mapped = np.memmap(tmp_path / "z", np.float32, "w+", shape=logits.shape)
    mapped[:] = logits
    multi = MultiLabelCalibration().fit(mapped, y)
    out = np.empty_like(logits)
    multi.predict_proba(mapped, out=out)
    assert_array_equal(out, expected)
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(logits)
    of_tensor = MultiLabelCalibration().fit(tensor, torch.from_numpy(y))
    assert_allclose(of_tensor.predict_proba(tensor), expected, atol=1e-6)


def test_a_grid_search_chooses_by_the_mean_over_labels():
    logits, y = make_labels(600)
    y = np.where(np.random.default_rng(0).random(y.shape) < 0.1, -1, y)
    scorer = get_scorer("neg_log_loss", multilabel=True)
    search = GridSearchCV(
        MultiLabelCalibration(),
        {"shared": [True, False], "calibrator": [TemperatureScaling(), None]},
        scoring=scorer,
        cv=3,
    ).fit(logits, y)
    assert search.best_params_["shared"] is False
    ece = get_scorer("neg_expected_calibration_error", multilabel=True)
    best = search.best_estimator_
    by_hand = per_label(expected_calibration_error, y, best.predict_proba(logits))
    assert ece(best, logits, y) == pytest.approx(-by_hand.mean())
    assert repr(ece) == (
        "CalibrationScorer(expected_calibration_error, multilabel=True)"
    )
    with pytest.raises(ValueError, match="'neg_mean_squared_error' is no scorer of"):
        get_scorer("neg_mean_squared_error", multilabel=True)


@pytest.mark.parametrize(
    "classifier",
    [
        MultiOutputClassifier(LogisticRegression()),
        ClassifierChain(LogisticRegression()),
        OneVsRestClassifier(LogisticRegression()),
        KNeighborsClassifier(),
    ],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.parametrize("ensemble", [False, True])
def test_classifiers_of_several_labels_are_calibrated(classifier, ensemble):
    X, y = make_multilabel_classification(400, 8, n_classes=3, random_state=0)
    model = CalibratedClassifier(
        classifier, MultiLabelCalibration(PlattScaling()), cv=3, ensemble=ensemble
    ).fit(X[:300], y[:300])
    proba = model.predict_proba(X[300:])
    assert proba.shape == (100, 3)
    assert len(model.calibrators_) == (3 if ensemble else 1)
    assert_array_equal(model.predict(X[300:]), (proba > 0.5).astype(int))
    assert model.classes_.tolist() == [0, 1, 2]
    raw = clone(classifier).fit(X[:300], y[:300]).predict_proba(X[300:])
    after, before = (per_label("nll", y[300:], p).mean() for p in (proba, raw))
    assert after < before + 0.05
    if isinstance(classifier, MultiOutputClassifier) and not ensemble:
        scorer = get_scorer("neg_brier_score", multilabel=True)
        assert np.isfinite(cross_val_score(model, X, y, scoring=scorer, cv=2)).all()


def test_an_ensemble_of_several_labels_stays_one_when_its_calibrator_is_set():
    X, y = make_multilabel_classification(200, 8, n_classes=3, random_state=0)
    classifier = OneVsRestClassifier(LogisticRegression())
    model = CalibratedClassifier(classifier, MultiLabelCalibration(), ensemble=True)
    predicted, score = model.fit(X, y).predict(X), model.score(X, y)
    model.set_params(calibrator=None)
    assert_array_equal(model.predict(X), predicted)
    assert model.score(X, y) == score


@pytest.mark.parametrize("is_classifier", [False, True])
def test_labels_in_another_order_than_those_of_the_fit_are_not_scored(is_classifier):
    pandas = pytest.importorskip("pandas")
    logits, y = make_labels(500)
    names = ["lump", "mass", "cyst", "scar"]
    X, Y = (pandas.DataFrame(part, columns=names) for part in (logits, y))
    model = MultiLabelCalibration(PlattScaling())
    if is_classifier:
        model = CalibratedClassifier(MultiOutputClassifier(LogisticRegression()), model)
    model.fit(X, Y)
    score = get_scorer("neg_log_loss", multilabel=True)
    assert score(model, X, Y) == score(model, X, Y.to_numpy())
    assert model.score(X, Y) == model.score(X, Y.to_numpy())
    for ask in (model.score, partial(score, model)):
        with pytest.raises(ValueError, match=r"The columns are named .'mass'"):
            ask(X, Y[[*names[1:], names[0]]])


@pytest.mark.parametrize("always", [False, True])
def test_a_label_never_set_in_a_fold_has_odds_by_the_rule_of_succession(always):
    X, y = make_multilabel_classification(100, 8, n_classes=3, random_state=0)
    y[:, 1] = always
    y[0, 1] = not always
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    model = CalibratedClassifier(tree, MultiLabelCalibration())
    proba = model.fit(X, y).predict_proba(X)
    assert np.isfinite(proba).all()
    assert abs(proba[:, 1].mean() - y[:, 1].mean()) < 0.03
    scores = LabelScores(tree.fit(X[1:], y[1:]), method="auto", n_labels=3, n_train=99)(
        X
    )
    assert_allclose(scores[:, 1], np.log(99) * (1 if always else -1))


def test_a_frozen_classifier_gets_the_calibrator_of_its_scores():
    X, y = make_multilabel_classification(300, 8, n_classes=3, random_state=0)
    fitted = OneVsRestClassifier(LogisticRegression()).fit(X[:100], y[:100])
    model = CalibratedClassifier(FrozenEstimator(fitted), MultiLabelCalibration())
    model.fit(X[100:], y[100:])
    alone = MultiLabelCalibration().fit(fitted.decision_function(X[100:]), y[100:])
    expected = alone.predict_proba(fitted.decision_function(X))
    assert_allclose(model.predict_proba(X), expected, atol=1e-12)


def test_a_classifier_needs_labels_that_are_known():
    X, y = make_multilabel_classification(60, n_classes=3, random_state=0)
    model = CalibratedClassifier(OneVsRestClassifier(LogisticRegression()))
    model.set_params(calibrator=MultiLabelCalibration())
    with pytest.raises(ValueError, match=r"y has shape \(60,\); a MultiLabel"):
        model.fit(X, y[:, 0])
    with pytest.raises(ValueError, match="Label 1 of row 2 of y is not known"):
        model.fit(X, np.where(np.arange(180).reshape(60, 3) == 7, -1, y))


def test_probabilities_of_labels_become_log_odds():
    proba = np.array([[0.1, 0.9], [0.0, 1.0]])
    log_odds = logits_from_proba(proba, multilabel=True)
    assert_allclose(log_odds[0], [-np.log(9), np.log(9)])
    assert_allclose(expit(log_odds), proba, atol=1e-11)


def test_what_is_no_indicator_matrix_is_refused():
    logits, y = make_labels(50)
    multi = MultiLabelCalibration()
    with pytest.raises(ValueError, match=r"y has shape \(50,\) and the scores"):
        multi.fit(logits, y[:, 0])
    with pytest.raises(ValueError, match=r"X has shape \(50,\); MultiLabel"):
        multi.fit(logits[:, 0], y[:, 0])
    with pytest.raises(ValueError, match=r"X has shape \(50, 1\); MultiLabel"):
        multi.fit(logits[:, :1], y[:, :1])
    with pytest.raises(ValueError, match="y holds 2 in row 0, column 1"):
        multi.fit(logits, y + np.array([0, 2 - y[0, 1], 0, 0]))
    with pytest.raises(ValueError, match="all entries are -1 or NaN"):
        multi.fit(logits, np.full_like(y, -1))
    with pytest.raises(ValueError, match="y is the same wherever it is known"):
        MultiLabelCalibration(shared=True).fit(logits, np.zeros_like(y))
    with pytest.raises(TypeError, match="DensityRatioCalibration is no map"):
        MultiLabelCalibration(DensityRatioCalibration()).fit(logits, y)
    with pytest.raises(ValueError, match=r"classes has shape \(2,\) but there are 4"):
        MultiLabelCalibration(classes=["a", "b"]).fit(logits, y)


@pytest.mark.parametrize("shared", [False, True])
def test_normalised_weights_of_labels_are_no_fewer_samples(shared):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(200, 2))
    y = (rng.random((200, 2)) < expit(logits / 2)).astype(int)
    plain = MultiLabelCalibration(shared=shared).fit(logits, y)
    scaled = MultiLabelCalibration(shared=shared)
    scaled.fit(logits, y, sample_weight=np.full(200, 1 / 200))
    found, expected = (m.predict_proba(logits) for m in (scaled, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_folds_of_a_shared_map_keep_the_labels_of_a_row_together():
    logits, y = make_labels(300)
    multi = MultiLabelCalibration(MatrixScaling(cv=3, random_state=0), shared=True)
    by_row = clone(multi).fit(logits, y, groups=np.arange(300)).calibrators_[0]
    assert multi.fit(logits, y).calibrators_[0].cv_losses_ == by_row.cv_losses_


@pytest.mark.parametrize("shared", [False, True])
def test_folds_keep_an_image_together(shared):
    logits, y = (part.reshape(100, 20, 4) for part in make_labels(2000))
    layout = {"class_axis": 2}
    multi = MultiLabelCalibration(MatrixScaling(cv=3, random_state=0), shared=shared)
    image = np.repeat(np.arange(100), 20)
    by_hand = clone(multi).fit(logits.reshape(-1, 4), y.reshape(-1, 4), groups=image)
    multi.fit(as_rows(logits, **layout), as_rows(y, **layout))
    for part, expected in zip(multi.calibrators_, by_hand.calibrators_, strict=True):
        assert part.cv_losses_ == pytest.approx(expected.cv_losses_)


def test_a_label_named_twice_is_refused():
    with pytest.raises(ValueError, match="classes names a label twice"):
        MultiLabelCalibration(classes=["a", "a"]).fit(np.eye(2), np.eye(2, dtype=int))


def test_a_score_needs_weights_that_count():
    logits, y = make_labels(100)
    multi = MultiLabelCalibration().fit(logits, y)
    with pytest.raises(ValueError, match="Negative values"):
        multi.score(logits, y, np.r_[-1.0, np.ones(99)])
    known = y.copy()
    known[10:] = -1
    with pytest.raises(ValueError, match="nothing to judge by"):
        multi.score(logits, known, np.arange(100) >= 10)
    weight = np.arange(100) < 3
    assert multi.score(logits, known, weight) == multi.score(logits[:3], y[:3])
