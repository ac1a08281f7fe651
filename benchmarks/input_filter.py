"""Filters of the inputs beside calibrators of the outputs, on corrupted images.

All images, to fit on and to judge by, are corrupted alike, the network is not.

- shift: each corruption of `skcalib.datasets`, JPEG, clean images
- mixture: half of the images clean, half corrupted
- labels: against the number of labelled images
- cross: fitted on one corruption, judged on every other

Means over random splits, and 95 % bootstrap intervals of the differences to temperature
scaling (TS), to structured matrix scaling (SMS) and to the default search: images are
drawn, the same ones for every split and both methods; fitted calibrators stay as they
are. Accuracy and ECE are in percent (15 bins), NLL in nats. `--keep` names a folder in
which finished fits stay; with it an interrupted run goes on, and parts share fits.

- search: `CalibratorSearch` on the logits
- delta: `NeuralClamping` with 8 cosines a side that are added
- filter: `NeuralClamping` with its defaults, which choose among nothing, gains, filters
  and cosines
- ... + SMS, ... + search: structured matrix scaling, the default search behind it
- BN statistics: no labels but for the temperature: batch normalisation with the
  statistics of the images that are judged (test-time adaptation), then TS
- first conv: the weights of the first convolution trained on the same labelled images
  by Adam, a fifth of them held out to stop early, then TS: it changes the network
- entropy, feature statistics: no labels but for the temperature: a full filter of 3
  taps by Adam, to the least entropy of the predictions, or to the moments that the
  layers of batch normalisation have kept of the training images, then TS

Needs the `torch` extra, Pillow, data, hours.
"""

import tempfile
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.special import log_softmax

from benchmarks._filter_methods import METHODS, seen_through
from benchmarks._networks import (
    NETWORKS,
    are_compressed,
    load_logits,
    make_tasks,
    run_network,
)
from benchmarks._paired import Result, differences, metrics
from benchmarks._tables import Table
from benchmarks.neural_clamping import Keep
from skcalib.datasets import corrupt_images

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "defocus_blur",
    "motion_blur",
    "fog",
    "brightness",
    "contrast",
    "saturate",
    "pixelate",
    "rotation",
    "jpeg",
    "clean",
)
# What the files have, without a strength.
UNSHIFTED = ("jpeg", "clean")
PARTS = ("shift", "mixture", "labels", "cross")
REFERENCES = ("TS", "SMS", "search")
# Factor and decimal places of the columns.
COLUMNS = {"accuracy": (100, 2), "ECE": (100, 2), "NLL": (1, 4)}
# Images of each kind that the filter of another is judged by.
CROSS_ROWS = 500
LABELS = (50, 100, 200, 500, 1000, 2000, 5000)
CHOICES = {"parts": PARTS, "networks": NETWORKS, "kinds": KINDS, "methods": METHODS}
TINY = {
    "networks": ("cifar10-resnet8d",),
    "kinds": ("defocus_blur",),
    "severities": (3,),
    "methods": ("TS", "SMS", "filter", "BN statistics", "entropy"),
    "splits": 1,
    "samples": 60,
    "judged": 60,
}


def run(
    *,
    parts=PARTS,
    networks=tuple(NETWORKS),
    kinds=KINDS,
    methods=tuple(METHODS),
    severities=(1, 3, 5),
    splits=5,
    samples=2000,
    judged=5000,
    device="cpu",
    keep="",
):
    """Yield rows network by network and kind by kind."""
    methods = tuple(dict.fromkeys([*REFERENCES, *methods]))
    with tempfile.TemporaryDirectory() as folder:
        keeper = Keep(keep or folder)
        for part, name, severity in product(parts, networks, severities):
            case = {"part": part, "network": name, "severity": severity}
            case |= {"samples": samples, "judged": judged}

            def tasks(kind, name=name, severity=severity):
                jpeg = kind == "jpeg"
                made = make_tasks(name, splits, samples, device, jpeg, judged)
                return [shifted(task, kind, severity) for task in made]

            there = [k for k in kinds if k != "jpeg" or are_compressed(name)]
            if part == "cross":
                for row in cross(tasks, there, keeper):
                    yield case | row
                continue
            for kind in there:
                # The files have one strength.
                once = kind in UNSHIFTED and severity != severities[0]
                if once or (part == "mixture" and kind == "clean"):
                    continue
                for row in WAYS[part](tasks, kind, methods, keeper):
                    yield case | {"kind": kind} | row


def shift(tasks, kind, methods, keep):
    """Fitted and judged on images that are all shifted alike."""
    yield from compare(tasks(kind), methods, keep)


