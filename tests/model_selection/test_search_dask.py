"""CalibratorSearch on Dask collections."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from uncomputed import uncomputed

from skcalib import (
    CalibratorSearch,
    IsotonicCalibration,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib._blocks import CalibrationData, open_source
from skcalib._validation import check_calibration_set
from skcalib.model_selection._candidates import common_calibrators

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

pytestmark = pytest.mark.usefixtures("dask_in_this_process")


@pytest.fixture
def weighted_set(draw_calibration_set):
    """Logits that a temperature does not mend, labels, weights some of which are 0."""
    logits, y = draw_calibration_set(n_samples=2000)
    weight = np.random.default_rng(0).integers(0, 4, 2000).astype(float)
    return logits + np.array([1.0, 0.0, -1.0, 0.5]), y, weight


def chunked(rows, *parts):
    return [da.from_array(part, chunks=(rows, -1)[: part.ndim]) for part in parts]


def hashed_folds(logits, y, weight, n_folds):
    """Return the rows of the folds that a search of chunks has, as pairs of indices."""
    data = check_calibration_set("a test", *chunked(501, logits, y, weight), None)
    everything, folds = np.flatnonzero(weight), []
    place = {row.tobytes(): i for i, row in enumerate(logits)}
    for _, test in data.hashed_splits(n_folds, 0):
        held_out = [place[row.tobytes()] for row in data.subset(test).every(1).logits]
        folds.append((np.setdiff1d(everything, held_out), np.array(held_out)))
    return folds


@pytest.mark.parametrize("rule", ["best", "one_standard_error"])
def test_the_scores_are_those_of_the_same_folds_in_memory(weighted_set, rule):
    candidates = [TemperatureScaling(), VectorScaling()]
    search = CalibratorSearch(candidates, cv=3, rule=rule)
    X, y, weight = chunked(333, *weighted_set)
    found = search.fit(X, y, weight)
    table = found.cv_results_
    proba, chosen = found.predict_proba(X), found.best_name_
    assert isinstance(proba, da.Array)
    expected = search.set_params(cv=hashed_folds(*weighted_set, 3)).fit(*weighted_set)
    assert chosen == expected.best_name_ == "VectorScaling"
    for name in ("mean_test_score", "difference_to_best", "standard_error"):
        assert_allclose(table[name], expected.cv_results_[name], rtol=1e-6, atol=1e-12)
    assert table["rank_test_score"].tolist() == [2, 1]
    assert_allclose(proba, expected.predict_proba(weighted_set[0]), atol=1e-9)


def test_the_choice_does_not_depend_on_the_chunks(weighted_set):
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()], cv=2)
    scores = [
        search.fit(*chunked(rows, *weighted_set)).cv_results_["mean_test_score"]
        for rows in (2000, 271)
    ]
    assert_allclose(scores[0], scores[1], rtol=1e-10)


def test_the_simplest_wins_within_one_standard_error(draw_calibration_set):
    X, y = chunked(400, *draw_calibration_set(n_samples=1500))
    candidates = {"simple": TemperatureScaling(), "complex": VectorScaling()}
    search = CalibratorSearch(candidates).fit(X, y)
    assert search.best_name_ == "simple"
    assert isinstance(search.best_calibrator_, TemperatureScaling)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_common_calibrators_are_all_tried_where_none_are_named(weighted_set):
    X, y, _ = chunked(500, *weighted_set)
    search = CalibratorSearch(rule="one_standard_error", cv=2).fit(X, y)
    assert len(search.cv_results_["name"]) == len(common_calibrators())


@pytest.mark.parametrize(
    ("search", "error", "message"),
    [
        (
            CalibratorSearch(),
            TypeError,
            'the stack of CalibratorSearch needs .* set rule to "one_standard_error"',
        ),
        (
            CalibratorSearch([TemperatureScaling(), VennAbersCalibration()]),
            TypeError,
            "VennAbersCalibration needs .* leave it out of CalibratorSearch",
        ),
        (
            CalibratorSearch([IsotonicCalibration()], scoring="neg_brier_score"),
            ValueError,
            'scoring="neg_log_loss" and without groups only',
        ),
    ],
    ids=["stack", "candidate", "scoring"],
)
def test_what_cannot_be_searched_there_is_refused_before_it_is_computed(
    search, error, message
):
    X = uncomputed(da.zeros((100, 3), chunks=(25, 3)))
    with pytest.raises(error, match=message):
        search.fit(X, da.zeros(100, chunks=25, dtype=int))


def test_folds_are_a_number_there(draw_calibration_set):
    X, y = chunked(400, *draw_calibration_set(n_samples=1500))
    search = CalibratorSearch([TemperatureScaling()], cv=[([0, 1], [2, 3])])
    with pytest.raises(ValueError, match="told by a hash of its rows, so that cv is"):
        search.fit(X, y)


def test_a_fold_of_one_class_leaves_the_simplest():
    # A class has one row only.
    logits, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) // 19
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()], cv=2)
    seed = 3
    with pytest.warns(UserWarning, match="leaves rows of one class only to fit on"):
        search.set_params(random_state=seed).fit(*chunked(5, logits, y))
    assert search.best_name_ == "TemperatureScaling"
    assert np.isnan(search.cv_results_["mean_test_score"]).all()


def test_moments_are_those_of_differences():
    from skcalib.model_selection._elsewhere import cross_validate

    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(60, 3)), np.arange(60) % 3
    weight = rng.integers(1, 4, 60).astype(np.float64)
    data = CalibrationData(open_source(logits), y, weight)
    scores = cross_validate([TemperatureScaling(), VectorScaling()], [(data, data)])
    rows = [
        np.log(part.fit(logits, y, data.sample_weight).predict_proba(logits))[
            np.arange(60), y
        ]
        for part in (TemperatureScaling(), VectorScaling())
    ]
    assert_allclose(scores.mean, np.average(rows, axis=1, weights=data.weight))
    expected = np.cov(rows[1] - rows[0], aweights=data.weight, ddof=0)
    assert_allclose(scores.covariance, [[0, 0], [0, expected]])
