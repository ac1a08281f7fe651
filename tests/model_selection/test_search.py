import warnings
from functools import partial

import numpy as np
import pytest
import sklearn
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)

from skcalib import (
    CalibratedClassifier,
    DensityRatioCalibration,
    HistogramBinning,
    IsotonicCalibration,
    OrderPreservingScaling,
    PlattScaling,
    ScalingBinning,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    logits_from_proba,
)
from skcalib._base import fit_checked
from skcalib._blocks import ArraySource, CalibrationData
from skcalib._maps import CalibrationMap, Softmax
from skcalib._solvers._mixture import fit_mixture
from skcalib._validation import _logits
from skcalib.datasets import make_logits
from skcalib.exceptions import AbsentClassWarning
from skcalib.export import to_onnx, to_torch
from skcalib.metrics import ece_scorer, get_scorer
from skcalib.model_selection import CalibratorSearch, compare_calibrators
from skcalib.model_selection._candidates import (
    MANY,
    MATRIX,
    VECTOR,
    WEAK_MATRIX,
    default_candidates,
    named_candidates,
)
from skcalib.model_selection._stack import HeldOut, StackedCalibrator, _Fold


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


@pytest.mark.parametrize(("bias", "chosen"), [(0.12, 0), (0.15, 1)])
def test_a_complex_candidate_has_to_win_by_more_than_one_standard_error(
    draw_calibration_set, bias, chosen
):
    logits, y = draw_calibration_set(n_samples=1500)
    logits = logits + bias * np.array([3.0, 0.0, -3.0, 1.0])
    candidates = [TemperatureScaling(prior=None), VectorScaling(prior=None)]
    search = CalibratorSearch(candidates).fit(logits, y)
    results = search.cv_results_
    lag = -results["difference_to_best"][0] / results["standard_error"][0]
    assert (0.5 < lag < 1) if chosen == 0 else (1 < lag < 1.5)
    assert search.best_index_ == chosen


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


@pytest.mark.parametrize(("rule", "chosen"), [("one_standard_error", 0), ("best", 1)])
def test_one_fold_has_a_score_but_no_standard_error(biased_set, rule, chosen):
    logits, y = biased_set
    search = CalibratorSearch(
        [TemperatureScaling(), VectorScaling()],
        scoring="neg_expected_calibration_error",
        cv=ShuffleSplit(1, random_state=0),
        rule=rule,
    ).fit(logits, y)
    assert search.cv_results_["mean_test_score"].argmax() == 1
    assert_array_equal(search.cv_results_["standard_error"], np.inf)
    assert search.best_index_ == chosen


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
    names = ["uncalibrated", *default_candidates(4), "stack"]
    assert search.cv_results_["name"] == names
    assert search.best_name_ == "stack"


def test_the_search_exports_as_the_chosen_calibrator(biased_set):
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()]).fit(*biased_set)
    operations = search.calibration_map().operations
    chosen = search.best_calibrator_.calibration_map().operations
    assert [type(op) for op in operations] == [type(op) for op in chosen]
    scores = search.decision_function(biased_set[0])
    assert_allclose(softmax(scores, axis=1), search.predict_proba(biased_set[0]))


def test_there_are_no_calibrated_logits_where_the_chosen_one_has_none(calibration_set):
    search = CalibratorSearch([IsotonicCalibration()]).fit(*calibration_set)
    assert not hasattr(search, "decision_function")


@pytest.mark.parametrize(
    "fit",
    [
        CalibratorSearch().fit,
        lambda X, y: compare_calibrators([ScalingBinning()], X, y),
        ScalingBinning(OrderPreservingScaling(PlattScaling())).fit,
    ],
    ids=["stack", "comparison", "nested"],
)
def test_labels_and_weights_are_validated_once(calibration_set, monkeypatch, fit):
    seen = []
    for name in ("encode_labels", "check_weight"):
        check = getattr(_logits, name)

        def counted(*args, check=check, name=name):
            seen.append(name)
            return check(*args)

        monkeypatch.setattr(_logits, name, counted)
    fit(*calibration_set)
    assert seen == ["encode_labels", "check_weight"]


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
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


# The default: a stack of candidates


