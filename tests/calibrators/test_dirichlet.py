import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning

from skcalib.calibrators import (
    DirichletCalibration,
    MatrixScaling,
    TemperatureScaling,
)

FIXED = {"off_diagonal_penalty": 0.3, "intercept_penalty": 0.2}


@pytest.mark.parametrize("penalty", ["odir", "l2", None])
def test_loss_is_stationary_and_at_the_minimum(skewed_set, affine_reference, penalty):
    logits, y = skewed_set
    factors = {
        "odir": {"off_diagonal": 0.3 / 12, "intercept": 0.2 / 4},
        "l2": {"off_diagonal": 0.3 / 16, "diagonal": 0.3 / 16, "intercept": 0.2 / 4},
        None: {},
    }[penalty]
    reference = affine_reference(log_softmax(logits, axis=1), y, **factors)
    dirichlet = DirichletCalibration(prior=None, penalty=penalty, **FIXED).fit(
        logits, y
    )
    loss = reference.loss(dirichlet.coef_, dirichlet.intercept_)
    assert loss == pytest.approx(dirichlet.loss_, abs=1e-12)
    assert loss <= reference.minimum() + 1e-7
    gradient = reference.gradient(dirichlet.coef_, dirichlet.intercept_)
    assert_allclose(gradient, 0, atol=1e-4)


def test_fit_recovers_the_map_that_drew_the_labels():
    rng = np.random.default_rng(0)
    coef = np.array([[0.6, 0.2, 0.0], [-0.2, 0.5, 0.1], [0.1, 0.0, 0.8]])
    log_p = log_softmax(rng.normal(scale=2, size=(20_000, 3)), axis=1)
    scores = log_p @ coef.T + [0.4, 0.0, -0.4]
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    dirichlet = DirichletCalibration(prior=None, penalty=None).fit(log_p, y)
    found = dirichlet.coef_ - dirichlet.coef_.mean(axis=0)
    assert_allclose(found, coef - coef.mean(axis=0), atol=0.06)
    offsets = dirichlet.intercept_ - dirichlet.intercept_.mean()
    assert_allclose(offsets, [0.4, 0.0, -0.4], atol=0.08)


def test_a_constant_added_to_a_row_changes_nothing(skewed_set):
    logits, y = skewed_set
    shift = np.random.default_rng(0).normal(scale=20, size=(y.size, 1))
    plain = DirichletCalibration(prior=None, **FIXED).fit(logits, y)
    shifted = DirichletCalibration(prior=None, **FIXED).fit(logits + shift, y)
    assert_allclose(shifted.coef_, plain.coef_, atol=1e-5)
    assert_allclose(
        shifted.predict_proba(logits + shift), plain.predict_proba(logits), atol=1e-5
    )
    matrix = MatrixScaling(prior=None, **FIXED).fit(logits, y).loss_
    assert (
        MatrixScaling(prior=None, **FIXED).fit(logits + shift, y).loss_ > matrix + 1e-3
    )


def test_it_is_matrix_scaling_of_the_log_probabilities(skewed_set):
    logits, y = skewed_set
    dirichlet = DirichletCalibration(prior=None, **FIXED).fit(logits, y)
    log_p = log_softmax(logits, axis=1)
    matrix = MatrixScaling(prior=None, **FIXED).fit(log_p, y)
    assert_allclose(dirichlet.coef_, matrix.coef_, atol=1e-7)
    expected = softmax(log_p @ dirichlet.coef_.T + dirichlet.intercept_, axis=1)
    assert_allclose(dirichlet.predict_proba(logits), expected, atol=1e-12)


def test_penalties_are_chosen_by_the_held_out_loss(skewed_set):
    dirichlet = DirichletCalibration(prior=None).fit(*skewed_set)
    chosen = dirichlet.off_diagonal_penalty_, dirichlet.intercept_penalty_
    assert dirichlet.cv_losses_[chosen] == min(dirichlet.cv_losses_.values())


def test_averaged_folds_predict_the_mean_of_their_models(skewed_set):
    logits, y = skewed_set
    dirichlet = DirichletCalibration(prior=None, **FIXED, cv=3, average_folds=True).fit(
        logits, y
    )
    models = zip(dirichlet.fold_coefs_, dirichlet.fold_intercepts_, strict=True)
    log_p = log_softmax(logits, axis=1)
    each = [softmax(log_p @ coef.T + b, axis=1) for coef, b in models]
    assert_allclose(dirichlet.predict_proba(logits), np.mean(each, axis=0), atol=1e-12)
    assert not hasattr(dirichlet, "decision_function")


@pytest.mark.parametrize("value", [-1e30, -3.4e38])
def test_masked_logits_spoil_nothing(skewed_set, mask_others, value):
    logits, y = skewed_set
    X, _ = mask_others(logits.astype(np.float32), y, value)
    dirichlet = DirichletCalibration(prior=None, **FIXED).fit(X, y)
    assert np.isfinite(dirichlet.coef_).all()
    own = dirichlet.predict_proba(X)[np.arange(y.size), y]
    assert -np.log(own).mean() <= TemperatureScaling(prior=None).fit(X, y).loss_ + 1e-3


def test_the_iteration_limit_warns(skewed_set):
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        DirichletCalibration(prior=None, **FIXED, max_iter=1).fit(*skewed_set)
