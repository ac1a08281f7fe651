import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import beta

import skcalib
from skcalib import IsotonicCalibration, PriorShift, TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.testing import check_calibrator

SHARES = np.array([0.6, 0.3, 0.1])


def draw_problem(n_rows, shares, seed=0):
    """Logits that are exact for equal shares, of rows with other shares."""
    rng = np.random.default_rng(seed)
    means = 1.5 * np.eye(3)
    y = rng.choice(3, n_rows, p=shares)
    x = means[y] + rng.normal(size=(n_rows, 3))
    # ln of the normal densities, but for a constant.
    return x @ means.T, y


def fitted(**options):
    return PriorShift(**options).fit(*draw_problem(6000, np.full(3, 1 / 3)))


def posterior(X, shares):
    q = np.exp(X) * shares
    return q / q.sum(axis=1, keepdims=True)


def test_it_keeps_the_contract():
    check_calibrator(PriorShift(IsotonicCalibration()))


def test_shares_may_be_written_in_place():
    X, _ = draw_problem(500, SHARES, seed=1)
    shift = fitted(calibrator=TemperatureScaling())
    shift.priors_[:] = SHARES
    assert_allclose(shift.predict_proba(X), posterior(X, SHARES), atol=0.03)


def test_the_moments_of_many_classes_are_those_of_all_rows():
    n_classes, n_rows = 300, 1000
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n_rows, n_classes))
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, 700))
    shift = PriorShift(TemperatureScaling()).fit(logits, y)
    proba = shift.calibrator_.predict_proba(logits)
    means = np.array([proba[y == k].mean(axis=0) for k in range(n_classes)])
    assert_allclose(shift._class_means, means.T, rtol=1e-10)
    assert_allclose(shift._covariance, np.cov(proba.T, bias=True), atol=1e-12)


def test_given_shares_give_the_posterior_of_those_shares():
    X, _ = draw_problem(500, SHARES, seed=1)
    shift = fitted(calibrator=TemperatureScaling(), priors=SHARES)
    assert_allclose(shift.predict_proba(X), posterior(X, SHARES), atol=0.03)
    named = fitted(calibrator=TemperatureScaling(), priors={1: 0.3, 0: 0.6, 2: 0.1})
    assert_allclose(named.predict_proba(X), shift.predict_proba(X))


def test_without_a_shift_the_calibrator_stays_as_it_is():
    X, y = draw_problem(1000, SHARES)
    shift = PriorShift(TemperatureScaling()).fit(X, y)
    plain = TemperatureScaling().fit(X, y)
    assert_allclose(shift.predict_proba(X), plain.predict_proba(X), rtol=1e-9)
    assert_allclose(shift.priors_, np.bincount(y) / 1000)


@pytest.mark.parametrize("method", ["em", "bbse"])
def test_moved_shares_are_found_without_labels(method):
    X, y = draw_problem(4000, SHARES, seed=1)
    shift = fitted(method=method).update_priors(X)
    assert_allclose(shift.priors_, SHARES, atol=0.04)
    low, high = shift.priors_interval_
    assert (low < shift.priors_).all()
    assert (shift.priors_ < high).all()
    assert (high - low).max() < 0.1
    assert shift.shift_p_value_ < 1e-6
    assert shift.n_unlabelled_ == 4000
    rows = np.arange(4000)
    losses = [
        -np.log(model.predict_proba(X)[rows, y]).mean() for model in (fitted(), shift)
    ]
    assert losses[1] < losses[0] - 0.05


def test_the_mixture_is_that_of_the_em_algorithm():
    X, _ = draw_problem(2000, SHARES, seed=1)
    shift = fitted(n_bootstrap=0)
    q = shift.predict_proba(X)
    shares, old = shift.fit_priors_, shift.fit_priors_
    for _ in range(3000):
        told = q * shares / old
        told /= told.sum(axis=1, keepdims=True)
        # With the ten rows of the prior.
        shares = (told.sum(axis=0) + 10 * old) / 2010
    assert_allclose(shift.update_priors(X).priors_, shares, atol=1e-5)
    assert shift.priors_interval_ is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["em", "bbse"])
