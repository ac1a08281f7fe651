"""Wrong answers that other libraries give without a word; none of them here.

Those about metrics alone (the last bin, unequal weights of bins, sums over classes) and
about ONNX files are tested beside the metrics and the export. What `check_calibrator`
asks of every calibrator is asked of one here.
"""

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, identify
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    RegressorMixin,
    TransformerMixin,
    is_classifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from skcalib import (
    CalibratedClassifier,
    DirichletCalibration,
    MatrixScaling,
    SmoothingSplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    calibrators,
    frozen,
    logits_from_proba,
    meta,
    model_selection,
)
from skcalib.exceptions import ProbabilitiesAsLogitsWarning
from skcalib.metrics import aece_scorer, ece_scorer, entropy_scorer, sce_scorer

every_calibrator = pytest.mark.parametrize("calibrator", CALIBRATORS, ids=identify)


@pytest.mark.parametrize("spoil", ["float16", "4 digits", "one row", "as they are"])
def test_rounding_probabilities_never_turns_them_into_logits(cifar10, spoil):
    proba = softmax(cifar10.X_cal.astype(np.float64), axis=1)
    if spoil == "float16":
        proba = proba.astype(np.float16)
    elif spoil == "4 digits":
        proba = proba.round(4)
    elif spoil == "one row":
        proba[17] *= 0.9995
    logits = logits_from_proba(proba)
    confidence = TemperatureScaling().fit(logits, cifar10.y_cal).predict_proba(logits)
    # Guessing that the rows are logits gave 1 / n_classes instead.
    assert confidence.max(axis=1).mean() == pytest.approx(0.917, abs=0.02)


def test_rows_that_sum_to_one_are_still_logits():
    logits = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    with pytest.warns(ProbabilitiesAsLogitsWarning):
        ts = TemperatureScaling().fit(logits, [0, 1, 1, 0])
    expected = softmax(logits / ts.temperature_, axis=1)
    assert_allclose(ts.predict_proba(logits), expected)


def test_the_temperature_of_two_classes_is_that_of_their_two_columns(
    binary_calibration_set,
):
    z, y = binary_calibration_set
    one = TemperatureScaling().fit(z, y)
    two = TemperatureScaling().fit(np.column_stack([-z / 2, z / 2]), y)
    assert one.temperature_ == pytest.approx(two.temperature_)
    assert one.temperature_ == pytest.approx(2, rel=0.2)
    assert_allclose(one.predict_proba(z)[:, 1], 1 / (1 + np.exp(-z / one.temperature_)))


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_no_bounds_cut_logits_of_another_size(calibration_set, factor):
    logits, y = calibration_set
    unit = TemperatureScaling(prior=None).fit(logits, y).temperature_
    scaled = TemperatureScaling(prior=None).fit(factor * logits, y).temperature_
    assert scaled == pytest.approx(factor * unit, rel=1e-6)


