import numpy as np
import pytest
import sklearn
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneOut,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    train_test_split,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from skcalib import (
    BoostedCalibration,
    CalibratedClassifier,
    DensityRatioCalibration,
    GroupCalibration,
    IsotonicCalibration,
    MultiLabelCalibration,
    ProbabilityFloor,
    TemperatureScaling,
    VectorScaling,
    logits_from_proba,
)
from skcalib.model_selection import CalibratorSearch


@pytest.fixture
def problem():
    return make_classification(
        400, n_classes=3, n_informative=5, flip_y=0.2, random_state=0
    )


def test_one_calibrator_is_fitted_on_the_pooled_out_of_fold_logits(problem):
    X, y = problem
    clf = CalibratedClassifier(LogisticRegression(), VectorScaling()).fit(X, y)
    held_out = cross_val_predict(
        LogisticRegression(), X, y, cv=5, method="decision_function"
    )
    expected = VectorScaling().fit(held_out, y)
    assert_allclose(clf.calibrators_[0].coef_, expected.coef_, rtol=1e-6)
    refitted = LogisticRegression().fit(X, y)
    assert_allclose(clf.estimators_[0].coef_, refitted.coef_)
    assert_allclose(
        clf.predict_proba(X),
        expected.predict_proba(refitted.decision_function(X)),
        atol=1e-6,
    )


def test_over_confident_classifiers_get_a_temperature_above_1(problem):
    X, y = problem
    for estimator in (DecisionTreeClassifier(random_state=0), GaussianNB()):
        clf = CalibratedClassifier(estimator, TemperatureScaling()).fit(X, y)
        # Fitted on its own training data a tree would look perfect: T near 0.
        assert clf.calibrators_[0].calibrator_.temperature_ > 1


def test_a_frozen_classifier_is_never_fitted_again(problem):
    X, y = problem
    fitted = LogisticRegression().fit(X[:200], y[:200])
    coef = fitted.coef_.copy()
    clf = CalibratedClassifier(FrozenEstimator(fitted), VectorScaling())
    clf.fit(X[200:], y[200:])
    assert_array_equal(fitted.coef_, coef)
    expected = VectorScaling().fit(fitted.decision_function(X[200:]), y[200:])
    assert_allclose(clf.calibrators_[0].coef_, expected.coef_)
    assert clf.n_features_in_ == X.shape[1]


def test_a_frozen_classifier_may_know_classes_that_the_data_lack(problem):
    X, y = problem
    names = np.array(["a", "b", "c"])[y]
    frozen = FrozenEstimator(LogisticRegression().fit(X, names))
    some = names != "b"
    clf = CalibratedClassifier(frozen, TemperatureScaling())
    clf.fit(X[some], names[some])
    assert_array_equal(clf.classes_, ["a", "b", "c"])
    assert clf.predict_proba(X).shape == (400, 3)


def test_an_ensemble_averages_the_pairs_of_all_folds(problem):
    X, y = problem
    clf = CalibratedClassifier(LogisticRegression(), ensemble=True, cv=3).fit(X, y)
    assert len(clf.estimators_) == len(clf.calibrators_) == 3
    each = [
        c.predict_proba(e.decision_function(X))
        for e, c in zip(clf.estimators_, clf.calibrators_, strict=True)
    ]
    assert_allclose(clf.predict_proba(X), np.mean(each, axis=0))
    assert_array_equal(clf.predict(X), clf.predict_proba(X).argmax(axis=1))
    assert not hasattr(clf, "decision_function")


@pytest.mark.parametrize("ensemble", [False, True])
def test_parameters_set_after_fit_change_no_prediction(problem, ensemble):
    X, y = problem
    clf = CalibratedClassifier(ensemble=ensemble, cv=2).fit(X, y)
    predicted, score = clf.predict(X), clf.score(X, y)
    clf.set_params(ensemble=not ensemble, calibrator=MultiLabelCalibration())
    assert hasattr(clf, "decision_function") is not ensemble
    assert_array_equal(clf.predict(X), predicted)
    assert clf.score(X, y) == score


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("ensemble", [False, True])
def test_a_class_of_one_sample_is_kept(ensemble):
    X, y = load_iris(return_X_y=True)
    few = np.flatnonzero(y != 2)
    rows = np.append(few, 149)
    clf = CalibratedClassifier(
        LogisticRegression(), VectorScaling(), ensemble=ensemble
    ).fit(X[rows], y[rows])
    proba = clf.predict_proba(X)
    assert_array_equal(clf.classes_, [0, 1, 2])
    assert proba.shape == (150, 3)
    assert_allclose(proba.sum(axis=1), 1)