def test_intervals_cover_and_the_test_keeps_its_level(method):
    shift = fitted(method=method, n_bootstrap=100)
    without_interval = fitted(method="bbse", n_bootstrap=0)
    covered, p_values = [], []
    for seed in range(60):
        X, _ = draw_problem(500, SHARES, seed=seed + 1)
        low, high = shift.update_priors(X).priors_interval_
        covered.append((low <= SHARES) & (high >= SHARES))
        X, _ = draw_problem(500, np.full(3, 1 / 3), seed=seed + 1)
        p_values.append(without_interval.update_priors(X).shift_p_value_)
    assert np.mean(covered) > 0.88
    # More than 8 of 60 at 5 % come with a chance below 0.5 %.
    assert (np.array(p_values) < 0.05).sum() <= 8


def test_intervals_cover_shares_that_did_not_move():
    # The estimate is drawn to the old shares here, and varies less than it is wrong.
    shares = np.full(3, 1 / 3)
    shift = fitted(n_bootstrap=100)
    covered = []
    for seed in range(1, 21):
        shift.update_priors(draw_problem(200, shares, seed)[0])
        low, high = shift.priors_interval_
        covered.append((low <= shares) & (shares <= high))
    assert np.mean(covered) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("method", ["em", "bbse"])
@pytest.mark.parametrize("n_rows", [20, 1000])
def test_intervals_cover_shares_however_far_they_moved(method, n_rows):
    shift = fitted(method=method, n_bootstrap=100)
    for shares in ([0.37, 0.33, 0.3], [0.6, 0.2, 0.2], [0.97, 0.02, 0.01]):
        covered = []
        for seed in range(1, 21):
            shift.update_priors(draw_problem(n_rows, shares, seed)[0])
            low, high = shift.priors_interval_
            # Few rows draw the estimate to the old shares, out of what is drawn anew.
            assert (low <= shift.priors_).all()
            assert (shift.priors_ <= high).all()
            covered.append((low <= shares) & (shares <= high))
        assert np.mean(covered) > 0.88


@pytest.mark.parametrize("method", ["em", "bbse"])
def test_intervals_of_few_rows_are_wide_and_of_many_narrow(method):
    shift = fitted(method=method)
    widths = []
    for n_rows in (1, 10, 100, 1000):
        X, _ = draw_problem(n_rows, SHARES, seed=1)
        low, high = shift.update_priors(X).priors_interval_
        assert ((low >= 0) & (high <= 1)).all()
        widths.append((high - low).min())
    assert widths[0] > 0.5
    assert widths[-1] < 0.1
    assert (np.diff(widths) < 0).all()


def test_intervals_are_those_of_counts_where_every_row_tells_its_class():
    # The lower ends are those of Haldane's prior, the upper ones those of Jeffreys'.
    told = np.repeat([0, 1, 2], [190, 9, 1])
    shift = PriorShift(TemperatureScaling(), n_bootstrap=2000)
    shift.fit(*draw_problem(6000, np.full(3, 1 / 3)))
    low, high = shift.update_priors(100 * np.eye(3)[told]).priors_interval_
    n_told = np.bincount(told)
    by_jeffreys = beta.ppf(0.975, n_told[1:] + 0.5, 200 - n_told[1:] + 1)
    by_haldane = beta.ppf(0.025, n_told[1:], 200 - n_told[1:])
    assert_allclose(high[1:], by_jeffreys, rtol=0.08)
    assert_allclose(low[1:], by_haldane, rtol=0.15)


@pytest.mark.parametrize("method", ["em", "bbse"])
def test_the_estimate_does_not_depend_on_the_replicates(method):
    X, _ = draw_problem(300, SHARES, seed=1)
    few, none = (fitted(method=method, n_bootstrap=n).update_priors(X) for n in (5, 0))
    assert_allclose(few.priors_, none.priors_, rtol=0)
    assert none.priors_interval_ is None


