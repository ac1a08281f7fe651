import copy
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from streams import draw_stream

import skcalib
from skcalib import (
    BoostedCalibration,
    CalibratorSearch,
    DensityRatioCalibration,
    GroupCalibration,
    IsotonicCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    logits_from_proba,
)
from skcalib.datasets import make_logits
from skcalib.metrics import expected_calibration_error
from skcalib.monitoring import CalibrationMonitor, LossMonitor
from skcalib.monitoring._recent import Recent
from skcalib.monitoring._report import gap_half_width


def watched(seed=0, n_rows=1000, n_classes=3, monitor=None, **change):
    """A monitor that has seen a stream."""
    rng = np.random.default_rng(seed)
    monitor = CalibrationMonitor() if monitor is None else monitor
    return monitor.update(*draw_stream(rng, n_rows, n_classes, **change))


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 10])
def test_a_calibrated_stream_seldom_alarms(n_classes):
    # At 5 % there may be 1.5 of 30 on average; there are hardly any.
    alarms = [watched(seed, 1500, n_classes).alarm_ for seed in range(30)]
    assert sum(alarms) <= 1


def test_too_large_logits_are_found_out_and_named():
    monitor = watched(n_rows=2000, factor=1.4)
    assert monitor.alarm_
    assert monitor.alarm_row_ < 1000
    assert monitor.evidence_ > monitor.threshold_
    assert "over-confident" in monitor.report().suspect


def test_a_biased_class_is_found_out_and_named():
    monitor = watched(n_rows=1500, bias=1.0, n_classes=10)
    assert monitor.alarm_
    assert monitor.report().suspect.startswith("class 0 is less")


def test_a_late_change_is_found_and_dated():
    monitor = watched(n_rows=4000)
    assert not monitor.alarm_
    watched(1, 1500, monitor=monitor, factor=1.6)
    assert monitor.alarm_
    assert abs(monitor.change_point_ - 4000) < 300


def test_a_change_of_many_classes_is_dated_too():
    # The learned bet, which finds it, had nothing to lose before.
    monitor = watched(n_rows=2500, n_classes=10)
    rng = np.random.default_rng(1)
    y, proba = draw_stream(rng, 1500, 10)
    moved = proba * np.exp(np.linspace(-0.8, 0.8, 10))
    monitor.update(y, moved / moved.sum(axis=1, keepdims=True))
    assert monitor.alarm_
    assert monitor.report().suspect.startswith("the frequencies of several classes")
    assert abs(monitor.change_point_ - 2500) < 300


def test_what_is_tolerated_pages_nobody_and_more_does():
    slightly = {"factor": 1.02, "n_rows": 6000, "n_classes": 2, "spread": 1.0}
    tolerant = CalibrationMonitor(tolerance=0.02)
    assert not watched(monitor=tolerant, **slightly).alarm_
    assert tolerant.evidence_ < 0
    clearly = CalibrationMonitor(tolerance=0.02)
    assert watched(monitor=clearly, n_rows=6000, factor=1.8).alarm_


def test_the_group_that_is_off_is_named():
    rng = np.random.default_rng(0)
    monitor = CalibrationMonitor(groups=["a", "b", "c"])
    for _ in range(20):
        y, proba = draw_stream(rng, 100, 3)
        y_b, proba_b = draw_stream(rng, 100, 3, factor=2.0)
        y, proba = np.concatenate([y, y_b]), np.concatenate([proba, proba_b])
        names = np.repeat(["a", "b"], 100)
        order = rng.permutation(200)
        monitor.update(y[order], proba[order], groups=names[order])
    report = monitor.report()
    assert report.alarm
    assert report.group == "b"
    evidence = report.group_evidence
    assert evidence["b"] > 10 > 0 > evidence["a"]
    assert evidence["c"] == 0


def test_with_late_labels_a_change_is_found_and_dependence_raises_no_alarm():
    # Labels come in runs of four that are alike: calibrated given what is known then.
    rng = np.random.default_rng(0)
    y, proba = draw_stream(rng, 500, 3)
    monitor = CalibrationMonitor(delay=4).update(y.repeat(4), proba.repeat(4, axis=0))
    assert not monitor.alarm_
    y, proba = draw_stream(rng, 2000, 3, factor=2.0)
    assert monitor.update(y, proba).alarm_
    assert monitor.report().gap_low is None


