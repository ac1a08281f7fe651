import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, make_scorer
from sklearn.metrics import get_scorer as get_sklearn_scorer
from sklearn.metrics import get_scorer_names as sklearn_names
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skcalib import DenseCalibration, OptionCalibration
from skcalib import metrics as m
from skcalib.exceptions import OneColumnWarning
from skcalib.metrics._registry import METRICS
from skcalib.metrics._scorers import is_log_loss

FUNCTIONS = {
    f"neg_{metric.function.__name__}": metric.function
    for metric in METRICS.values()
    if metric.function is not None
}


@pytest.fixture(params=[2, 3])
def problem(request):
    return make_classification(
        300,
        n_informative=4,
        n_classes=request.param,
        n_clusters_per_class=1,
        random_state=0,
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_score_is_minus_the_metric(problem, name):
    X, y = problem
    classifier = GaussianNB().fit(X, y)
    weight = np.random.default_rng(0).random(300)
    scorer = m.get_scorer(name)
    proba = classifier.predict_proba(X)
    if proba.shape[1] == 2:  # Scorers are given the second class alone.
        proba = proba[:, 1]
    expected = -FUNCTIONS[name](y, proba)
    assert scorer(classifier, X, y) == pytest.approx(expected, rel=1e-9)
    weighted = -FUNCTIONS[name](y, proba, sample_weight=weight)
    score = scorer(classifier, X, y, sample_weight=weight)
    assert score == pytest.approx(weighted, rel=1e-9)


@pytest.mark.parametrize(
    ("scorer", "name"),
    [
        (m.ece_scorer, "neg_expected_calibration_error"),
        (m.aece_scorer, "neg_adaptive_expected_calibration_error"),
        (m.sce_scorer, "neg_static_calibration_error"),
        (m.entropy_scorer, "predictive_entropy"),
    ],
)
def test_the_named_scorers_are_those_of_get_scorer(problem, scorer, name):
    X, y = problem
    classifier = GaussianNB().fit(X, y)
    assert scorer(classifier, X, y) == m.get_scorer(name)(classifier, X, y)


def test_entropy_is_scored_in_both_directions(problem):
    X, y = problem
    sure = GaussianNB().fit(X, y)
    unsure = GaussianNB(var_smoothing=10).fit(X, y)
    more, less = (
        m.get_scorer(prefix + "predictive_entropy") for prefix in ("", "neg_")
    )
    entropy = m.predictive_entropy(None, unsure.predict_proba(X))
    assert more(unsure, X, y) == pytest.approx(entropy, rel=1e-9)
    assert less(unsure, X, y) == -more(unsure, X, y)
    assert more(unsure, X, y) > more(sure, X, y)
    grid = {"var_smoothing": [1e-9, 10]}
    search = GridSearchCV(GaussianNB(), grid, scoring=m.entropy_scorer).fit(X, y)
    assert search.best_params_ == {"var_smoothing": 10}
    assert repr(more) == "CalibrationScorer(predictive_entropy, sign=1)"
    assert repr(less) == "CalibrationScorer(predictive_entropy)"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_named_classes_score_like_numbers(name):
    X, y = make_classification(200, random_state=0)
    words = np.array(["ok", "fraud"])[y]  # In the other order.
    scorer = m.get_scorer(name)
    score = scorer(LogisticRegression().fit(X, words), X, words)
    expected = scorer(LogisticRegression().fit(X, y), X, y)
    assert score == pytest.approx(expected, rel=1e-6)


def test_scorers_do_not_mistake_probabilities_for_confidences():
    # Two classes of other frequencies than in training: off in one direction.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 1))
    y = (rng.random(4000) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
    kept = (y == 0) | (rng.random(4000) < 0.5)
    classifier = LogisticRegression().fit(X[kept], y[kept])
    with pytest.warns(OneColumnWarning):
        m.expected_calibration_error(y, classifier.predict_proba(X)[:, 1])
    assert m.ece_scorer(classifier, X, y) < 0


def test_a_fold_that_lacks_a_class_scores():
    X, y = make_classification(
        300, n_informative=4, n_classes=3, n_clusters_per_class=1, random_state=0
    )
    names = np.array(["a", "b", "c"])[y]
    order = np.argsort(y != 2, kind="stable")  # All of class 2 comes first.
    folds = KFold(4).split(X)
    scores = cross_val_score(
        GaussianNB(), X[order], names[order], scoring=m.ece_scorer, cv=list(folds)[1:]
    )
    assert np.isfinite(scores).all()


def test_cross_validation_and_grid_search_take_scorers_in_a_pipeline(problem):
    X, y = problem
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    search = GridSearchCV(
        pipe, {"logisticregression__C": [1e-3, 1.0]}, scoring=m.ece_scorer, cv=3
    ).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert (scores < 0).all()
    assert search.best_index_ == scores.argmax()
    assert search.score(X, y) < 0


def test_several_metrics_share_one_prediction(problem):
    X, y = problem

    class Counting(GaussianNB):
        calls = 0

        def predict_proba(self, X):
            type(self).calls += 1
            return super().predict_proba(X)

    scoring = {"ece": m.ece_scorer, "sce": m.sce_scorer, "ks": m.entropy_scorer}
    result = cross_validate(Counting(), X, y, scoring=scoring, cv=2)
    assert Counting.calls == 2
    for name, scorer in scoring.items():
        alone = cross_val_score(GaussianNB(), X, y, scoring=scorer, cv=2)
        assert result[f"test_{name}"] == pytest.approx(alone)


def test_a_scorer_beside_one_for_the_first_class_sees_the_right_column():
    X, y = make_classification(300, random_state=0)
    brier = make_scorer(brier_score_loss, response_method="predict_proba", pos_label=0)
    result = cross_validate(
        GaussianNB(), X, y, scoring={"brier": brier, "ece": m.ece_scorer}, cv=2
    )
    alone = cross_val_score(GaussianNB(), X, y, scoring=m.ece_scorer, cv=2)
    assert result["test_ece"] == pytest.approx(alone)


def test_weights_are_routed(problem):
    X, y = problem
    weight = np.random.default_rng(0).random(300)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = m.get_scorer("neg_expected_calibration_error")
        scorer = scorer.set_score_request(sample_weight=True)
        classifier = GaussianNB().set_fit_request(sample_weight=False)
        params = {"sample_weight": weight}
        routed = cross_val_score(
            classifier, X, y, scoring=scorer, cv=KFold(2), params=params
        )
    halves = [
        (np.arange(150, 300), np.arange(150)),
        (np.arange(150), np.arange(150, 300)),
    ]
    for score, (train, test) in zip(routed, halves, strict=True):
        proba = GaussianNB().fit(X[train], y[train]).predict_proba(X[test])
        expected = -m.expected_calibration_error(
            y[test], proba, sample_weight=weight[test]
        )
        assert score == pytest.approx(expected)


def test_asking_for_weights_leaves_the_shared_scorer_alone():
    with sklearn.config_context(enable_metadata_routing=True):
        name = "neg_expected_calibration_error"
        m.get_scorer(name).set_score_request(sample_weight=True)
        again = m.get_scorer(name).get_metadata_routing()
    assert again.score.requests.get("sample_weight") is None


def test_scorers_survive_pickle(problem):
    X, y = problem
    classifier = GaussianNB().fit(X, y)
    scorer = pickle.loads(pickle.dumps(m.ece_scorer))  # noqa: S301
    assert scorer(classifier, X, y) == m.ece_scorer(classifier, X, y)
    assert repr(scorer) == "CalibrationScorer(expected_calibration_error)"


def test_get_scorer_knows_the_names_of_scikit_learn():
    names = m.get_scorer_names()
    assert set(sklearn_names()) < set(names)
    assert set(FUNCTIONS) < set(names)
    assert names == sorted(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Some old names are deprecated.
        for name in names:
            assert callable(m.get_scorer(name))


def test_get_scorer_passes_callables_and_none_through():
    assert m.get_scorer(m.ece_scorer) is m.ece_scorer
    assert m.get_scorer(None) is None


@pytest.mark.parametrize(
    ("scoring", "is_one"),
    [
        ("neg_log_loss", True),
        (m.get_scorer("neg_log_loss"), True),
        (clone(get_sklearn_scorer("neg_log_loss"), safe=False), True),
        ("neg_brier_score", False),
        (m.get_scorer("neg_log_loss", multilabel=True), False),
        (make_scorer(log_loss, response_method="predict_proba"), False),
        (make_scorer(log_loss, greater_is_better=False), False),
        (lambda estimator, X, y: 0.0, False),
    ],
)
def test_the_log_loss_is_known_by_its_name_and_as_a_scorer(scoring, is_one):
    assert is_log_loss(scoring) == is_one


def test_get_scorer_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"'ece' is not the name .*get_scorer_names"):
        m.get_scorer("ece")


def test_an_estimator_without_probabilities_is_refused():
    X, y = make_classification(60, random_state=0)
    from sklearn.svm import LinearSVC

    with pytest.raises(AttributeError, match="predict_proba"):
        m.ece_scorer(LinearSVC().fit(X, y), X, y)


def test_masked_options_score_as_lists_do():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=n) for n in rng.integers(2, 4, 60)]
    y = [row.argmax() for row in rows]
    masked = np.ma.masked_equal([np.append(row, [9.0] * 2)[:3] for row in rows], 9.0)
    of_lists, of_mask = (
        m.ece_scorer(OptionCalibration().fit(X, y), X, y) for X in (rows, masked)
    )
    assert of_mask == pytest.approx(of_lists)


@pytest.mark.parametrize(
    "around",
    [
        lambda dense: make_pipeline(FunctionTransformer(), dense),
        lambda dense: GridSearchCV(dense, {"calibrator": [None]}, cv=2),
    ],
)
def test_pixels_are_scored_in_a_pipeline_and_a_search(around):
    X = np.random.default_rng(0).normal(size=(40, 3, 4, 4))
    y = X.argmax(axis=1)
    plain, inside = (
        cross_val_score(estimator, X, y, scoring=m.ece_scorer, cv=3)
        for estimator in (DenseCalibration(), around(DenseCalibration()))
    )
    assert inside == pytest.approx(plain)
    assert np.isfinite(plain).all()


def test_weights_of_images_count_for_their_pixels():
    X = np.random.default_rng(0).normal(size=(40, 3, 4, 4))
    y = X[:, :, ::-1].argmax(axis=1)
    dense = DenseCalibration(ignore_index=0).fit(X, y)
    twice = np.repeat(np.arange(40), np.arange(40) % 3)
    weighted = m.ece_scorer(dense, X, y, sample_weight=np.arange(40) % 3)
    assert weighted == pytest.approx(m.ece_scorer(dense, X[twice], y[twice]))
