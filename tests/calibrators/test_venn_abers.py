import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rows import normalise
from scipy.special import expit, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from skcalib._numerics import log_odds
from skcalib.calibrators import VennAbersCalibration

METHODS = ["one_vs_rest", "one_vs_one"]


def reference_interval(score, hit, at, weight=None):
    """Two isotonic regressions for every new score."""
    weight = np.ones(len(score)) if weight is None else weight
    bounds = np.empty((len(at), 2))
    for label in (0, 1):
        for row, new in enumerate(at):
            model = IsotonicRegression(y_min=0, y_max=1)
            targets = np.append(hit, label).astype(float)
            model.fit(np.append(score, new), targets, np.append(weight, 1.0))
            bounds[row, label] = model.predict([new])[0]
    return bounds


def probability(interval):
    return interval[..., 1] / (1 - interval[..., 0] + interval[..., 1])


def few(calibration_set, n=80):
    logits, y = calibration_set
    return logits[:n], y[:n]


def test_binary_agrees_with_two_regressions_a_sample(binary_calibration_set):
    z, y = few(binary_calibration_set)
    # At the calibration scores themselves, between them and beyond them.
    at = np.concatenate([z, np.linspace(z.min() - 1, z.max() + 1, 41)])
    expected = reference_interval(z, y, at)
    venn_abers = VennAbersCalibration().fit(z, y)
    interval = venn_abers.predict_interval(at)
    assert_allclose(interval[:, 1], expected, atol=1e-12)
    assert_allclose(interval[:, 0], 1 - expected[:, ::-1], atol=1e-12)
    proba = venn_abers.predict_proba(at)
    assert_allclose(proba[:, 1], probability(expected), atol=1e-12)
    assert_allclose(proba.sum(axis=1), 1, atol=1e-15)


@given(
    scores=st.lists(st.integers(-6, 6), min_size=2, max_size=30),
    data=st.data(),
)
@settings(deadline=None, max_examples=25)
def test_any_ties_and_weights_agree_with_two_regressions(scores, data):
    n = len(scores)
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    weight = np.array(data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)))
    scale = data.draw(st.sampled_from([1.0, 1.3, 40.0]))
    y[:2] = [0, 1]
    z = np.array(scores, dtype=float)
    at = np.arange(-7, 7.5)
    at[1::3] += 0.5
    venn_abers = VennAbersCalibration().fit(z, y, sample_weight=scale * weight)
    # Weights that are not whole amount to Kish's effective number of samples.
    count = weight.sum() / (weight**2).sum() if scale == 1.3 else scale
    expected = reference_interval(z, y, at, count * weight)
    assert_allclose(venn_abers.predict_interval(at)[:, 1], expected, atol=1e-12)


def test_one_vs_rest_fits_every_class_on_its_log_odds(calibration_set):
    logits, y = few(calibration_set)
    odds = log_odds(logits.copy())
    expected = np.stack(
        [reference_interval(odds[:, k], y == k, odds[:, k]) for k in range(4)], axis=1
    )
    venn_abers = VennAbersCalibration().fit(logits, y)
    assert_allclose(venn_abers.predict_interval(logits), expected, atol=1e-12)
    proba = normalise(probability(expected))
    assert_allclose(venn_abers.predict_proba(logits), proba, atol=1e-12)


def reference_pairs(logits, y, at):
    """Interval of class j against class i, on the samples of the two."""
    pairs = {}
    for i in range(4):
        for j in range(i + 1, 4):
            rows = (y == i) | (y == j)
            score = logits[rows, j] - logits[rows, i]
            interval = reference_interval(score, y[rows] == j, at[:, j] - at[:, i])
            pairs[j, i] = interval
            pairs[i, j] = 1 - interval[:, ::-1]
    return pairs


def price(pairs):
    """Price et al. (1995): 1 / (sum over the others of 1 / p - (K - 2))."""
    with np.errstate(divide="ignore"):
        inverse = [
            sum(1 / pairs[i, j] for j in range(4) if j != i) - 2 for i in range(4)
        ]
    return 1 / np.stack(inverse, axis=1)


def test_one_vs_one_couples_the_pairs(calibration_set):
    logits, y = few(calibration_set)
    at = np.random.default_rng(0).normal(scale=3, size=(20, 4))
    pairs = reference_pairs(logits, y, at)
    venn_abers = VennAbersCalibration(method="one_vs_one").fit(logits, y)
    coupled = price({pair: probability(p) for pair, p in pairs.items()})
    assert_allclose(venn_abers.predict_proba(at), normalise(coupled), atol=1e-12)
    lower = price({pair: p[:, 0] for pair, p in pairs.items()})
    upper = price({pair: p[:, 1] for pair, p in pairs.items()})
    interval = venn_abers.predict_interval(at)
    assert_allclose(interval, np.stack([lower, upper], axis=2), atol=1e-12)


