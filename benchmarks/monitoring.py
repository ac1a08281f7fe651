"""False alarms and rows to the alarm of a calibration monitor, beside other alarms.

Streams of logits drawn from a normal distribution, and labels drawn from their softmax:
the model is calibrated until its logits are multiplied by a factor or one class gets a
bias, in all rows or in one of five groups, or some labels say nothing of their rows.
"quiet" counts the streams with an alarm at any time up to a horizon; the others change
at the start or after 2,000 rows, and count rows from there to the first alarm. An alarm
before the change counts as none. "dates" holds the change points against the change.

- monitor: `CalibrationMonitor()`; with groups, or a tolerance, where it says so;
- rolling z-test: mean of hit minus confidence over the last 500 rows, two-sided at 5 %,
  after each row;
- ADWIN: river's change detector on hit minus confidence, with its defaults;
- loss monitor: `LossMonitor()` on the Brier score, the rows before the change being its
  release;
- MAPIE: its `RiskMonitoring` of the accuracy, tolerance 0, with the same release, where
  the accuracy falls.

The last three are left out where the model is off from the start.

Needs rivals for ADWIN and MAPIE: river, mapie.
"""

import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
from scipy.special import softmax
from scipy.stats import norm

from benchmarks._measure import say
from benchmarks._tables import Table
from skcalib.monitoring import CalibrationMonitor, LossMonitor

SPREADS = {2: 2.0, 10: 3.0, 100: 4.0}
HORIZONS = (500, 1000, 2000, 4000, 8000)
WINDOW = 500
N_GROUPS = 5
ALPHA = 0.05
CALM = 2000
TOLERANCE = 0.01
# Name: factor of the logits, bias of the first class, whether in one group only, share
# of labels that say nothing of their rows.
CHANGES = {
    "logits x 1.1": (1.1, 0.0, False, 0.0),
    "logits x 1.2": (1.2, 0.0, False, 0.0),
    "logits x 1.4": (1.4, 0.0, False, 0.0),
    "one class, log-odds + 0.5": (1.0, 0.5, False, 0.0),
    "one group in five, logits x 1.4": (1.4, 0.0, True, 0.0),
    "one label in ten at random": (1.0, 0.0, False, 0.1),
}
CALIBRATED = (1.0, 0.0, False, 0.0)
PARTS = ("quiet", "change", "dates", "speed")
ERRORS = ("median", "mean absolute")
CHOICES = {"parts": PARTS}
TINY = {"streams": 4, "longest": 1000}


def run(*, parts=PARTS, streams=1000, longest=4000):
    say_what_is_missing()
    if "quiet" in parts:
        for n_classes in SPREADS:
            yield from quiet(n_classes, streams, longest)
    if "change" in parts:
        for change in CHANGES:
            for calm in (0, CALM):
                yield from after_change(change, calm, streams, longest)
    if "dates" in parts:
        for change in CHANGES:
            yield dates(change, streams, longest)
    if "speed" in parts:
        yield from speed(longest)


def say_what_is_missing():
    for name, package in (("ADWIN", "river"), ("MAPIE", "mapie")):
        if not find_spec(package):
            say(f"{name} is left out: {package} is not installed")


def draw(rng, n_rows, n_classes, calm, change=CALIBRATED):
    """Labels, probabilities and groups; the model is calibrated for `calm` rows."""
    factor, bias, in_group, noise = change
    logits = SPREADS[n_classes] * rng.normal(size=(n_rows, n_classes))
    true = softmax(logits, axis=1)
    y = (true.cumsum(axis=1) > rng.random((n_rows, 1))).argmax(axis=1)
    groups = rng.integers(N_GROUPS, size=n_rows)
    off = (np.arange(n_rows) >= calm) & ((groups == 0) | (not in_group))
    logits[off] *= factor
    logits[off, 0] += bias
    if noise:
        mixed = off & (rng.random(n_rows) < noise)
        y[mixed] = rng.integers(n_classes, size=mixed.sum())
    return y, softmax(logits, axis=1), groups