def test_logits_come_from_the_method_that_is_asked_for(problem):
    X, y = problem
    frozen = FrozenEstimator(GaussianNB().fit(X, y))
    clf = CalibratedClassifier(frozen, method="predict_proba").fit(X, y)
    logits = logits_from_proba(frozen.predict_proba(X))
    expected = ProbabilityFloor().fit(logits, y).predict_proba(logits)
    assert_allclose(clf.predict_proba(X), expected)
    with pytest.raises(ValueError, match="method"):
        CalibratedClassifier(frozen, method="logits").fit(X, y)


def test_a_classifier_of_pairwise_scores_works(problem):
    X, y = problem
    svc = SVC(decision_function_shape="ovr")
    assert CalibratedClassifier(svc, cv=3).fit(X, y).score(X, y) > 0.5


def test_binary_decision_function_is_the_log_odds_of_the_second_class(problem):
    X, y = problem
    labels = np.where(y == 1, "yes", "no")
    clf = CalibratedClassifier().fit(X, labels)
    log_odds = clf.decision_function(X)
    assert log_odds.shape == (400,)
    assert_array_equal(clf.predict(X) == "yes", log_odds > 0)
    isotonic = CalibratedClassifier(calibrator=IsotonicCalibration())
    assert not hasattr(isotonic, "decision_function")


def test_sparse_features_and_dataframes_pass_through(problem):
    pandas = pytest.importorskip("pandas")
    X, y = problem
    expected = CalibratedClassifier().fit(X, y)
    sparse = CalibratedClassifier().fit(csr_array(X), y)
    assert_allclose(sparse.predict_proba(csr_array(X)), expected.predict_proba(X))
    frame = pandas.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    named = CalibratedClassifier().fit(frame, pandas.Series(y))
    assert_array_equal(named.feature_names_in_, frame.columns)
    assert_allclose(named.predict_proba(frame), expected.predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        named.predict_proba(frame[frame.columns[::-1]])


def test_number_of_jobs_changes_nothing(problem):
    X, y = problem
    one = CalibratedClassifier(ensemble=True, cv=2).fit(X, y)
    with parallel_config(backend="threading"):
        two = CalibratedClassifier(ensemble=True, cv=2, n_jobs=2).fit(X, y)
    assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_weights_reach_the_classifier_and_the_calibrator(problem):
    X, y = problem
    weight = np.where(y == 1, 5.0, 1.0)
    weighted = CalibratedClassifier().fit(X, y, sample_weight=weight)
    expected = LogisticRegression().fit(X, y, sample_weight=weight)
    assert_allclose(weighted.estimators_[0].coef_, expected.coef_)
    held_out = cross_val_predict(
        LogisticRegression(), X, y, cv=5, method="decision_function",
        params={"sample_weight": weight},
    )  # fmt: skip
    pooled = TemperatureScaling().fit(held_out, y, weight)
    assert weighted.calibrators_[0].temperature_ == pytest.approx(pooled.temperature_)


def test_bad_weights_are_named_by_their_row(problem):
    X, y = problem
    weight = np.ones(400)
    weight[250] = -1
    with pytest.raises(ValueError, match=r"negative value: -1\.0 in row 250"):
        CalibratedClassifier().fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match=r"negative value: -1\.0 in row 0"):
        CalibratedClassifier().fit(X, y, sample_weight=-np.ones(400))
    with pytest.raises(ValueError, match=r"one class only: 2.*positive weight"):
        CalibratedClassifier().fit(X, y, sample_weight=y == 2)
    with pytest.raises(ValueError, match="zero"):
        CalibratedClassifier().fit(X, y, sample_weight=np.zeros(400))


def test_a_classifier_without_weights_warns_and_the_calibrator_gets_them(problem):
    X, y = problem
    clf = CalibratedClassifier(KNeighborsClassifier(), TemperatureScaling())
    plain = clone(clf).fit(X, y).calibrators_[0].calibrator_.temperature_
    weight = np.where(y == 1, 5.0, 1.0)
    with pytest.warns(UserWarning, match="KNeighborsClassifier has no parameter"):
        clf.fit(X, y, sample_weight=weight)
    assert clf.calibrators_[0].calibrator_.temperature_ != plain


