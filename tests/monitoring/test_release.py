import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError
from streams import draw_stream

from skcalib.monitoring import CalibrationMonitor, LossMonitor
from skcalib.monitoring._release import _PSI, _SLOPES, LossSums


def released(seed=0, n_rows=1000, **parameters):
    rng = np.random.default_rng(seed)
    return LossMonitor(**parameters).fit(*draw_stream(rng, n_rows, 3))


@pytest.mark.parametrize("guess", [0.0, 0.3, 1.0])
def test_the_wealth_of_a_loss_is_not_expected_to_grow(guess):
    # A loss of 0 or 1 with mean 0.3 has the most extreme values.
    mean = 0.3
    values, proba = np.array([0.0, 1.0]), np.array([1 - mean, mean])
    steps = np.exp(
        np.multiply.outer(values - mean, _SLOPES)
        - np.multiply.outer((values - guess) ** 2, _PSI)
    )
    assert (proba @ steps <= 1 + 1e-12).all()


def test_the_wealth_is_that_of_the_formula_row_by_row():
    losses = np.array([0.2, 0.9, 0.0, 0.4])
    wealth = LossSums().add(losses, 0.25)
    total, square = 0.0, 0.0
    for i, loss in enumerate(losses):
        guess = (0.5 + total) / (i + 1)
        total, square = total + loss, square + (loss - guess) ** 2
        terms = np.exp(_SLOPES * (total - 0.25 * (i + 1)) - _PSI * square)
        assert_allclose(wealth[i], np.log(terms.mean()), rtol=1e-12)


def test_the_bounds_hold_the_mean_and_narrow():
    rng = np.random.default_rng(0)
    sums = LossSums()
    widths = []
    for _ in range(3):
        sums.add(rng.beta(1, 4, 1000))
        low, high = sums.lower_bound(0.025), sums.upper_bound(0.025)
        assert low < 0.2 < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    # Little more than the interval of a sample of fixed size, sd 0.163.
    assert widths[2] < 2.5 * 2 * 2.24 * 0.163 / np.sqrt(3000)


@pytest.mark.slow
def test_a_loss_as_at_release_seldom_alarms():
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        monitor = released(seed, 500, loss="error")
        alarms += monitor.update(*draw_stream(rng, 2000, 3)).alarm_
    assert alarms <= 1


@pytest.mark.parametrize("loss", ["brier", "error"])
def test_a_loss_above_that_at_release_is_found(loss):
    monitor = released(loss=loss)
    rng = np.random.default_rng(1)
    y, proba = draw_stream(rng, 2000, 3)
    monitor.update(y, proba[:, [1, 2, 0]])
    assert monitor.alarm_
    assert monitor.alarm_row_ < 300
    assert 0 < monitor.increase_low_ < monitor.loss_ - monitor.release_loss_


def test_a_model_that_was_never_calibrated_is_left_in_peace():
    rng = np.random.default_rng(0)
    release, served = (draw_stream(rng, 2000, 3, factor=2.0) for _ in range(2))
    assert not LossMonitor().fit(*release).update(*served).alarm_
    assert CalibrationMonitor().update(*served).alarm_


def test_what_is_tolerated_raises_no_alarm():
    rng = np.random.default_rng(1)
    worse = draw_stream(rng, 3000, 3, factor=6.0)
    assert released(n_rows=5000).update(*worse).alarm_
    assert not released(n_rows=5000, tolerance=0.1).update(*worse).alarm_


@pytest.mark.parametrize("sizes", [[1] * 30 + [970], [500, 500], [0, 1000]])
def test_batches_make_no_difference(sizes):
    rng = np.random.default_rng(1)
    y, proba = draw_stream(rng, 1000, 3)
    whole, parts = (released().update([], np.empty((0, 3))) for _ in range(2))
    whole.update(y, proba[:, [1, 0, 2]])
    for part in np.split(np.arange(1000), np.cumsum(sizes)[:-1]):
        parts.update(y[part], proba[part][:, [1, 0, 2]])
    assert whole.alarm_row_ == parts.alarm_row_ is not None
    assert_allclose(whole.increase_low_, parts.increase_low_, rtol=1e-9)