def first_alarm_of_monitor(y, proba, groups, tolerance=0.0):
    monitor = CalibrationMonitor(
        alpha=ALPHA,
        tolerance=tolerance,
        memory=0,
        groups=None if groups is None else range(N_GROUPS),
    )
    for start in range(0, len(y), 256):
        rows = slice(start, start + 256)
        given = None if groups is None else groups[rows]
        monitor.update(y[rows], proba[rows], groups=given)
        if monitor.alarm_:
            return monitor.alarm_row_
    return None


def first_alarm_of_z_test(y, proba, groups):
    confidence = proba.max(axis=1)
    residual = (proba.argmax(axis=1) == y) - confidence
    sums = [
        np.concatenate([[0], values.cumsum()])
        for values in (residual, confidence * (1 - confidence))
    ]
    gap, variance = (s[WINDOW:] - s[:-WINDOW] for s in sums)
    out = np.abs(gap) > norm.ppf(1 - ALPHA / 2) * np.sqrt(variance)
    return int(out.argmax()) + WINDOW if out.any() else None


def first_alarm_of_adwin(y, proba, groups):
    from river.drift import ADWIN

    detector = ADWIN()
    residual = (proba.argmax(axis=1) == y) - proba.max(axis=1)
    for row, value in enumerate(residual.tolist(), start=1):
        detector.update(value)
        if detector.drift_detected:
            return row
    return None


def first_alarm_of_loss(y, proba, groups, n_release):
    monitor = LossMonitor(alpha=ALPHA).fit(y[:n_release], proba[:n_release])
    row = monitor.update(y[n_release:], proba[n_release:]).alarm_row_
    return None if row is None else n_release + row


def first_alarm_of_mapie(y, proba, groups, n_release):
    from mapie.exchangeability_testing import RiskMonitoring

    told = proba.argmax(axis=1)
    release = y[:n_release], told[:n_release]
    monitor = RiskMonitoring(
        "accuracy", ALPHA, tolerance=0, reference_data=release, warn=False
    ).update(y[n_release:], told[n_release:])
    low = monitor.online_risk_lower_bound_sequence_history
    out = low > monitor.threshold
    return n_release + 1 + int(out.argmax()) if out.any() else None


def methods(calm, change=CALIBRATED):
    """Functions from a stream to its first alarm, and whether they see the groups."""
    found = {"monitor": (first_alarm_of_monitor, False)}
    if change != CALIBRATED:
        tolerant = partial(first_alarm_of_monitor, tolerance=TOLERANCE)
        found[f"monitor, tolerance {TOLERANCE}"] = (tolerant, False)
    if change[2]:
        found["monitor, with groups"] = (first_alarm_of_monitor, True)
    found["rolling z-test"] = (first_alarm_of_z_test, False)
    if calm and find_spec("river"):
        found["ADWIN"] = (first_alarm_of_adwin, False)
    if calm and change != CALIBRATED:
        since = partial(first_alarm_of_loss, n_release=calm)
        found["loss monitor"] = (since, False)
        # Elsewhere predicted labels are as often right as before, or nearly so.
        if change[3] and find_spec("mapie"):
            since = partial(first_alarm_of_mapie, n_release=calm)
            found["MAPIE, accuracy"] = (since, False)
    return found


def alarms(used, n_streams, *drawn):
    """First alarm of each stream by each method, infinity where there is none."""
    found = {name: np.full(n_streams, np.inf) for name in used}
    for seed in range(n_streams):
        y, proba, groups = draw(np.random.default_rng(seed), *drawn)
        for name, (first, sees_groups) in used.items():
            row = first(y, proba, groups if sees_groups else None)
            found[name][seed] = np.inf if row is None else row
    return found


def quiet(n_classes, n_streams, longest) -> Iterator[dict]:
    found = alarms(methods(longest), n_streams, longest, n_classes, longest)
    for name, rows in found.items():
        shares = {
            f"within {n}": float((rows <= n).mean()) for n in HORIZONS if n <= longest
        }
        case = {"part": "quiet", "K": n_classes, "method": name}
        yield case | {"streams": n_streams} | shares


