import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, make_scorer
from sklearn.metrics import get_scorer_names as sklearn_names
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcalib import metrics as m

FUNCTIONS = {
    "neg_expected_calibration_error": m.expected_calibration_error,
    "neg_adaptive_expected_calibration_error": m.adaptive_expected_calibration_error,
    "neg_static_calibration_error": m.static_calibration_error,
    "neg_maximum_calibration_error": m.maximum_calibration_error,
    "neg_root_mean_squared_calibration_error": m.root_mean_squared_calibration_error,
    "neg_ks_calibration_error": m.ks_calibration_error,
    "neg_smooth_calibration_error": m.smooth_calibration_error,
    "neg_predictive_entropy": m.predictive_entropy,
    "neg_sweep_calibration_error": m.sweep_calibration_error,
    "neg_overconfidence_error": m.overconfidence_error,
    "neg_underconfidence_error": m.underconfidence_error,
    "neg_top_label_calibration_error": m.top_label_calibration_error,
    "neg_kde_calibration_error": m.kde_calibration_error,
    "neg_squared_kernel_calibration_error": m.squared_kernel_calibration_error,
    "neg_calibration_loss": m.calibration_loss,
    "neg_refinement_loss": m.refinement_loss,
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
    if proba.shape[1] == 2:  # Scorers pass the second class alone.
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
        (m.entropy_scorer, "neg_predictive_entropy"),
    ],
)
def test_the_named_scorers_are_those_of_get_scorer(problem, scorer, name):
    X, y = problem
    classifier = GaussianNB().fit(X, y)
    assert scorer(classifier, X, y) == m.get_scorer(name)(classifier, X, y)


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


def test_get_scorer_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"'ece' is not the name .*get_scorer_names"):
        m.get_scorer("ece")


def test_an_estimator_without_probabilities_is_refused():
    X, y = make_classification(60, random_state=0)
    from sklearn.svm import LinearSVC

    with pytest.raises(AttributeError, match="predict_proba"):
        m.ece_scorer(LinearSVC().fit(X, y), X, y)