def test_two_classes_need_no_method(binary_calibration_set):
    z, y = binary_calibration_set
    pairwise = VennAbersCalibration(method="one_vs_one").fit(z, y)
    venn_abers = VennAbersCalibration().fit(z, y)
    at = np.random.default_rng(0).normal(size=200)
    for result in ("predict_proba", "predict_interval"):
        expected = getattr(venn_abers, result)(at)
        assert_allclose(getattr(pairwise, result)(at), expected, atol=1e-12)


def test_folds_are_pooled_by_geometric_means(binary_calibration_set):
    z, y = few(binary_calibration_set)
    fold = np.arange(z.size) % 3
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    cross = VennAbersCalibration(cv=splits).fit(z, y)
    at = np.random.default_rng(0).normal(scale=3, size=40)
    bounds = [reference_interval(z[test], y[test], at) for _, test in splits]
    p0, p1 = np.stack(bounds, axis=2).transpose(1, 0, 2)
    hit = np.prod(p1, axis=1) ** (1 / 3)
    miss = np.prod(1 - p0, axis=1) ** (1 / 3)
    proba = cross.predict_proba(at)[:, 1]
    assert_allclose(proba, hit / (hit + miss), atol=1e-12)
    interval = cross.predict_interval(at)[:, 1]
    expected = np.stack([expit(logit(p).mean(axis=1)) for p in (p0, p1)], axis=1)
    assert_allclose(interval, expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_number_of_folds_depends_on_the_seed_only(calibration_set, method):
    logits, y = calibration_set
    first = VennAbersCalibration(method=method, cv=4).fit(logits, y)
    second = VennAbersCalibration(method=method, cv=4).fit(logits, y)
    other = VennAbersCalibration(method=method, cv=4, random_state=1).fit(logits, y)
    proba = first.predict_proba(logits)
    assert_array_equal(proba, second.predict_proba(logits))
    assert np.abs(proba - other.predict_proba(logits)).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cv", [None, 3])
def test_intervals_are_ordered_and_hold_the_probability(
    binary_calibration_set, method, cv
):
    z, y = binary_calibration_set
    venn_abers = VennAbersCalibration(method=method, cv=cv).fit(z, y)
    at = np.append(z, [-1e300, 0.0, 1e300])
    lower, upper = np.moveaxis(venn_abers.predict_interval(at), 2, 0)
    proba = venn_abers.predict_proba(at)
    assert (lower >= 0).all()
    assert (upper <= 1).all()
    assert (lower < proba + 1e-12).all()
    assert (proba < upper + 1e-12).all()


def test_more_data_make_narrower_intervals():
    rng = np.random.default_rng(0)
    widths = []
    for n in (100, 10_000):
        z = rng.normal(scale=2, size=n)
        y = (rng.random(n) < expit(z / 2)).astype(int)
        at = np.linspace(-3, 3, 61)
        interval = VennAbersCalibration().fit(z, y).predict_interval(at)[:, 1]
        widths.append(np.mean(interval[:, 1] - interval[:, 0]))
    assert widths[1] < widths[0] / 4
    assert_allclose(interval.mean(axis=1), expit(at / 2), atol=0.1)


def test_no_probability_is_0_or_1():
    z = np.linspace(-5, 5, 100)
    proba = VennAbersCalibration().fit(z, (z > 0).astype(int)).predict_proba([-9, 9])
    # 50 misses and no hit: p_0 = 0 and p_1 = 1/51.
    assert_allclose(proba[:, 1], [1 / 52, 51 / 52])


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_scores_equal_up_to_rounding_share_their_hits(rounded_set):
    interval = VennAbersCalibration().fit(*rounded_set).predict_interval(rounded_set[0])
    assert_allclose(interval[:, 0], [[50 / 201, 51 / 201]] * 200, atol=1e-12)


def test_probabilities_within_rounding_of_1_are_told_apart():
    z = np.array([38.0, 39.0, 40.0, 41.0, 42.0, 43.0])
    venn_abers = VennAbersCalibration().fit(z, [0, 0, 0, 1, 1, 1])
    assert expit(40.0) == expit(41.0) == 1
    interval = venn_abers.predict_interval([40.0, 40.5, 41.0])[:, 1]
    assert_allclose(interval, [[0, 1 / 2], [0, 1], [1 / 2, 1]])


def test_rows_of_weight_0_count_in_the_splits_only(calibration_set):
    logits, y = calibration_set
    weight = (np.arange(y.size) % 5 != 0).astype(float)
    fold = np.arange(y.size) % 3
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    spoilt = np.where(weight[:, np.newaxis] > 0, logits, 99.0)
    cross = VennAbersCalibration(cv=splits).fit(spoilt, y, sample_weight=weight)
    kept = weight > 0
    number = np.cumsum(kept) - 1
    fewer = [tuple(number[part[kept[part]]] for part in split) for split in splits]
    expected = VennAbersCalibration(cv=fewer).fit(logits[kept], y[kept])
    assert_allclose(
        cross.predict_proba(logits), expected.predict_proba(logits), atol=1e-12
    )


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_never_occurs_has_0_as_lower_bound(method):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 4))
    venn_abers = VennAbersCalibration(method=method).fit(
        logits, rng.integers(0, 3, 200)
    )
    assert_allclose(venn_abers.predict_interval(logits)[:, 3, 0], 0, atol=1e-200)
    proba = venn_abers.predict_proba(logits)
    assert (proba > 0).all()
    # Its own mean probability, which is a quarter, but for the division of the rows.
    assert proba[:, 3].mean() > 0.18


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_pair_with_an_absent_class_is_left_to_the_logits():
    logits = np.random.default_rng(0).normal(size=(30, 3))
    logits = np.append(logits, logits[:, :1] - 1, axis=1)
    venn_abers = VennAbersCalibration(method="one_vs_one").fit(logits, [0, 1] * 15)
    # The curves of the pairs (0, 1), (0, 2), (0, 3), (1, 2), (1, 3) and (2, 3).
    for pair in range(1, 6):
        values = np.append(venn_abers.knots_[pair], np.inf).searchsorted([-2.0, 2.0])
        values = venn_abers.values_[pair][values]
        assert_allclose(values, expit([-2.0, 2.0]), rtol=0.14)
        assert_array_equal(venn_abers.lower_[pair], 0.0)
        assert_array_equal(venn_abers.upper_[pair], 1.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e-12, 1e4, 1e30, 1e300])
