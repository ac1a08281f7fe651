"""scikit-learn's checks and skcalib's own, on every estimator."""

from functools import partial

import pytest
from every_calibrator import CALIBRATORS, OTHER_FITS, VARIANTS, identify
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn_checks import (
    FIXED_COLUMNS,
    NO_LOGITS,
    Failure,
    every_check,
    run_check,
)

from skcalib import (
    BetaCalibration,
    BoostedCalibration,
    CalibratedClassifier,
    DenseCalibration,
    EnsembleTemperatureScaling,
    GroupCalibration,
    IsotonicCalibration,
    OptionCalibration,
    OrderPreservingScaling,
    PlattScaling,
    PriorShift,
    ProbabilityFloor,
    TemperatureScaling,
    VennAbersCalibration,
)
from skcalib.model_selection import CalibratorSearch
from skcalib.testing import (
    _checks_fit,
    _checks_labels,
    _checks_output,
    check_calibrator,
)

# scikit-learn's checks feed few or separable samples, to which no temperature is best,
# classes with fewer members than there are folds, and more columns than classes.
pytestmark = [
    pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:The least populated class"),
    pytest.mark.filterwarnings("ignore:.*partial_fit begins anew"),
]

METHODS = [
    *CALIBRATORS,
    CalibratorSearch([TemperatureScaling(), PlattScaling()], cv=2),
    PriorShift(n_bootstrap=0),
    DenseCalibration(),
    OptionCalibration(),
    GroupCalibration(),
    BoostedCalibration(),
]

# One of each way to be wrapped; those of one room are wrapped alike. The first has as
# many folds as by default.
WRAPPED = [
    TemperatureScaling(),
    IsotonicCalibration(),
    CalibratorSearch([TemperatureScaling(), PlattScaling()], cv=2),
    PriorShift(n_bootstrap=0),
    GroupCalibration(),
    BoostedCalibration(),
]

# They feed formats of features that a calibrator never sees: the classifier is given
# them, and hands on its scores. Once is enough.
OF_FEATURES = {
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_sample_weight_equivalence_on_sparse_data",
}

# Of `check_calibrator`, for ways to fit that it is not asked about; its others take
# most of its time.
CHECKS_OF_FITS = [
    _checks_fit.check_weights_equal_repetition,
    _checks_fit.check_zero_weights_equal_removal,
    _checks_fit.check_order_of_rows,
    _checks_labels.check_order_of_classes,
    _checks_labels.check_fewer_samples_than_classes,
    _checks_output.check_float32,
    _checks_output.check_row_alone,
    _checks_output.check_binary_layouts,
]

# Increasing curves, and a temperature.
KEEP_THE_ORDER = (
    TemperatureScaling,
    EnsembleTemperatureScaling,
    ProbabilityFloor,
    DenseCalibration,
    OptionCalibration,
    OrderPreservingScaling,
    BetaCalibration,
    IsotonicCalibration,
    VennAbersCalibration,
)
ONE_DIMENSION = Failure(
    "asks for the advice to reshape; one axis is a column of log-odds, refused as such",
    "Reshape your data\nGot X has 1 features",
)
CLASSES_OF_PARTS = Failure(
    "names two or three classes for another number of columns",
    r"classes has shape \([23],\) but X has [24] columns",
)


def expected_of(calibrator):
    expected = {**FIXED_COLUMNS, "check_fit2d_predict1d": ONE_DIMENSION}
    if isinstance(calibrator, KEEP_THE_ORDER):
        expected["check_classifiers_train"] = NO_LOGITS
    if hasattr(calibrator, "partial_fit"):
        expected["check_estimators_partial_fit_n_features"] = CLASSES_OF_PARTS
        expected["check_n_features_in_after_fitting"] = CLASSES_OF_PARTS
    return expected


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", [*METHODS, *VARIANTS], ids=identify)
def test_a_calibrator_keeps_the_contract(calibrator):
    check_calibrator(calibrator)


@pytest.mark.parametrize("check", CHECKS_OF_FITS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("calibrator", OTHER_FITS, ids=identify)
def test_a_fit_minds_weights_order_layout_and_few_samples(calibrator, check):
    check(calibrator)


@pytest.mark.parametrize(
    "calibrator", [*CALIBRATORS, *VARIANTS, *OTHER_FITS], ids=identify
)
def test_two_samples_are_enough(calibrator):
    fitted = clone(calibrator).fit([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]], [0, 1])
    proba = fitted.predict_proba([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.slow
@every_check(METHODS)
def test_a_calibrator_passes_every_check_that_its_columns_allow(estimator, check):
    run_check(estimator, check, expected_of(estimator))


@pytest.mark.slow
@every_check(
    [
        CalibratedClassifier(LogisticRegression(), m, cv=None if m is WRAPPED[0] else 2)
        for m in WRAPPED
    ],
    is_asked=lambda estimator, name: estimator.cv is None or name not in OF_FEATURES,
)
def test_a_calibrated_classifier_passes_every_check(estimator, check):
    check(estimator)


def check_that(estimator, error=None):
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("check", "outcome", "message"),
    [
        (partial(check_that, error=ValueError("a fault")), ValueError, "a fault"),
        (partial(check_that), pytest.fail.Exception, "passes, though it is expected"),
        (partial(check_that, error=ValueError("sign")), pytest.xfail.Exception, "why"),
    ],
)
def test_an_expected_failure_has_the_symptom_of_its_reason(check, outcome, message):
    with pytest.raises(outcome, match=message):
        run_check(None, check, {"check_that": Failure("why", "ValueError: sign")})