def test_a_state_goes_through_json_and_goes_on():
    rng = np.random.default_rng(1)
    monitor = released(alpha=0.1).update(*draw_stream(rng, 100, 3))
    again = LossMonitor.from_dict(json.loads(json.dumps(monitor.to_dict())))
    more = draw_stream(rng, 500, 3, factor=3.0)
    assert monitor.update(*more).increase_low_ == again.update(*more).increase_low_
    assert monitor.alarm_row_ == again.alarm_row_
    state = monitor.to_dict()
    state["release"]["total"] += 1
    with pytest.raises(ValueError, match="damaged"):
        LossMonitor.from_dict(state)
    with pytest.raises(ValueError, match="no state of a LossMonitor"):
        LossMonitor.from_dict(CalibrationMonitor().update(*more).to_dict())


@pytest.mark.parametrize("kind", [LossMonitor, CalibrationMonitor])
def test_classes_that_are_dates_are_written_as_text(kind):
    days = np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]")
    y, proba = days[[0, 1, 0]], np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    monitor = kind()
    monitor = monitor.fit(y, proba) if kind is LossMonitor else monitor.update(y, proba)
    again = kind.from_dict(json.loads(json.dumps(monitor.to_dict())))
    assert again.classes_.tolist() == ["2026-01-01", "2026-01-02"]
    assert again.update(y.astype(str), proba).n_rows_ >= 3


def test_another_release_begins_anew():
    rng = np.random.default_rng(1)
    monitor = released().update(*draw_stream(rng, 100, 3))
    y, proba = draw_stream(rng, 50, 4)
    monitor.fit(y, proba)
    assert monitor.n_rows_ == 0
    assert monitor.classes_.tolist() == [0, 1, 2, 3]
    assert np.isnan(monitor.loss_)


def test_a_refused_release_leaves_the_one_that_is_watched():
    y, proba = draw_stream(np.random.default_rng(1), 200, 3)
    monitor = released().update(y, proba)
    before = monitor.to_dict()
    for bad_y, bad in ((y, proba[:, :2]), ([], proba[:0]), (y[:-1], proba)):
        with pytest.raises(ValueError, match=r"\S"):
            monitor.set_params(alpha=0.2).fit(bad_y, bad)
        assert monitor.to_dict() == before
    assert monitor.fit(y, proba).to_dict()["alpha"] == 0.2


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(NotFittedError):
        LossMonitor().update([0], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="no rows of the release"):
        LossMonitor(classes=[0, 1]).fit([], np.empty((0, 2)))
    with pytest.raises(ValueError, match="2 columns"):
        released().update([0, 1], [[0.5, 0.5], [0.2, 0.8]])
    with pytest.raises(ValueError, match="'loss' parameter"):
        released(loss="log_loss")


def test_a_monitor_from_a_state_keeps_its_classes_when_it_is_fitted_anew():
    rng = np.random.default_rng(0)
    y = np.array(["low", "high"])[(rng.random(2000) < 0.9).astype(int)]
    proba = np.tile([0.1, 0.9], (2000, 1))
    monitor = LossMonitor(classes=["low", "high"]).fit(y, proba)
    again = LossMonitor.from_dict(monitor.to_dict()).fit(y, proba)
    assert again.release_loss_ == monitor.release_loss_


@pytest.mark.parametrize(
    "changed",
    [{"loss": "error"}, {"alpha": 0.5}, {"tolerance": 0.1}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_parameter_counts_from_the_next_fit_on(changed):
    kept, told = released(), released().set_params(**changed)
    rows = draw_stream(np.random.default_rng(1), 3000, 3)
    for monitor in (kept, told):
        monitor.update(*rows)
    assert not told.alarm_
    assert told.to_dict() == kept.to_dict()
    assert told.increase_low_ == kept.increase_low_
    fitted = told.fit(*rows).to_dict()
    assert {name: fitted[name] for name in changed} == changed


def test_rows_that_were_interrupted_count_once_when_they_come_again(monkeypatch):
    monitor, expected, calls = released(), released(), []
    y, proba = draw_stream(np.random.default_rng(1), 10_000, 3)
    add = LossSums.add

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return add(*args)

    with monkeypatch.context() as patched:
        patched.setattr(LossSums, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            monitor.update(y, proba)
    assert monitor.n_rows_ == 0
    assert monitor.update(y, proba).to_dict() == expected.update(y, proba).to_dict()
