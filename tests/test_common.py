"""scikit-learn's checks and skcalib's own, on every estimator."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from skcalib import (
    BayesianBinning,
    BetaCalibration,
    CalibratedClassifier,
    DensityRatioCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    ScalingBinning,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.model_selection import CalibratorSearch
from skcalib.testing import check_calibrator

# scikit-learn's checks feed few or separable samples, to which no temperature is best,
# and classes with fewer members than there are folds.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:The least populated class"),
]

FIXED = {"off_diagonal_penalty": 1.0, "intercept_penalty": 1.0}

METHODS = [
    TemperatureScaling(),
    EnsembleTemperatureScaling(),
    VectorScaling(),
    MatrixScaling(**FIXED),
    DirichletCalibration(**FIXED),
    DensityRatioCalibration(),
    StructuredMatrixScaling(),
    OrderPreservingScaling(),
    PlattScaling(),
    BetaCalibration(),
    IsotonicCalibration(),
    HistogramBinning(),
    VennAbersCalibration(),
    SplineCalibration(),
    ScalingBinning(),
    BayesianBinning(),
    CalibratorSearch([TemperatureScaling(), PlattScaling()]),
]
VARIANTS = [
    TemperatureScaling(objective="brier"),
    TemperatureScaling(objective="focal"),
    MatrixScaling(penalty="l2", **FIXED),
    StructuredMatrixScaling(structure="vector"),
    OrderPreservingScaling(StructuredMatrixScaling()),
    BetaCalibration(variant="ab"),
    BetaCalibration(variant="am"),
    IsotonicCalibration(method="strict"),
    IsotonicCalibration(method="strict_temperature"),
    IsotonicCalibration(method="shared"),
    VennAbersCalibration(cv=3),
    SplineCalibration(method="one_vs_rest"),
    ScalingBinning(PlattScaling(), method="one_vs_rest"),
    BayesianBinning(method="top_label"),
    VennAbersCalibration(method="one_vs_one"),
]

THREE_CLASSES = "feeds two features and three classes; a calibrator needs three columns"
FLOAT_LABELS = "feeds three features and two classes that are not integers"
ONE_DIMENSION = "expects an error for one axis, which holds the log-odds of two classes"
FIXED_COLUMNS = {
    "check_estimators_overwrite_params": THREE_CLASSES,
    "check_estimators_fit_returns_self": THREE_CLASSES,
    "check_readonly_memmap_input": THREE_CLASSES,
    "check_classifiers_classes": THREE_CLASSES,
    "check_classifiers_train": THREE_CLASSES,
    "check_estimators_nan_inf": FLOAT_LABELS,
    "check_fit2d_predict1d": ONE_DIMENSION,
}


def identify(estimator):
    return " ".join(repr(estimator).split())


@pytest.mark.parametrize("calibrator", [*METHODS, *VARIANTS], ids=identify)
def test_a_calibrator_keeps_the_contract(calibrator):
    check_calibrator(calibrator)


def every_check(estimators, expected):
    mark = parametrize_with_checks(estimators, expected_failed_checks=expected)
    names, checks = mark.args
    # scikit-learn 1.6 gives a generator, which pytest 9 does not take.
    return pytest.mark.parametrize(names, list(checks), **mark.kwargs)


@every_check(METHODS, lambda calibrator: FIXED_COLUMNS)
def test_a_calibrator_passes_every_check_that_its_columns_allow(estimator, check):
    check(estimator)


@every_check(
    [CalibratedClassifier(LogisticRegression(), method) for method in METHODS],
    expected=None,
)
def test_a_calibrated_classifier_passes_every_check(estimator, check):
    check(estimator)