def test_rows_of_an_interleaved_stream_stay_apart_when_others_are_merged():
    y, proba = draw_stream(np.random.default_rng(0), 12, 3)
    other = CalibrationMonitor(delay=4).update(y[:2], proba[:2])
    monitor = CalibrationMonitor(delay=4).update(y[:6], proba[:6]).merge(other)
    before = [stream[0].n_rows for stream in monitor._streams]
    assert before == [3, 3, 1, 1]
    monitor.update(y[6], proba[6], position=6)
    # The seventh row of its own belongs to the third stream, as without the others.
    assert [stream[0].n_rows for stream in monitor._streams] == [3, 3, 2, 1]


def test_batches_and_single_rows_give_the_same():
    y, proba = draw_stream(np.random.default_rng(0), 100, 3, factor=1.5)
    whole = CalibrationMonitor().update(y, proba)
    single = CalibrationMonitor()
    for label, row in zip(y, proba, strict=True):
        single.update(label, row)
    assert single.evidence_ == pytest.approx(whole.evidence_, abs=1e-9)
    assert single.n_rows_ == 100


def test_classes_are_tied_to_their_columns():
    y, proba = draw_stream(np.random.default_rng(0), 400, 3, bias=1)
    plain = CalibrationMonitor().update(y, proba)
    names = np.array(["c", "a", "b"])
    named = CalibrationMonitor(classes=names).update(names[y], proba)
    assert named.evidence_ == plain.evidence_
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(proba[:, [1, 2, 0]], columns=["a", "b", "c"])
    framed = CalibrationMonitor().update(names[y], frame)
    assert framed.classes_.tolist() == ["a", "b", "c"]
    assert framed.evidence_ == pytest.approx(plain.evidence_)
    with pytest.raises(ValueError, match="'d'"):
        framed.update(["d"], proba[:1])


def test_one_column_is_that_of_the_second_class():
    y, proba = draw_stream(np.random.default_rng(0), 300, 2, factor=1.5)
    names = np.array(["no", "yes"])
    single = CalibrationMonitor(classes=names).update(names[y], proba[:, 1])
    both = CalibrationMonitor().update(y, proba)
    assert single.evidence_ == pytest.approx(both.evidence_)


@pytest.mark.parametrize("delay", [0, 2])
def test_a_state_goes_through_json_and_goes_on(delay):
    options = {"delay": delay, "groups": ["a", "b"], "memory": 70, "tolerance": 0.001}
    rng = np.random.default_rng(0)
    first, second = (draw_stream(rng, n, 3, factor=1.3) for n in (123, 200))
    names = np.array(["a", "b"])[rng.integers(2, size=200)]
    monitor = CalibrationMonitor(**options).update(*first, groups=names[:123])
    text = json.dumps(monitor.to_dict(), allow_nan=False)
    again = CalibrationMonitor.from_dict(json.loads(text))
    for each in (monitor, again):
        each.update(*second, groups=names)
    assert again.to_dict() == monitor.to_dict()
    assert again.report() == monitor.report()


def test_a_state_without_memory_takes_a_few_kilobytes():
    monitor = watched(n_rows=5000, n_classes=10, monitor=CalibrationMonitor(memory=0))
    assert len(json.dumps(monitor.to_dict())) < 20_000


def test_merged_shards_have_more_evidence_than_each():
    shards = [watched(seed, 250, factor=1.3) for seed in range(6)]
    day = CalibrationMonitor()
    for shard in shards:
        day.merge(shard)
    assert day.evidence_ > max(shard.evidence_ for shard in shards)
    assert day.n_rows_ == 1500
    assert day.report().accuracy == pytest.approx(
        np.mean([shard.report().accuracy for shard in shards])
    )


def test_an_alarm_of_a_shard_is_not_an_alarm_of_the_merged():
    loud = watched(n_rows=64, factor=3.0)
    assert loud.alarm_
    quiet = watched(1, 2000)
    assert not quiet.merge(loud).alarm_


def test_rows_are_merged_once():
    shard, day = watched(1), watched(2)
    day.merge(shard)
    evidence = day.evidence_
    for again in (shard, CalibrationMonitor.from_dict(shard.to_dict()), day):
        with pytest.raises(ValueError, match="count twice"):
            day.merge(again)
    with pytest.raises(ValueError, match="count twice"):
        shard.merge(day)
    assert day.evidence_ == evidence
    assert day.merge(CalibrationMonitor()).n_rows_ == 2000


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (CalibrationMonitor(alpha=0.01), "differ in alpha"),
        (CalibrationMonitor(classes=["a", "b", "c"]), "differ in classes"),
    ],
)
def test_monitors_of_something_else_are_not_merged(other, what):
    names = np.arange(3) if other.classes is None else np.array(other.classes)
    y, proba = draw_stream(np.random.default_rng(0), 10, 3)
    other = clone(other).update(names[y], proba)
    with pytest.raises(ValueError, match=what):
        watched().merge(other)
    with pytest.raises(TypeError, match="not a dict"):
        watched().merge(other.to_dict())