def test_parameters_of_fit_reach_the_steps_of_a_pipeline(problem):
    X, y = problem
    weight = np.where(y == 1, 5.0, 1.0)
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    clf = CalibratedClassifier(pipe, TemperatureScaling())
    clf.fit(X, y, logisticregression__sample_weight=weight)
    expected = pipe.fit(X, y, logisticregression__sample_weight=weight)
    assert_allclose(clf.estimators_[0][-1].coef_, expected[-1].coef_)


@pytest.mark.parametrize("routing", [False, True])
def test_a_frozen_classifier_takes_no_parameter_of_fit(problem, routing):
    X, y = problem
    clf = CalibratedClassifier(FrozenEstimator(GaussianNB().fit(X, y)))
    with (
        sklearn.config_context(enable_metadata_routing=routing),
        pytest.raises(TypeError, match="sample_weights"),
    ):
        clf.fit(X, y, sample_weights=np.ones(400))


def test_groups_reach_the_splitter(problem):
    X, y = problem
    groups = np.arange(400) // 4
    clf = CalibratedClassifier(cv=GroupKFold(4))
    clf.fit(X, y, groups=groups)
    splits = list(GroupKFold(4).split(X, y, groups))
    expected = CalibratedClassifier(cv=splits).fit(X, y)
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("model", [CalibratedClassifier(), CalibratorSearch()])
def test_rows_of_no_group_are_refused_before_any_fit(problem, model):
    X, y = problem
    X = X[:, :3]
    names = np.array([f"g{i // 4}" for i in range(400)], dtype=object)
    numbers = np.arange(400) // 4 * 1.0
    for groups in (names, numbers):
        groups[3] = np.nan
        with pytest.raises(ValueError, match="groups holds nan in row 3"):
            model.fit(X, y, groups=groups)
    names[3] = None
    with pytest.raises(TypeError, match=r"groups holds .* of the types NoneType, str"):
        model.fit(X, y, groups=names)


@pytest.mark.parametrize("ensemble", [False, True])
def test_groups_stay_on_one_side_of_so_many_folds(problem, ensemble):
    X, y = problem
    groups = np.arange(400) // 4
    clf = CalibratedClassifier(cv=4, ensemble=ensemble).fit(X, y, groups=groups)
    splits = list(StratifiedGroupKFold(4).split(X, y, groups))
    expected = CalibratedClassifier(cv=splits, ensemble=ensemble).fit(X, y)
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("routing", [False, True])
def test_groups_that_predictions_would_need_are_refused_before_any_fit(
    problem, routing
):
    X, y = problem
    # A fit of this classifier would raise another error.
    clf = CalibratedClassifier(LogisticRegression(C=-1), GroupCalibration())
    with (
        sklearn.config_context(enable_metadata_routing=routing),
        pytest.raises(ValueError, match="hands no groups to predictions, which Group"),
    ):
        clf.fit(X, y, groups=np.arange(400) % 4)


@pytest.mark.parametrize(
    "calibrator", [GroupCalibration(), BoostedCalibration(), DensityRatioCalibration()]
)
def test_a_calibrator_that_is_no_map_takes_probabilities_too(problem, calibrator):
    X, y = problem
    clf = CalibratedClassifier(GaussianNB(), calibrator).fit(X, y)
    proba = clf.predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert type(clf.calibrators_[0]) is type(calibrator)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_calibrator_that_draws_folds_is_given_the_groups(problem, frozen, routing):
    X, y = problem
    groups = np.arange(400) // 4
    base = LogisticRegression()
    base = FrozenEstimator(base.fit(X[:, ::-1], y)) if frozen else base
    search = CalibratorSearch([TemperatureScaling()])
    clf = CalibratedClassifier(base, search, cv=GroupKFold(4))
    with sklearn.config_context(enable_metadata_routing=routing):
        clf.fit(X, y, groups=groups)
    rows = np.arange(400)
    if not frozen:
        rows = np.concatenate([b for _, b in GroupKFold(4).split(X, y, groups)])
        held_out = cross_val_predict(
            base, X, y, cv=GroupKFold(4), groups=groups, method="decision_function"
        )
    logits = base.decision_function(X) if frozen else held_out[rows]
    expected = clone(search).fit(logits, y[rows], groups=groups[rows])
    assert_array_equal(
        clf.calibrators_[0].cv_results_["mean_test_score"],
        expected.cv_results_["mean_test_score"],
    )


