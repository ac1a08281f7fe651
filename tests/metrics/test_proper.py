"""Calibration and refinement parts of the proper losses."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from skcalib.metrics import calibration_loss, calibration_report, refinement_loss


def draw(n=600, n_classes=4, temperature=2.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = temperature * rng.normal(scale=1.5, size=(n, n_classes))
    y = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1), softmax(logits / temperature, axis=1)


def slow_refinement(y, proba, n_splits, loss):
    """Cross-fitted temperature by a general-purpose optimiser."""
    z = np.log(proba)
    order = np.lexsort((proba[np.arange(len(y)), y], proba.max(axis=1)))
    fold = np.empty(len(y), dtype=int)
    fold[order] = np.arange(len(y)) % n_splits
    losses = np.empty(len(y))
    for k in range(n_splits):
        fit, judged = fold != k, fold == k

        def mean_loss(beta, fit=fit):
            return -log_softmax(beta * z[fit], axis=1)[
                np.arange(fit.sum()), y[fit]
            ].mean()

        beta = minimize_scalar(
            mean_loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-10}
        ).x
        e = 1 / (fit.sum() + 1)
        q = (1 - e) * softmax(beta * z[judged], axis=1) + e / proba.shape[1]
        own = q[np.arange(len(q)), y[judged]]
        brier = ((q - np.eye(proba.shape[1])[y[judged]]) ** 2).sum(axis=1)
        losses[judged] = -np.log(own) if loss == "log_loss" else brier
    return losses.mean()


@pytest.mark.parametrize("loss", ["log_loss", "brier"])
@pytest.mark.parametrize("n_splits", [2, 5])
def test_the_refinement_part_equals_its_definition(loss, n_splits):
    y, proba, _ = draw()
    value = refinement_loss(y, proba, loss=loss, n_splits=n_splits)
    expected = slow_refinement(y, proba, n_splits, loss)
    assert value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("loss", "metric"), [("log_loss", "nll"), ("brier", "brier")])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_both_parts_sum_to_the_loss(loss, metric, n_classes):
    y, proba, _ = draw(n_classes=n_classes)
    parts = [f(y, proba, loss=loss) for f in (calibration_loss, refinement_loss)]
    report = calibration_report(y, proba, metrics=[metric], n_bootstrap=0)
    assert sum(parts) == pytest.approx(report[metric].value, rel=1e-12)


def test_the_calibration_part_is_what_the_truth_would_gain():
    y, proba, truth = draw(n=20_000)
    gain = log_loss(y, proba) - log_loss(y, truth)
    assert calibration_loss(y, proba) == pytest.approx(gain, abs=2e-3)
    assert calibration_loss(y, truth) == pytest.approx(0, abs=1e-3)


def test_the_scale_of_the_logits_is_no_refinement():
    y, proba, _ = draw()
    flat = softmax(np.log(proba) / 5, axis=1)
    assert refinement_loss(y, flat) == pytest.approx(
        refinement_loss(y, proba), abs=0.01
    )
    assert calibration_loss(y, flat) > 0.05
    assert calibration_loss(y, proba) > 0.05


def test_certain_hits_and_misses_have_finite_losses():
    proba = np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
    right = [0, 1, 2, 0, 1, 2, 0, 1]
    assert refinement_loss(right, proba) == pytest.approx(0, abs=1e-12)
    wrong = [0, 1, 2, 0, 1, 2, 0, 2]
    assert 0 < refinement_loss(wrong, proba) < log_loss(wrong, proba)


def test_equal_rows_are_left_as_they_are():
    proba = [[0.7, 0.3]] * 3
    assert calibration_loss([0, 0, 0], proba) == 0
    assert refinement_loss([0, 0, 0], proba) == pytest.approx(-np.log(0.7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "ece"}, "loss='ece' is not known"),
        ({"n_splits": 1}, "n_splits=1 is not a whole number"),
        ({"n_splits": 2.5}, "n_splits=2.5 is not a whole number"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        refinement_loss([0, 1], [0.2, 0.7], **options)


@pytest.mark.parametrize("levels", [1, 3])
def test_few_scores_are_recalibrated_like_many(levels):
    rng = np.random.default_rng(0)
    level = rng.integers(0, levels, 4000)
    proba = np.array([0.95, 0.55, 0.75])[level]
    y = (rng.random(4000) < np.array([0.7, 0.25, 0.5])[level]).astype(int)
    near = proba + rng.normal(0, 1e-6, 4000)
    found, expected = calibration_loss(y, proba), calibration_loss(y, near)
    assert found == pytest.approx(expected, abs=0.003)
    assert found > 0.1
    weight = rng.integers(0, 4, 4000)
    rows = np.repeat(np.arange(4000), weight)
    weighted = calibration_loss(y, proba, sample_weight=weight)
    assert weighted == pytest.approx(calibration_loss(y[rows], proba[rows]))
    order = rng.permutation(4000)
    assert calibration_loss(y[order], proba[order]) == pytest.approx(found)


def test_few_scores_do_not_tell_the_parts_of_their_own_outcomes():
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(15):
        proba = rng.choice([0.55, 0.65, 0.75, 0.85, 0.95], 100)
        losses.append(calibration_loss(rng.random(100) < proba, proba))
    # What others learn by chance costs some 0.005; equal shares would hide it.
    assert np.mean(losses) < -0.003


@pytest.mark.parametrize("weight", [1e30, 1e-30])
def test_few_rows_of_few_scores_have_parts_however_much_they_weigh(weight):
    y, proba = [0, 1, 1, 0, 1], [0.6, 0.6, 0.7, 0.7, 0.6]
    loss = refinement_loss(y, proba, sample_weight=np.full(5, weight))
    assert 0.5 < loss < 2


@pytest.mark.parametrize("scale", [1e-3, 100])
def test_the_scale_of_weights_that_only_compare_rows_does_not_matter(scale):
    y, proba, _ = draw()
    weight = np.random.default_rng(0).uniform(0.5, 1.5, y.shape[0])
    scaled = refinement_loss(y, proba, sample_weight=weight * scale)
    assert scaled == pytest.approx(refinement_loss(y, proba, sample_weight=weight))