def test_float32_gives_the_temperature_of_float64(cifar10):
    single = log_softmax(cifar10.X_cal, axis=1)
    assert single.dtype == np.float32
    double = single.astype(np.float64)
    temperatures = [
        TemperatureScaling().fit(logits, cifar10.y_cal).temperature_
        for logits in (single, double)
    ]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-6)
    assert temperatures[0] == pytest.approx(2.315, abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_refused_and_its_row_named(calibration_set, value):
    logits, y = calibration_set
    logits = logits.copy()
    logits[123, 2] = value
    with pytest.raises(ValueError, match=r"row 123 holds"):
        TemperatureScaling().fit(logits, y)


def test_labels_from_1_to_k_mean_the_columns_in_order(calibration_set):
    logits, y = calibration_set
    expected = TemperatureScaling().fit(logits, y).predict_proba(logits)
    shifted = TemperatureScaling().fit(logits, y + 1)
    assert_array_equal(shifted.classes_, [1, 2, 3, 4])
    assert_array_equal(shifted.predict_proba(logits), expected)


def test_labels_from_1_to_k_with_one_missing_are_refused(calibration_set):
    # 1, 2 and 4 of 1..4 would pass for columns 1, 2 and out of range.
    logits, y = calibration_set
    kept = y != 2
    with pytest.raises(ValueError, match="classes="):
        TemperatureScaling().fit(logits[kept], y[kept] + 1)
    named = TemperatureScaling(classes=[1, 2, 3, 4]).fit(logits[kept], y[kept] + 1)
    plain = TemperatureScaling().fit(logits[kept], y[kept])
    assert named.temperature_ == plain.temperature_


def test_weights_are_not_ignored(calibration_set):
    logits, y = calibration_set
    calibrator = TemperatureScaling()
    right = logits.argmax(axis=1) == y
    plain = calibrator.fit(logits, y).predict_proba(logits)
    weight = np.where(right, 1.0, 5.0)
    heavy = calibrator.fit(logits, y, sample_weight=weight).predict_proba(logits)
    assert heavy.max(axis=1).mean() < plain.max(axis=1).mean() - 0.03


def test_weights_are_not_ignored_by_a_calibrated_classifier(calibration_set):
    logits, y = calibration_set
    weight = np.where(logits.argmax(axis=1) == y, 1.0, 5.0)
    clf = CalibratedClassifier(LogisticRegression())
    plain = clf.fit(logits, y).predict_proba(logits)
    heavy = clf.fit(logits, y, sample_weight=weight).predict_proba(logits)
    assert heavy.max(axis=1).mean() < plain.max(axis=1).mean() - 0.05


@pytest.mark.parametrize(
    ("calibrator", "kind"),
    [
        *((c, kind) for c in CALIBRATORS for kind in ("integers", "integer logits")),
        (TemperatureScaling(), "lists"),
        (TemperatureScaling(), "column"),
    ],
    ids=identify,
)
def test_kinds_of_input_agree(calibrator, binary_calibration_set, kind):
    z, y = binary_calibration_set
    z = z.round()
    expected = calibrator.fit(z, y).predict_proba(z)
    inputs = {
        "integers": (z, y.astype(np.uint8)),
        "lists": (z.tolist(), y.tolist()),
        "column": (z[:, np.newaxis], y),
        "integer logits": (z.astype(np.int64), y),
    }
    logits, labels = inputs[kind]
    actual = calibrator.fit(logits, labels).predict_proba(logits)
    assert_allclose(actual, expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_small_integer_type_of_labels_does_not_overflow(dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 300))
    y = np.arange(400) % 100
    ts = TemperatureScaling().fit(logits + 5 * np.eye(300)[y], y.astype(dtype))
    assert_array_equal(ts.classes_, np.arange(300))
    assert set(ts.predict(logits)) <= set(range(300))


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_tiny_set_gives_probabilities():
    logits = np.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [1.0, 0.0, 0.0]])
    proba = TemperatureScaling().fit(logits, [0, 1, 1]).predict_proba(logits)
    assert_allclose(proba.sum(axis=1), 1)


@every_calibrator
def test_a_calibrator_is_a_classifier(calibrator):
    # With the mixins in the wrong order stratification is silently lost.
    assert is_classifier(calibrator)
    assert is_classifier(CalibratedClassifier(calibrator=calibrator))


def test_no_mixin_stands_right_of_base_estimator():
    estimators = [
        value
        for module in (calibrators, frozen, meta, model_selection)
        for value in (getattr(module, name) for name in module.__all__)
        if isinstance(value, type) and issubclass(value, BaseEstimator)
    ]
    assert len(estimators) > len(CALIBRATORS)
    for estimator in estimators:
        lineage = estimator.__mro__
        after = lineage[lineage.index(BaseEstimator) :]
        assert not {ClassifierMixin, RegressorMixin, TransformerMixin} & set(after)


@pytest.mark.parametrize(
    "scorer", [ece_scorer, aece_scorer, sce_scorer, entropy_scorer]
)
def test_a_fold_that_lacks_a_class_scores(calibration_set, scorer):
    logits, y = calibration_set
    lacking = np.flatnonzero(y != 2)
    splits = [(np.arange(600), lacking), (lacking, np.arange(600))]
    scores = cross_val_score(TemperatureScaling(), logits, y, scoring=scorer, cv=splits)
    assert np.isfinite(scores).all()


def test_exact_zeros_of_a_forest_are_no_infinite_logits(calibration_set):
    logits, y = calibration_set
    tree = DecisionTreeClassifier(random_state=0).fit(logits[:300], y[:300])
    clf = CalibratedClassifier(FrozenEstimator(tree), TemperatureScaling())
    proba = clf.fit(logits[300:], y[300:]).predict_proba(logits)
    assert np.isfinite(proba).all()
    assert proba.max() < 0.95


def test_a_memorising_classifier_does_not_collapse_the_temperature(calibration_set):
    # Classifier and temperature on the same data: T fell to 0.05.
    logits, y = calibration_set
    memory = KNeighborsClassifier(1)
    clf = CalibratedClassifier(memory, TemperatureScaling()).fit(logits, y)
    assert clf.predict_proba(logits).max() < 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@every_calibrator
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_float32_rows_of_many_classes_sum_to_one(calibrator):
    # Fewer samples than classes; the slowest are spared a long fit.
    slow = MatrixScaling | DirichletCalibration | StructuredMatrixScaling
    slow |= SmoothingSplineCalibration
    n_samples, n_classes = (40, 60) if isinstance(calibrator, slow) else (200, 300)
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(n_samples, n_classes)).astype(np.float32)
    y = (logits + 2 * rng.gumbel(size=logits.shape)).argmax(axis=1)
    proba = calibrator.fit(logits, y).predict_proba(logits)
    assert proba.dtype == np.float32
    assert np.abs(proba.sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