def test_states_that_are_damaged_or_foreign_are_refused():
    state = watched().to_dict()
    with pytest.raises(ValueError, match="is no state"):
        CalibrationMonitor.from_dict({})
    with pytest.raises(ValueError, match="version 2"):
        CalibrationMonitor.from_dict({**state, "version": 2})
    with pytest.raises(ValueError, match="damaged"):
        CalibrationMonitor.from_dict({**state, "n_rows": 5})


def test_rows_that_cannot_be_judged_are_refused():
    monitor = watched(n_rows=50)
    with pytest.raises(ValueError, match="4 columns, but the monitor watches 3"):
        monitor.update([0], [[0.25] * 4])
    with pytest.raises(ValueError, match="holds nan"):
        monitor.update([0], [[np.nan, 0.5, 0.5]])
    with pytest.raises(ValueError, match=r"sums to 1\.5"):
        monitor.update([0], [[0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match="came before"):
        monitor.update([0], [[0.5, 0.5, 0.0]], position=0)
    with pytest.raises(ValueError, match="leave out some"):
        monitor.update([0], [[0.5, 0.5, 0.0]], position=51)
    with pytest.raises(ValueError, match="made without groups"):
        monitor.update([0], [[0.5, 0.5, 0.0]], groups=["a"])
    assert monitor.update([0], [[0.5, 0.5, 0.0]], position=50).n_rows_ == 51


def test_groups_are_checked():
    row = [[0.5, 0.5]]
    monitor = CalibrationMonitor(groups=["a", "b"])
    with pytest.raises(ValueError, match="groups is missing"):
        monitor.update([0], row)
    with pytest.raises(ValueError, match="Row 0 is of group 'c'"):
        monitor.update([0], row, groups=["c"])
    with pytest.raises(ValueError, match="one entry for each of the 1 rows"):
        monitor.update([0], row, groups=["a", "b"])
    with pytest.raises(ValueError, match="each of them once"):
        CalibrationMonitor(groups=["a", "a"]).update([0], row, groups=["a"])


def test_a_class_that_was_said_to_be_impossible_raises_no_alarm_alone():
    y, proba = draw_stream(np.random.default_rng(0), 500, 3)
    monitor = CalibrationMonitor().update(y, proba).update(0, [0.0, 0.5, 0.5])
    assert not monitor.alarm_
    for _ in range(10):
        monitor.update(0, [0.0, 0.5, 0.5])
    assert monitor.alarm_


def test_the_next_calibrator_undoes_what_went_wrong():
    monitor = watched(n_rows=3000, factor=1.0)
    watched(1, 1500, monitor=monitor, factor=1.8)
    y, proba = draw_stream(np.random.default_rng(2), 5000, 3, factor=1.8)
    after = monitor.recalibrate().predict_proba(np.log(proba))
    rows = np.arange(5000)
    _, best = draw_stream(np.random.default_rng(2), 5000, 3)
    losses = [-np.log(q[rows, y]).mean() for q in (proba, after, best)]
    assert losses[1] - losses[2] < 0.15 * (losses[0] - losses[2])
    chosen = monitor.recalibrate(TemperatureScaling())
    assert chosen.temperature_ == pytest.approx(1.8, abs=0.25)


@pytest.mark.parametrize("served", [TemperatureScaling(), IsotonicCalibration()])
def test_with_the_served_calibrator_the_next_takes_its_logits(served, tmp_path):
    logits, y = make_logits(3000, 4, random_state=0)
    served = clone(served).fit(logits[:1000], y[:1000])
    shifted = 2 * logits.astype(np.float64)
    told = served.predict_proba(shifted)
    after = CalibrationMonitor(served).update(y, told).recalibrate()
    # Where the served map has logits, no probability is raised to a floor.
    floor = 1e-300 if served.has_logits else 1e-12
    told = logits_from_proba(told, floor=floor)
    expected = after.correction_.predict_proba(told)
    assert_allclose(after.predict_proba(shifted), expected, atol=1e-9)
    skcalib.save(after, tmp_path / "next.json")
    loaded = skcalib.load(tmp_path / "next.json")
    assert_allclose(loaded.predict_proba(shifted), after.predict_proba(shifted))
    again = clone(after).fit(shifted, y)
    assert again.predict_proba(shifted).shape == (3000, 4)


@pytest.mark.parametrize("calibrator", [VectorScaling(), MatrixScaling()])
def test_the_next_calibrator_takes_any_logits_of_the_served_probabilities(calibrator):
    logits, y = make_logits(600, 3, random_state=0)
    logits = logits.astype(np.float64)
    told = log_softmax(logits, axis=1)
    monitor = CalibrationMonitor().update(y, np.exp(told))
    after = monitor.recalibrate(calibrator)
    assert_allclose(after.predict_proba(logits), after.predict_proba(told), atol=1e-9)
    expected = after.correction_.predict_proba(np.maximum(told, np.log(1e-12)))
    assert_allclose(after.predict_proba(told), expected, atol=1e-9)
    # One without a map has none to put another before.
    kind = DensityRatioCalibration
    assert isinstance(monitor.recalibrate(kind()), kind)


def test_the_next_calibrator_has_logits_where_a_search_chose_one_that_has():
    logits, y = make_logits(600, 3, random_state=0)
    monitor = CalibrationMonitor().update(y, softmax(logits, axis=1))
    search = CalibratorSearch([VectorScaling(), TemperatureScaling()], rule="best")
    after = monitor.recalibrate(search)
    assert isinstance(after.correction_, CalibratorSearch)
    assert after.has_logits
    found = softmax(after.decision_function(logits), axis=1)
    assert_allclose(found, after.predict_proba(logits), rtol=1e-5)


@pytest.mark.onnx
def test_the_next_calibrator_becomes_an_onnx_file():
    ort = pytest.importorskip("onnxruntime")
    to_onnx = pytest.importorskip("skcalib.export").to_onnx
    logits, y = make_logits(1500, 4, random_state=0)
    served = TemperatureScaling().fit(logits[:500], y[:500])
    monitor = CalibrationMonitor(served).update(y, served.predict_proba(2 * logits))
    after = monitor.recalibrate()
    session = ort.InferenceSession(to_onnx(after).SerializeToString())
    feed = {session.get_inputs()[0].name: logits.astype(np.float32)}
    got = session.run(None, feed)[0]
    assert_allclose(got, after.predict_proba(logits.astype(np.float32)), atol=1e-6)


def test_a_state_knows_its_calibrator():
    logits, y = make_logits(600, 3, random_state=0)
    served = TemperatureScaling().fit(logits, y)
    monitor = CalibrationMonitor(served).update(y, served.predict_proba(logits))
    state = monitor.to_dict()
    assert CalibrationMonitor.from_dict(state, served).recalibrate().has_logits
    other = TemperatureScaling().fit(3 * logits, y)
    with pytest.raises(ValueError, match="of another calibrator"):
        CalibrationMonitor.from_dict(state, other)
    unknown = CalibrationMonitor.from_dict(state)
    assert unknown.to_dict() == state
    newer = CalibrationMonitor(other).update(y, other.predict_proba(logits))
    with pytest.raises(ValueError, match="different calibrators"):
        unknown.merge(newer)


def test_a_served_calibrator_that_is_fitted_anew_is_not_recalibrated():
    logits, y = make_logits(600, 3, random_state=0)
    served, former = (TemperatureScaling().fit(logits, y) for _ in range(2))
    monitor = CalibrationMonitor(served).update(y, served.predict_proba(logits))
    before = monitor.to_dict(), monitor.recalibrate()
    served.fit(3 * logits, y)
    with pytest.raises(ValueError, match=r"fitted anew.*new monitor"):
        monitor.recalibrate()
    assert monitor.to_dict() == before[0]
    after = CalibrationMonitor.from_dict(monitor.to_dict(), former).recalibrate()
    assert_allclose(after.predict_proba(logits), before[1].predict_proba(logits))
    newer = CalibrationMonitor(served).update(y, served.predict_proba(logits))
    with pytest.raises(ValueError, match="different calibrators"):
        monitor.merge(newer)


def test_a_served_calibrator_has_to_be_fitted_before_rows_are_seen():
    monitor = CalibrationMonitor(TemperatureScaling(), classes=["a", "b"])
    with pytest.raises(NotFittedError, match="TemperatureScaling"):
        monitor.update(["a", "b"], [0.4, 0.6])


def test_rows_added_to_a_monitor_are_not_those_of_its_shallow_copy():
    monitor = watched(n_rows=500, factor=1.4)
    shallow, before = copy.copy(monitor), monitor.to_dict()
    watched(seed=1, n_rows=500, monitor=monitor)
    assert shallow.to_dict() == before
    assert monitor.n_rows_ == 1000


def test_an_unknown_label_is_told_of_by_the_name_of_the_parameter():
    monitor = CalibrationMonitor(classes=["a", "b"])
    with pytest.raises(ValueError, match=r"labels that classes does not name: \['c'\]"):
        monitor.update(["a", "c"], [[0.5, 0.5], [0.5, 0.5]])


def test_nothing_is_recalibrated_from_nothing():
    with pytest.raises(ValueError, match=r"memory=0 a .* begun with memory=1000"):
        watched(monitor=CalibrationMonitor(memory=0)).recalibrate()
    for name in ("report", "recalibrate", "to_dict", "plot"):
        with pytest.raises(NotFittedError, match="call update first"):
            getattr(CalibrationMonitor(), name)()
    assert CalibrationMonitor().evidence_ == 0
    assert CalibrationMonitor().n_rows_ == 0
    assert not CalibrationMonitor().alarm_


def test_the_remembered_and_the_older_rows_are_all_rows():
    monitor = watched(n_rows=500, monitor=CalibrationMonitor(memory=60))
    before, since = monitor._recent.bins(0)
    assert before.weight.sum() == 440
    assert since.weight.sum() == 60
    other = watched(1, n_rows=90, monitor=CalibrationMonitor(memory=60))
    before, since = monitor.merge(other)._recent.bins(500)
    assert before.weight.sum() + since.weight.sum() == 590
    assert since.weight.sum() == 30
    log_proba, codes = monitor._recent.since(560)
    y, proba = draw_stream(np.random.default_rng(1), 90, 3)
    assert (codes == y[-30:]).all()
    assert_allclose(log_softmax(log_proba, axis=1), np.log(proba[-30:]), atol=0.01)


def test_after_a_merge_only_rows_since_the_change_are_learned_from():
    # The change comes late in the second shard, before which the memory has few rows.
    merged = watched(0, 3000, monitor=CalibrationMonitor(memory=400))
    shard = watched(1, 300, monitor=CalibrationMonitor(memory=400))
    watched(2, 40, monitor=merged.merge(shard), factor=3.0)
    row = merged.n_rows_ - 40
    _, codes = merged._recent.since(row)
    y, _ = draw_stream(np.random.default_rng(2), 40, 3, factor=3.0)
    assert (codes == y).all()
    watched(3, 300, monitor=merged, factor=3.0)
    assert merged.alarm_
    assert merged.change_point_ >= 3300
    assert merged._recent.since(merged.change_point_)[1].size <= 340
    again = CalibrationMonitor.from_dict(json.loads(json.dumps(merged.to_dict())))
    assert_allclose(again._recent.number, merged._recent.number)
    assert merged._recent.number[-1] == merged.n_rows_ - 1


def test_what_came_as_log_odds_is_recalibrated_as_log_odds():
    y, proba = draw_stream(np.random.default_rng(0), 800, 2, factor=2.0)
    single = CalibrationMonitor().update(y, proba[:, 1])
    single = CalibrationMonitor.from_dict(single.to_dict())
    after = single.recalibrate(TemperatureScaling())
    z = np.log(proba[:, 1]) - np.log(proba[:, 0])
    assert after.predict_proba(z).shape == (800, 2)
    both = CalibrationMonitor().update(y, proba).recalibrate(TemperatureScaling())
    assert after.temperature_ == pytest.approx(both.temperature_, rel=1e-3)
    mixed = single.update(y, proba).recalibrate()
    assert mixed.n_features_in_ == 2


def test_an_hour_without_traffic_changes_nothing():
    idle = CalibrationMonitor().update([], [])
    assert not hasattr(idle, "classes_")
    assert idle.n_rows_ == 0
    monitor = watched()
    state = monitor.to_dict()
    assert monitor.update([], np.empty((0, 3))).to_dict() == state
    with pytest.raises(ValueError, match="inconsistent"):
        monitor.update([], [[0.2, 0.3, 0.5]])


@pytest.mark.torch
def test_half_precisions_are_watched():
    torch = pytest.importorskip("torch")
    y, proba = draw_stream(np.random.default_rng(0), 500, 10)
    rows = torch.tensor(proba)
    whole = CalibrationMonitor().update(y, proba).evidence_
    for dtype in (torch.float16, torch.bfloat16):
        half = CalibrationMonitor().update(y, rows.to(dtype)).evidence_
        assert half == pytest.approx(whole, abs=0.1)


def test_dates_name_groups_as_text():
    days = np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]")
    monitor = CalibrationMonitor(groups=days)
    y, proba = draw_stream(np.random.default_rng(0), 100, 3)
    monitor.update(y, proba, groups=days[np.arange(100) % 2])
    again = CalibrationMonitor.from_dict(json.loads(json.dumps(monitor.to_dict())))
    again.update(y, proba, groups=days[np.arange(100) % 2].tolist())
    again.update(y, proba, groups=days[np.arange(100) % 2].astype("M8[ns]"))
    assert list(again.report().group_evidence) == ["2026-01-01", "2026-01-02"]


def test_the_gap_has_an_interval_that_holds_at_all_times():
    rng = np.random.default_rng(0)
    hits = rng.random((400, 2000)) < 0.7
    means = hits.cumsum(axis=1) / np.arange(1, 2001)
    width = np.array([gap_half_width(n, 0.05) for n in range(1, 2001)])
    assert (np.abs(means - 0.7) > width).any(axis=1).mean() <= 0.05
    assert gap_half_width(1000, 0.05) < 0.06


def test_the_picture_has_three_parts():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monitor = watched(n_rows=100, monitor=CalibrationMonitor(memory=50))
    watched(1, 300, monitor=monitor, factor=3.0)
    axes = monitor.plot()
    assert axes.shape == (3,)
    assert "the last, 50 rows" in axes[2].get_title()
    assert "no rows" in watched(n_rows=10).plot()[1].get_title()
    with pytest.raises(ValueError, match="3 parts of the picture"):
        monitor.plot(axes[:2])
    pyplot.close("all")


def test_the_newest_evidence_stays_when_older_points_are_left_out():
    # It is looked at every 32 rows, and 256 looks are kept.
    y = np.tile([0, 1], 257 * 16)
    monitor = CalibrationMonitor().update(y, np.full(y.size, 0.5))
    history = monitor.to_dict()["history"]
    assert len(history) < 256
    assert history[-1] == [monitor.n_rows_, monitor.evidence_]


@pytest.mark.parametrize("bad", [{"alpha": 0}, {"delay": -1}, {"tolerance": 1}])
def test_parameters_are_checked(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        CalibrationMonitor(**bad).update([0], [[0.5, 0.5]])


def test_a_refused_merge_leaves_a_new_monitor_as_it_was():
    monitor = CalibrationMonitor(alpha=0.1)
    with pytest.raises(ValueError, match="differ in alpha"):
        monitor.merge(watched())
    with pytest.raises(NotFittedError, match="no rows yet"):
        monitor.report()
    assert monitor.update([0, 1], [0.3, 0.6]).n_rows_ == 2


def test_a_new_monitor_takes_over_no_classes_but_its_own():
    other = CalibrationMonitor().update(["x", "y"], [0.2, 0.8])
    with pytest.raises(ValueError, match="differ in classes"):
        CalibrationMonitor(classes=["a", "b"]).merge(other)


def test_columns_named_after_the_classes_in_another_order_are_refused():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]], columns=["b", "a", "c"])
    monitor = CalibrationMonitor(classes=["b", "a", "c"]).update(["b", "c"], frame)
    with pytest.raises(ValueError, match=r"\['b', 'a', 'c'\], in this order\."):
        monitor.update(["b", "c"], frame[["a", "b", "c"]])
    frame.columns = [2, 0, 1]
    with pytest.raises(ValueError, match=r"\[0, 1, 2\], in this order\."):
        CalibrationMonitor(classes=range(3)).update([0, 1], frame)
    assert monitor.n_rows_ == 2