def after_change(change, calm, n_streams, longest) -> Iterator[dict]:
    how = CHANGES[change]
    found = alarms(methods(calm, how), n_streams, calm + longest, 10, calm, how)
    for name, rows in found.items():
        early = rows <= calm
        late = np.where(early, np.inf, rows - calm)
        median = float(np.median(late))
        yield {
            "part": "change",
            "change": change,
            "calm": calm,
            "method": name,
            "streams": n_streams,
            "early": float(early.mean()),
            "found": float(np.isfinite(late).mean()),
            "median": median if np.isfinite(median) else None,
        }


def dates(change, n_streams, longest):
    """How far change points are from the change, where there is an alarm."""
    errors = []
    for seed in range(n_streams):
        rng = np.random.default_rng(seed)
        y, proba, _ = draw(rng, CALM + longest, 10, CALM, CHANGES[change])
        monitor = CalibrationMonitor(alpha=ALPHA, memory=0).update(y, proba)
        if monitor.alarm_ and monitor.alarm_row_ > CALM:
            errors.append(monitor.change_point_ - CALM)
    return {
        "part": "dates",
        "change": change,
        "streams": n_streams,
        "alarms": len(errors),
        "median": float(np.median(errors)) if errors else None,
        "mean absolute": float(np.mean(np.abs(errors))) if errors else None,
    }


def speed(n_rows) -> Iterator[dict]:
    for n_classes in SPREADS:
        rng = np.random.default_rng(0)
        y, proba, _ = draw(rng, n_rows, n_classes, n_rows)
        start = time.process_time()
        CalibrationMonitor().update(y, proba)
        seconds = time.process_time() - start
        yield {"part": "speed", "K": n_classes, "rows a second": n_rows / seconds}


def of_part(rows, part):
    return [row for row in rows if row["part"] == part]


def false_alarms(rows):
    rows = of_part(rows, "quiet")
    heads = [head for head in rows[0] if head.startswith("within ")]
    lines = [
        [row["K"], row["method"], *(f"{100 * row[h]:.1f} %" for h in heads)]
        for row in rows
    ]
    heads = [f"within {int(h.split()[1]):,} rows" for h in heads]
    title = f"Share of {rows[0]['streams']:,} calibrated streams with an alarm"
    return Table(["K", "method", *heads], lines, title)


def delays(rows):
    rows = of_part(rows, "change")
    lines = []
    for row in rows:
        median = "none" if row["median"] is None else f"{row['median']:,.0f}"
        shares = [f"{100 * row[key]:.1f} %" for key in ("found", "early")]
        when = f"row {row['calm']:,}" if row["calm"] else "the start"
        lines.append([row["change"], when, row["method"], median, *shares])
    columns = ["change", "from", "method", "median rows", "found", "false before"]
    title = f"Rows from the change to the alarm, {rows[0]['streams']:,} streams, K = 10"
    return Table(columns, lines, title)


def dating(rows):
    rows = of_part(rows, "dates")
    lines = [
        [
            row["change"],
            row["alarms"],
            *("-" if row[k] is None else f"{row[k]:,.0f}" for k in ERRORS),
        ]
        for row in rows
    ]
    columns = ["change", "alarms", "median error", "mean absolute error"]
    title = (
        f"Rows from the change at row 2,000 to its date, {rows[0]['streams']} streams"
    )
    return Table(columns, lines, title)


def throughput(rows):
    lines = [
        [row["K"], f"{row['rows a second']:,.0f}"] for row in of_part(rows, "speed")
    ]
    return Table(["K", "rows a second"], lines, "Speed of `update`, one thread")


def summary(rows):
    made = {
        "quiet": false_alarms,
        "change": delays,
        "dates": dating,
        "speed": throughput,
    }
    return [table(rows) for part, table in made.items() if of_part(rows, part)]


TABLES = {
    "false_alarms": false_alarms,
    "delays": delays,
    "dates": dating,
    "throughput": throughput,
}
