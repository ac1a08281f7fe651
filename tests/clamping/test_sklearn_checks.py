"""scikit-learn's checks, on a network that hands its inputs through as logits."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

pytest.importorskip("torch")

from skcalib import NeuralClamping, NeuralClampingCV

pytestmark = [
    pytest.mark.torch,
    # The checks feed few or separable samples, to which no temperature is best.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

THREE_CLASSES = "feeds two features and three classes; the network has two columns"
FLOAT_LABELS = "feeds three features and two classes that are not integers"
FROZEN = "asks for accuracy; the network hands its inputs through and learns nothing"
FOLDS = (
    "repeated rows are dealt to other folds than one row of their weight; with nothing "
    "to choose weights equal repetition, which a test of the estimator shows"
)
EXPECTED = {
    "check_estimators_overwrite_params": THREE_CLASSES,
    "check_estimators_fit_returns_self": THREE_CLASSES,
    "check_readonly_memmap_input": THREE_CLASSES,
    "check_classifiers_classes": THREE_CLASSES,
    "check_classifiers_train": FROZEN,
    "check_estimators_nan_inf": FLOAT_LABELS,
    "check_sample_weight_equivalence_on_dense_data": FOLDS,
}


def identity(x):
    return x


def every_check(estimators):
    mark = parametrize_with_checks(
        estimators, expected_failed_checks=lambda _: EXPECTED
    )
    names, checks = mark.args
    # scikit-learn 1.6 gives a generator, which pytest 9 does not take.
    return pytest.mark.parametrize(names, list(checks), **mark.kwargs)


@every_check([NeuralClamping(identity), NeuralClampingCV(identity)])
def test_an_estimator_passes_every_check_that_its_network_allows(estimator, check):
    check(estimator)