def test_parameters_of_numpy_are_written_as_json():
    monitor = watched(
        monitor=CalibrationMonitor(
            alpha=np.float32(0.125), delay=np.int64(2), memory=np.int64(50)
        )
    )
    again = CalibrationMonitor.from_dict(json.loads(json.dumps(monitor.to_dict())))
    assert again.evidence_ == monitor.evidence_


def test_a_single_row_may_be_a_tensor_with_gradients():
    torch = pytest.importorskip("torch")
    proba = torch.tensor([0.25, 0.75], requires_grad=True)
    monitor = CalibrationMonitor(classes=[0, 1]).update(torch.tensor(1), proba)
    assert monitor.report().confidence == 0.75


def test_a_change_within_what_is_merged_is_dated_there():
    changed = watched(seed=1, n_rows=2000, factor=1.5, monitor=watched(n_rows=2000))
    fresh = CalibrationMonitor().merge(changed)
    assert abs(fresh.change_point_ - changed.change_point_) < 200


@pytest.mark.parametrize("value", [False, True])
def test_bool_labels_beside_one_column_may_lack_a_class_at_first(value):
    monitor = CalibrationMonitor().update([value, value], [0.3, 0.6])
    assert monitor.classes_.tolist() == [False, True]
    monitor.update([not value, value], [0.4, 0.5]).update(value, 0.5)
    assert monitor.n_rows_ == 5


