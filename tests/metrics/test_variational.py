"""Calibration errors that a cross-fitted recalibrator proves."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression

from skcalib import TemperatureScaling, VectorScaling
from skcalib.metrics import expected_calibration_error, variational_calibration_error


def draw(seed=0, n=300, n_classes=4, temperature=1.0):
    """Probabilities and labels; calibrated for a temperature of 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, n_classes))
    y = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1)


class Known(BaseEstimator):
    """A recalibrator that learns nothing: the third root, made a distribution."""

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return softmax(X / 3, axis=1)


def proper_loss(y, f, g, norm):
    """Minus the first-order expansion of |g - f| at the outcome."""
    away = g - f
    size = np.linalg.norm(away, ord=norm, axis=1)
    slope = np.sign(away) if norm == 1 else away / size[:, np.newaxis]
    outcome = np.eye(f.shape[1])[y]
    return -size - ((outcome - g) * slope).sum(axis=1)


@pytest.mark.parametrize("norm", [1, 2])
def test_the_error_of_vectors_is_minus_the_proper_loss(norm):
    y, f = draw()
    g = Known().predict_proba(np.log(f))
    error = variational_calibration_error(
        y, f, kind="canonical", norm=norm, calibrator=Known()
    )
    assert error == pytest.approx(-proper_loss(y, f, g, norm).mean())


def test_the_error_of_the_predicted_class_is_that_of_its_recalibrated_column():
    y, f = draw()
    rows, top = np.arange(300), f.argmax(axis=1)
    sign = np.sign(Known().predict_proba(np.log(f))[rows, top] - f[rows, top])
    expected = np.mean(sign * ((top == y) - f[rows, top]))
    error = variational_calibration_error(y, f, calibrator=Known())
    assert error == pytest.approx(expected)


def test_by_default_hits_are_recalibrated_by_isotonic_regression_of_other_rows():
    y, f = draw(temperature=2)
    confidence, hit = f.max(axis=1), f.argmax(axis=1) == y
    order = np.argsort(confidence)
    confidence, hit = confidence[order], hit[order].astype(float)
    total, fold = 0.0, np.arange(300) % 5
    for k in range(5):
        others, held = fold != k, fold == k
        isotonic = IsotonicRegression(out_of_bounds="clip")
        isotonic.fit(confidence[others], hit[others])
        away = isotonic.predict(confidence[held]) - confidence[held]
        total += np.sum(np.sign(away) * (hit[held] - confidence[held]))
    assert variational_calibration_error(y, f) == pytest.approx(total / 300)


def test_too_much_and_too_little_confidence_sum_to_the_whole():
    y, f = draw(temperature=1.5)
    whole, over, under = (
        variational_calibration_error(y, f, direction=direction)
        for direction in ("both", "over", "under")
    )
    assert whole == pytest.approx(over + under)
    assert over > 0.05 > abs(under)


@pytest.mark.parametrize("options", [{}, {"kind": "canonical"}])
def test_chance_adds_nothing_for_a_calibrated_classifier(options):
    errors = [variational_calibration_error(*draw(s), **options) for s in range(60)]
    spread = np.std(errors) / np.sqrt(60)
    assert np.mean(errors) < 2.5 * spread
    assert np.mean([expected_calibration_error(*draw(s)) for s in range(60)]) > 0.05


def draw_tied(seed, n=200):
    """Probabilities of few levels, and labels of which they are the rates."""
    rng = np.random.default_rng(seed)
    proba = rng.choice([0.55, 0.65, 0.75, 0.85, 0.95], n)
    return (rng.random(n) < proba).astype(int), proba


@pytest.mark.parametrize("options", [{}, {"kind": "canonical"}])
def test_equal_confidences_do_not_tell_the_parts_of_their_own_hits(options):
    errors = [
        variational_calibration_error(*draw_tied(s), **options) for s in range(25)
    ]
    assert np.mean(errors) < 2.5 * np.std(errors) / 5


@pytest.mark.parametrize(
    "options", [{}, {"kind": "canonical"}, {"calibrator": TemperatureScaling()}]
)
def test_equal_confidences_are_dealt_out_alike_in_any_order(options):
    y, proba = draw_tied(0)
    error = variational_calibration_error(y, proba, **options)
    order = np.random.default_rng(1).permutation(200)
    shuffled = variational_calibration_error(y[order], proba[order], **options)
    assert shuffled == pytest.approx(error)
    weight = np.random.default_rng(2).integers(0, 4, 200)
    weighted = variational_calibration_error(y, proba, sample_weight=weight, **options)
    rows = np.repeat(order, weight[order])
    repeated = variational_calibration_error(y[rows], proba[rows], **options)
    assert weighted == pytest.approx(repeated)


@pytest.mark.parametrize(("shift", "direction"), [(0.15, "over"), (-0.15, "under")])
def test_a_known_shift_is_found_whole(shift, direction):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.8, 5000)
    hit = rng.random(5000) < confidence - shift
    error = variational_calibration_error(
        hit, confidence, direction=direction, pos_label="event"
    )
    assert error == pytest.approx(0.15, abs=0.02)


def test_calibrators_of_the_package_recalibrate_vectors():
    y, f = draw(n=1000, temperature=2)
    one, each = (
        variational_calibration_error(y, f, kind="canonical", calibrator=calibrator)
        for calibrator in (TemperatureScaling(), VectorScaling())
    )
    default = variational_calibration_error(y, f, kind="canonical")
    assert one == pytest.approx(default, rel=0.1)
    assert each == pytest.approx(default, rel=0.2)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, 1000)
    weighted = variational_calibration_error(
        y, f, kind="canonical", calibrator=TemperatureScaling(), sample_weight=weights
    )
    assert weighted == pytest.approx(one, rel=0.1)


def test_equal_confidences_are_judged_by_their_rate():
    # All rows are alike: what the others say of them is right.
    hit = np.repeat([1, 0], [140, 60])
    error = variational_calibration_error(hit, np.full(200, 0.9), pos_label="event")
    assert error == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "classwise"}, "kind='classwise' is not known; use one of"),
        ({"direction": "down"}, "direction='down' is not known"),
        ({"norm": 3}, "norm=3 is not known"),
        ({"norm": 2}, "norm=2 makes no difference to one probability"),
        ({"kind": "canonical", "direction": "over"}, "known of the predicted class"),
        ({"n_splits": 1}, "n_splits=1"),
        ({"sample_weight": [1.5, 0]}, "at least two rows with a weight"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        variational_calibration_error([0, 1], [0.2, 0.7], **options)


def test_a_calibrator_of_other_columns_is_refused():
    class Narrow(Known):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, :2]

    with pytest.raises(ValueError, match="Narrow gives 2 columns for 4 classes"):
        variational_calibration_error(*draw(), calibrator=Narrow())
