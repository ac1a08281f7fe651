"""Bad and unusual input of calibrators, beyond what `check_calibrator` feeds."""

import warnings

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, OTHER_FITS, VARIANTS, identify
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skcalib import (
    BetaCalibration,
    DirichletCalibration,
    PlattScaling,
    TemperatureScaling,
    logits_from_proba,
)
from skcalib.calibrators import SmoothingSplineCalibration
from skcalib.datasets import make_logits
from skcalib.exceptions import ProbabilitiesAsLogitsWarning
from skcalib.model_selection import CalibratorSearch, compare_calibrators


def fit(logits, y, **params):
    return TemperatureScaling(**params).fit(logits, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 2, 4], r"X has 3 columns but y has 4 classes \(\[0, 1, 2, 4\]\)"),
        ([0, 1, 1, -1], r"y has 3 classes|\[-1, 0, 1\]"),
        (["a", "b", "b", "a"], r"name them all .* classes=\[\.\.\.\]"),
        ([0.0, 0.5, 1.0, 0.5], "continuous"),
        ([0, 1, np.nan, 1], "Input y contains NaN"),
        ([[0, 1], [1, 0], [1, 1], [0, 0]], "y has 2 columns and there are 3 classes"),
        ([0, 0, 0, 0], r"one class only: 0\. Temp"),
        ([0, 1, 2], "inconsistent numbers of samples"),
        (None, "requires y to be passed"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_are_refused(y, message):
    logits = np.arange(12.0).reshape(4, 3) % 5
    if y == [0, 1, 1, -1]:
        # As many labels as columns: they are named in sorted order.
        assert fit(logits + 3 * np.eye(4, 3), y).classes_.tolist() == [-1, 0, 1]
        return
    with pytest.raises(ValueError, match=message):
        fit(logits, y)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.empty((0, 3)), "0 sample"),
        (np.empty((4, 0)), "0 feature"),
        (np.zeros((2, 2, 2)), "dim 3|3 dim|array with dim"),
        (np.array([["a", "b"], ["c", "d"]]), "could not convert|dtype"),
        (np.array([[1j, 0], [0, 1j]]), "Complex"),
        (5.0, "scalar|0d|iterable|Expected 2D"),
    ],
    ids=["empty", "no columns", "three axes", "strings", "complex", "a number"],
)
def test_logits_of_another_kind_are_refused(logits, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(logits, np.zeros(np.shape(logits)[:1] or 1, dtype=int))


def test_another_number_of_columns_is_refused_at_prediction(calibration_set):
    fitted = fit(*calibration_set)
    for wrong in (3, 5):
        with pytest.raises(ValueError, match=f"X has {wrong} features.*expecting 4"):
            fitted.predict_proba(np.zeros((2, wrong)))


def test_two_columns_are_refused_where_one_was_fitted(binary_calibration_set):
    fitted = fit(*binary_calibration_set)
    with pytest.raises(ValueError, match=r"X has 2 features.*expecting 1 "):
        fitted.predict_proba(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.array([1, 1, -2.0, 1]), "negative value: -2.0 in row 2"),
        (np.zeros(4), "zero"),
        (np.array([1, np.nan, 1, 1]), "NaN"),
        (np.array([1, 1, np.inf, 1]), "infinity"),
        (np.ones(3), r"sample_weight.shape == \(3,\)"),
        (np.array([1.0, 0, 1, 0]), "one class only"),
    ],
    ids=["negative", "zero", "NaN", "infinite", "too few", "one class left"],
)
def test_weights_that_mean_nothing_are_refused(weight, message):
    logits = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(logits, [0, 1, 0, 1], sample_weight=weight)


def test_equal_logits_carry_no_information_but_give_probabilities():
    with pytest.warns(UserWarning, match="stopped early"):
        fitted = fit(np.zeros((6, 3)), [0, 1, 2, 0, 1, 2])
    assert_allclose(fitted.predict_proba(np.zeros((1, 3))), 1 / 3)


def test_separable_logits_warn_without_a_prior_and_keep_the_best_point():
    easy = [[9.0, 0.0], [0.0, 9.0]], [0, 1]
    with pytest.warns(UserWarning, match="classified without error"):
        fitted = TemperatureScaling(prior=None).fit(*easy)
    assert fitted.predict_proba([[9.0, 0.0]])[0, 0] > 0.99
    fitted = fit(*easy)
    assert fitted.predict_proba([[9.0, 0.0]])[0, 0] > 0.99


def may_stop_early(calibrator):
    """Whether the loss is flat, or a step ends by rounding, at the oddest units."""
    params = calibrator.get_params(deep=False)
    if isinstance(calibrator, DirichletCalibration):
        return params["prior"] is None
    return params.get("objective", "log_loss") != "log_loss"


@pytest.mark.parametrize("factor", [1e-12, 1e4, 1e30, 1e300])
@pytest.mark.parametrize(
    "calibrator", [*CALIBRATORS, *VARIANTS, *OTHER_FITS], ids=identify
)
def test_logits_of_any_size_give_probabilities(calibration_set, calibrator, factor):
    logits, y = calibration_set
    with warnings.catch_warnings():
        if may_stop_early(calibrator):
            warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = clone(calibrator).fit(factor * logits, y)
    mixed = np.array([[1e4, 0, 0, 0], [-1e30, 1e30, 0, 1], [1e300, 0, 0, -1e300]])
    largest = 1.7e308 * np.vstack([np.ones(4), np.eye(4), np.zeros(4)])
    for X in (factor * logits, mixed, largest, -largest):
        proba = fitted.predict_proba(X)
        assert (proba >= 0).all()
        assert_allclose(proba.sum(axis=1), 1, atol=1e-12)


