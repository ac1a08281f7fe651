import numpy as np
import pytest
from numpy.testing import assert_allclose
from rows import mean_log_loss
from sklearn.exceptions import ConvergenceWarning

from skcalib.calibrators import TemperatureScaling, VectorScaling

COEF = np.array([0.4, 0.8, 0.6, 1.0])
INTERCEPT = np.array([0.5, -0.5, 0.0, 0.3])


def test_fit_recovers_the_map_that_drew_the_labels(draw_affine_set):
    logits, y = draw_affine_set(COEF, INTERCEPT, n_samples=20_000)
    scaling = VectorScaling(prior=None).fit(logits, y)
    assert_allclose(scaling.coef_, COEF, atol=0.04)
    assert_allclose(scaling.intercept_, INTERCEPT - INTERCEPT.mean(), atol=0.06)


def test_loss_is_stationary_and_at_the_minimum(skewed_set, affine_reference):
    reference = affine_reference(*skewed_set, diagonal_only=True)
    scaling = VectorScaling(prior=None).fit(*skewed_set)
    gradient = reference.gradient(scaling.coef_, scaling.intercept_)
    assert_allclose(gradient, 0, atol=1e-6)
    assert scaling.gradient_norm_ == pytest.approx(np.linalg.norm(gradient), abs=1e-9)
    loss = reference.loss(scaling.coef_, scaling.intercept_)
    # The slight penalty is part of the loss.
    assert loss == pytest.approx(scaling.loss_, abs=1e-9)
    assert loss <= reference.minimum() + 1e-9


def test_mean_probability_of_a_class_is_its_share(skewed_set):
    logits, y = skewed_set
    proba = VectorScaling(prior=None).fit(logits, y).predict_proba(logits)
    assert_allclose(proba.mean(axis=0), np.bincount(y) / y.size, atol=1e-6)


def test_offsets_are_centred(skewed_set):
    assert VectorScaling(prior=None).fit(
        *skewed_set
    ).intercept_.mean() == pytest.approx(0)


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e12])
def test_units_of_the_logits_do_not_matter(skewed_set, factor):
    logits, y = skewed_set
    unit = VectorScaling(prior=None).fit(logits, y)
    scaled = VectorScaling(prior=None).fit(factor * logits, y)
    assert_allclose(scaled.coef_ * factor, unit.coef_, rtol=1e-4)
    assert scaled.loss_ == pytest.approx(unit.loss_, abs=1e-9)


def test_binary_log_odds_mean_the_columns_zero_and_z(binary_calibration_set):
    z, y = binary_calibration_set
    columns = np.column_stack([np.zeros_like(z), z])
    expected = VectorScaling(prior=None).fit(columns, y)
    for X in (z, z[:, np.newaxis]):
        scaling = VectorScaling(prior=None).fit(X, y)
        assert_allclose(
            scaling.predict_proba(X), expected.predict_proba(columns), atol=1e-12
        )
        assert_allclose(
            scaling.decision_function(X), expected.decision_function(columns)
        )


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_an_absent_class_has_the_mean_factor_and_offset_of_the_others(
    draw_calibration_set,
):
    logits, y = draw_calibration_set(n_classes=5)
    logits, y = logits[y < 4], y[y < 4]
    scaling = VectorScaling(prior=None).fit(logits, y)
    plain = TemperatureScaling(prior=None).fit(logits, y)
    assert scaling.coef_[4] == pytest.approx(scaling.coef_[:4].mean())
    assert scaling.intercept_[4] == pytest.approx(0, abs=1e-12)
    share = scaling.predict_proba(logits)[:, 4].mean()
    assert share == pytest.approx(plain.predict_proba(logits)[:, 4].mean(), rel=0.2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_logits_stay_masked_and_spoil_nothing(skewed_set, mask_others, dtype):
    logits, y = skewed_set
    losses = []
    for value in (-1e30, np.finfo(dtype).min):
        X, masked = mask_others(logits.astype(dtype), y, value)
        scaling = VectorScaling(prior=None).fit(X, y)
        proba = scaling.predict_proba(X)
        assert np.isfinite(scaling.coef_).all()
        assert (scaling.coef_ > 0).all()
        assert proba[masked].max() < 1e-6
        losses.append(mean_log_loss(y, proba))
        plain = TemperatureScaling(prior=None).fit(X, y).loss_
        assert losses[-1] <= plain + 1e-6
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_many_classes_use_conjugate_gradients_to_the_same_end(
    calibration_set, monkeypatch
):
    dense = VectorScaling(prior=None).fit(*calibration_set)
    monkeypatch.setattr("skcalib._solvers._vector.MAX_DENSE_CLASSES", 2)
    sparse = VectorScaling(prior=None).fit(*calibration_set)
    assert sparse.loss_ == pytest.approx(dense.loss_, abs=1e-9)
    assert_allclose(sparse.coef_, dense.coef_, atol=1e-3)


def test_the_iteration_limit_warns_and_keeps_the_best_point(skewed_set):
    scaling = VectorScaling(prior=None, max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        scaling.fit(*skewed_set)
    assert scaling.loss_ < TemperatureScaling(prior=None).fit(*skewed_set).loss_


def test_equal_logits_give_the_class_shares():
    scaling = VectorScaling(prior=None).fit(np.full((6, 3), 2.0), [0, 0, 0, 1, 1, 2])
    expected = [[1 / 2, 1 / 3, 1 / 6]]
    assert_allclose(scaling.predict_proba([[2.0, 2.0, 2.0]]), expected, atol=1e-4)


def test_samples_that_a_map_tells_apart_have_an_optimum(draw_calibration_set):
    logits, _ = draw_calibration_set(n_samples=60)
    # Every error is one of class 0 taken for class 1, which an offset mends.
    y = (logits - [2, 0, 0, 0]).argmax(axis=1)
    weight = np.random.default_rng(0).integers(1, 4, y.size)
    weighted = VectorScaling(prior=None).fit(logits, y, sample_weight=weight)
    repeated = VectorScaling(prior=None)
    repeated.fit(np.repeat(logits, weight, axis=0), np.repeat(y, weight))
    assert weighted.loss_ < 1e-6
    assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6)
    assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:VectorScaling stopped early")
def test_samples_without_error_stay_finite():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    y = logits.argmax(axis=1)
    scaling = VectorScaling(prior=None).fit(logits, y)
    proba = scaling.predict_proba(logits)
    assert np.isfinite(scaling.coef_).all()
    assert mean_log_loss(y, proba) < 0.1


def test_a_real_network_is_solved_to_its_optimum(cifar10, affine_reference):
    reference = affine_reference(cifar10.X_cal, cifar10.y_cal, diagonal_only=True)
    scaling = VectorScaling(prior=None).fit(cifar10.X_cal, cifar10.y_cal)
    gradient = reference.gradient(scaling.coef_, scaling.intercept_)
    assert_allclose(gradient, 0, atol=1e-5)
    assert scaling.loss_ < TemperatureScaling(prior=None).fit(*cifar10[:2]).loss_