def test_intervals_of_logits_of_any_size_are_finite(calibration_set, method, factor):
    logits, y = calibration_set
    venn_abers = VennAbersCalibration(method=method).fit(logits * factor, y)
    extreme = np.array([[1e4, 0, 0, 0], [-1e30, 1e30, 0, 1], [1e300, 0, 0, -1e300]])
    for X in (logits * factor, extreme, np.zeros((1, 4))):
        assert np.isfinite(venn_abers.predict_interval(X)).all()


@pytest.mark.parametrize("method", METHODS)
def test_intervals_of_float32_logits_are_float32(calibration_set, method):
    logits, y = calibration_set[0].astype(np.float32), calibration_set[1]
    venn_abers = VennAbersCalibration(method=method).fit(logits, y)
    assert venn_abers.predict_interval(logits).dtype == np.float32


@pytest.mark.parametrize(
    ("options", "name"),
    [({"method": "shared"}, "method"), ({"cv": "five"}, "cv"), ({"cv": 1}, "cv")],
)
def test_wrong_parameters_are_refused(calibration_set, options, name):
    with pytest.raises(ValueError, match=name):
        VennAbersCalibration(**options).fit(*calibration_set)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_too_many_pairs_are_refused():
    logits = np.zeros((4, 1000))
    with pytest.raises(ValueError, match="499500 for 1000 classes"):
        VennAbersCalibration(method="one_vs_one").fit(logits, [0, 1, 2, 3])


def test_there_are_no_calibrated_logits(calibration_set):
    venn_abers = VennAbersCalibration().fit(*calibration_set)
    assert not hasattr(venn_abers, "decision_function")


@pytest.mark.parametrize("method", METHODS)
def test_it_calibrates_a_real_network(cifar10, method):
    X = cifar10.X_test.astype(np.float64)
    before = log_loss(cifar10.y_test, softmax(X, axis=1))
    venn_abers = VennAbersCalibration(method=method)
    proba = venn_abers.fit(cifar10.X_cal, cifar10.y_cal).predict_proba(X)
    assert log_loss(cifar10.y_test, proba) < before
    if method == "one_vs_rest":
        gap = proba.max(axis=1).mean() - np.mean(proba.argmax(axis=1) == cifar10.y_test)
        assert abs(gap) < 0.02


def test_repeated_rows_are_fitted_as_weights_also_in_the_folds(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=120)
    weight = np.random.default_rng(0).integers(1, 5, 120)
    rows = np.repeat(np.arange(120), weight)
    weighted = VennAbersCalibration(cv=4).fit(logits, y, sample_weight=weight)
    repeated = VennAbersCalibration(cv=4).fit(logits[rows], y[rows])
    expected = weighted.predict_proba(logits)
    assert_allclose(repeated.predict_proba(logits), expected, atol=1e-9)
