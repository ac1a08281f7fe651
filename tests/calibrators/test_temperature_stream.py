"""A temperature learned from the parts of a stream is that of all rows."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import skcalib
from skcalib import TemperatureScaling, logits_from_proba
from skcalib.datasets import make_logits


def learned_by_parts(calibrator, X, y, sizes, weight=None, **options):
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        own = None if weight is None else weight[rows]
        calibrator.partial_fit(X[rows], y[rows], sample_weight=own, **options)
        start += size
    assert start == len(y)
    return calibrator


@pytest.mark.parametrize("prior", [8.0, None])
@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0, 30.0])
def test_parts_of_a_stream_give_the_temperature_of_all_rows(
    draw_calibration_set, temperature, prior
):
    X, y = draw_calibration_set(temperature=temperature)
    whole = TemperatureScaling(prior=prior).fit(X, y)
    parts = learned_by_parts(TemperatureScaling(prior=prior), X, y, [300, 1, 299])
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)
    assert parts.loss_ == pytest.approx(whole.loss_, rel=1e-9)
    assert parts.gradient_norm_ < 1e-8
    assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-8)


def networks(data_dir):
    """Yield the logits and labels of real networks, as float64."""
    names = {"cifar10": ("resnet8d", "resnet20", "resnet32")}
    names |= {"cifar100": ("resnet8", "resnet20")}
    for dataset, of_set in names.items():
        with np.load(data_dir / dataset / f"{dataset}_logits.npz") as arrays:
            for name in of_set:
                yield arrays[name], arrays["y"]
    for name in ("lenet-5-cifar-100", "wideresnet-16-4-cifar-100"):
        with np.load(data_dir / "logits" / f"{name}.npz") as arrays:
            yield logits_from_proba(arrays["predictions"]), arrays["ground_truth"]
    with np.load(data_dir / "logits" / "langid_140.npz") as arrays:
        known = arrays["y"] >= 0
        # Scores up to thousands, whose temperature is 2.2 in these units.
        yield arrays["logits"][known], arrays["y"][known]


@pytest.mark.slow
def test_logits_of_networks_give_the_temperature_to_eight_digits(data_dir):
    errors = []
    for X, y in networks(data_dir):
        X, y = X[::5], y[::5].astype(int)
        whole = TemperatureScaling(classes=range(X.shape[1])).fit(X.astype(float), y)
        parts = clone(whole)
        for rows in np.array_split(np.arange(len(y)), 7):
            parts.partial_fit(X[rows], y[rows])
        errors.append(abs(parts.temperature_ / whole.temperature_ - 1))
    assert len(errors) == 8
    assert max(errors) < 1e-8


def test_the_worst_logits_give_the_temperature_to_five_digits():
    # All others of a thousand classes at one distance: see `_temperature_sums`.
    rng = np.random.default_rng(0)
    top = rng.integers(1000, size=200)
    X = 8.0 * np.eye(1000)[top]
    y = np.where(rng.random(200) < 0.6, top, rng.integers(1000, size=200))
    whole = TemperatureScaling().fit(X, y)
    parts = learned_by_parts(TemperatureScaling(), X, y, [100, 100])
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-5)


def test_the_parts_and_their_order_do_not_matter(calibration_set):
    X, y = calibration_set
    few = learned_by_parts(TemperatureScaling(), X, y, [600])
    order = np.random.default_rng(0).permutation(600)
    many = learned_by_parts(TemperatureScaling(), X[order], y[order], [30] * 20)
    assert_allclose(many.sums_, few.sums_, rtol=1e-12)
    assert many.temperature_ == pytest.approx(few.temperature_, rel=1e-10)


def test_merged_streams_give_the_temperature_of_both(calibration_set):
    X, y = calibration_set
    first = TemperatureScaling().partial_fit(X[:250], y[:250])
    second = TemperatureScaling().partial_fit(X[250:], y[250:])
    kept = second.sums_.copy()
    whole = learned_by_parts(TemperatureScaling(), X, y, [250, 350])
    assert first.merge(second) is first
    assert first.temperature_ == whole.temperature_
    assert_array_equal(second.sums_, kept)


@pytest.mark.parametrize("scale", [1.0, 1 / 600, 7.0])
def test_weights_of_a_stream_count_as_those_of_all_rows(calibration_set, scale):
    X, y = calibration_set
    # Weights that sum to less than their rows are as many as these: a prior tells.
    weight = scale * np.random.default_rng(0).integers(0, 4, size=600)
    whole = TemperatureScaling(prior=200).fit(X, y, weight)
    parts = TemperatureScaling(prior=200)
    learned_by_parts(parts, X, y, [100, 200, 300], weight)
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_parts_tell_that_weights_of_a_stream_are_not_whole(calibration_set, scale):
    X, y = calibration_set
    # The second part alone would be repetitions.
    weight = scale * np.random.default_rng(0).uniform(0.5, 3, size=600)
    weight[100:300] = scale
    whole = TemperatureScaling(prior=200).fit(X, y, weight)
    parts = TemperatureScaling(prior=200)
    learned_by_parts(parts, X, y, [100, 200, 300], weight)
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)
    second = TemperatureScaling(prior=200)
    second.partial_fit(X[100:300], y[100:300], sample_weight=weight[100:300])
    first, rest = (
        TemperatureScaling(prior=200).partial_fit(
            X[rows], y[rows], sample_weight=weight[rows]
        )
        for rows in (slice(100), slice(300, None))
    )
    merged = second.merge(first).merge(rest)
    assert merged.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)


def test_integer_weights_are_repetitions(calibration_set):
    X, y = calibration_set
    times = np.random.default_rng(0).integers(1, 4, size=600)
    weighted = learned_by_parts(TemperatureScaling(), X, y, [300, 300], times)
    repeated = TemperatureScaling().partial_fit(
        X.repeat(times, axis=0), y.repeat(times)
    )
    assert weighted.temperature_ == pytest.approx(repeated.temperature_, rel=1e-9)


def test_shares_of_classes_come_in_parts_too(calibration_set):
    X, y = calibration_set
    shares = 0.8 * np.eye(4)[y] + 0.05
    whole = TemperatureScaling().fit(X, shares)
    parts = learned_by_parts(TemperatureScaling(), X, shares, [1, 599])
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)


@pytest.mark.parametrize("as_column", [False, True])
def test_log_odds_come_in_parts_too(binary_calibration_set, as_column):
    z, y = binary_calibration_set
    z = z[:, np.newaxis] if as_column else z
    whole = TemperatureScaling().fit(z, y)
    parts = learned_by_parts(TemperatureScaling(), z, y, [200, 400])
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)


def test_labels_are_named_in_the_first_call(calibration_set):
    X, y = calibration_set
    names = np.array(["d", "b", "a", "c"])
    whole = TemperatureScaling(classes=names).fit(X, names[y])
    parts = learned_by_parts(TemperatureScaling(), X, names[y], [2, 598], classes=names)
    assert_array_equal(parts.classes_, names)
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)
    assert_array_equal(parts.predict(X), whole.predict(X))
    # The later parts need no name, and the parameter does as well.
    other = TemperatureScaling(classes=names).partial_fit(X[:2], names[y[:2]])
    assert_array_equal(other.partial_fit(X[2:], names[y[2:]]).sums_, parts.sums_)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"classes": ["b", "a", "c", "d"]}, "is not the same as before"),
        ({"y": ["x"]}, "y holds labels"),
        ({"X": [[1.0, 2.0, 3.0]]}, "X has 3 features"),
        ({"X": [[1.0, 2.0, np.nan, 0.0]]}, "row 0 holds nan"),
    ],
)
def test_a_part_that_is_refused_changes_nothing(calibration_set, part, message):
    X, y = calibration_set
    names = np.array(["a", "b", "c", "d"])
    ts = TemperatureScaling().partial_fit(X, names[y], classes=names)
    before = pickle.dumps(ts)
    with pytest.raises(ValueError, match=message):
        ts.partial_fit(**{"X": X[:1], "y": ["a"]} | part)
    assert pickle.dumps(ts) == before


@pytest.mark.parametrize("weight", [1e-40, 1e40])
def test_weights_that_do_not_add_up_are_refused(calibration_set, weight):
    X, y = calibration_set
    with pytest.raises(ValueError, match="Multiply the weights of all parts"):
        TemperatureScaling().partial_fit(X, y, sample_weight=np.full(600, weight))


def test_rows_that_all_weigh_nothing_add_nothing(calibration_set):
    X, y = calibration_set
    expected = TemperatureScaling().partial_fit(X, y)
    ts = TemperatureScaling().partial_fit(X, y)
    ts.partial_fit(3 * X, y, sample_weight=np.zeros(600))
    assert ts.temperature_ == expected.temperature_
    assert_array_equal(ts.sums_, expected.sums_)
    first = TemperatureScaling().partial_fit(X[:5], y[:5], range(4), [0] * 5)
    assert first.temperature_ == 1
    assert first.merge(ts).temperature_ == expected.temperature_
    with pytest.raises(ValueError, match=r"non-zero number|is zero everywhere"):
        TemperatureScaling().partial_fit(X, y, sample_weight=np.zeros(600))
    with pytest.raises(ValueError, match="shape == "):
        ts.partial_fit(X, y, sample_weight=np.zeros(5))
    with pytest.raises(ValueError, match="does not name"):
        ts.partial_fit(X[:1], [7], sample_weight=[0.0])


def test_fit_begins_anew_and_so_do_parts_after_it(calibration_set):
    X, y = calibration_set
    ts = TemperatureScaling().partial_fit(X[:50], y[:50]).fit(X, y)
    assert ts.temperature_ == TemperatureScaling().fit(X, y).temperature_
    assert not hasattr(ts, "sums_")
    new = TemperatureScaling().partial_fit(X[:70], y[:70])
    with pytest.raises(ValueError, match="no sums of a stream"):
        new.merge(ts)
    with pytest.warns(UserWarning, match="partial_fit begins anew"):
        ts.partial_fit(X[:70], y[:70])
    assert ts.temperature_ == new.temperature_


def test_streams_of_other_classes_are_not_merged(calibration_set):
    X, y = calibration_set
    first = TemperatureScaling().partial_fit(X, y)
    second = TemperatureScaling(classes=[3, 2, 1, 0]).partial_fit(X, 3 - y)
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3\].*\[3, 2, 1, 0\]"):
        first.merge(second)


@pytest.mark.parametrize("objective", ["brier", "ece", "focal", "top"])
def test_objectives_without_sums_have_no_partial_fit(objective):
    ts = TemperatureScaling(objective=objective)
    assert not hasattr(ts, "partial_fit")
    assert hasattr(TemperatureScaling(objective="focal", gamma=0), "partial_fit")


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_temperature_outside_the_range_is_warned_of(calibration_set, factor):
    X, y = calibration_set
    with pytest.warns(ConvergenceWarning, match=r"not between 0\.02 and 50"):
        ts = TemperatureScaling().partial_fit(factor * X, y)
    assert ts.temperature_ == pytest.approx(0.02 if factor < 1 else 50)


@pytest.mark.parametrize("factor", [1e-5, 1e-4])
def test_a_prior_does_not_hide_that_the_best_temperature_is_outside(factor):
    X, y = make_logits(100, 4, random_state=3)
    assert TemperatureScaling().fit(factor * X, y).temperature_ < 0.001
    with pytest.warns(ConvergenceWarning, match=r"not between 0\.02 and 50"):
        TemperatureScaling().partial_fit(factor * X, y)


def test_few_rows_of_tiny_logits_leave_the_temperature_to_the_prior():
    X, y = make_logits(5, 4, random_state=3)
    ts = TemperatureScaling().partial_fit(1e-4 * X, y)
    assert ts.temperature_ == pytest.approx(1, abs=0.01)


def test_a_stream_without_errors_goes_to_the_end_of_the_range():
    X, y = 3 * np.eye(3), [0, 1, 2]
    with pytest.warns(ConvergenceWarning, match="without error"):
        ts = TemperatureScaling(prior=None).partial_fit(X, y)
    assert ts.temperature_ == pytest.approx(0.02)
    whole = TemperatureScaling().fit(X, y)
    assert TemperatureScaling().partial_fit(X, y).temperature_ == pytest.approx(
        whole.temperature_, rel=1e-8
    )


def test_equal_logits_leave_the_temperature_at_one():
    with pytest.warns(ConvergenceWarning, match="are equal"):
        ts = TemperatureScaling().partial_fit(np.ones((5, 3)), [0, 1, 2, 0, 0])
    assert ts.temperature_ == 1


def test_masked_and_huge_logits_do_no_harm(calibration_set, mask_others):
    X, y = calibration_set
    for value in (-1e30, -1e300):
        masked, _ = mask_others(X, y, value)
        whole = TemperatureScaling().fit(masked, y)
        parts = learned_by_parts(TemperatureScaling(), masked, y, [300, 300])
        assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)


def test_a_stream_goes_on_after_it_was_stored(calibration_set, tmp_path):
    X, y = calibration_set
    whole = learned_by_parts(TemperatureScaling(), X, y, [300, 300])
    half = TemperatureScaling().partial_fit(X[:300], y[:300])
    skcalib.save(half, tmp_path / "half.json")
    for stored in (skcalib.load(tmp_path / "half.json"), deepcopy(half)):
        assert stored.partial_fit(X[300:], y[300:]).temperature_ == whole.temperature_


@pytest.mark.slow
def test_dask_chunks_and_tensors_are_parts_too(calibration_set, dask_in_this_process):
    da, torch = pytest.importorskip("dask.array"), pytest.importorskip("torch")
    X, y = calibration_set
    weight = np.random.default_rng(0).uniform(0, 0.1, size=600)
    expected = learned_by_parts(TemperatureScaling(), X, y, [300, 300], weight)
    lazy = [da.from_array(part[:300], chunks=len(X) // 6) for part in (X, y, weight)]
    ts = TemperatureScaling().partial_fit(*lazy[:2], sample_weight=lazy[2])
    tensors = torch.from_numpy(X[300:]), torch.from_numpy(y[300:])
    ts.partial_fit(*tensors, sample_weight=weight[300:])
    assert ts.temperature_ == pytest.approx(expected.temperature_, rel=1e-10)
    with pytest.raises(ValueError, match="Multiply the weights of all parts"):
        ts.partial_fit(*lazy[:2], sample_weight=1e-40 * lazy[2])


@pytest.mark.parametrize("way", ["partial_fit", "merge"])
def test_rows_that_were_interrupted_count_once_when_they_come_again(
    monkeypatch, draw_calibration_set, way
):
    X, y = draw_calibration_set()
    stream, other = (TemperatureScaling().partial_fit(X * k, y) for k in (1, 3))
    expected = learned_by_parts(
        TemperatureScaling(), np.vstack([X, 3 * X]), np.append(y, y), [len(y)] * 2
    )
    rows = (other,) if way == "merge" else (3 * X, y)

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("skcalib.calibrators._temperature.temperature_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(stream, way)(*rows)
    assert getattr(stream, way)(*rows).temperature_ == expected.temperature_


def test_a_merge_that_does_not_come_through_changes_nothing():
    X, y = make_logits(400, 3, random_state=0)
    one, other = (TemperatureScaling().partial_fit(f * X, y) for f in (1, 8))
    before = dict(vars(one.set_params(max_iter=1, tol=1e-300)))
    with pytest.raises(ConvergenceWarning):
        one.merge(other)
    assert vars(one) == before