# Two samples seldom have a best temperature.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("cv", [LeaveOneOut(), KFold(30)])
def test_folds_of_one_class_share_the_calibrator_of_all(cv):
    X, y = make_classification(60, flip_y=0.2, random_state=0)
    weight = np.linspace(0, 1, 60)
    clf = CalibratedClassifier(cv=cv, ensemble=True)
    with pytest.warns(UserWarning, match="splits of cv hold out samples of one class"):
        clf.fit(X, y, sample_weight=weight)
    pooled = CalibratedClassifier(cv=cv).fit(X, y, sample_weight=weight)
    shared = [
        calibrator
        for calibrator, (_, test) in zip(clf.calibrators_, cv.split(X, y), strict=True)
        if np.unique(y[test][weight[test] > 0]).size < 2
    ]
    assert shared
    for calibrator in shared:
        assert calibrator.temperature_ == pooled.calibrators_[0].temperature_
    assert_allclose(clf.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("ensemble", [False, True])
def test_splits_by_class_are_refused_by_the_name_of_cv(ensemble):
    X, y = load_iris(return_X_y=True)
    clf = CalibratedClassifier(cv=KFold(3), ensemble=ensemble)
    with pytest.raises(ValueError, match="The splits of cv hold out no samples of two"):
        clf.fit(X, y)


def test_metadata_are_routed_as_requested(problem):
    X, y = problem
    weight = np.where(y == 1, 5.0, 1.0)
    groups = np.arange(400) // 4
    expected = CalibratedClassifier(cv=GroupKFold(4))
    expected.fit(X, y, sample_weight=weight, groups=groups)
    with sklearn.config_context(enable_metadata_routing=True):
        base = LogisticRegression().set_fit_request(sample_weight=True)
        clf = CalibratedClassifier(base, cv=GroupKFold(4))
        clf.fit(X, y, sample_weight=weight, groups=groups)
        clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        search = GridSearchCV(clf, {"ensemble": [False]}, cv=2)
        search.fit(X, y, sample_weight=weight, groups=groups)
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))


def test_groups_of_a_calibrator_are_those_of_an_integer_cv(problem):
    X, y = problem
    groups = np.arange(400) // 4
    search = CalibratorSearch([TemperatureScaling()])
    expected = CalibratedClassifier(calibrator=search).fit(X, y, groups=groups)
    with sklearn.config_context(enable_metadata_routing=True):
        base = LogisticRegression().set_fit_request(sample_weight=False)
        clf = CalibratedClassifier(base, search)
        clf.fit(X, y, groups=groups, sample_weight=np.ones(400))
        with pytest.raises(TypeError, match="groups"):
            CalibratedClassifier().fit(X, y, groups=groups)
        frozen = FrozenEstimator(clf.estimators_[0])
        frozen = CalibratedClassifier(frozen, search).fit(X, y, groups=groups)
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    assert frozen.score(X, y) > 0.5