def test_resampled_scores_are_corrected():
    # Scores for equal shares, of a model that was trained on a balanced sample.
    X, y = draw_problem(20_000, SHARES, seed=1)
    balanced, y_balanced = draw_problem(6000, np.full(3, 1 / 3))
    shift = PriorShift(TemperatureScaling(), priors=SHARES).fit(balanced, y_balanced)
    proba = shift.predict_proba(X)
    assert_allclose(proba.mean(axis=0), np.bincount(y) / 20_000, atol=0.02)
    said = PriorShift(
        TemperatureScaling(), priors=SHARES, sampling_priors=[1 / 3, 1 / 3, 1 / 3]
    ).fit(balanced[:500], y_balanced[:500])
    assert_allclose(said.fit_priors_, 1 / 3)
    assert_allclose(said.predict_proba(X), proba, atol=0.05)


def test_a_class_that_comes_no_more_keeps_little():
    X, _ = draw_problem(3000, [0.7, 0.3, 0.0], seed=1)
    shift = fitted().update_priors(X)
    assert shift.priors_[2] < 0.02
    assert np.isfinite(shift.predict_proba(X)).all()
    given = fitted(priors=[0.7, 0.3, 0.0])
    assert given.predict_proba(X)[:, 2].max() < 1e-6


def test_few_rows_of_many_classes_move_nothing_by_noise():
    rng = np.random.default_rng(0)
    X, y = make_logits(12_000, 50, random_state=0)
    shift = PriorShift(n_bootstrap=0).fit(X[:6000], y[:6000])
    before = shift.predict_proba(X[6000:])
    shift.update_priors(X[rng.choice(np.arange(6000, 12_000), 200)])
    after = shift.predict_proba(X[6000:])
    rows = np.arange(6000)
    losses = [-np.log(q[rows, y[6000:]]).mean() for q in (before, after)]
    assert losses[1] < losses[0] + 0.005


def test_one_row_moves_little():
    X, _ = draw_problem(1, SHARES, seed=1)
    shift = fitted().update_priors(X)
    assert np.abs(shift.priors_ - shift.fit_priors_).max() < 0.1
    assert shift.shift_p_value_ > 0.05


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"priors": [0.5, 0.5]}, r"priors has shape \(2,\)"),
        ({"priors": [0.5, 0.6, 0.2]}, r"sum to 1\.3"),
        ({"priors": [-0.1, 0.6, 0.5]}, "at least 0"),
        ({"priors": [np.nan, 0.6, 0.4]}, "are no shares"),
        ({"priors": {0: 0.5, 1: 0.5}}, r"Missing are \[2\]"),
        ({"sampling_priors": {0: 0.5, 1: 0.5, "2": 0}}, r"Missing are \[2\]"),
        ({"priors": "guess"}, "priors"),
    ],
)
def test_shares_are_checked(options, what):
    with pytest.raises(ValueError, match=what):
        fitted(**options)


def test_given_shares_are_not_estimated():
    X, _ = draw_problem(100, SHARES)
    with pytest.raises(ValueError, match="The shares are given"):
        fitted(priors=SHARES).update_priors(X)


def test_it_is_saved_with_its_shares(tmp_path):
    X, _ = draw_problem(300, SHARES, seed=1)
    shift = fitted().update_priors(X)
    skcalib.save(shift, tmp_path / "shift.json")
    loaded = skcalib.load(tmp_path / "shift.json")
    assert_allclose(loaded.predict_proba(X), shift.predict_proba(X), rtol=0)
    assert_allclose(loaded.update_priors(X).priors_, shift.priors_)


@pytest.mark.onnx
@pytest.mark.torch
def test_it_is_exported():
    ort = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    export = pytest.importorskip("skcalib.export")
    X, y = make_logits(2000, 4, random_state=0)
    shift = PriorShift(priors=[0.7, 0.1, 0.1, 0.1]).fit(X, y)
    X = X.astype(np.float32)
    session = ort.InferenceSession(export.to_onnx(shift).SerializeToString())
    served = session.run(None, {session.get_inputs()[0].name: X})[0]
    assert_allclose(served, shift.predict_proba(X), atol=1e-6)
    told = export.to_torch(shift)(torch.from_numpy(X)).detach().numpy()
    assert_allclose(told, shift.predict_proba(X), atol=1e-6)


