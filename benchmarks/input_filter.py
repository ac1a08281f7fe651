"""Filters of the inputs beside calibrators of the outputs, on corrupted images.

All images, to fit on and to judge by, are corrupted alike, the network is not.

- shift: each corruption of `skcalib.datasets` at one strength, JPEG, clean images
- mixture: half of the images clean, half corrupted; and what a fit on corrupted images
  does to clean ones
- labels: against the number of labelled images

Means over random halves, and 95 % bootstrap intervals of the differences to temperature
scaling (TS) and to structured matrix scaling (SMS): images are drawn, the same ones for
every split and both methods; fitted calibrators stay as they are. Accuracy and ECE are
in percent (15 bins), NLL in nats. `--keep` names a folder in which finished fits stay;
with it an interrupted run goes on.

- search: `CalibratorSearch` on the logits
- delta: `NeuralClamping` with one number for each entry added
- filter: `NeuralClamping` with its defaults, which choose among nothing, gains, filters
  and cosines
- filter + SMS: structured matrix scaling behind it
- BN statistics: no labels but for the temperature: batch normalisation with the
  statistics of the images that are judged (test-time adaptation), then TS
- first conv: the weights of the first convolution trained on the same labelled images
  by Adam, a fifth of them held out to stop early, then TS: it changes the network

Needs the `torch` extra, Pillow, data, hours.
"""

import copy
import tempfile
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from benchmarks._networks import NETWORKS, load_logits, make_tasks, run_network
from benchmarks._paired import Result, differences, metrics
from benchmarks._tables import Table
from benchmarks.neural_clamping import Keep
from skcalib import NeuralClamping, StructuredMatrixScaling, TemperatureScaling
from skcalib.datasets import corrupt_images
from skcalib.model_selection import CalibratorSearch

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "defocus_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg",
    "clean",
)
PARTS = ("shift", "mixture", "labels")
REFERENCES = ("TS", "SMS")
# Factor and decimal places of the columns.
COLUMNS = {"accuracy": (100, 2), "ECE": (100, 2), "NLL": (1, 4)}
LABELS = (50, 100, 200, 500, 1000, 2000)
# Neither changes a result; on processors this is the quickest.
ENGINE = {"batch_size": 64, "channels_last": True}
# Of the training of the first convolution.
RATE, EPOCHS, PATIENCE, BATCH = 1e-3, 20, 4, 64


def calibrated(calibrator, task):
    calibrator.fit(task.cal.logits, task.cal.y)
    return calibrator.predict_proba(task.test.logits)


def on_outputs(make):
    def probabilities(task, name):
        return {name: calibrated(make(task), task)}

    return probabilities


def clamped(**options):
    """Fit on the inputs; a structured calibrator behind it is a row of its own."""

    def probabilities(task, name):
        estimator = NeuralClamping(
            task.module, gamma=0, random_state=task.seed, **ENGINE, **options
        )
        estimator.fit(task.cal.X, task.cal.y)
        behind = StructuredMatrixScaling()
        behind.fit(estimator.logits(task.cal.X), task.cal.y)
        return {
            name: estimator.predict_proba(task.test.X),
            f"{name} + SMS": behind.predict_proba(estimator.logits(task.test.X)),
        }

    return probabilities


def batch_statistics(task, name):
    """Batch normalisation by the images at hand, the temperature by the labels."""
    module = copy.deepcopy(task.module)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the mean over all batches
            part.train()
    run_network(module, task.test.X)
    return {name: with_temperature(module.eval(), task)}


