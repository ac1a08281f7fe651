import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skcalib.calibrators import StructuredMatrixScaling, TemperatureScaling

STRUCTURES = ["matrix", "vector"]


def mixed_log_proba(logits, temperature, n):
    """Log of the temperature's probabilities with 1 / (n + 1) of uniform ones."""
    share = 1 / (n + 1)
    proba = softmax(np.asarray(logits, float) / temperature, axis=1)
    return np.log((1 - share) * proba + share / logits.shape[1])


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (0.1, 3.0, 0.0)], ids=str)
def test_loss_is_stationary_and_at_the_minimum(
    skewed_set, affine_reference, structure, factors
):
    logits, y = skewed_set
    intercept, diagonal, off_diagonal = factors
    scaling = StructuredMatrixScaling(
        prior=None,
        structure=structure,
        intercept_penalty=intercept,
        diagonal_penalty=diagonal,
        off_diagonal_penalty=off_diagonal,
    ).fit(logits, y)
    reference = affine_reference(
        mixed_log_proba(logits, scaling.temperature_, n=500),
        y,
        intercept=intercept * 4 / 500,
        diagonal=diagonal * 4 / 500,
        off_diagonal=off_diagonal * 4 * 3 / 500,
        diagonal_only=structure == "vector",
    )
    loss = reference.loss(scaling.coef_, scaling.intercept_)
    assert loss == pytest.approx(scaling.loss_, abs=1e-12)
    assert loss <= reference.minimum() + 1e-7
    gradient = reference.gradient(scaling.coef_, scaling.intercept_)
    assert_allclose(gradient, 0, atol=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_prediction_is_the_affine_map_of_the_mixed_probabilities(skewed_set, structure):
    logits, y = skewed_set
    scaling = StructuredMatrixScaling(prior=None, structure=structure).fit(logits, y)
    assert (
        scaling.temperature_
        == TemperatureScaling(prior=None).fit(logits, y).temperature_
    )
    assert scaling.uniform_weight_ == pytest.approx(1 / 501)
    coef = np.diag(scaling.coef_) if structure == "vector" else scaling.coef_
    features = mixed_log_proba(logits, scaling.temperature_, n=500)
    scores = features @ coef.T + scaling.intercept_
    assert_allclose(scaling.decision_function(logits), scores, atol=1e-12)
    assert_allclose(scaling.predict_proba(logits), softmax(scores, axis=1), atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_total_weight_counts_as_the_number_of_samples(skewed_set, structure):
    logits, y = skewed_set
    scaling = StructuredMatrixScaling(prior=None, structure=structure)
    once = scaling.fit(logits, y).loss_
    thrice = scaling.fit(logits, y, sample_weight=np.full(y.size, 3.0))
    assert thrice.uniform_weight_ == pytest.approx(1 / 1501)
    # A third of the penalty for the same departure from the identity.
    assert thrice.loss_ < once - 1e-4


def test_strong_penalties_leave_temperature_scaling(skewed_set):
    logits, y = skewed_set
    scaling = StructuredMatrixScaling(
        prior=None,
        intercept_penalty=1e7,
        diagonal_penalty=1e7,
        off_diagonal_penalty=1e7,
    ).fit(logits, y)
    mixed = np.exp(mixed_log_proba(logits, scaling.temperature_, n=500))
    assert_allclose(scaling.predict_proba(logits), mixed, atol=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_units_and_constants_of_the_logits_do_not_matter(skewed_set, structure, factor):
    logits, y = skewed_set
    shift = np.random.default_rng(0).normal(scale=20, size=(y.size, 1))
    moved = factor * (logits + shift)
    expected = StructuredMatrixScaling(prior=None, structure=structure).fit(logits, y)
    scaling = StructuredMatrixScaling(prior=None, structure=structure).fit(moved, y)
    assert_allclose(
        scaling.predict_proba(moved), expected.predict_proba(logits), atol=1e-6
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("value", [-1e30, -3.4e38])
def test_masked_logits_spoil_nothing(skewed_set, mask_others, structure, value):
    logits, y = skewed_set
    X, masked = mask_others(logits.astype(np.float32), y, value)
    scaling = StructuredMatrixScaling(prior=None, structure=structure).fit(X, y)
    proba = scaling.predict_proba(X)
    assert proba[masked].max() < 0.05
    own = proba[np.arange(y.size), y]
    assert -np.log(own).mean() <= TemperatureScaling(prior=None).fit(X, y).loss_ + 1e-2


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_iteration_limit_warns(skewed_set, structure):
    scaling = StructuredMatrixScaling(
        prior=None, structure=structure, max_iter=1, tol=1e-14
    )
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        scaling.fit(*skewed_set)


def test_a_network_of_a_hundred_classes_gains_on_held_out_data(cifar100):
    def held_out_loss(calibrator):
        calibrator.fit(cifar100.X_cal, cifar100.y_cal)
        proba = calibrator.predict_proba(cifar100.X_test)
        return -np.log(proba[np.arange(5000), cifar100.y_test]).mean()

    vector = StructuredMatrixScaling(prior=None, structure="vector")
    assert held_out_loss(vector) < held_out_loss(TemperatureScaling(prior=None))


@pytest.mark.slow
def test_huge_weights_of_many_classes_leave_a_fit():
    random = np.random.RandomState(0)
    logits, y = random.normal(size=(200, 100)), np.arange(200) % 100
    structured = StructuredMatrixScaling()
    structured.fit(logits, y, sample_weight=np.full(200, 1e12))
    loss = log_loss(y, structured.predict_proba(logits))
    assert loss < log_loss(y, softmax(logits, axis=1))
