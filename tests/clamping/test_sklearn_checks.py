"""scikit-learn's checks, on a network that hands its inputs through as logits."""

import pytest
from sklearn_checks import (
    FIXED_COLUMNS,
    NO_LOGITS,
    UNEQUAL,
    Failure,
    every_check,
    run_check,
)

pytest.importorskip("torch")

from skcalib import NeuralClamping, NeuralClampingCV

pytestmark = [
    pytest.mark.torch,
    # The checks feed few or separable samples, to which no temperature is best.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

FOLDS = Failure(
    "repeated rows are dealt to other folds than one row of their weight; with nothing "
    "to choose weights equal repetition, which a test of the estimator shows",
    UNEQUAL,
)
EXPECTED = {
    **FIXED_COLUMNS,
    "check_classifiers_train": NO_LOGITS,
    "check_sample_weight_equivalence_on_dense_data": FOLDS,
}


def identity(x):
    return x


@pytest.mark.slow
@every_check([NeuralClamping(identity), NeuralClampingCV(identity)])
def test_an_estimator_passes_every_check_that_its_network_allows(estimator, check):
    run_check(estimator, check, EXPECTED)
