"""Density-ratio calibration and its bin-mean-shift form."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import norm
from sklearn import config_context
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skcalib import DensityRatioCalibration, TemperatureScaling
from skcalib.metrics import ece_scorer, proximity_calibration_error

METHODS = ["density_ratio", "bin_mean_shift"]


def draw(n=400, seed=0):
    """Logits, labels and features: sure where common, too sure where lonely."""
    rng = np.random.default_rng(seed)
    lonely = rng.random(n) < 0.4
    features = rng.normal(size=(n, 6)) * np.where(lonely, 6, 0.5)[:, np.newaxis]
    logits = rng.normal(scale=3, size=(n, 3))
    scale = np.where(lonely, 0.25, 1.0)[:, np.newaxis]
    y = (scale * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, y, features


def slow_points(logits, features, others=None):
    """Confidence and proximity; without `others` within the features themselves."""
    distance = cdist(features, features if others is None else others)
    if others is None:
        np.fill_diagonal(distance, np.inf)
    mean = np.sort(distance, axis=1)[:, :10].mean(axis=1)
    return softmax(logits, axis=1).max(axis=1), mean


def test_the_confidence_is_the_ratio_of_the_densities():
    logits, y, features = draw(300)
    fit, new = slice(200), slice(200, 300)
    model = DensityRatioCalibration(prior_samples=0).fit(
        logits[fit], y[fit], features=features[fit]
    )
    confidence, mean = slow_points(logits[fit], features[fit])
    scale = np.median(mean)
    assert model.distance_scale_ == pytest.approx(scale)
    points = np.column_stack([confidence, np.exp(-mean / scale)])
    confidence, mean = slow_points(logits[new], features[new], features[fit])
    queries = np.column_stack([confidence, np.exp(-mean / scale)])
    hit = logits[fit].argmax(axis=1) == y[fit]

    def density(rows):
        width = 1.06 * points[rows].std(axis=0) * rows.sum() ** (-1 / 6)
        z = (queries[:, np.newaxis] - points[rows]) / width
        return (norm.pdf(z) / width).prod(axis=2).mean(axis=1)

    f1, f0 = density(hit), density(~hit)
    expected = f1 / (f1 + f0 * (~hit).sum() / hit.sum())
    proba = model.predict_proba(logits[new], features=features[new])
    rows, top = np.arange(100), logits[new].argmax(axis=1)
    assert_allclose(proba[rows, top], expected, rtol=1e-9)
    # The other classes keep their proportions.
    other = softmax(logits[new], axis=1)
    other[rows, top] = 0
    other *= ((1 - expected) / other.sum(axis=1))[:, np.newaxis]
    proba[rows, top] = 0
    assert_allclose(proba, other, rtol=1e-9)


def test_the_shift_is_the_mean_gap_of_the_bin():
    logits, y, features = draw(400)
    model = DensityRatioCalibration(
        method="bin_mean_shift", n_bins=4, prior_samples=0
    ).fit(logits, y, features=features)
    confidence, mean = slow_points(logits, features)
    hit = logits.argmax(axis=1) == y
    order = np.argsort(confidence)
    band = np.empty(400, dtype=int)
    band[order] = np.repeat(np.arange(4), 100)
    ring = np.empty(400, dtype=int)
    ring[np.argsort(-mean)] = np.repeat(np.arange(4), 100)
    expected = confidence.copy()
    for b in range(4):
        for d in range(4):
            rows = (band == b) & (ring == d)
            expected[rows] += (hit - confidence)[rows].mean()
    points = np.column_stack([confidence, np.exp(-mean / model.distance_scale_)])
    assert_allclose(model._model.chance(points), np.clip(expected, 0, 1), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_lonely_samples_are_mended(method):
    logits, y, features = draw(6000)
    fit, new = slice(3000), slice(3000, 6000)
    model = DensityRatioCalibration(method=method).fit(
        logits[fit], y[fit], features=features[fit]
    )
    after = model.predict_proba(logits[new], features=features[new])
    scaled = TemperatureScaling().fit(logits[fit], y[fit]).predict_proba(logits[new])
    lonely = np.linalg.norm(features[new], axis=1)
    errors = [
        proximity_calibration_error(y[new], p, proximity=-lonely, n_proximity_bins=4)
        for p in (softmax(logits[new], axis=1), scaled, after)
    ]
    assert errors[2] < 0.6 * errors[1] < errors[0]
    assert log_loss(y[new], after) < log_loss(y[new], scaled)


@pytest.mark.parametrize("method", METHODS)
def test_features_beside_the_logits_or_among_the_columns_are_one_thing(method):
    logits, y, features = draw()
    beside = DensityRatioCalibration(method=method).fit(logits, y, features=features)
    both = np.hstack([logits, features])
    among = DensityRatioCalibration(method=method, n_logits=3).fit(both, y)
    assert among.n_features_in_ == 9
    assert beside.n_features_in_ == 3
    proba = beside.predict_proba(logits, features=features)
    assert_allclose(among.predict_proba(both), proba)
    assert_array_equal(among.predict(both), beside.predict(logits, features=features))
    assert among.score(both, y) == beside.score(logits, y, features=features)
    scores = cross_val_score(
        DensityRatioCalibration(n_logits=3), both, y, scoring=ece_scorer
    )
    assert np.isfinite(scores).all()


def test_metadata_routing_passes_the_features_on():
    logits, y, features = draw()
    with config_context(enable_metadata_routing=True):
        calibrator = (
            DensityRatioCalibration()
            .set_fit_request(features=True)
            .set_predict_proba_request(features=True)
            .set_score_request(features=True)
        )
        pipeline = make_pipeline(FunctionTransformer(), calibrator)
        pipeline.fit(logits, y, features=features)
        proba = pipeline.predict_proba(logits, features=features)
        scores = cross_val_score(
            calibrator, logits, y, params={"features": features}, cv=3
        )
    alone = DensityRatioCalibration().fit(logits, y, features=features)
    assert_allclose(proba, alone.predict_proba(logits, features=features))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("with_features", [False, True])
def test_weights_equal_repetition(method, with_features):
    logits, y, features = draw(120)
    counts = np.random.default_rng(0).integers(0, 4, 120)
    rows = np.repeat(np.arange(120), counts)

    def proba(index, weight):
        both = {"features": features[index]} if with_features else {}
        model = DensityRatioCalibration(method=method, n_bins=3).fit(
            logits[index], y[index], sample_weight=weight, **both
        )
        new = {"features": features} if with_features else {}
        return model.predict_proba(logits, **new)

    every = np.arange(120)
    assert_allclose(proba(every, counts), proba(rows, None), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("factor", [1e-300, 1e-6, 1e6, 1e155, 1e300])
def test_the_unit_of_the_features_has_no_influence(factor):
    logits, y, features = draw()
    one = DensityRatioCalibration().fit(logits, y, features=features)
    other = DensityRatioCalibration().fit(logits, y, features=factor * features)
    assert_allclose(
        other.predict_proba(logits, features=factor * features),
        one.predict_proba(logits, features=features),
        rtol=1e-6,
    )


def test_far_from_all_samples_the_confidence_remains():
    logits, y, features = draw()
    model = DensityRatioCalibration(bandwidth=0.05).fit(logits, y, features=features)
    # Equal to a lonely calibration sample in features, to none in confidence.
    query = np.array([[1e-3, 0.0, 0.0]])
    proba = model.predict_proba(query, features=np.full((1, 6), 1e3))
    assert proba.max() == pytest.approx(softmax(query).max(), abs=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("right", [True, False])
def test_one_sided_and_equal_samples_have_a_fit(method, right):
    logits = np.tile([[2.0, 0.0, -1.0]], (8, 1))
    y = np.zeros(8, dtype=int) if right else np.ones(8, dtype=int)
    y[0] = 2
    model = DensityRatioCalibration(method=method).fit(logits, y)
    proba = model.predict_proba(logits[:1])
    assert_allclose(proba.sum(), 1)
    confidence = softmax(logits[0]).max()
    assert (proba[0, 0] > confidence - 0.05) == right


def test_it_says_that_it_cannot_be_exported():
    pytest.importorskip("onnx")
    from skcalib.export import to_onnx

    logits, y, _ = draw(50)
    with pytest.raises(TypeError, match="DensityRatioCalibration cannot be exported"):
        to_onnx(DensityRatioCalibration().fit(logits, y))


def test_features_that_do_not_fit_are_refused():
    logits, y, features = draw(60)
    model = DensityRatioCalibration().fit(logits, y, features=features)
    with pytest.raises(ValueError, match=r"fitted with features .* predict without"):
        model.predict_proba(logits)
    with pytest.raises(ValueError, match="6 were seen in fit"):
        model.predict_proba(logits, features=features[:, :5])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.predict_proba(logits, features=features[:10])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DensityRatioCalibration().fit(logits, y, features=features[:10])
    with pytest.raises(ValueError, match="features contains NaN"):
        DensityRatioCalibration().fit(logits, y, features=np.full((60, 2), np.nan))
    plain = DensityRatioCalibration().fit(logits, y)
    with pytest.raises(ValueError, match=r"fitted without features .* predict with"):
        plain.predict_proba(logits, features=features)
    with pytest.raises(ValueError, match="Pass them in one way only"):
        DensityRatioCalibration(n_logits=2).fit(logits, y, features=features)
    with pytest.raises(ValueError, match="leaves no column of features"):
        DensityRatioCalibration(n_logits=3).fit(logits, y)
    both = np.hstack([logits, features])
    among = DensityRatioCalibration(n_logits=3).fit(both, y)
    with pytest.raises(ValueError, match=r"8 features, but .* expecting 9"):
        among.predict_proba(both[:, :-1])


def test_columns_in_another_order_are_refused():
    pandas = pytest.importorskip("pandas")
    logits, y, features = draw(60)
    frame = pandas.DataFrame(features, columns=list("abcdef"))
    model = DensityRatioCalibration().fit(logits, y, features=frame)
    proba = model.predict_proba(logits, features=frame)
    assert_array_equal(proba, model.predict_proba(logits, features=features))
    with pytest.raises(ValueError, match="Pass the same columns in the same order"):
        model.predict_proba(logits, features=frame[list("fedcba")])


@pytest.mark.parametrize("n_columns", [3, 20])
@pytest.mark.parametrize("value", [1.7e9, -0.3, 1e300])
def test_a_feature_that_is_the_same_in_all_samples_has_no_influence(n_columns, value):
    logits, y, _ = draw()
    features = np.random.default_rng(0).normal(size=(400, n_columns))
    more = np.column_stack([features, np.full(400, value)])
    one = DensityRatioCalibration().fit(logits, y, features=features)
    other = DensityRatioCalibration().fit(logits, y, features=more)
    assert_array_equal(
        other.predict_proba(logits, features=more),
        one.predict_proba(logits, features=features),
    )


def test_copies_count_as_one_where_a_feature_is_large_or_rounded():
    rng = np.random.default_rng(0)
    logits, y, _ = draw(300)
    features = rng.normal(size=(100, 4))
    copies = np.tile(features, (3, 1))
    copies[100:] *= 1 + 1e-14 * rng.normal(size=(200, 4))
    market = 1e10 * (np.arange(300) % 2)
    noise = 1e-15 * rng.normal(size=300)
    rounded = 1e9 + 1e-6 * rng.integers(0, 2, 300)
    for column in (market, noise, rounded):
        rows = np.column_stack([copies, column])
        model = DensityRatioCalibration().fit(logits, y, features=rows)
        assert model.neighbors_.n_samples_fit_ == 100


def test_infinitely_far_from_all_samples_there_is_an_answer():
    logits, y, features = draw()
    model = DensityRatioCalibration().fit(logits, y, features=features)
    far, farther = (
        model.predict_proba(logits[:2], features=np.full((2, 6), value))
        for value in (1e9, -1e300)
    )
    assert_allclose(far, farther, rtol=1e-9)


def test_labels_may_be_judged_by_shares():
    logits, y, features = draw()
    calibrator = DensityRatioCalibration().fit(logits, y, features=features)
    weight = np.arange(y.size) % 3
    score = partial(calibrator.score, logits, sample_weight=weight, features=features)
    assert score(np.eye(3)[y]) == pytest.approx(score(y))
    half = np.eye(3)[y] / 2 + 1 / 6
    assert score(half) == pytest.approx(score(y) / 2 + 1 / 6)
    assert isinstance(score(y), float)