def test_parameters_of_both_parts_can_be_searched(problem):
    X, y = problem
    grid = {
        "estimator__C": [0.1, 1],
        "calibrator": [TemperatureScaling(), VectorScaling()],
    }
    clf = CalibratedClassifier(LogisticRegression(), TemperatureScaling(), cv=2)
    search = GridSearchCV(clf, grid, scoring="neg_log_loss", cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 4


class UnsortedClassifier(ClassifierMixin, BaseEstimator):
    """Scores in the reverse order of the sorted classes."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)[::-1]
        self._base = LogisticRegression().fit(X, y)
        return self

    def predict_proba(self, X):
        return self._base.predict_proba(X)[:, ::-1]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_calibrator_may_be_frozen_or_a_pipeline(problem, is_frozen):
    X, y = problem
    held_out = cross_val_predict(
        LogisticRegression(), X, y, cv=5, method="decision_function"
    )
    expected = TemperatureScaling().fit(held_out, y)
    frozen, step = FrozenEstimator(expected), FunctionTransformer()
    calibrator = frozen if is_frozen else make_pipeline(step, TemperatureScaling())
    clf = CalibratedClassifier(LogisticRegression(), calibrator).fit(X, y)
    logits = clf.estimators_[0].decision_function(X)
    assert_allclose(clf.predict_proba(X), expected.predict_proba(logits), rtol=1e-6)


def test_a_frozen_calibrator_of_other_labels_is_refused(problem):
    X, y = problem
    frozen = FrozenEstimator(TemperatureScaling().fit(np.eye(3)[y], y))
    with pytest.raises(ValueError, match=r"fitted for the classes \[0, 1, 2\]"):
        CalibratedClassifier(GaussianNB(), frozen).fit(X, np.array(list("abc"))[y])


def test_a_search_for_a_calibrator_by_accuracy_is_refused(problem):
    grid = {"objective": ["focal"], "gamma": [8.0, 0.5]}
    search = GridSearchCV(TemperatureScaling(), grid)
    with pytest.raises(ValueError, match="without scoring compares accuracy"):
        CalibratedClassifier(GaussianNB(), search).fit(*problem)
    search.set_params(scoring="neg_log_loss")
    clf = CalibratedClassifier(GaussianNB(), search).fit(*problem)
    assert clf.calibrators_[0].best_params_["gamma"] == 0.5


def test_columns_follow_classes_whatever_the_order_of_the_classifier(problem):
    X, y = problem
    clf = CalibratedClassifier(UnsortedClassifier()).fit(X, y)
    plain = CalibratedClassifier(method="predict_proba").fit(X, y)
    assert_allclose(clf.predict_proba(X), plain.predict_proba(X), atol=1e-6)
    assert clf.score(X, y) > 0.6


def test_repeated_splits_are_pooled(problem):
    X, y = problem
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    splits = [*folds.split(X, y)] * 2
    # A prior weighs half as much beside twice the samples.
    plain = TemperatureScaling(prior=None)
    twice = CalibratedClassifier(calibrator=plain, cv=splits).fit(X, y)
    once = CalibratedClassifier(calibrator=plain, cv=splits[:3]).fit(X, y)
    assert_allclose(
        twice.calibrators_[0].temperature_, once.calibrators_[0].temperature_
    )


def test_a_user_mistake_is_named(problem):
    X, y = problem
    with pytest.raises(ValueError, match="one class"):
        CalibratedClassifier().fit(X, np.zeros(400))
    with pytest.raises(ValueError, match="inconsistent"):
        CalibratedClassifier().fit(X, y[:-1])
    with pytest.raises(ValueError, match="'cv' parameter"):
        CalibratedClassifier(cv="prefit").fit(X, y)


def test_a_refit_forgets_what_an_earlier_classifier_told(problem):
    X, y = problem
    silent = FrozenEstimator(GaussianNB().fit(X, y))
    frame = pytest.importorskip("pandas").DataFrame(X).add_prefix("x")
    clf = CalibratedClassifier(GaussianNB()).fit(frame, y)
    assert clf.feature_names_in_[0] == "x0"
    clf.set_params(estimator=silent).fit(X, y)
    assert not hasattr(clf, "feature_names_in_")


def test_logarithms_are_taken_where_the_classifier_has_them():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    losses = [
        log_loss(
            y_test,
            CalibratedClassifier(GaussianNB(), method=method)
            .fit(X, y)
            .predict_proba(X_test),
        )
        for method in ("auto", "predict_proba")
    ]
    # Naive Bayes rounds most of its probabilities to 0, all of them alike at 1e-12.
    assert losses[0] < losses[1] - 0.02


@pytest.mark.slow
def test_the_floor_of_a_forest_is_learned_and_in_the_map():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, _ = train_test_split(X, y, random_state=0)
    forest = RandomForestClassifier(50, random_state=0)
    clf = CalibratedClassifier(forest).fit(X, y)
    (calibrator,) = clf.calibrators_
    assert calibrator.floor_ >= 1e-3
    served = calibrator.predict_proba(
        logits_from_proba(clf.estimators_[0].predict_proba(X_test))
    )
    assert_allclose(clf.predict_proba(X_test), served, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("ensemble", [False, True])
def test_what_a_search_of_scikit_learn_chooses_has_the_floor_too(n_classes, ensemble):
    X, y = load_digits(return_X_y=True)
    y = y % n_classes
    forest = RandomForestClassifier(20, random_state=0)
    grid, prior = {"prior": [8.0]}, TemperatureScaling(prior=8.0)
    search = GridSearchCV(TemperatureScaling(), grid, scoring="neg_log_loss", cv=2)
    weight = np.arange(len(y)) % 3 + 1.0
    found, expected = (
        CalibratedClassifier(forest, calibrator, ensemble=ensemble, cv=3).fit(
            X, y, sample_weight=weight
        )
        for calibrator in (search, prior)
    )
    assert isinstance(found.calibrators_[0].best_estimator_, ProbabilityFloor)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-6)


def test_scores_that_are_no_probabilities_have_no_floor(problem):
    X, y = problem
    clf = CalibratedClassifier(LogisticRegression()).fit(X, y)
    assert isinstance(clf.calibrators_[0], TemperatureScaling)
