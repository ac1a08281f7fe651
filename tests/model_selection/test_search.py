import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from skcalib import (
    HistogramBinning,
    IsotonicCalibration,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.metrics import ece_scorer
from skcalib.model_selection import CalibratorSearch
from skcalib.model_selection._candidates import default_candidates, named_candidates


@pytest.fixture
def biased_set(draw_calibration_set):
    """Logits whose columns are shifted, which no temperature mends."""
    logits, y = draw_calibration_set(n_samples=1500)
    return logits + np.array([3.0, 0.0, -3.0, 1.0]), y


def test_the_simplest_candidate_within_one_standard_error_wins(calibration_set):
    # Temperature scaling is the truth here; vector scaling contains it.
    logits, y = calibration_set
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()]).fit(logits, y)
    assert search.best_name_ == "TemperatureScaling"
    expected = TemperatureScaling().fit(logits, y).predict_proba(logits)
    assert_array_equal(search.predict_proba(logits), expected)


def test_a_complex_candidate_wins_where_it_is_needed(biased_set):
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()])
    assert search.fit(*biased_set).best_name_ == "VectorScaling"


def test_rule_best_takes_the_highest_score(calibration_set):
    candidates = [HistogramBinning(), IsotonicCalibration(), TemperatureScaling()]
    search = CalibratorSearch(candidates, rule="best").fit(*calibration_set)
    assert search.best_index_ == search.cv_results_["mean_test_score"].argmax()
    assert search.best_name_ == "TemperatureScaling"


def test_candidates_are_judged_on_rows_they_were_not_fitted_on(calibration_set):
    # Isotonic regression has the smallest loss by far on its own training rows.
    logits, y = calibration_set
    isotonic = IsotonicCalibration(method="strict").fit(logits, y)
    temperature = TemperatureScaling().fit(logits, y)
    in_sample = [log_loss(y, c.predict_proba(logits)) for c in (isotonic, temperature)]
    assert in_sample[0] < in_sample[1]
    search = CalibratorSearch([isotonic, temperature], rule="best").fit(logits, y)
    assert search.best_name_ == "TemperatureScaling"


def test_scores_and_standard_errors_follow_their_definition(calibration_set):
    logits, y = calibration_set
    splits = list(StratifiedKFold(4).split(logits, y))
    candidates = [TemperatureScaling(), PlattScaling()]
    search = CalibratorSearch(candidates, cv=splits).fit(logits, y)
    rows = np.concatenate([test for _, test in splits])
    log_proba = [
        np.concatenate(
            [
                np.log(c.fit(logits[a], y[a]).predict_proba(logits[b]))[
                    np.arange(len(b)), y[b]
                ]
                for a, b in splits
            ]
        )
        for c in candidates
    ]
    mean = np.mean(log_proba, axis=1)
    results = search.cv_results_
    assert_allclose(results["mean_test_score"], mean)
    difference = log_proba[mean.argmin()] - log_proba[mean.argmax()]
    error = difference.std(ddof=1) / np.sqrt(len(rows))
    assert_allclose(results["standard_error"][mean.argmin()], error)
    assert_allclose(results["difference_to_best"], mean - mean.max())
    assert_array_equal(results["rank_test_score"][mean.argsort()], [2, 1])


def test_another_score_is_compared_over_folds(biased_set):
    logits, y = biased_set
    splits = list(StratifiedKFold(4).split(logits, y))
    search = CalibratorSearch(
        {"simple": TemperatureScaling(), "flexible": VectorScaling()},
        scoring="neg_expected_calibration_error",
        rule="best",
        cv=splits,
    ).fit(logits, y)
    expected = [
        cross_val_score(c, logits, y, scoring=ece_scorer, cv=splits).mean()
        for c in (TemperatureScaling(), VectorScaling())
    ]
    assert_allclose(search.cv_results_["mean_test_score"], expected)
    assert search.best_index_ == np.argmax(expected)