def test_a_calibrator_that_takes_groups_is_refused_before_rows_are_seen():
    logits, y = make_logits(600, 3, random_state=0)
    groups = np.arange(600) % 2
    served = GroupCalibration(TemperatureScaling()).fit(logits, y, groups=groups)
    proba = served.predict_proba(logits, groups=groups)
    monitor = CalibrationMonitor(served)
    with pytest.raises(TypeError, match="GroupCalibration has no map from logits"):
        monitor.update(y, proba)
    state = CalibrationMonitor(classes=served.classes_).update(y, proba).to_dict()
    assert state["n_rows"] == 600
    with pytest.raises(TypeError, match="GroupCalibration has no map from logits"):
        CalibrationMonitor.from_dict(state, served)


@pytest.mark.parametrize("kind", [CalibrationMonitor, LossMonitor])
def test_columns_that_are_named_after_other_classes_than_before_are_refused(kind):
    pandas = pytest.importorskip("pandas")
    proba = softmax(np.random.default_rng(0).normal(size=(50, 2)), axis=1)
    y = np.array(["ok", "bad"])[proba.argmax(axis=1)]
    begin = "fit" if kind is LossMonitor else "update"
    both = pandas.DataFrame(proba, columns=["p_ok", "p_bad"])
    for first, other in [
        (both[["p_bad", "p_ok"]], both),
        (
            both[["p_ok"]].set_axis(["ok"], axis=1),
            pandas.Series(proba[:, 1], name="bad"),
        ),
    ]:
        monitor = getattr(kind(), begin)(y, first).update(y, first)
        with pytest.raises(ValueError, match=r"are named .*, but the monitor watches"):
            monitor.update(y, other)