def labels(tasks, kind, methods, keep):
    """The same, fitted on the first images only."""
    tasks = tasks(kind)
    for n in LABELS:
        if n <= len(tasks[0].cal.y):
            few = [replace(task, cal=of_rows(task.cal, slice(n))) for task in tasks]
            for row in compare(few, methods, keep):
                yield row | {"samples": n}


def mixture(tasks, kind, methods, keep):
    """Half of the images shifted, to fit on and to judge by."""
    both = [
        replace(
            other,
            data=f"{other.data}-mixed",
            cal=alternate(task.cal, other.cal),
            test=alternate(task.test, other.test),
        )
        for task, other in zip(tasks("clean"), tasks(kind), strict=True)
    ]
    yield from compare(both, methods, keep)


def cross(tasks, kinds, keep):
    """The filter of the first split of each kind, on the images of every other."""
    first = {kind: tasks(kind)[0] for kind in kinds}
    for kind, own in first.items():
        found = fitted(own, "filter", keep)
        for other, task in first.items():
            half = of_rows(task.test, slice(CROSS_ROWS))
            logits = seen_through(task, half, found["_kernel"], found["_delta"])
            scores = log_softmax(logits / found["_temperature"], axis=1)
            hit = logits.argmax(axis=1) == half.y
            before = half.logits.argmax(axis=1) == half.y
            yield {
                "kind": kind,
                "judged_on": other,
                "chosen": str(found["_chosen"]),
                "accuracy": float(hit.mean()),
                "accuracy before": float(before.mean()),
                "NLL": -float(scores[np.arange(len(hit)), half.y].mean()),
            }


WAYS = {"shift": shift, "mixture": mixture, "labels": labels}


def fitted(task, method, keep):
    return keep(task, method, lambda: METHODS[method](task, method))


def shifted(task, kind, severity):
    """Return the task with all its images shifted."""
    if kind in UNSHIFTED:
        return task
    halves = []
    for seed, half in enumerate((task.cal, task.test)):
        X = corrupt_images(
            half.X, kind, severity, channel_axis=1, random_state=2 * task.seed + seed
        ).astype(np.float32)
        halves.append(replace(half, X=X, logits=run_network(task.module, X)))
    return replace(task, data=f"{kind}-{severity}", cal=halves[0], test=halves[1])


def of_rows(half, rows):
    return replace(
        half,
        rows=half.rows[rows],
        X=half.X[rows],
        y=half.y[rows],
        logits=half.logits[rows],
    )


def alternate(half, other):
    """Return every second row of one half, and the rest of another of the same rows."""
    X, logits = half.X.copy(), half.logits.copy()
    X[::2], logits[::2] = other.X[::2], other.logits[::2]
    return replace(half, X=X, logits=logits)


def compare(tasks, methods, keep):
    """Yield the mean metrics of each method, and its distance to the references."""
    results, extra = {}, {}
    for task in tasks:
        for method in methods:
            found = fitted(task, method, keep)
            for row, proba in found.items():
                if not row.startswith("_"):
                    own = Result(task.test.rows, task.test.y, proba)
                    results.setdefault(row, []).append(own)
            if "_chosen" in found:
                extra.setdefault(method, []).append(str(found["_chosen"]))
    n_images = len(load_logits(tasks[0].name)[1])
    for method, own in results.items():
        columns = [metrics(result) for result in own]
        row = {"method": method, "splits": len(own)}
        row |= {c: float(np.mean([m[c] for m in columns])) for c in COLUMNS}
        if method in extra:
            row["chosen"] = extra[method]
        for reference in REFERENCES:
            found = differences(own, results[reference], n_images)
            for column, ends in found.items():
                names = (
                    f"{column} {end} {reference}" for end in ("less", "low", "high")
                )
                row |= dict(zip(names, ends, strict=True))
        yield row


def cell(row, column, key="", sign=""):
    factor, digits = COLUMNS[column]
    return f"{factor * row[key or column]:{sign}.{digits}f}"


def change(row, column, reference):
    """Difference to a reference with its interval."""
    keys = (f"{column} {end} {reference}" for end in ("less", "low", "high"))
    value, low, high = (cell(row, column, key, "+") for key in keys)
    return f"{value} [{low}, {high}]"


def chosen(rows, **case):
    return [row for row in rows if all(row.get(k) == v for k, v in case.items())]


def in_order(rows):
    """Rows of several runs by network, kind, severity and number of images."""
    networks = list(NETWORKS)

    def place(row):
        kind = KINDS.index(row["kind"])
        return networks.index(row["network"]), kind, row["severity"], row["samples"]

    return sorted(rows, key=place)