@pytest.fixture
def wanting_set():
    """Class offsets, and one temperature that is too high for sure rows only."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=rng.uniform(0.5, 6, (1500, 1)), size=(1500, 4))
    u = log_softmax(logits, axis=1)
    entropy = -np.sum(np.exp(u) * u, axis=1, keepdims=True)
    scores = np.interp(entropy, [0.1, 1.2], [0.3, 1.3]) * u + [0.7, 0.0, -0.7, 0.0]
    return logits, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def test_without_arguments_the_candidates_are_stacked_where_that_pays(wanting_set):
    search = CalibratorSearch().fit(*wanting_set)
    assert search.best_name_ == "stack"
    results = search.cv_results_
    assert results["name"][-1] == "stack"
    assert search.best_index_ == len(results["name"]) - 1
    assert results["rank_test_score"][-1] == 1
    assert list(search.weights_) == list(default_candidates(4))
    assert search.weights_["OrderPreservingScaling"] == 0
    assert "OrderPreservingScaling alone" in search.final_weights_
    for weights in (search.weights_, search.final_weights_):
        assert all(w == 0 or w >= 0.01 for w in weights.values())
        assert sum(weights.values()) == pytest.approx(1)


def last_maps_of(logits, y, weight=None):
    """Nothing, and order-preserving scaling, fitted."""
    last = OrderPreservingScaling().fit(logits, y, sample_weight=weight)
    return [lambda x: softmax(x, axis=1), last.predict_proba]


def test_a_stack_mixes_what_the_last_maps_make_of_the_mixture(wanting_set):
    logits, y = wanting_set
    candidates = [TemperatureScaling(), VectorScaling()]
    first, second = (c.fit(logits, y).predict_proba(logits) for c in candidates)
    mixed = np.log(0.3 * first + 0.7 * second)
    lasts = [
        CalibrationMap(Softmax()),
        OrderPreservingScaling().fit(mixed, y).calibration_map(),
    ]
    after = [last(mixed) for last in last_maps_of(mixed, y)]
    for final, untouched in (
        ([0.2, 0.7, 0.1], 0.0),
        ([0.6, 0.4, 0.0], 0.3),
        ([0.0, 1.0, 0.0], 0.0),
        ([0.0, 1.0, 0.0], 1.0),
    ):
        stack = StackedCalibrator(
            candidates,
            [0.3, 0.7],
            lasts,
            [0],
            final,
            untouched=untouched,
            uniform=0.02,
        )
        expected = sum(
            w * proba for w, proba in zip(final, [*after, first], strict=True)
        )
        came = 0.98 * softmax(logits, axis=1) + 0.02 / 4
        expected = (1 - untouched) * expected + untouched * came
        assert_allclose(stack.fit(logits, y).predict_proba(logits), expected, atol=1e-9)
        scores = stack.decision_function(logits)
        assert_allclose(softmax(scores, axis=1), expected, atol=1e-9)


def test_the_doubt_of_a_stack_is_shared_by_the_classes_of_a_single_column():
    log_odds, y = np.array([-2.0, 1.0, 2.0, -1.0]), [0, 1, 1, 0]
    last = CalibrationMap(Softmax())
    stack = StackedCalibrator(
        [TemperatureScaling()], [1.0], [last], [0], [1, 0], untouched=1, uniform=0.2
    ).fit(log_odds, y)
    expected = 0.8 * expit(log_odds) + 0.2 / 2
    assert_allclose(stack.predict_proba(log_odds)[:, 1], expected)


def test_parts_without_weight_are_not_fitted(wanting_set):
    logits, y = wanting_set
    candidates = [TemperatureScaling(), VectorScaling(), PlattScaling()]
    alone = StackedCalibrator(
        candidates, [0.5, 0.5, 0.0], [None, None], [0, 1], [0, 0, 1.0, 0]
    ).fit(logits, y)
    assert [c is None for c in alone.calibrators_] == [False, True, True]
    expected = TemperatureScaling().fit(logits, y).predict_proba(logits)
    assert_allclose(alone.predict_proba(logits), expected, atol=1e-9)
    two = StackedCalibrator(
        candidates,
        [0.0, 1.0, 0.0],
        [CalibrationMap(Softmax()), None],
        [2],
        [0.5, 0.0, 0.5],
    ).fit(logits, y)
    assert [c is None for c in two.calibrators_] == [True, False, False]
    parts = [c.fit(logits, y).predict_proba(logits) for c in candidates[1:]]
    assert_allclose(two.predict_proba(logits), np.mean(parts, axis=0), atol=1e-9)


def test_rows_are_judged_by_a_stack_that_did_not_see_their_fold(wanting_set):
    logits, y = wanting_set
    proba = [softmax(logits / t, axis=1) for t in (1, 3, 2)]
    mixed_in = np.array([True, True, False])
    weight, fold = np.linspace(0.5, 1.5, y.size), np.arange(y.size) % 3

    def weights_of(own, rows, simplest):
        prior = np.ones(own.shape[1])
        prior[simplest] = 50 * 4 / weight.sum()
        fit = fit_mixture(own[rows], weight[rows], prior=prior, tol=1e-9, max_iter=99)
        kept = np.where(fit.x < 0.01, 0, fit.x)
        return kept / kept.sum()

    own = np.log([p[np.arange(y.size), y] for p in proba]).T
    untouched = np.log(softmax(logits, axis=1)[np.arange(y.size), y])
    surer = np.zeros(y.size)
    finalists = np.empty((y.size, 4))
    finalists[:, 2:] = own[:, [0, 2]]
    for k in range(3):
        seen, unseen = fold != k, np.flatnonzero(fold == k)
        w = weights_of(own[:, :2], seen, 0)
        mixed = np.log(w[0] * proba[0] + w[1] * proba[1])
        lasts = last_maps_of(mixed[seen], y[seen], weight[seen])
        for j, last in enumerate(lasts):
            after = last(mixed[unseen])
            finalists[unseen, j] = np.log(after[np.arange(unseen.size), y[unseen]])
    expected = np.empty(y.size)
    for k in range(3):
        w = weights_of(finalists, fold != k, 2)
        expected[fold == k] = np.log(np.exp(finalists[fold == k]) @ w)
    order = np.argsort(fold, kind="stable")
    parts = [np.flatnonzero(fold == k) for k in range(3)]
    folds = [
        _Fold(untouched[i], surer[i], own[i], y[i], [p[i] for p in proba])
        for i in parts
    ]
    held_out = HeldOut(folds, mixed_in, weight[order], 4)
    (weights, _, final, share), scores = held_out.stack([0, 2])
    assert share == 0
    # The knots of the last map are those of all rows.
    assert_allclose(scores, expected[order], atol=0.2)
    assert scores.mean() == pytest.approx(expected.mean(), abs=2e-3)
    every = np.ones(y.size, dtype=bool)
    assert_allclose(weights, [*weights_of(own[:, :2], every, 0), 0], atol=1e-6)
    assert_allclose(final, weights_of(finalists, every, 2), atol=0.02)
    assert final[1] > 0.5


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("n_samples", [60, 6000])
def test_the_simplest_candidate_has_most_of_the_weight_while_samples_are_few(
    draw_calibration_set, n_samples
):
    # Nobody is right more often; two samples a class, or two hundred.
    logits, y = draw_calibration_set(n_samples=n_samples, n_classes=30)
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()], rule="stack")
    search.fit(logits, y)
    alone = search.final_weights_["TemperatureScaling alone"]
    assert (alone > 0.6) == (n_samples == 60)


def test_a_stack_beats_its_parts_on_a_wide_network(data_dir):
    with np.load(data_dir / "logits" / "wideresnet-16-4-cifar-10.npz") as arrays:
        X = logits_from_proba(arrays["predictions"].astype(np.float64))
        y = arrays["ground_truth"].ravel().astype(int)
    cal = np.random.default_rng(0).permutation(len(y)) < 2500
    search = CalibratorSearch(cv=3).fit(X[cal], y[cal])
    stacked = log_loss(y[~cal], search.predict_proba(X[~cal]))
    for candidate in default_candidates(10).values():
        alone = candidate.fit(X[cal], y[cal]).predict_proba(X[~cal])
        assert stacked < log_loss(y[~cal], alone) + 1e-3


def test_integer_weights_equal_repetition_in_a_stack(wanting_set):
    logits, y = wanting_set
    weight = np.random.default_rng(0).integers(0, 3, y.size)
    fold = np.arange(y.size) % 4
    rows = np.repeat(np.arange(y.size), weight)
    searches = []
    for X, labels, where, w in (
        (logits, y, fold, weight),
        (logits[rows], y[rows], fold[rows], None),
    ):
        splits = [
            (np.flatnonzero(where != k), np.flatnonzero(where == k)) for k in range(4)
        ]
        search = CalibratorSearch(cv=splits)
        searches.append(search.fit(X, labels, sample_weight=w))
    weighted, repeated = searches
    assert weighted.best_name_ == repeated.best_name_ == "stack"
    expected = repeated.predict_proba(logits)
    assert_allclose(weighted.predict_proba(logits), expected, atol=1e-4)


def test_labels_of_a_stack_are_those_of_the_classes(wanting_set):
    logits, y = wanting_set
    names = np.array(["d", "c", "b", "a"])
    search = CalibratorSearch(classes=names).fit(logits, names[y])
    assert search.best_name_ == "stack"
    proba = search.predict_proba(logits)
    assert_array_equal(search.predict(logits), names[proba.argmax(axis=1)])


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("lone", [False, True])
def test_weights_of_a_stack_go_with_it(wanting_set, lone):
    logits, y = wanting_set
    search = CalibratorSearch().fit(logits, y)
    assert {"weights_", "final_weights_"} <= vars(search).keys()
    if lone:
        with pytest.warns(UserWarning, match="one class only to fit on"):
            search.fit(logits[:8], [0] * 7 + [1])
    else:
        search.set_params(rule="best").fit(logits, y)
    assert not {"weights_", "final_weights_"} & vars(search).keys()


class Doubling(TemperatureScaling):
    """A calibrator with a `fit` of its own, which does more than its hook."""

    def fit(self, X, y, sample_weight=None):
        super().fit(2 * np.asarray(X), y, sample_weight)
        self.temperature_ /= 2
        self.did_more_ = True
        return self


def test_a_candidate_with_a_fit_of_its_own_is_fitted_by_it(calibration_set):
    logits, y = calibration_set
    labels = np.array(["d", "c", "b", "a"])[y]
    classes = ["d", "c", "b", "a"]
    searches = [
        CalibratorSearch([kind(prior=None)], rule=rule, classes=classes).fit(
            logits, labels
        )
        for kind in (Doubling, TemperatureScaling)
        for rule in ("best", "stack")
    ]
    parts = [
        searches[0].best_calibrator_,
        searches[1].best_calibrator_.calibrators_[0],
        OrderPreservingScaling(Doubling(prior=None), classes=classes)
        .fit(logits, labels)
        .scaling_,
    ]
    assert all(part.did_more_ for part in parts)
    for own, plain in zip(searches[:2], searches[2:], strict=True):
        expected = plain.predict_proba(logits)
        assert_allclose(own.predict_proba(logits), expected, atol=1e-9)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_weights_of_all_sizes_at_once_are_borne():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(8, 30)), rng.integers(0, 30, 8)
    search = CalibratorSearch().fit(X, y, sample_weight=np.logspace(-258, 269, 8))
    assert_allclose(search.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(("n_classes", "weight"), [(2, 1e20), (3, 1e300)])
def test_weights_beyond_all_counts_are_borne(n_classes, weight):
    logits, y = make_logits(300, n_classes, random_state=1)
    search = CalibratorSearch().fit(logits, y, sample_weight=np.full(300, weight))
    assert sum(search.final_weights_.values()) == pytest.approx(1)
    assert np.isfinite(search.predict_proba(logits)).all()


@pytest.mark.parametrize("factor", [0.0, 1.0, 1e5])
def test_rows_that_are_all_equal_are_borne(factor):
    logits = factor * np.tile([[0.3, 0.1, -0.4]], (300, 1))
    y = np.arange(300) % 3
    # Equal rows of a class share a fold, so that no split can judge much.
    proba = CalibratorSearch().fit(logits, y).predict_proba(logits)
    assert log_loss(y, proba) < log_loss(y, softmax(logits, axis=1)) + 0.01


def test_twenty_samples_are_enough_for_a_search(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=20)
    proba = CalibratorSearch().fit(logits, y).predict_proba(logits)
    assert_allclose(proba.sum(axis=1), 1)


def test_max_time_leaves_out_what_it_has_no_time_for(wanting_set, capsys):
    search = CalibratorSearch(max_time=1e-9, verbose=1).fit(*wanting_set)
    assert list(search.weights_) == ["EnsembleTemperatureScaling"]
    said = capsys.readouterr().err
    assert "without OrderPreservingScaling and the rest" in said
    assert "fold 5 of 5" in said
    unhurried = CalibratorSearch(max_time=1e9).fit(*wanting_set)
    assert list(unhurried.weights_) == list(default_candidates(4))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("confusion", "is_tried"), [(0.0, False), (2.0, True)])
def test_of_many_classes_weak_penalties_wait_for_what_a_matrix_is_worth(
    confusion, is_tried
):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(2000, MANY))
    swapped = logits[:, np.arange(MANY) ^ 1]  # Each class is taken for its neighbour.
    scores = logits + confusion * swapped
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    search = CalibratorSearch(cv=2).fit(logits, y)
    results = search.cv_results_
    score = dict(zip(results["name"], results["mean_test_score"], strict=True))
    assert (WEAK_MATRIX in score) == (WEAK_MATRIX in search.weights_) == is_tried
    assert (score[MATRIX] > score[VECTOR]) == is_tried
    assert_allclose(search.predict_proba(logits).sum(axis=1), 1)


def test_a_stack_of_named_candidates_waits_for_none():
    logits, y = make_logits(500, MANY, random_state=0)
    candidates = default_candidates(MANY)
    search = CalibratorSearch(candidates, cv=2, rule="stack").fit(logits, y)
    assert list(search.weights_) == list(candidates)


def test_a_choice_tells_of_each_candidate_that_is_done(calibration_set, capsys):
    CalibratorSearch([TemperatureScaling(), VectorScaling()], verbose=1).fit(
        *calibration_set
    )
    assert capsys.readouterr().err.splitlines() == [
        "[CalibratorSearch] TemperatureScaling is done, 1 of 2",
        "[CalibratorSearch] VectorScaling is done, 2 of 2",
    ]


def test_max_time_is_of_a_stack(calibration_set):
    search = CalibratorSearch([TemperatureScaling()], max_time=1)
    with pytest.raises(ValueError, match="max_time is of a stack"):
        search.fit(*calibration_set)


def test_a_stack_is_chosen_by_log_loss_only(calibration_set):
    search = CalibratorSearch(scoring="neg_brier_score")
    with pytest.raises(ValueError, match="A stack maximises the likelihood"):
        search.fit(*calibration_set)


@pytest.mark.parametrize(
    "calibrators",
    [None, [TemperatureScaling(), VectorScaling()]],
    ids=["stack", "list"],
)
def test_the_log_loss_is_known_as_a_scorer_too(calibration_set, calibrators):
    named = CalibratorSearch(calibrators).fit(*calibration_set)
    scorer = get_scorer("neg_log_loss")
    given = CalibratorSearch(calibrators, scoring=scorer).fit(*calibration_set)
    for key in ("mean_test_score", "standard_error"):
        assert_array_equal(given.cv_results_[key], named.cv_results_[key])


@pytest.mark.parametrize("rule", ["stack", "best"])
def test_what_is_no_map_of_logits_is_no_candidate(calibration_set, rule):
    tried = [TemperatureScaling(), DensityRatioCalibration()]
    search = CalibratorSearch(tried, rule=rule)
    with pytest.raises(ValueError, match="Calibration is no map of logits"):
        search.fit(*calibration_set)


def test_pairs_of_name_and_calibrator_are_a_dict(calibration_set):
    pairs = [("t", TemperatureScaling()), ("v", VectorScaling())]
    search = clone(CalibratorSearch(pairs)).fit(*calibration_set)
    named = CalibratorSearch(dict(pairs)).fit(*calibration_set)
    assert search.cv_results_["name"] == named.cv_results_["name"] == ["t", "v"]
    assert search.best_name_ == named.best_name_
    table = compare_calibrators(pairs, *calibration_set, cv=2)
    assert table.names == ["uncalibrated", "t", "v"]


@pytest.mark.parametrize(
    "entry",
    [
        "t",
        ("t",),
        (TemperatureScaling(), "t"),
        TemperatureScaling,
        LogisticRegression(),
        ("forest", CalibratedClassifier()),
    ],
)
@pytest.mark.parametrize("kind", [list, dict])
def test_what_is_neither_a_calibrator_nor_a_pair_is_named(calibration_set, entry, kind):
    mine = [TemperatureScaling(), entry]
    if kind is dict:
        mine = {"first": mine[0], "second": entry}
    for call in (CalibratorSearch(mine).fit, partial(compare_calibrators, mine)):
        with pytest.raises(TypeError, match="a dict from name to calibrator"):
            call(*calibration_set)


def test_a_stack_needs_two_splits(calibration_set):
    logits, y = calibration_set
    one = [(np.arange(300), np.arange(300, 600))]
    with pytest.raises(ValueError, match="a stack needs at least two"):
        CalibratorSearch(cv=one).fit(logits, y)


@pytest.mark.onnx
@pytest.mark.torch
def test_a_stack_exports(wanting_set):
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    logits, y = wanting_set
    search = CalibratorSearch().fit(logits, y)
    expected = search.predict_proba(logits)
    model = to_onnx(search, dtype=np.float64).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert_allclose(session.run(None, {"logits": logits})[0], expected, atol=1e-12)
    with torch.no_grad():
        from_torch = to_torch(search)(torch.from_numpy(logits)).numpy()
    assert_allclose(from_torch, expected, atol=1e-12)


# Doing nothing, and two classes


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_that_are_right_are_left_alone(n_classes):
    rng = np.random.default_rng(0)
    touched = 0
    for _ in range(10):
        logits = rng.normal(scale=2, size=(150, n_classes))
        y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        search = CalibratorSearch().fit(logits, y)
        touched += search.final_weights_["uncalibrated"] < 0.5
    assert touched <= 1


def test_zeros_that_no_sample_has_tested_are_served_with_doubt():
    # Of 200 rows, right as they are, a hundred say "never".
    rng = np.random.default_rng(0)
    X = np.append(rng.normal(scale=2, size=100), np.full(100, -60.0))
    y = (X + rng.logistic(size=200) > 0).astype(int)
    search = CalibratorSearch().fit(X, y)
    assert search.final_weights_["uncalibrated"] > 0.85
    assert 1e-4 < search.predict_proba(X)[-1, 1] < 1e-3
    cost = log_loss(y, search.predict_proba(X)) - log_loss(y, expit(X))
    assert cost < 0.1 / 200


def test_probabilities_that_are_wrong_are_not(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=300)
    search = CalibratorSearch().fit(4 * logits, y)
    assert search.final_weights_["uncalibrated"] == 0
    results = search.cv_results_
    assert results["name"][0] == "uncalibrated"
    assert results["difference_to_best"][0] < -0.1


@pytest.mark.parametrize(
    ("n_classes", "surer", "odds"), [(4, -0.1, 5), (4, 0.1, 50), (2, -0.1, np.inf)]
)
def test_to_be_less_sure_of_several_classes_takes_less_evidence(n_classes, surer, odds):
    # All rows together, the simplest candidate gains two nats and the stack one.
    rows = np.full((50, 1), -1.0)
    proba = [np.full((50, n_classes), 1 / n_classes, np.float32)]
    fold = _Fold(rows[:, 0], np.full(50, surer), rows + 0.04, np.zeros(50, int), proba)
    held_out = HeldOut([fold], np.full(1, True), np.ones(50), n_classes)
    rest = np.e / (50 + np.e)
    simplest = (1 - rest) * np.exp(2) / (odds + np.exp(2))
    expected = [1 - simplest - rest, simplest, rest]
    assert_allclose(held_out._shares(rows[:, 0] + 0.02), expected, atol=1e-12)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_fifty_rows_that_are_too_sure_are_most_of_the_way_softened(
    draw_calibration_set, seed
):
    X, y = draw_calibration_set(
        n_samples=2000, n_classes=10, temperature=1.5, seed=seed
    )
    softened = TemperatureScaling().fit(X[:50], y[:50])
    search = CalibratorSearch().fit(X[:50], y[:50])
    proba = [softmax(X, axis=1), search.predict_proba(X), softened.predict_proba(X)]
    came, searched, by_temperature = (log_loss(y[50:], p[50:]) for p in proba)
    assert searched < (came + by_temperature) / 2
    assert search.final_weights_["EnsembleTemperatureScaling alone"] > 0.3


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [
        ((300, 2), 2.0, [0.71890, 0.28110]),
        ((60, 5), 1.0, [0.37996, 0.25433, 0.17117, 0.11507, 0.07948]),
        ((400, 5), 1.0, [0.31357, 0.27517, 0.18828, 0.11632, 0.10666]),
        ((200, 3), 0.35, [0.90957, 0.07762, 0.01281]),
    ],
)
def test_the_default_changes_only_when_it_is_meant_to(size, factor, expected):
    X, y = make_logits(*size, random_state=0)
    row = [np.linspace(1.0, -1.0, size[1])]
    proba = CalibratorSearch().fit(factor * X, y).predict_proba(row)
    assert_allclose(proba, [expected], atol=1e-4)


def test_two_classes_have_curves(data_dir):
    # Naive Bayes on the telescope data: a steep curve that no temperature mends.
    with np.load(data_dir / "logits" / "tabular_probs.npz") as arrays:
        proba = [arrays[f"magic__gnb__{part}_p"] for part in ("cal", "test")]
        y, y_test = (arrays[f"magic__{part}_y"].astype(int) for part in ("cal", "test"))
    X, X_test = (logits_from_proba(p.astype(np.float64)) for p in proba)
    search = CalibratorSearch().fit(X[:2000], y[:2000])
    assert list(search.weights_) == list(default_candidates(2))
    loss = log_loss(y_test, search.predict_proba(X_test))
    single = OrderPreservingScaling().fit(X[:2000], y[:2000])
    assert loss < log_loss(y_test, single.predict_proba(X_test)) + 1e-3


def test_many_rows_of_few_scores_are_judged_as_they_are_served():
    # Five neighbours vote: one of six scores, and far too sure of itself.
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 6, 1000) / 5
    y = (rng.random(1000) < 0.3 + 0.4 * votes).astype(int)
    X = logits_from_proba(np.stack([1 - votes, votes], axis=1))
    search = CalibratorSearch().fit(X, y)
    assert search.final_weights_["uncalibrated"] == 0
    truth = np.where(y == 1, 0.3 + 0.4 * votes, 0.7 - 0.4 * votes)
    excess = log_loss(y, search.predict_proba(X)) + np.log(truth).mean()
    assert excess < 0.005


# Equal rows, groups, and sets that are too small


@pytest.fixture
def network_rows(cifar10):
    rows = np.random.default_rng(0).choice(5000, 500, replace=False)
    return cifar10.X_cal[rows].astype(np.float64), cifar10.y_cal[rows]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["together", "copy after copy"])
def test_repeated_rows_are_fitted_as_weights(network_rows, order):
    logits, y = network_rows
    copies = np.repeat if order == "together" else np.tile
    rows = copies(np.arange(500), 4)
    weighted = CalibratorSearch().fit(logits, y, sample_weight=np.full(500, 4.0))
    repeated = CalibratorSearch().fit(logits[rows], y[rows])
    assert repeated.best_name_ == weighted.best_name_ == "stack"
    expected = weighted.predict_proba(logits)
    # The last maps of a stack are fitted to a tolerance of 1e-6 nats, folds to 1e-5,
    # and other rounding may take a step more or less to it.
    assert_allclose(repeated.predict_proba(logits), expected, atol=1e-3)


@pytest.mark.slow
def test_repeated_rows_do_not_make_the_default_worse_than_nothing(
    network_rows, cifar10
):
    logits, y = network_rows
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(500), 4))
    test = cifar10.X_test.astype(np.float64)
    search = CalibratorSearch().fit(logits[rows], y[rows])
    once = CalibratorSearch().fit(logits, y)
    probas = [search.predict_proba(test), once.predict_proba(test)]
    repeated, single = (log_loss(cifar10.y_test, proba) for proba in probas)
    nothing = log_loss(cifar10.y_test, softmax(test, axis=1))
    assert repeated < single + 0.005 < nothing


def test_groups_part_frames_of_one_video(draw_calibration_set):
    # Strict isotonic regression learns by heart what a frame of the video tells it.
    logits, y = draw_calibration_set(n_samples=150)
    video = np.arange(1500) // 10
    noise = 1e-6 * np.random.default_rng(0).normal(size=(1500, 4))
    frames = logits[video] + noise
    candidates = [TemperatureScaling(), IsotonicCalibration(method="strict")]
    blind = CalibratorSearch(candidates, rule="best").fit(frames, y[video])
    aware = clone(blind).fit(frames, y[video], groups=video)
    assert blind.best_name_.startswith("Isotonic")
    assert aware.best_name_ == "TemperatureScaling"
    by_splitter = CalibratorSearch(candidates, rule="best", cv=GroupKFold(5))
    by_splitter.fit(frames, y[video], groups=video)
    assert by_splitter.best_name_ == "TemperatureScaling"


def test_groups_are_routed(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=200)
    groups = np.arange(200) // 4
    search = CalibratorSearch([TemperatureScaling()], cv=GroupKFold(3))
    with sklearn.config_context(enable_metadata_routing=True):
        search.set_fit_request(groups=True, sample_weight=True)
        scores = cross_val_score(
            search, logits, y, cv=GroupKFold(2), params={"groups": groups}
        )
    assert scores.shape == (2,)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("params", [{}, {"calibrators": [TemperatureScaling()]}])
@pytest.mark.parametrize("y", [[0, 1, 1], [0, 1], [0] * 30 + [1], [1, 1, 0, 1, 1, 1]])
def test_one_row_of_a_class_leaves_the_simplest_candidate(params, y):
    logits = np.random.default_rng(0).normal(size=(len(y), 2))
    with pytest.warns(UserWarning, match="leaves rows of one class only to fit on"):
        search = CalibratorSearch(**params).fit(logits, y)
    assert search.best_index_ == 0
    assert np.isnan(search.cv_results_["mean_test_score"]).all()
    expected = search.best_calibrator_.predict_proba(logits)
    assert_array_equal(search.predict_proba(logits), expected)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "y", [[0, 1, 2], [0, 0, 1, 2], [0, 0, 1, 1], [0] * 9 + [1] * 9 + [2]]
)
def test_folds_that_lack_a_class_are_normal(y):
    logits = np.random.default_rng(0).normal(size=(len(y), 3))
    search = CalibratorSearch().fit(logits, y)
    assert search.best_name_ == "stack"
    assert_allclose(search.predict_proba(logits).sum(axis=1), 1)


def test_splits_of_sorted_labels_leave_the_simplest_candidate(binary_calibration_set):
    log_odds, y = binary_calibration_set
    splits = [(np.flatnonzero(y == k), np.flatnonzero(y != k)) for k in (0, 1)]
    search = CalibratorSearch(cv=splits)
    with pytest.warns(
        UserWarning, match="Split 0 of cv leaves rows of one class only to fit on, 0"
    ):
        search.fit(log_odds, y)
    assert search.best_name_ == "EnsembleTemperatureScaling"


def test_a_stack_of_one_candidate_is_that_and_what_follows_it(calibration_set):
    search = CalibratorSearch([TemperatureScaling()], rule="stack")
    search.fit(*calibration_set)
    assert search.weights_ == {"TemperatureScaling": 1.0}
    assert sum(search.final_weights_.values()) == pytest.approx(1)
    proba = search.predict_proba(calibration_set[0])
    assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize("structure", ["vector", "matrix"])
def test_a_fit_that_starts_near_forgets_the_rows_that_were_left_out(
    draw_calibration_set, structure
):
    logits, y = draw_calibration_set(n_samples=600, n_classes=10)
    data = CalibrationData(ArraySource(logits), y, np.ones(600))
    rest, out = data.subset(np.arange(480)), np.arange(480, 600)
    kind = StructuredMatrixScaling(structure=structure)
    every = fit_checked(clone(kind), data)
    cold = fit_checked(clone(kind), rest)
    near = fit_checked(clone(kind), rest, near=every)

    def loss(calibrator):
        return log_loss(y[out], calibrator.predict_proba(logits[out]))

    known = loss(cold) - loss(every)
    assert abs(loss(near) - loss(cold)) < 0.1 * known


class _Told(TemperatureScaling):
    """Counts the fits that may start from another."""

    near = []

    def fit_calibration(self, data):
        self.near.append(self._near is not None)
        super().fit_calibration(data)


def test_the_fits_of_the_folds_start_from_that_to_all_rows(calibration_set):
    _Told.near.clear()
    CalibratorSearch([_Told()], rule="stack", cv=3).fit(*calibration_set)
    assert _Told.near == [False, True, True, True]


def test_a_search_may_be_a_candidate_of_a_stack(calibration_set):
    logits, y = calibration_set
    inner = CalibratorSearch([TemperatureScaling(), VectorScaling()])
    search = CalibratorSearch([TemperatureScaling(), inner], rule="stack")
    proba = search.fit(logits, y).predict_proba(logits)
    assert log_loss(y, proba) < log_loss(y, softmax(logits, axis=1))


def test_rows_that_several_folds_judge_are_no_further_evidence():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(60, 4))
    y = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    once = list(StratifiedKFold(3).split(logits, y))

    def untouched(splits):
        search = CalibratorSearch([TemperatureScaling()], rule="stack", cv=splits)
        return search.fit(logits, y).final_weights_["uncalibrated"]

    share = untouched(once)
    assert share > 0.3
    assert untouched(3 * once) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("levels", [2, 3, 10])
def test_few_distinct_scores_are_searched_as_well_as_by_plain_folds(levels):
    rng = np.random.default_rng(0)
    level = rng.integers(0, levels, 4000)
    score = np.linspace(0.55, 0.95, levels)[level]
    y = (rng.random(4000) < np.linspace(0.2, 0.7, levels)[level]).astype(int)
    X = logits_from_proba(np.column_stack([1 - score, score]))
    losses = []
    for cv in (5, StratifiedKFold(5, shuffle=True, random_state=0)):
        proba = CalibratorSearch(cv=cv).fit(X[:2000], y[:2000]).predict_proba(X[2000:])
        losses.append(log_loss(y[2000:], proba))
    assert losses[0] == pytest.approx(losses[1], abs=0.005)


@pytest.mark.parametrize("kind", [list, dict])
def test_named_candidates_that_learn_by_class_warn_of_absent_ones(kind):
    logits, y = make_logits(200, 4, random_state=0)
    kept = y < 3
    for candidate, n_warnings in ((VectorScaling(), 1), (TemperatureScaling(), 0)):
        search = CalibratorSearch(kind([("named", candidate)]))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", AbsentClassWarning)
            search.fit(logits[kept], y[kept])
        assert [w.category for w in told] == n_warnings * [AbsentClassWarning]


def test_folds_that_judge_a_row_again_are_no_more_evidence(calibration_set):
    logits, y = calibration_set
    folds = list(StratifiedKFold(5).split(logits, y))
    tried = [TemperatureScaling(), IsotonicCalibration()]
    once = CalibratorSearch(tried, cv=folds).fit(logits, y).cv_results_
    often = CalibratorSearch(tried, cv=folds * 3).fit(logits, y).cv_results_
    for column in ("mean_test_score", "standard_error"):
        assert_allclose(often[column], once[column], rtol=1e-6)


def test_a_scorer_without_weights_is_taken_where_none_came(calibration_set):
    def accuracy(estimator, X, y):
        return estimator.score(X, y)

    search = CalibratorSearch([TemperatureScaling()], scoring=accuracy)
    assert search.fit(*calibration_set).best_index_ == 0
    with pytest.raises(TypeError, match="sample_weight"):
        search.fit(*calibration_set, sample_weight=np.arange(len(calibration_set[1])))


def test_a_refit_knows_nothing_of_the_former_choice():
    X, y = make_logits(400, 2, random_state=0)
    z, search = X[:, 1] - X[:, 0], CalibratorSearch([TemperatureScaling()])
    told = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            search.fit(-z, y)
        told.append([str(warning.message) for warning in caught])
    assert told[0] == told[1]


def test_no_name_is_taken_twice(calibration_set):
    one, two, three = TemperatureScaling(), VectorScaling(), IsotonicCalibration()
    pairs = [("a", one), ("a (2)", two), ("a", three)]
    table = compare_calibrators(pairs, *calibration_set, cv=2)
    assert table.names == ["uncalibrated", "a", "a (2)", "a (3)"]
    with pytest.raises(ValueError, match="Give it another name"):
        compare_calibrators({"uncalibrated": one}, *calibration_set)