def test_numbers_of_columns_stay_with_what_is_recalibrated():
    pandas = pytest.importorskip("pandas")
    logits, codes = make_logits(500, 3, random_state=0)
    X, y = pandas.DataFrame(logits, columns=[2, 0, 1]), np.array([2, 0, 1])[codes]
    calibrator = TemperatureScaling().fit(X, y)
    after = CalibrationMonitor(calibrator).update(y, calibrator.predict_proba(X))
    after = after.recalibrate()
    assert after.predict_proba(X).shape == (500, 3)
    with pytest.raises(ValueError, match="Pass them in the same order"):
        after.predict_proba(X[[0, 1, 2]])


@pytest.mark.parametrize(
    "changed",
    [{"alpha": 0.5}, {"tolerance": 0.1}, {"delay": 3}, {"memory": 10}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_parameter_that_is_set_once_rows_were_seen_has_no_effect(changed):
    kept, told = watched(), watched().set_params(**changed)
    for monitor in (kept, told):
        watched(1, factor=1.4, monitor=monitor)
    state, other = kept.to_dict(), told.to_dict()
    for name in ("parameters", "streams", "alarm_row", "history", "recent"):
        assert other[name] == state[name]
    assert told.report() == kept.report()


@pytest.mark.parametrize(("before", "after"), [(None, ["a"]), (["a"], None)])
def test_groups_that_are_set_once_rows_were_seen_are_refused(before, after):
    named = {None: "made without groups", "a": "needs the group of each row"}
    y, proba = [0, 1], [0.4, 0.6]
    rows = [None if names is None else names * 2 for names in (before, after)]
    monitor = CalibrationMonitor(groups=before).update(y, proba, groups=rows[0])
    monitor.set_params(groups=after)
    with pytest.raises(ValueError, match=named[before and before[0]]):
        monitor.update(y, proba, groups=rows[1])
    assert monitor.update(y, proba, groups=rows[0]).to_dict()["n_rows"] == 4


def test_a_monitor_recalibrates_what_was_served_when_its_rows_came():
    logits, y = make_logits(1000, 3, random_state=0)
    served, other = (TemperatureScaling().fit(f * logits, y) for f in (1, 3))
    monitor = CalibrationMonitor(served).update(y, served.predict_proba(logits))
    expected = monitor.recalibrate(TemperatureScaling()).predict_proba(logits)
    monitor.set_params(calibrator=other)
    found = monitor.recalibrate(TemperatureScaling()).predict_proba(logits)
    assert_allclose(found, expected)


@pytest.mark.parametrize(
    "calibrator",
    [BoostedCalibration(), DensityRatioCalibration(), GroupCalibration()],
    ids=lambda calibrator: type(calibrator).__name__,
)
def test_what_maps_more_than_logits_is_no_next_calibrator_of_a_served_one(calibrator):
    logits, y = make_logits(600, 3, random_state=0)
    served = TemperatureScaling().fit(logits, y)
    proba = served.predict_proba(logits)
    monitor = CalibrationMonitor(served).update(y, proba)
    name = type(calibrator).__name__
    with pytest.raises(TypeError, match=f"maps logits alone; {name} takes groups or"):
        monitor.recalibrate(calibrator)
    # Of the served probabilities themselves, without their logits, it may be one.
    after = CalibrationMonitor().update(y, proba).recalibrate(calibrator)
    assert after.predict_proba(np.log(proba)).shape == (600, 3)


@pytest.mark.parametrize("knows_served", [True, False])
def test_the_next_calibrator_may_be_chosen_by_a_search_of_scikit_learn(knows_served):
    logits, codes = make_logits(600, 3, random_state=0)
    y, names = np.array(["c", "a", "b"])[codes], ["c", "a", "b"]
    served = TemperatureScaling(classes=names).fit(logits, y)
    monitor = CalibrationMonitor(served if knows_served else None, classes=names)
    monitor.update(y, served.predict_proba(logits))
    grid = {"prior": [8.0]}
    search = GridSearchCV(VectorScaling(), grid, scoring="neg_log_loss", cv=2)
    expected = monitor.recalibrate(VectorScaling(prior=8.0))
    after = monitor.recalibrate(search)
    assert type(after) is type(expected)
    assert after.classes_.tolist() == names
    assert_allclose(after.predict_proba(logits), expected.predict_proba(logits))
    with pytest.raises(ValueError, match="without scoring compares accuracy"):
        monitor.recalibrate(GridSearchCV(VectorScaling(), grid))


def test_classes_without_an_order_are_refused():
    monitor = CalibrationMonitor(classes={0, 1, 2})
    with pytest.raises(ValueError, match="came as set"):
        monitor.update([0, 1, 2], np.eye(3))


@pytest.mark.parametrize("n_before", [0, 40])
def test_rows_that_were_interrupted_count_once_when_they_come_again(
    monkeypatch, n_before
):
    y, proba = draw_stream(np.random.default_rng(0), 400, 3)
    monitor = CalibrationMonitor(classes=[0, 1, 2])
    monitor.update(y[:n_before], proba[:n_before])
    told = str(monitor.report()) if n_before else None
    more = CalibrationMonitor(classes=[0, 1, 2]).update(y[:64], proba[:64])

    def interrupted(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Recent, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            monitor.update(y[n_before:], proba[n_before:])
        with pytest.raises(KeyboardInterrupt):
            monitor.merge(more)
    assert monitor.n_rows_ == n_before
    assert (str(monitor.report()) if n_before else None) == told
    monitor.update(y[n_before:], proba[n_before:])
    expected = CalibrationMonitor(classes=[0, 1, 2])
    for rows in (slice(0, n_before), slice(n_before, 400)):
        expected.update(y[rows], proba[rows])
    monitor._id = expected._id
    assert monitor.to_dict() == expected.to_dict()


@pytest.mark.parametrize("n_parts", [5, 15, 30])
def test_the_error_since_an_alarm_is_the_metric_where_shares_lie_on_edges(n_parts):
    rng = np.random.default_rng(1)
    share = rng.integers(n_parts // 2 + 1, n_parts + 1, 1000) / n_parts
    proba = np.column_stack([share, 1 - share])
    y = (rng.random(1000) > share).astype(int)
    monitor = CalibrationMonitor(alpha=1e-300).update(y, proba)
    expected = expected_calibration_error(y, proba)
    assert monitor.report().ece_since == pytest.approx(expected, abs=2e-4)
