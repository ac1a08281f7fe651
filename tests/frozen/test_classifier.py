"""ClassifierLogits reads the scores of a fitted classifier."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from skcalib.calibrators import TemperatureScaling
from skcalib.frozen import ClassifierLogits


@pytest.fixture(params=[2, 4])
def sample(request):
    return make_classification(
        300, n_informative=6, n_classes=request.param, random_state=0
    )


@pytest.mark.parametrize("method", ["auto", "decision_function"])
def test_the_decision_function_is_taken_as_it_is(sample, method):
    X, y = sample
    classifier = LogisticRegression().fit(X, y)
    logits = ClassifierLogits(classifier, method=method).fit_transform(X)
    expected = classifier.decision_function(X)
    assert_allclose(logits, expected.reshape(len(X), -1))
    assert logits.shape[1] == (1 if y.max() == 1 else 4)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_what_was_never_fitted_returns_frames_too(sample, library):
    pytest.importorskip(library)
    X, y = sample
    frozen = ClassifierLogits(LogisticRegression().fit(X, y))
    expected = frozen.transform(X)
    is_one = expected.shape[1] == 1
    names = ["classifierlogits0"] if is_one else ["0", "1", "2", "3"]
    set_ = clone(frozen).set_output(transform=library)
    for one in (set_, clone(set_)):
        frame = one.transform(X)
        assert list(frame.columns) == names
        assert_allclose(frame.to_numpy(), expected)
    with config_context(transform_output=library):
        assert list(clone(frozen).transform(X).columns) == names


@pytest.mark.parametrize(
    ("classifier", "method"),
    [(GaussianNB(), "auto"), (LogisticRegression(), "predict_proba")],
)
def test_else_the_logarithm_of_the_probabilities(sample, classifier, method):
    X, y = sample
    classifier.fit(X, y)
    logits = ClassifierLogits(classifier, method=method).fit_transform(X)
    assert_allclose(np.exp(logits), classifier.predict_proba(X), atol=1e-11)


def test_probabilities_of_zero_are_raised_to_the_floor(sample):
    X, y = sample
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    logits = ClassifierLogits(forest).fit_transform(X)
    assert logits.min() == np.log(1e-12)


def test_pairwise_decisions_are_no_logits(sample):
    X, y = sample
    if y.max() == 1:
        pytest.skip("two classes have one pair")
    classifier = SVC(decision_function_shape="ovo").fit(X, y)
    with pytest.raises(ValueError, match="6 columns for the pairs of 4 classes"):
        ClassifierLogits(classifier, method="decision_function").fit(X)
    with pytest.raises(ValueError, match="6 columns for the pairs of 4 classes"):
        ClassifierLogits(classifier).fit(X)


@pytest.mark.parametrize("method", ["auto", "decision_function"])
def test_three_pairwise_decisions_are_no_logits_of_three_classes(method):
    X, y = make_classification(90, n_informative=6, n_classes=3, random_state=0)
    shape = {"decision_function_shape": ["ovo"]}
    svc = SVC(decision_function_shape="ovo").fit(X, y)
    pipeline = make_pipeline(svc)
    search = GridSearchCV(SVC(), shape, cv=2).fit(X, y)
    for classifier in (svc, pipeline, FrozenEstimator(pipeline), search):
        with pytest.raises(ValueError, match="3 columns for the pairs of 3 classes"):
            ClassifierLogits(classifier, method=method).transform(X)


def test_a_clone_shares_the_classifier_and_fit_leaves_it_alone(sample):
    X, y = sample
    classifier = RidgeClassifier().fit(X, y)
    coef = classifier.coef_
    pipe = make_pipeline(ClassifierLogits(classifier), TemperatureScaling())
    pipe = clone(pipe).fit(X, y)
    assert pipe[0].estimator is classifier
    assert classifier.coef_ is coef


def test_what_is_no_fitted_classifier_is_refused(sample):
    X, y = sample
    with pytest.raises(NotFittedError):
        ClassifierLogits(LogisticRegression()).fit(X)
    with pytest.raises(ValueError, match="'estimator' parameter"):
        ClassifierLogits(LinearRegression().fit(X, y)).fit(X)


def test_columns_and_features_have_names(sample):
    pd = pytest.importorskip("pandas")
    X, y = sample
    frame = pd.DataFrame(X).add_prefix("f")
    frozen = ClassifierLogits(GaussianNB().fit(frame, y)).fit(frame)
    assert frozen.feature_names_in_.tolist() == list(frame.columns)
    names = frozen.get_feature_names_out()
    assert names.tolist() == [str(k) for k in range(y.max() + 1)]


def test_names_go_when_the_classifier_is_fitted_anew_without_any(sample):
    pd = pytest.importorskip("pandas")
    X, y = sample
    frame = pd.DataFrame(X).add_prefix("f")
    classifier = GaussianNB().fit(frame, y)
    frozen = ClassifierLogits(classifier).fit(frame)
    classifier.fit(X, y)
    assert not hasattr(frozen.fit(X), "feature_names_in_")
    assert frozen.n_features_in_ == X.shape[1]


def test_another_method_gives_columns_of_its_own(sample):
    pytest.importorskip("pandas")
    X, y = sample
    frozen = ClassifierLogits(LogisticRegression().fit(X, y))
    frozen.set_output(transform="pandas").fit(X)
    frozen.set_params(method="predict_proba")
    assert frozen.transform(X).shape == (300, y.max() + 1)


def without_the_last_class(names=(0, 2, 3)):
    """A classifier, its classes, and rows and labels that lack the last one."""
    X, y = make_classification(300, n_informative=6, n_classes=3, random_state=0)
    labels = np.array(names)[y]
    classifier = LogisticRegression().fit(X, labels)
    return classifier, X[y < 2], labels[y < 2]


@pytest.mark.parametrize("names", [(0, 2, 3), (1, 2, 3)])
def test_a_class_that_the_labels_lack_is_told_where_columns_would_shift(names):
    classifier, X, y = without_the_last_class(names)
    with pytest.warns(UserWarning, match=r"y lacks \[3\].* takes them for \[0, 1, 2\]"):
        ClassifierLogits(classifier).fit(X, y)
    pytest.importorskip("pandas")
    frame = ClassifierLogits(classifier).set_output(transform="pandas")
    told = TemperatureScaling(classes=classifier.classes_)
    pipe = make_pipeline(frame, told).fit(X, y)
    assert pipe.predict(X).tolist() == classifier.predict(X).tolist()


@pytest.mark.parametrize("names", [(0, 1, 2), ("a", "c", "d")])
def test_a_class_that_the_labels_lack_moves_no_column(names):
    pytest.importorskip("pandas")
    classifier, X, y = without_the_last_class(names)
    frame = ClassifierLogits(classifier).set_output(transform="pandas")
    for frozen in (frame, ClassifierLogits(classifier)):
        frozen.fit(X, y)  # It warns of nothing, and frames tell their classes.
    pipe = make_pipeline(frame, TemperatureScaling()).fit(X, y)
    assert pipe.classes_.tolist() == list(names)


class InBfloat16(GaussianNB):
    """Returns probabilities as a network in half precision does."""

    def predict_proba(self, X):
        torch = pytest.importorskip("torch")
        return torch.from_numpy(super().predict_proba(X)).bfloat16()


@pytest.mark.torch
def test_probabilities_of_bfloat16_are_no_further_off_than_it_rounds(sample):
    X, y = sample
    pytest.importorskip("torch")
    classifier = InBfloat16().fit(X, y)
    frozen = ClassifierLogits(classifier, method="predict_proba")
    proba = np.exp(np.asarray(frozen.fit_transform(X)))
    assert_allclose(proba.sum(axis=1), 1, atol=1e-3)
    assert_allclose(proba, GaussianNB().fit(X, y).predict_proba(X), atol=0.01)
