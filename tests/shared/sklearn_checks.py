"""scikit-learn's checks, with the reason and the symptom of each expected failure."""

import re
import traceback
from typing import NamedTuple

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks


class Failure(NamedTuple):
    """Why a check fails, and a pattern of the traceback that only this reason leaves.

    Single precision misses a tolerance or meets it by chance: then `always` is false.
    """

    reason: str
    symptom: str
    always: bool = True


THREE_CLASSES = Failure(
    "feeds two features and three classes; there must be a column for each class",
    "X has 2 columns but y has 3 classes",
)
FLOAT_LABELS = Failure(
    "feeds three features and two classes that are not integers",
    "X has 3 columns but y has 2 classes",
)
NO_LOGITS = Failure(
    "asks for an accuracy; the features are no logits, the larger mostly means the "
    "other class, and a map that keeps the order does not learn to swap them",
    r"assert accuracy_score\(y, y_pred\) > 0\.83",
)
UNEQUAL = r"Not equal to tolerance rtol=1e-07(.|\n)* is not equivalent to fitting with"

# What scikit-learn feeds to an estimator whose number of columns is given.
FIXED_COLUMNS = {
    "check_estimators_overwrite_params": THREE_CLASSES,
    "check_estimators_fit_returns_self": THREE_CLASSES,
    "check_readonly_memmap_input": THREE_CLASSES,
    "check_classifiers_classes": THREE_CLASSES,
    "check_classifiers_train": THREE_CLASSES,
    "check_estimators_nan_inf": FLOAT_LABELS,
}


def every_check(estimators, is_asked=lambda estimator, name: True):
    """Parametrize a test with "estimator" and "check", those that are asked."""
    mark = parametrize_with_checks(estimators)
    names, checks = mark.args
    # scikit-learn 1.6 gives a generator, which pytest 9 does not take.
    checks = [pair for pair in checks if is_asked(pair[0], pair[1].func.__name__)]
    return pytest.mark.parametrize(names, checks, **mark.kwargs)


def run_check(estimator, check, expected):
    """Run a check; one that is expected to fail must, for the reason given."""
    failure = expected.get(check.func.__name__)
    if failure is None:
        check(estimator)
        return
    try:
        check(estimator)
    except Exception as error:
        if not re.search(failure.symptom, "".join(traceback.format_exception(error))):
            raise
    else:
        if failure.always:
            pytest.fail(f"passes, though it is expected to fail: {failure.reason}")
        return
    # Outside: pytest would read the sources of all that the error passed, to show it.
    pytest.xfail(failure.reason)
