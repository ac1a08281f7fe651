"""scikit-learn's checks on the estimators that train networks."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

pytest.importorskip("torch")
pytest.importorskip("skorch")

from skcalib.training import (
    BilevelCalibratedClassifier,
    CLUEClassifier,
    CLUERegressor,
)

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

RANDOM = "fewer rows draw other masks and batches; the loss itself is compared exactly"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": RANDOM,
}
# They compare to 1e-7, which single precision meets or misses by chance;
# test_clue_estimators compares to 1e-5.
TOO_EXACT = {"check_methods_sample_order_invariance", "check_methods_subset_invariance"}
SMALL = {"hidden_layer_sizes": (20,), "n_passes": 2, "n_predict_passes": 10}
QUICK = {"max_epochs": 15, "lr": 0.05}


def every_check(estimators, expected):
    mark = parametrize_with_checks(estimators, expected_failed_checks=expected)
    names, checks = mark.args
    kept = [case for case in checks if check_name(case) not in TOO_EXACT]
    return pytest.mark.parametrize(names, kept, **mark.kwargs)


def check_name(case):
    _, check = getattr(case, "values", case)
    return check.func.__name__


@every_check(
    [
        CLUEClassifier(**SMALL, **QUICK),
        CLUERegressor(**SMALL, **QUICK),
        BilevelCalibratedClassifier(hidden_layer_sizes=(20,), cv=2, **QUICK),
    ],
    lambda estimator: EXPECTED,
)
def test_an_estimator_passes_every_check(estimator, check):
    check(estimator)