def test_the_default_candidates_run_from_simple_to_complex(calibration_set):
    search = CalibratorSearch(cv=3).fit(*calibration_set)
    assert search.cv_results_["name"] == list(named_candidates(default_candidates()))
    assert search.best_name_ == "TemperatureScaling"


def test_the_search_exports_as_the_chosen_calibrator(biased_set):
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()]).fit(*biased_set)
    operations = search._calibration_map().operations
    chosen = search.best_calibrator_._calibration_map().operations
    assert [type(op) for op in operations] == [type(op) for op in chosen]
    scores = search.decision_function(biased_set[0])
    assert_allclose(softmax(scores, axis=1), search.predict_proba(biased_set[0]))


def test_there_are_no_calibrated_logits_where_the_chosen_one_has_none(calibration_set):
    search = CalibratorSearch([IsotonicCalibration()]).fit(*calibration_set)
    assert not hasattr(search, "decision_function")


def test_folds_hold_rare_classes_and_sets_in_class_order(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=90, n_classes=30)
    order = np.argsort(y)
    search = CalibratorSearch([TemperatureScaling(), PlattScaling()])
    assert search.fit(logits[order], y[order]).best_name_ == "TemperatureScaling"


def test_number_of_jobs_changes_nothing(calibration_set):
    candidates = [TemperatureScaling(), PlattScaling()]
    one = CalibratorSearch(candidates).fit(*calibration_set).cv_results_
    with parallel_config(backend="threading"):
        two = CalibratorSearch(candidates, n_jobs=2).fit(*calibration_set).cv_results_
    assert_array_equal(one["mean_test_score"], two["mean_test_score"])


def test_a_search_is_tuned_by_grid_search(calibration_set):
    search = CalibratorSearch([TemperatureScaling(), PlattScaling()], cv=2)
    grid = GridSearchCV(search, {"rule": ["best", "one_standard_error"]}, cv=2)
    assert grid.fit(*calibration_set).best_estimator_.best_name_


def test_labels_and_weights_reach_the_chosen_calibrator(calibration_set):
    logits, y = calibration_set
    names = np.array(["d", "c", "b", "a"])
    weight = np.linspace(0, 2, len(y))
    search = CalibratorSearch([TemperatureScaling()], classes=names)
    search.fit(logits, names[y], sample_weight=weight)
    expected = TemperatureScaling().fit(logits, y, sample_weight=weight)
    assert search.best_calibrator_.temperature_ == expected.temperature_
    assert_array_equal(search.best_calibrator_.classes_, names)


def test_names_show_what_differs():
    named = named_candidates(
        [
            TemperatureScaling(),
            TemperatureScaling(objective="ece"),
            TemperatureScaling(),
        ]
    )
    assert list(named) == [
        "TemperatureScaling",
        "TemperatureScaling(objective='ece')",
        "TemperatureScaling (2)",
    ]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"calibrators": []}, "calibrators is empty"),
        ({"rule": "two"}, "'rule' parameter"),
        ({"scoring": "nonsense"}, "not the name of a scorer"),
        ({"cv": 1}, "'cv' parameter"),
    ],
)
def test_a_user_mistake_is_named(calibration_set, params, message):
    search = CalibratorSearch(**{"calibrators": [TemperatureScaling()], **params})
    with pytest.raises(ValueError, match=message):
        search.fit(*calibration_set)


def test_on_a_real_network_the_choice_improves_the_log_loss(cifar10):
    candidates = [TemperatureScaling(), VectorScaling(), PlattScaling()]
    search = CalibratorSearch(candidates).fit(cifar10.X_cal, cifar10.y_cal)
    before = softmax(cifar10.X_test.astype(float), axis=1)
    after = search.predict_proba(cifar10.X_test).astype(float)
    after /= after.sum(axis=1, keepdims=True)
    gain = log_loss(cifar10.y_test, before) - log_loss(cifar10.y_test, after)
    assert gain > 0.05
