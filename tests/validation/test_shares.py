"""Labels as shares of the classes, wherever they are taken: as weighted rows."""

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit

from skcalib import (
    DensityRatioCalibration,
    GroupCalibration,
    MatrixScaling,
    PriorShift,
    ProbabilityFloor,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib._validation import check_calibration_set, grouped, splits_of
from skcalib.metrics import (
    calibration_loss,
    calibration_report,
    expected_calibration_error,
    refinement_loss,
)
from skcalib.model_selection import CalibratorSearch, compare_calibrators


def draw_shares(n_rows=120, n_classes=3, n_annotators=4, seed=0):
    """Logits, and of each row the shares of what four annotators said."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n_rows, n_classes))
    counts = [rng.multinomial(n_annotators, p) for p in softmax(logits, axis=1)]
    return 1.5 * logits, np.array(counts) / n_annotators


def repeated(shares, weight=None):
    """Row, class and weight of each share above zero."""
    row, column = np.nonzero(shares)
    weight = np.ones(len(shares)) if weight is None else weight
    return row, column, weight[row] * shares[row, column]


def folds_itself(calibrator):
    """Whether it draws folds, of which a row may be in one only."""
    parameters = calibrator.get_params()
    return parameters.get("cv") is not None and (
        parameters.get("average_folds") or isinstance(calibrator, VennAbersCalibration)
    )


TAKE_SHARES = [
    calibrator
    for calibrator in [*CALIBRATORS, *VARIANTS, PriorShift(), ProbabilityFloor()]
    if not isinstance(calibrator, DensityRatioCalibration)
]


@pytest.mark.parametrize(
    "calibrator", [c for c in TAKE_SHARES if not folds_itself(c)], ids=identify
)
def test_shares_are_weighted_repetitions(calibrator):
    logits, shares = draw_shares()
    # So many times four votes: whole numbers, which are repetitions.
    weight = 4.0 * np.random.default_rng(1).integers(1, 4, len(logits))
    row, column, parts = repeated(shares, weight)
    calibrator.fit(logits, shares, weight)
    found = calibrator.predict_proba(logits)
    calibrator.fit(logits[row], column, parts)
    assert_allclose(found, calibrator.predict_proba(logits), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("calibrator", TAKE_SHARES, ids=identify)
def test_shares_of_one_class_are_labels(calibrator):
    logits, shares = draw_shares()
    labels = shares.argmax(axis=1)
    found = calibrator.fit(logits, np.eye(3)[labels]).predict_proba(logits)
    assert_array_equal(found, calibrator.fit(logits, labels).predict_proba(logits))


def test_the_search_takes_shares_as_weighted_repetitions_of_one_group():
    logits, shares = draw_shares(200)
    # As many as there were votes: whole numbers, which are repetitions.
    votes = np.full(len(shares), 4.0)
    row, column, weight = repeated(shares, votes)
    search = CalibratorSearch([TemperatureScaling(), StructuredMatrixScaling()])
    search.fit(logits, shares, votes)
    found, scores = search.predict_proba(logits), search.cv_results_
    search.fit(logits[row], column, weight, groups=row)
    assert_allclose(found, search.predict_proba(logits), rtol=1e-10)
    for name in ("mean_test_score", "standard_error"):
        assert_allclose(scores[name], search.cv_results_[name], rtol=1e-10)


@pytest.mark.slow
def test_the_default_search_takes_shares_as_weighted_repetitions_of_one_group():
    logits, shares = draw_shares(200)
    # As many as there were votes: whole numbers, which are repetitions.
    votes = np.full(len(shares), 4.0)
    row, column, weight = repeated(shares, votes)
    found = CalibratorSearch().fit(logits, shares, votes).predict_proba(logits)
    search = CalibratorSearch().fit(logits[row], column, weight, groups=row)
    assert_allclose(found, search.predict_proba(logits), rtol=1e-10)


PAIRS = np.arange(120) // 2


@pytest.mark.parametrize(
    ("cv", "groups"),
    [
        (5, None),
        (5, PAIRS),
        (KFold(5), None),
        (GroupKFold(5), PAIRS),
        (PredefinedSplit(np.arange(120) % 4), None),
    ],
    ids=["number", "number, groups", "KFold", "GroupKFold", "PredefinedSplit"],
)
def test_a_row_is_on_one_side_of_a_fold_with_all_its_classes(cv, groups):
    logits, shares = draw_shares()
    data = check_calibration_set(TemperatureScaling(), logits, shares, None, None)
    splits = splits_of(cv, grouped(data, groups), 0)
    judged = np.concatenate([test for _, test in splits])
    assert_array_equal(np.sort(judged), np.arange(data.n_samples))
    for train, test in splits:
        sides = [np.unique(data.row[part]) for part in (train, test)]
        assert np.intersect1d(*sides).size == 0
        if groups is not None:
            sides = [np.unique(PAIRS[side]) for side in sides]
            assert np.intersect1d(*sides).size == 0


def test_groups_of_folds_are_as_many_as_rows():
    logits, shares = draw_shares()
    with pytest.raises(
        ValueError, match=r"groups has shape .* needs one entry for each of the 120"
    ):
        CalibratorSearch([TemperatureScaling()]).fit(
            logits, shares, groups=np.arange(119)
        )


def test_calibrators_that_draw_folds_take_shares():
    logits, shares = draw_shares()
    for calibrator in (
        MatrixScaling(cv=2),
        VennAbersCalibration(cv=3),
        GroupCalibration(TemperatureScaling()),
    ):
        proba = calibrator.fit(logits, shares).predict_proba(logits)
        assert_allclose(proba.sum(axis=1), 1)


def test_groups_belong_to_rows():
    logits, shares = draw_shares()
    groups = np.where(np.arange(120) % 3, "a", "b")
    # As many as there were votes: whole numbers, which are repetitions.
    votes = np.full(len(shares), 4.0)
    row, column, weight = repeated(shares, votes)
    grouped = GroupCalibration(TemperatureScaling(), strength=10.0)
    found = grouped.fit(logits, shares, votes, groups=groups).coef_
    score = grouped.score(logits, shares, votes, groups=groups)
    grouped.fit(logits[row], column, weight, groups=groups[row])
    assert_allclose(found, grouped.coef_, rtol=1e-10)
    expected = grouped.score(logits[row], column, weight, groups=groups[row])
    assert score == pytest.approx(expected, rel=1e-10)


def test_the_logits_of_a_row_are_kept_once():
    logits, shares = draw_shares()
    data = check_calibration_set(TemperatureScaling(), logits, shares, None, None)
    row = np.nonzero(shares)[0]
    for part in (data, data.in_memory(), data.mapped(lambda block: block)):
        assert part.source._source.shape == logits.shape
        assert_array_equal(part.logits, logits[row])
    kept = np.arange(0, data.n_samples, 3)
    part = data.subset(kept)
    assert_array_equal(part.logits, logits[row[kept]])
    assert part.source._source.shape[0] == np.unique(row[kept]).size


def test_rows_of_a_file_are_repeated_where_they_lie(tmp_path):
    logits, shares = draw_shares()
    np.save(tmp_path / "logits.npy", logits)
    stored = np.load(tmp_path / "logits.npy", mmap_mode="r")
    fits = [TemperatureScaling().fit(rows, shares) for rows in (logits, stored)]
    assert fits[0].temperature_ == pytest.approx(fits[1].temperature_, rel=1e-10)


def test_one_column_of_log_odds_has_two_shares():
    logits, shares = draw_shares(n_classes=2)
    z = logits[:, 1] - logits[:, 0]
    both = [TemperatureScaling().fit(X, shares).temperature_ for X in (z, logits)]
    assert both[0] == pytest.approx(both[1], rel=1e-9)


def test_columns_are_the_classes_in_order():
    pandas = pytest.importorskip("pandas")
    logits, shares = draw_shares()
    names = ["cat", "dog", "eel"]
    named = pandas.DataFrame(shares, columns=names)
    assert TemperatureScaling().fit(logits, named).classes_.tolist() == names
    assert TemperatureScaling(classes=names).fit(logits, shares).classes_[1] == "dog"
    mixed = pandas.DataFrame(logits, columns=["dog", "cat", "eel"])
    prefixed = pandas.DataFrame(logits, columns=["z_dog", "z_cat", "z_eel"])
    for X in (mixed, prefixed):
        with pytest.raises(ValueError, match="in another order"):
            TemperatureScaling().fit(X, named)
    two = named[["cat", "dog"]].div(named[["cat", "dog"]].sum(axis=1) + 1e-9, axis=0)
    two = two.assign(dog=1 - two["cat"])
    log_odds = pandas.DataFrame({"cat": logits[:, 0] - logits[:, 1]})
    with pytest.raises(ValueError, match="single column is that of the last class"):
        TemperatureScaling().fit(log_odds, two)
    with pytest.raises(ValueError, match="in another order"):
        TemperatureScaling(classes=["eel", "dog", "cat"]).fit(logits, named)
    with pytest.raises(ValueError, match=r"classes has shape \(2,\)"):
        TemperatureScaling(classes=["eel", "dog"]).fit(logits, shares)
    with pytest.raises(ValueError, match=r"labels has shape \(2,\)"):
        calibration_report(shares, shares, labels=["eel", "dog"])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (
            [[7, 2, 1]] * 4,
            r"Row 0 of y is \[7\.0, 2\.0, 1\.0\], whose sum is 10.*counts",
        ),
        ([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], "Row 1 of y .*multilabel"),
        ([[1.5, -0.5, 0]] * 4, r"Row 0 of y is \[1\.5, -0\.5"),
        ([[0.5, 0.5]] * 4, "y has 2 columns and there are 3 classes"),
        ([[0.5, np.nan, 0.5]] * 4, "NaN"),
        ([[1.0, 0, 0]] * 4, "one class only: 0"),
        ([[0.5, 0.5, 0]] * 3, "inconsistent numbers of samples"),
    ],
    ids=["counts", "several labels", "negative", "columns", "nan", "alone", "rows"],
)
def test_what_is_no_share_is_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(np.arange(12.0).reshape(4, 3) % 5, shares)


def test_neighbours_are_not_looked_for_among_copies():
    logits, shares = draw_shares()
    with pytest.raises(ValueError, match="among its own"):
        DensityRatioCalibration().fit(logits, shares)


def test_proper_scores_are_expected_scores():
    logits, shares = draw_shares()
    proba = softmax(logits, axis=1)
    weight = np.random.default_rng(1).random(120)
    row, column, parts = repeated(shares, weight)
    names = ["nll", "brier", "accuracy", "ece", "sce"]
    options = {"metrics": names, "n_bootstrap": 0}
    soft = calibration_report(shares, proba, sample_weight=weight, **options)
    hard = calibration_report(column, proba[row], sample_weight=parts, **options)
    for name in names:
        assert soft[name].value == pytest.approx(hard[name].value, rel=1e-10)
    nll = np.average(-(shares * np.log(proba)).sum(axis=1), weights=weight)
    assert soft["nll"].value == pytest.approx(nll, rel=1e-10)
    assert soft.n_samples == 120
    for loss, name in (("log_loss", "nll"), ("brier", "brier")):
        rest = {"loss": loss, "sample_weight": weight}
        parts = [f(shares, proba, **rest) for f in (calibration_loss, refinement_loss)]
        assert sum(parts) == pytest.approx(soft[name].value, rel=1e-10)


def test_rows_are_drawn_with_all_their_classes():
    # Rows that all have the same loss have it in every sample, whoever is drawn, and
    # draws that are all alike tell no interval.
    shares = np.tile([[0.75, 0.25], [0.25, 0.75]], (20, 1))
    proba = np.tile([[0.9, 0.1], [0.1, 0.9]], (20, 1))
    weight = np.r_[np.zeros(5), np.ones(35)]
    report = calibration_report(
        shares, proba, sample_weight=weight, metrics=["nll"], random_state=0
    )
    assert report["nll"][1:] == (None, None)
    assert report.n_samples == 35
    table = compare_calibrators(
        [TemperatureScaling()], np.log(proba), shares,
        X_test=np.log(proba), y_test=shares, n_bootstrap=10,
    )  # fmt: skip
    assert table.to_dict()["uncalibrated"]["nll"]["std"] == pytest.approx(0, abs=1e-12)


def test_other_metrics_ask_for_classes():
    logits, shares = draw_shares()
    proba = softmax(logits, axis=1)
    with pytest.raises(ValueError, match="1d array"):
        expected_calibration_error(shares, proba)
    with pytest.raises(ValueError, match="pos_label=1 names the class of one column"):
        calibration_loss(shares[:, :2], proba[:, 1], pos_label=1)


def test_tensors_are_taken():
    torch = pytest.importorskip("torch")
    logits, shares = draw_shares()
    found = TemperatureScaling().fit(torch.tensor(logits), torch.tensor(shares))
    known = TemperatureScaling().fit(logits, shares)
    assert found.temperature_ == pytest.approx(known.temperature_, rel=1e-10)


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), VectorScaling()])
def test_normalised_weights_of_shares_are_no_fewer_samples(calibrator):
    logits, shares = draw_shares()
    weight = np.full(120, 1 / 120)
    found = calibrator.fit(logits, shares, weight).predict_proba(logits)
    expected = calibrator.fit(logits, shares).predict_proba(logits)
    assert_allclose(found, expected, rtol=1e-9)


def test_a_class_named_twice_is_refused_beside_shares():
    with pytest.raises(ValueError, match="classes names a class twice"):
        TemperatureScaling(classes=["a", "a", "b"]).fit(*draw_shares())


def test_the_accuracy_of_shares_is_the_mean_share_of_the_predicted_class():
    logits, shares = draw_shares()
    weight = np.random.default_rng(1).random(120)
    row, column, parts = repeated(shares, weight)
    fitted = TemperatureScaling(classes=["a", "b", "c"]).fit(logits, shares)
    found = fitted.score(logits, shares, weight)
    names = fitted.classes_[column]
    assert found == pytest.approx(fitted.score(logits[row], names, parts), rel=1e-12)
    with pytest.raises(ValueError, match="whose sum is 2"):
        fitted.score(logits, 2 * shares)
    with pytest.raises(ValueError, match="Negative values"):
        fitted.score(logits, shares, -weight)
    pandas = pytest.importorskip("pandas")
    swapped = pandas.DataFrame(shares[:, ::-1], columns=["c", "b", "a"])
    with pytest.raises(ValueError, match="in another order"):
        fitted.score(logits, swapped)
