"""Proximity, and the calibration error in bins of two dimensions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist
from scipy.special import softmax

from skcalib.metrics import (
    expected_calibration_error,
    neighbor_proximity,
    proximity_calibration_error,
)


def draw(n=600, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, 4))
    proximity = rng.random(n)
    # Over-confident where proximity is low, under-confident where it is high.
    scale = np.where(proximity < 0.5, 0.4, 2.0)[:, np.newaxis]
    y = (scale * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1), proximity


@pytest.mark.parametrize(("n_bins", "n_proximity_bins"), [(15, 15), (10, 4), (1, 1)])
def test_the_error_equals_its_formula(n_bins, n_proximity_bins):
    y, proba, proximity = draw()
    confidence, hit = proba.max(axis=1), proba.argmax(axis=1) == y
    expected = 0
    for part in np.array_split(np.argsort(proximity), n_proximity_bins):
        for b in range(n_bins):
            c = confidence[part]
            rows = part[(c > b / n_bins) & (c <= (b + 1) / n_bins)]
            expected += abs((hit[rows] - confidence[rows]).sum()) / 600
    error = proximity_calibration_error(
        y,
        proba,
        proximity=proximity,
        n_bins=n_bins,
        n_proximity_bins=n_proximity_bins,
    )
    assert error == pytest.approx(expected, abs=1e-12)


def test_opposite_gaps_of_near_and_far_do_not_cancel():
    y, proba, proximity = draw(20_000)
    ece = expected_calibration_error(y, proba)
    error = proximity_calibration_error(y, proba, proximity=proximity)
    assert error > 2 * ece
    one = proximity_calibration_error(y, proba, proximity=proximity, n_proximity_bins=1)
    assert one == pytest.approx(ece, abs=1e-12)


def test_weights_equal_repetition_and_order_has_no_influence():
    y, proba, proximity = draw(200)
    proximity = proximity.round(1)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 200)
    weighted = proximity_calibration_error(
        y, proba, proximity=proximity, sample_weight=counts
    )
    rows = rng.permutation(np.repeat(np.arange(200), counts))
    repeated = proximity_calibration_error(
        y[rows], proba[rows], proximity=proximity[rows]
    )
    assert weighted == pytest.approx(repeated, abs=1e-12)


def test_proximity_equals_its_formula():
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(30, 5)), rng.normal(size=(50, 5))
    distance = np.sort(cdist(features, reference), axis=1)[:, :7].mean(axis=1)
    proximity = neighbor_proximity(features, reference, n_neighbors=7)
    assert_allclose(proximity, np.exp(-distance))
    within = np.sort(cdist(features, features), axis=1)[:, 1:8].mean(axis=1)
    assert_allclose(neighbor_proximity(features, n_neighbors=7), np.exp(-within))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors=0"),
        ({"n_neighbors": 3}, "3 neighbours are asked for among 2 other samples"),
        ({"reference": [[0.0]], "n_neighbors": 1}, "have 2 features, .* have 1"),
        ({"reference": [[0.0, np.nan]]}, "reference contains NaN"),
    ],
)
def test_unusable_features_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        neighbor_proximity([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proximity": [0.1, np.inf]}, "proximity holds inf in row 1"),
        ({"proximity": [[0.1, 0.2], [0.3, 0.4]]}, r"proximity has shape \(2, 2\)"),
        ({"proximity": [0.1]}, "inconsistent numbers of samples"),
        ({"proximity": [0.1, 0.2], "n_proximity_bins": 0}, "n_proximity_bins=0"),
        ({"proximity": [0.1, 0.2], "n_bins": 0}, "n_bins=0"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        proximity_calibration_error([0, 1], [0.2, 0.7], **options)


def test_proximity_may_be_a_dask_collection():
    array = pytest.importorskip("dask.array")
    rng = np.random.default_rng(0)
    y, proba, near = rng.integers(0, 2, 60), rng.random(60), rng.random(60)
    error = proximity_calibration_error(y, proba, proximity=near)
    lazy = array.from_array(near, chunks=20)
    assert proximity_calibration_error(y, proba, proximity=lazy) == error
