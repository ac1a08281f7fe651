"""Parts of the ECE, and the ECE of each predicted class."""

import numpy as np
import pytest
from scipy.special import softmax

from skcalib.metrics import (
    adaptive_expected_calibration_error,
    expected_calibration_error,
    overconfidence_error,
    top_label_calibration_error,
    underconfidence_error,
)


def draw(n=500, n_classes=4, scale=0.5):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(n, n_classes))
    y = (scale * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1)


ECE = {
    "uniform": expected_calibration_error,
    "quantile": adaptive_expected_calibration_error,
}


@pytest.mark.parametrize("strategy", ECE)
@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_both_parts_sum_to_the_ece(strategy, n_bins):
    y, proba = draw(scale=0.9)
    over, under = (
        part(y, proba, n_bins=n_bins, strategy=strategy)
        for part in (overconfidence_error, underconfidence_error)
    )
    assert over + under == pytest.approx(ECE[strategy](y, proba, n_bins=n_bins))


def test_the_parts_tell_the_directions_apart():
    over, under = draw(scale=0.5), draw(scale=2)
    assert overconfidence_error(*over) > 5 * underconfidence_error(*over)
    assert underconfidence_error(*under) > 5 * overconfidence_error(*under)


@pytest.mark.parametrize("strategy", ECE)
def test_the_top_label_error_is_the_mean_ece_of_the_predicted_classes(strategy):
    y, proba = draw()
    top = proba.argmax(axis=1)
    expected = sum(
        (top == k).mean() * ECE[strategy](y[top == k], proba[top == k], n_bins=9)
        for k in range(4)
    )
    error = top_label_calibration_error(y, proba, n_bins=9, strategy=strategy)
    assert error == pytest.approx(expected, abs=1e-12)


def test_opposite_gaps_of_two_classes_do_not_cancel():
    proba = np.repeat([[0.8, 0.2], [0.2, 0.8]], 10, axis=0)
    # Of the first ten all are right, of the others six.
    y = np.array([0] * 10 + [1] * 6 + [0] * 4)
    assert expected_calibration_error(y, proba) == pytest.approx(0, abs=1e-12)
    assert top_label_calibration_error(y, proba) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "metric",
    [overconfidence_error, underconfidence_error, top_label_calibration_error],
)
def test_unusable_bins_are_refused(metric):
    with pytest.raises(ValueError, match="n_bins=0"):
        metric([0, 1], [0.2, 0.7], n_bins=0)
    with pytest.raises(ValueError, match="strategy='kmeans' is not known"):
        metric([0, 1], [0.2, 0.7], strategy="kmeans")