def first_convolution(task, name):
    """Train the weights of the first convolution, and the temperature after them."""
    module = copy.deepcopy(task.module).eval().requires_grad_(False)
    first = next(p for p in module.modules() if isinstance(p, torch.nn.Conv2d))
    weights = list(first.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    rng = np.random.default_rng(task.seed)
    order = rng.permutation(len(task.cal.y))
    held_out, rows = np.split(order, [len(order) // 5])
    X, y = torch.from_numpy(task.cal.X), torch.from_numpy(task.cal.y)

    def loss_of(part):
        return torch.nn.functional.cross_entropy(module(X[part]), y[part])

    def judged():
        with torch.no_grad():
            return float(loss_of(held_out))

    optimiser = torch.optim.Adam(weights, lr=RATE)
    best, kept, waited = judged(), copy.deepcopy(first.state_dict()), 0
    for _ in range(EPOCHS):
        for part in np.array_split(rng.permutation(rows), -(-len(rows) // BATCH)):
            optimiser.zero_grad()
            loss_of(part).backward()
            optimiser.step()
        loss, waited = judged(), waited + 1
        if loss < best:
            best, kept, waited = loss, copy.deepcopy(first.state_dict()), 0
        if waited == PATIENCE:
            break
    first.load_state_dict(kept)
    return {name: with_temperature(module, task)}


def with_temperature(module, task):
    temperature = TemperatureScaling()
    temperature.fit(run_network(module, task.cal.X), task.cal.y)
    return temperature.predict_proba(run_network(module, task.test.X))


METHODS = {
    "TS": on_outputs(lambda task: TemperatureScaling()),
    "SMS": on_outputs(lambda task: StructuredMatrixScaling()),
    "search": on_outputs(lambda task: CalibratorSearch(random_state=task.seed)),
    "delta": clamped(perturbation="full"),
    "filter": clamped(),
    "BN statistics": batch_statistics,
    "first conv": first_convolution,
}
CHOICES = {"parts": PARTS, "networks": NETWORKS, "kinds": KINDS, "methods": METHODS}
TINY = {
    "networks": ("cifar10-resnet8d",),
    "kinds": ("defocus_blur",),
    "methods": ("TS", "SMS", "filter", "BN statistics"),
    "splits": 1,
    "samples": 60,
}


def run(
    *,
    parts=PARTS,
    networks=tuple(NETWORKS),
    kinds=KINDS,
    methods=tuple(METHODS),
    severity=3,
    splits=5,
    samples=2000,
    device="cpu",
    keep="",
):
    """Yield rows network by network and kind by kind."""
    methods = tuple(dict.fromkeys([*REFERENCES, *methods]))
    with tempfile.TemporaryDirectory() as folder:
        keeper = Keep(keep or folder)
        for part, name, kind in product(parts, networks, kinds):
            case = {"part": part, "network": name, "kind": kind, "severity": severity}
            if part != "shift" and kind == "clean":
                continue
            sizes = (
                [n for n in LABELS if n <= samples] if part == "labels" else [samples]
            )
            for n in sizes:
                tasks = list(make_tasks(name, splits, samples, device, kind == "jpeg"))
                for row in WAYS[part](tasks, kind, severity, n, methods, keeper):
                    yield case | {"samples": n} | row


def shift(tasks, kind, severity, n, methods, keep):
    """Fitted and judged on images that are all shifted alike."""
    del n
    tasks = [shifted(task, kind, severity) for task in tasks]
    yield from compare(tasks, methods, keep)


def labels(tasks, kind, severity, n, methods, keep):
    """The same, fitted on the first `n` images only."""
    tasks = [shifted(task, kind, severity) for task in tasks]
    few = [replace(task, cal=of_rows(task.cal, slice(n))) for task in tasks]
    yield from compare(few, methods, keep)


def mixture(tasks, kind, severity, n, methods, keep):
    """Half of the images shifted; and fitted on shifted ones, judged on clean ones."""
    del n
    there = [shifted(task, kind, severity) for task in tasks]
    both = [
        replace(
            task,
            data=f"{other.data}-mixed",
            cal=alternate(task.cal, other.cal),
            test=alternate(task.test, other.test),
        )
        for task, other in zip(tasks, there, strict=True)
    ]
    for row in compare(both, methods, keep):
        yield {"judged": "mixed"} | row
    away = [
        replace(other, data=f"{other.data}-to-clean", test=task.test)
        for task, other in zip(tasks, there, strict=True)
    ]
    for row in compare(away, methods, keep):
        yield {"judged": "clean"} | row


WAYS = {"shift": shift, "mixture": mixture, "labels": labels}


def shifted(task, kind, severity):
    """Return the task with all its images shifted."""
    if kind in ("clean", "jpeg"):  # those of the files
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
    results = {}
    for task in tasks:
        for method in methods:
            fit = METHODS[method]
            found = keep(task, method, lambda fit=fit, m=method, t=task: fit(t, m))
            for row, proba in found.items():
                results.setdefault(row, []).append(
                    Result(task.test.rows, task.test.y, proba)
                )
    n_images = len(load_logits(tasks[0].name)[1])
    for method, own in results.items():
        columns = [metrics(result) for result in own]
        row = {"method": method, "splits": len(own)}
        row |= {c: float(np.mean([m[c] for m in columns])) for c in COLUMNS}
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
    if row["method"] == reference:
        return ""
    keys = (f"{column} {end} {reference}" for end in ("less", "low", "high"))
    value, low, high = (cell(row, column, key, "+") for key in keys)
    return f"{value} [{low}, {high}]"


def chosen(rows, **case):
    return [row for row in rows if all(row.get(k) == v for k, v in case.items())]


def log_losses(name, part, **case):
    """Return the function that makes one network's table: a line a shift."""

    def table(rows):
        own = chosen(rows, network=name, part=part, **case)
        first = own[0]
        methods = list(dict.fromkeys(row["method"] for row in own))
        lines = []
        for kind in dict.fromkeys(row["kind"] for row in own):
            by_method = {row["method"]: row for row in chosen(own, kind=kind)}
            cells = [
                f"{cell(by_method[m], 'accuracy')} / {cell(by_method[m], 'NLL')}"
                for m in methods
            ]
            last = change(by_method["filter"], "NLL", "SMS")
            lines.append([kind.replace("_", " "), *cells, last])
        title = (
            f"Accuracy in percent / NLL, {NETWORKS[name][0]}: {first['samples']:,} "
            f"images to fit on and to judge by, splits: {first['splits']}, severity: "
            f"{first['severity']}"
        )
        heads = ["images", *methods, "NLL of the filter less that of SMS, 95 %"]
        return Table(heads, lines, title)

    return table


def summary(rows):
    for name, case in product(NETWORKS, CASES):
        own = chosen(rows, network=name, **case)
        if any(row["method"] == "filter" for row in own):
            yield log_losses(name, **case)(rows)


CASES = (
    {"part": "shift"},
    {"part": "mixture", "judged": "mixed"},
    {"part": "mixture", "judged": "clean"},
)
TABLES = {
    "shift": log_losses("cifar10-resnet8d", "shift"),
    "mixed": log_losses("cifar10-resnet8d", "mixture", judged="mixed"),
    "to_clean": log_losses("cifar10-resnet8d", "mixture", judged="clean"),
}