def lines_of(rows, methods, heads):
    """Return the lines of a table: accuracy / NLL, and the filter's differences.

    Of runs that overlap the one with the most splits counts. The best of the outputs
    is that of the least NLL on the judged images, which is to its advantage.
    """
    lines = []
    for head in dict.fromkeys(tuple(row[h] for h in heads) for row in rows):
        case = dict(zip(heads, head, strict=True))
        own = chosen(rows, **case)
        most = max(row["splits"] for row in own)
        by = {row["method"]: row for row in own if row["splits"] == most}
        cells = [
            f"{cell(by[m], 'accuracy')} / {cell(by[m], 'NLL')}" if m in by else ""
            for m in methods
        ]
        best = min(REFERENCES, key=lambda m: by[m]["NLL"])
        ends = [change(by[m], "NLL", best) for m in ("filter", "filter + SMS")]
        unshifted = case.get("kind") in UNSHIFTED  # they have no severity
        words = [
            "" if unshifted and name == "severity" else str(value).replace("_", " ")
            for name, value in case.items()
        ]
        lines.append([*words, *cells, *ends])
    return lines


def table_of(name, part, heads, methods, having="filter"):
    """Return the function that makes one network's table of a part.

    Lines are of the cases for which there is a row of the method `having`, by runs of
    as many splits.
    """
    keys = (*heads, "splits")

    def table(rows):
        own = chosen(rows, network=name, part=part)
        cases = {tuple(row[k] for k in keys) for row in chosen(own, method=having)}
        own = [row for row in in_order(own) if tuple(row[k] for k in keys) in cases]
        there = {row["method"] for row in own}
        shown = [m for m in methods if m in there]
        first = own[0]
        fitted_on = "" if "samples" in heads else f"{first['samples']:,} to fit on, "
        title = (
            f"Accuracy in percent / NLL, {NETWORKS[name][0]}: {fitted_on}"
            f"{first['judged']:,} images to judge by"
        )
        columns = [
            *(HEADS[h] for h in heads),
            *shown,
            *DIFFERENCES,
        ]
        return Table(columns, lines_of(own, shown, heads), title)

    return table


def cross_table(rows):
    """Accuracy with each filter, less that without, on every kind of image."""
    own = chosen(rows, part="cross")
    kinds = list(dict.fromkeys(row["kind"] for row in own))
    lines = []
    for kind in kinds:
        by = {row["judged_on"]: row for row in chosen(own, kind=kind)}
        gains = (by[k]["accuracy"] - by[k]["accuracy before"] for k in kinds)
        lines.append(
            [kind.replace("_", " "), *(f"{100 * gain:+.1f}" for gain in gains)]
        )
    first = own[0]
    title = (
        f"Points of accuracy that a filter fitted on one kind of image (line) gains on "
        f"others (column): {NETWORKS[first['network']][0]}, severity "
        f"{first['severity']}, {first['samples']:,} images to fit on, "
        f"{CROSS_ROWS:,} to judge by"
    )
    return Table(["fitted on", *(k.replace("_", " ") for k in kinds)], lines, title)


def networks_table(rows):
    """The other networks, a line each and kind."""
    own = in_order(chosen(rows, part="shift"))
    own = [row for row in own if row["network"] != FIRST]
    own = [row | {"network": NETWORKS[row["network"]][0]} for row in own]
    title = (
        f"Accuracy in percent / NLL, severity {own[0]['severity']}: twice as many "
        "images to judge by as to fit on"
    )
    heads = ("network", "kind", "samples")
    columns = [*(HEADS[h] for h in heads), *MAIN, *DIFFERENCES]
    return Table(columns, lines_of(own, MAIN, heads), title)


FIRST = "cifar10-resnet8d"
DIFFERENCES = (
    "NLL: filter less best of outputs, 95 %",
    "filter + SMS less best of outputs",
)
HEADS = {
    "network": "network",
    "kind": "images",
    "severity": "strength",
    "samples": "labelled images",
}
MAIN = (*REFERENCES, "filter", "filter + SMS")
CONTROLS = ("TS", "delta", "BN statistics", "entropy", "feature statistics")
CONTROLS = (*CONTROLS, "filter", "first conv")


def summary(rows):
    for name, part in product(NETWORKS, WAYS):
        if chosen(rows, network=name, part=part, method="filter"):
            heads = ("kind", "severity", "samples")
            yield table_of(name, part, heads, tuple(dict.fromkeys([*MAIN, *CONTROLS])))(
                rows
            )
    if chosen(rows, part="cross"):
        yield cross_table(rows)


TABLES = {
    "shift": table_of(FIRST, "shift", ("kind", "severity"), MAIN),
    "mixture": table_of(FIRST, "mixture", ("kind", "severity"), MAIN),
    "cross": cross_table,
    "controls": table_of(FIRST, "shift", ("kind", "severity"), CONTROLS, "entropy"),
    "labels": table_of(FIRST, "labels", ("kind", "samples"), (*MAIN, "first conv")),
    "networks": networks_table,
}
