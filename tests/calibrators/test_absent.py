"""Classes that the calibration set lacks, or has a single sample of."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.base import clone
from sklearn.metrics import log_loss

from skcalib import (
    BayesianBinning,
    BetaCalibration,
    BoostedCalibration,
    CalibratorSearch,
    DenseCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    GroupCalibration,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    PriorShift,
    ProbabilityFloor,
    ScalingBinning,
    SmoothingSplineCalibration,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.datasets import make_logits
from skcalib.exceptions import AbsentClassWarning

STRENGTHS = {"off_diagonal_penalty": 1.0, "intercept_penalty": 0.1}
SMOOTH = [
    VectorScaling(),
    MatrixScaling(**STRENGTHS),
    DirichletCalibration(**STRENGTHS),
    StructuredMatrixScaling(),
    StructuredMatrixScaling(structure="vector"),
    OrderPreservingScaling(StructuredMatrixScaling()),
    PlattScaling(),
    BetaCalibration(),
    ProbabilityFloor(VectorScaling()),
]
STEPS = [
    VennAbersCalibration(),
    VennAbersCalibration(method="one_vs_one"),
    HistogramBinning(),
    BayesianBinning(),
    IsotonicCalibration(),
    SplineCalibration(method="one_vs_rest"),
]
WRAPPED = [
    PriorShift(),
    PriorShift(VectorScaling()),
    ScalingBinning(VectorScaling()),
    BoostedCalibration(VectorScaling()),
    DenseCalibration(PriorShift(VectorScaling())),
]
ALIKE_FOR_ALL = [
    TemperatureScaling(),
    OrderPreservingScaling(),
    PriorShift(TemperatureScaling()),
    ScalingBinning(),
    IsotonicCalibration(method="shared"),
    HistogramBinning(method="top_label"),
]


def draw(n_samples, seed, n_classes=8):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(scale=3, size=(n_samples, n_classes))
    return logits, (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)


def without(logits, y, absent):
    rows = ~np.isin(y, absent)
    return logits[rows], y[rows]


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("calibrator", SMOOTH, ids=repr)
def test_a_scaling_does_not_lose_the_classes_that_it_has_not_seen(calibrator):
    logits, y = without(*draw(3000, 0), [1, 4, 6])
    test, y_test = draw(4000, 1)
    plain = log_loss(y_test, TemperatureScaling().fit(logits, y).predict_proba(test))
    assert plain < log_loss(y_test, softmax(test, axis=1)) - 0.1
    loss = log_loss(y_test, clone(calibrator).fit(logits, y).predict_proba(test))
    assert loss < plain + 0.03


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("calibrator", STEPS, ids=repr)
def test_curves_leave_absent_classes_their_probability(calibrator):
    logits, y = without(*draw(3000, 0), [1, 4, 6])
    test, y_test = draw(4000, 1)
    proba = clone(calibrator).fit(logits, y).predict_proba(test)
    rows = np.isin(y_test, [1, 4, 6])
    own = proba[np.flatnonzero(rows), y_test[rows]]
    untouched = softmax(test, axis=1)[np.flatnonzero(rows), y_test[rows]]
    assert (own > 0).all()
    assert -np.log(own).mean() < -np.log(untouched).mean() + 0.3


@pytest.mark.parametrize("calibrator", SMOOTH + STEPS + WRAPPED, ids=repr)
def test_a_warning_names_the_absent_classes(calibrator):
    logits, y = without(*draw(100, 0, n_classes=4), [2])
    names = np.array(["ant", "bee", "cow", "dog"])
    calibrator = clone(calibrator).set_params(classes=names)
    with pytest.warns(
        AbsentClassWarning, match=r"no sample of 1 of 4 classes: 'cow'\."
    ):
        calibrator.fit(logits, names[y])


@pytest.mark.parametrize("calibrator", ALIKE_FOR_ALL, ids=repr)
def test_what_is_learned_of_all_classes_together_warns_of_none(calibrator):
    logits, y = without(*draw(100, 0, n_classes=4), [2])
    assert clone(calibrator).fit(logits, y).predict_proba(logits).shape[1] == 4


@pytest.mark.parametrize(
    "calibrator",
    [
        CalibratorSearch(),
        CalibratorSearch([TemperatureScaling(), ProbabilityFloor(VectorScaling())]),
        GroupCalibration(structure="vector"),
    ],
    ids=repr,
)
def test_a_fit_of_its_own_warns_once(calibrator):
    logits, y = without(*draw(100, 0, n_classes=4), [2])
    with pytest.warns(AbsentClassWarning, match="no sample of 1 of 4") as caught:
        calibrator.fit(logits, y)
    assert [w.category for w in caught] == [AbsentClassWarning]
    assert Path(caught[0].filename).name == "test_absent.py"


@pytest.mark.parametrize(
    "wrapper",
    [
        ProbabilityFloor,
        PriorShift,
        GroupCalibration,
        BoostedCalibration,
        DenseCalibration,
        OrderPreservingScaling,
        ScalingBinning,
    ],
)
def test_folds_of_the_calibrator_in_another_count_rows_of_no_weight(wrapper):
    logits, y = draw(300, 0, n_classes=3)
    logits /= 12  # so that there is no floor
    rows = np.arange(300)
    folds = [(rows[rows % 2 != half], rows[rows % 2 == half]) for half in range(2)]
    weight = (rows % 3 > 0).astype(float)
    inner = MatrixScaling(cv=folds)
    alone = clone(inner).fit(logits, y, sample_weight=weight)
    found = wrapper(inner).fit(logits, y, sample_weight=weight)
    fitted = getattr(found, "calibrator_", None) or found.scaling_
    assert_allclose(fitted.coef_, alone.coef_, rtol=1e-6)


def test_groups_of_rows_of_no_weight_are_not_there():
    logits, y = draw(300, 0, n_classes=3)
    rows = np.arange(300)
    folds = [(rows[rows % 2 != half], rows[rows % 2 == half]) for half in range(2)]
    groups = np.where(rows < 20, "out", "in")
    weight = (rows >= 20).astype(float)
    grouped = GroupCalibration(MatrixScaling(cv=folds), strength=10.0)
    grouped.fit(logits, y, sample_weight=weight, groups=groups)
    assert grouped.groups_ == ["in"]


def test_a_search_of_what_treats_classes_alike_warns_of_none():
    logits, y = without(*draw(100, 0, n_classes=4), [2])
    search = CalibratorSearch([TemperatureScaling(), EnsembleTemperatureScaling()])
    assert search.fit(logits, y).predict_proba(logits).shape[1] == 4


def test_no_more_than_ten_classes_are_named():
    logits, y = draw(100, 0, n_classes=40)
    y[y > 20] = 0
    with pytest.warns(AbsentClassWarning, match=r"classes: (\d+, ){10}\.\.\.\."):
        VectorScaling().fit(logits, y)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("calibrator", SMOOTH + STEPS + ALIKE_FOR_ALL, ids=repr)
@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 1, 2], [0, 0, 0, 0, 1]])
def test_three_samples_or_one_of_a_class_are_enough(calibrator, labels):
    logits, _ = draw(len(labels), 0, n_classes=3)
    fitted = clone(calibrator).fit(logits, labels)
    proba = fitted.predict_proba(draw(50, 1, n_classes=3)[0])
    assert np.isfinite(proba).all()
    assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("structure", ["matrix", "vector"])
def test_absent_classes_have_the_mean_of_the_others(structure):
    logits, y = without(*draw(500, 0, n_classes=5), [3])
    fitted = StructuredMatrixScaling(structure=structure).fit(logits, y)
    others = [0, 1, 2, 4]
    own = fitted.coef_ if structure == "vector" else np.diagonal(fitted.coef_)
    assert own[3] == pytest.approx(own[others].mean())
    assert fitted.intercept_[3] == pytest.approx(fitted.intercept_[others].mean())
    if structure == "matrix":
        seen = fitted.coef_[np.ix_(others, others)]
        mean = seen[~np.eye(4, dtype=bool)].mean()
        assert_allclose(fitted.coef_[3, others], mean)
        assert_allclose(fitted.coef_[others, 3], mean)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_dirichlet_calibration_leaves_absent_classes_their_share():
    logits, y = without(*draw(400, 0), [1, 4, 6])
    test, y_test = draw(4000, 1)
    dirichlet = DirichletCalibration(off_diagonal_penalty=1.0, intercept_penalty=1.0)
    share = dirichlet.fit(logits, y).predict_proba(test)[:, [1, 4, 6]].sum(axis=1)
    assert share.mean() == pytest.approx(np.isin(y_test, [1, 4, 6]).mean(), rel=0.05)


@pytest.mark.parametrize("calibrator", [SmoothingSplineCalibration(), PlattScaling()])
def test_fitted_curves_of_absent_classes_are_no_constants(calibrator):
    X, y = make_logits(200, 4, random_state=0)
    calibrator.set_params(classes=range(4))
    rows = y < 3
    with pytest.warns(AbsentClassWarning):
        fitted = calibrator.fit(X[rows], y[rows])
    proba = fitted.predict_proba(X)
    for knots in getattr(fitted, "knots_", []):
        knots += 1.0
    with pytest.warns(AbsentClassWarning):
        again = calibrator.fit(X[rows], y[rows]).predict_proba(X)
    np.testing.assert_array_equal(again, proba)