def test_shares_by_label_are_not_taken_by_position():
    pandas = pytest.importorskip("pandas")
    X, y = draw_problem(2000, SHARES)
    counts = pandas.Series([2] * 6 + [0] * 3 + [1]).value_counts(normalize=True)
    assert counts.index.tolist() == [2, 0, 1]
    shift = PriorShift(priors=counts).fit(X, y)
    assert_allclose(shift.priors_, [0.3, 0.1, 0.6])


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
@pytest.mark.parametrize("name", ["priors", "sampling_priors"])
def test_an_index_of_the_classes_names_them_in_any_order(name, order):
    pandas = pytest.importorskip("pandas")
    X, y = draw_problem(500, SHARES)
    shares = pandas.Series(SHARES)[order]
    shift = PriorShift(**{name: shares}, classes=[2, 1, 0]).fit(X[:, ::-1], y)
    found = shift.priors_ if name == "priors" else shift.fit_priors_
    assert_allclose(found, SHARES[::-1])
    default = pandas.Series(SHARES)  # A RangeIndex of the same labels.
    again = PriorShift(**{name: default}, classes=[2, 1, 0]).fit(X[:, ::-1], y)
    assert_allclose(again.predict_proba(X), shift.predict_proba(X))


def test_only_a_default_index_is_read_by_position():
    pandas = pytest.importorskip("pandas")
    X, y = draw_problem(500, SHARES)
    y = np.array(["a", "b", "c"])[y]
    shift = PriorShift(priors=pandas.Series(SHARES)).fit(X, y)
    assert_allclose(shift.priors_, SHARES)
    with pytest.raises(ValueError, match=r"Missing are \['a', 'b', 'c'\]"):
        PriorShift(priors=pandas.Series(SHARES, index=[0, 2, 1])).fit(X, y)


def test_a_class_that_never_occurred_does_not_take_the_rows():
    X, y = draw_problem(4000, [0.5, 0.5, 0])
    shift = PriorShift(TemperatureScaling(), classes=[0, 1, 2]).fit(X, y)
    shift.update_priors(X)
    assert_allclose(shift.priors_, shift.fit_priors_, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_a_few_rows_of_the_same_shares_are_seldom_said_to_have_moved(n_rows):
    shift = fitted(method="bbse", n_bootstrap=0)
    moved = 0
    for seed in range(1, 101):
        X, _ = draw_problem(n_rows, np.full(3, 1 / 3), seed)
        moved += shift.update_priors(X).shift_p_value_ < 0.05
    assert moved <= 11


def test_shares_are_estimated_from_tensors():
    torch = pytest.importorskip("torch")
    X, _ = draw_problem(500, SHARES, seed=1)
    shift = fitted(n_bootstrap=0)
    expected = shift.update_priors(X).priors_
    tensor = torch.tensor(X, requires_grad=True)
    assert_allclose(shift.update_priors(tensor).priors_, expected)


def test_shares_are_not_estimated_from_dask_collections():
    array = pytest.importorskip("dask.array")
    X, _ = draw_problem(500, SHARES, seed=1)
    with pytest.raises(TypeError, match="update_priors needs all rows in memory"):
        fitted(n_bootstrap=0).update_priors(array.from_array(X))


@pytest.mark.parametrize(
    "bad", [{"confidence_level": 2.0}, {"n_bootstrap": -1}, {"method": "none"}]
)
def test_a_refused_update_of_the_shares_changes_nothing(bad):
    shift = fitted().update_priors(draw_problem(500, SHARES)[0])
    before = dict(vars(shift))
    with pytest.raises(ValueError, match=next(iter(bad))):
        shift.set_params(**bad).update_priors(draw_problem(500, SHARES[::-1])[0])
    assert vars(shift) == before | bad


def test_an_interrupted_update_of_the_shares_changes_none(monkeypatch):
    shift = fitted().update_priors(draw_problem(500, SHARES)[0])
    before = dict(vars(shift))

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("skcalib.meta._prior_shift.interval_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shift.update_priors(draw_problem(500, SHARES[::-1])[0])
    assert vars(shift) == before