def test_probabilities_passed_as_logits_are_taken_for_logits(calibration_set):
    # They are warned of, and keep their meaning: a valid map, but a flatter one.
    logits, y = calibration_set
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with pytest.warns(ProbabilitiesAsLogitsWarning):
        wrong = fit(proba, y).predict_proba(proba)
    right = fit(logits_from_proba(proba), y).predict_proba(logits_from_proba(proba))
    assert_allclose(wrong.sum(axis=1), 1)
    own = np.arange(len(y)), y
    assert -np.log(right[own]).mean() < -np.log(wrong[own]).mean()


@pytest.mark.parametrize(
    ("proba", "message"),
    [
        ([[0.5, 0.6]], "sum"),
        ([[1.2, -0.2]], r"outside|\[0, 1\]|between"),
        ([[np.nan, 1.0]], "holds nan"),
        ([[3.0, -2.0]], r"outside|\[0, 1\]|between"),
    ],
)
def test_what_is_no_probability_is_refused(proba, message):
    with pytest.raises(ValueError, match=message):
        logits_from_proba(proba)


def test_a_failed_fit_of_a_candidate_is_not_hidden(calibration_set):
    broken = TemperatureScaling(tol=-1)
    with pytest.raises(ValueError, match="'tol' parameter"):
        CalibratorSearch([TemperatureScaling(), broken]).fit(*calibration_set)
    with pytest.raises(ValueError, match="'tol' parameter"):
        compare_calibrators([broken], *calibration_set)


@pytest.mark.parametrize("calibrator", [PlattScaling(), BetaCalibration()])
def test_rows_of_the_least_number_alone_do_not_make_all_scores_constant(
    calibration_set, calibrator
):
    # Such as a decoder writes where it knows nothing: no class is more likely.
    logits, y = calibration_set
    some = logits.astype(np.float32)
    some[:3] = np.finfo(np.float32).min
    proba = calibrator.fit(some, y).predict_proba(logits)
    expected = calibrator.fit(logits[3:], y[3:]).predict_proba(logits)
    assert_allclose(proba, expected, atol=0.05)


def mean_loss(calibrator, logits, y):
    proba = calibrator.fit(logits, y).predict_proba(logits)
    return -np.log(np.maximum(proba[np.arange(y.size), y], 1e-12)).mean()


MORE = [
    PlattScaling(prior=None),
    BetaCalibration(prior=None),
    BetaCalibration(variant="am", prior=None),
    BetaCalibration(variant="ab", prior=None),
]
# Where scores are sorted, those that are equal but for rounding beside a huge mask tie.
SORTED = ("BayesianBinning", "SplineCalibration", "VennAbersCalibration")


@pytest.mark.parametrize("share", [0.1, 0.6])
@pytest.mark.parametrize("calibrator", CALIBRATORS + VARIANTS + MORE, ids=identify)
def test_masks_of_any_size_give_the_same_fit(calibrator, share):
    logits, y = make_logits(1000, 5, random_state=0)
    masked = np.random.default_rng(0).random(logits.shape) < share
    masked[np.arange(y.size), y] = False
    losses = [
        mean_loss(clone(calibrator), np.where(masked, mask, logits), y)
        for mask in (-1e4, -1e9, -1e30)
    ]
    is_sorted = type(calibrator).__name__ in SORTED
    assert np.ptp(losses) < (2e-2 if is_sorted else 1e-3)


@pytest.mark.parametrize(
    "calibrator",
    [
        PlattScaling(),
        BetaCalibration(),
        SmoothingSplineCalibration(),
        PlattScaling(fit_on="logits"),
        *MORE,
    ],
    ids=identify,
)
@pytest.mark.parametrize("size", [1e4, 1e9, 1e30])
@pytest.mark.parametrize("share", [1 / 2000, 0.3])
def test_right_rows_of_huge_log_odds_leave_the_others_their_slope(
    calibrator, size, share
):
    rng = np.random.default_rng(0)
    z = rng.normal(scale=4, size=2000)
    y = (rng.random(2000) < 1 / (1 + np.exp(-z / 2))).astype(int)
    expected = clone(calibrator).fit(z, y).predict_proba([-2.0, 1.0, 3.0])
    huge = slice(0, int(share * 2000))
    z[huge] = np.where(y[huge] == 1, size, -size)
    proba = clone(calibrator).fit(z, y).predict_proba([-2.0, 1.0, 3.0])
    assert_allclose(proba, expected, atol=0.03)


@pytest.mark.parametrize("calibrator", [PlattScaling(), BetaCalibration()])
def test_masks_are_alike_in_memory_in_files_in_dask_and_in_tensors(
    calibrator, tmp_path, dask_in_this_process
):
    torch = pytest.importorskip("torch")
    da = pytest.importorskip("dask.array")
    logits, y = make_logits(600, 4, random_state=0)
    masked = np.random.default_rng(0).random(logits.shape) < 0.4
    masked[np.arange(y.size), y] = False
    logits = np.where(masked, -1e9, logits)
    np.save(tmp_path / "logits.npy", logits)
    expected = clone(calibrator).fit(logits, y).predict_proba(logits)
    assert mean_loss(clone(calibrator), logits, y) < 0.5
    for other in (
        np.load(tmp_path / "logits.npy", mmap_mode="r"),
        da.from_array(logits, chunks=(250, -1)),
        torch.from_numpy(logits),
    ):
        found = clone(calibrator).fit(other, y).predict_proba(logits)
        assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
