"""Neural clamping on real networks: what it gains, where, and what it costs.

- table: the paper's table on clean images, with the controls beside it
- shift: the same where all images, to fit on and to judge by, went through a strong
  JPEG compression that the network was not trained on
- gamma: the paper's figure of ECE, log-loss and entropy against gamma, on one split
- corruption: fitted on clean images, judged on corrupted ones
- speed: seconds to the objectives at which the published recipes end

Means over random halves, and 95 % bootstrap intervals of the difference to temperature
scaling (TS): images are drawn, the same ones for every split and both methods; fitted
calibrators stay as they are. Accuracy, ECE, AECE and SCE are in percent (15 bins),
entropy and NLL in nats. One epoch is a forward and a backward pass of the network over
the images of a half, and a row takes tens of them for each split: hours on a processor,
so choose parts, networks and methods. `--keep` names a folder in which finished fits
stay; with it an interrupted run goes on.

- NC: `NeuralClamping` with its defaults
- NC (gamma by NLL), NC (gamma by ECE): `NeuralClampingCV`, which also chooses gamma by
  cross-fitting; by ECE with the temperature of the focal loss
- ... + SMS: the same perturbation with structured matrix scaling in the place of the
  temperature
- NC (CE), NC (FL): the published objective with gamma 0 and 1: every pixel free,
  penalty a tenth of the initial loss, temperature by the same loss; three epochs of
  L-BFGS, which end at or below the objective of the recipe of the paper (part speed)
- NC (FL, optimum): the same with gamma 1, minimised on
- ..., T only; ..., delta only: one half of that fit alone
- TS (FL), TS (gamma by ECE): the controls without a perturbation: focal loss with gamma
  1, and with gamma by cross-fitted ECE

Needs the `torch` extra, Pillow, the `plot` extra for `--figure`, data, hours.
"""

import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from benchmarks._clamping_rows import (
    CLAMPED,
    METHODS,
    changed,
    fit_clamped,
    make_clamped,
    paper_objective,
    rows_of,
)
from benchmarks._clamping_speed import PRESETS, speed
from benchmarks._measure import say
from benchmarks._networks import NETWORKS, load_logits, make_tasks, run_network
from benchmarks._paired import Result, differences, metrics
from benchmarks._tables import Table
from skcalib import TemperatureScaling
from skcalib.clamping._change import Change
from skcalib.datasets import corrupt_images

SHIFT_METHODS = ["uncalibrated", "TS", "SVS", "SMS", "NC", "NC (gamma by NLL)"]
CORRUPTION_METHODS = ["NC", "NC (gamma by NLL)", "NC (CE)", "NC (FL)"]
KINDS = ["gaussian_noise", "defocus_blur", "brightness", "contrast"]
SEVERITIES = [1, 3, 5]
FIGURE_GAMMAS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
REFERENCE = "TS"
# Factor and decimal places of the columns.
COLUMNS = {
    "accuracy": (100, 2),
    "entropy": (1, 4),
    "ECE": (100, 2),
    "AECE": (100, 2),
    "SCE": (100, 3),
    "NLL": (1, 4),
}
CHANGES = ("accuracy", "NLL", "ECE")
PARTS = ("table", "shift", "gamma", "corruption", "speed")
CHOICES = {
    "parts": PARTS,
    "networks": NETWORKS,
    "methods": METHODS,
    "presets": PRESETS,
}
TINY = {
    "parts": ("table", "gamma", "corruption", "speed"),
    "networks": ("cifar10-resnet8d",),
    "methods": ("TS", "SMS", "NC", "NC (FL)"),
    "presets": ("paper",),
    "splits": 2,
    "samples": 30,
    "recipe_epochs": 1,
}


class Keep:
    """Computes a dict of arrays, or reads what an earlier run has left."""

    def __init__(self, folder):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, task, title, compute):
        key = f"{task.name}-{task.data}-{len(task.cal.y)}-{task.seed}-{title}"
        path = self._folder / f"{key}.npz"
        if path.exists():
            with np.load(path) as arrays:
                return dict(arrays)
        start = time.perf_counter()
        arrays = compute()
        seconds = time.perf_counter() - start
        say(f"{key}: {seconds:.1f} s")
        unfinished = self._folder / "unfinished.npz"
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
        return arrays


class Options(NamedTuple):
    """How much of a network's images, and where."""

    methods: tuple
    splits: int
    samples: int
    device: str
    keep: Keep

    def tasks(self, name, jpeg=False):
        return make_tasks(name, self.splits, self.samples, self.device, jpeg)


def run(
    *,
    parts=PARTS,
    networks=tuple(NETWORKS),
    methods=(),
    presets=tuple(PRESETS),
    splits=5,
    samples=5000,
    recipe_epochs=0,
    device="cpu",
    keep="",
    figure="",
):
    """Yield rows network by network; `figure` is a .svg or .png file of part gamma."""
    drawn = []
    with tempfile.TemporaryDirectory() as folder:
        options = Options(methods, splits, samples, device, Keep(keep or folder))
        ways = {
            "table": table,
            "shift": shift,
            "gamma": gamma,
            "corruption": corruption,
            "speed": partial(speed, presets=presets, recipe_epochs=recipe_epochs),
        }
        for part, name in product(parts, networks):
            case = {"part": part, "network": name, "samples": samples}
            for row in ways[part](name, options):
                yield case | row
                drawn += [case | row] * (part == "gamma")
    if figure and drawn:
        from benchmarks._clamping_figure import draw

        draw(drawn, Path(figure))


def table(name, options):
    """All methods and controls on clean images."""
    return compare(name, options.methods or METHODS, options)


def shift(name, options):
    """Fitted and judged on compressed images."""
    return compare(name, options.methods or SHIFT_METHODS, options, jpeg=True)


def compare(name, methods, options, jpeg=False):
    if REFERENCE not in methods:
        methods = [REFERENCE, *methods]
    results = {}
    for task in options.tasks(name, jpeg):
        for method in methods:
            for row, proba in rows_of(task, method, options.keep).items():
                result = Result(task.test.rows, task.test.y, proba)
                results.setdefault(row, []).append(result)
    return summaries(name, results)


def corruption(name, options):
    """Fitted on clean images, judged on corrupted ones."""
    results = {}
    for task in options.tasks(name):
        temperature = TemperatureScaling().fit(task.cal.logits, task.cal.y)
        nothing = Change(torch.zeros(task.cal.X.shape[1:]))
        fits = {REFERENCE: (nothing, temperature.temperature_)}
        for method in options.methods or CORRUPTION_METHODS:
            if method in CLAMPED:
                clamped = make_clamped(task, method)
                found = fit_clamped(task, clamped, options.keep, method)
                fits[method] = found.change, found.temperature
        for kind, severity in product(KINDS, SEVERITIES):
            block = results.setdefault(f"{kind} {severity}", {})
            for method, (change, value) in fits.items():
                # Without a perturbation the logits are those of temperature scaling.
                title = f"{kind}-{severity}-{method if change.any() else REFERENCE}"
                corrupted = partial(corrupted_logits, task, kind, severity, change)
                logits = options.keep(task, title, corrupted)["logits"]
                block.setdefault(method, []).append(judged(task, logits, value))
    for title, block in results.items():
        for row in summaries(name, block):
            yield {"corruption": title} | row


def gamma(name, options):
    """One split: the published objective, and temperature alone, against gamma."""
    task = next(options.tasks(name))
    for value in FIGURE_GAMMAS:
        title = {0.0: "NC (CE)", 1.0: "NC (FL)"}.get(value, f"NC gamma={value}")
        clamped = fit_clamped(task, paper_objective(task, value), options.keep, title)
        alone = TemperatureScaling(objective="focal", gamma=value)
        alone.fit(task.cal.logits, task.cal.y)
        for method, logits, temperature in (
            ("NC", clamped.test_logits, clamped.temperature),
            ("TS", task.test.logits, alone.temperature_),
        ):
            found = metrics(judged(task, logits, temperature))
            case = {"method": method, "gamma": value, "temperature": temperature}
            yield case | found


def corrupted_logits(task, kind, severity, change):
    images = corrupt_images(
        task.test.X, kind, severity, channel_axis=1, random_state=task.seed
    )
    seen = changed(images.astype(np.float32), change)
    return {"logits": run_network(task.module, seen)}


def judged(task, logits, temperature):
    proba = softmax(logits.astype(np.float64) / temperature, axis=1)
    return Result(task.test.rows, task.test.y, proba)


def summaries(name, results):
    """Yield the mean metrics of each method, and its distance to TS."""
    n_images = len(load_logits(name)[1])
    for method, own in results.items():
        columns = [metrics(result) for result in own]
        row = {"method": method}
        row |= {c: float(np.mean([m[c] for m in columns])) for c in COLUMNS}
        for column, ends in differences(own, results[REFERENCE], n_images).items():
            names = f"{column} less TS", f"{column} low", f"{column} high"
            row |= dict(zip(names, ends, strict=True))
        yield row


def cell(row, column, key="", sign=""):
    factor, digits = COLUMNS[column]
    return f"{factor * row[key or column]:{sign}.{digits}f}"


def change(row, column):
    """Difference to temperature scaling with its interval."""
    if row["method"] == REFERENCE:
        return ""
    ends = (f"{column} less TS", f"{column} low", f"{column} high")
    value, low, high = (cell(row, column, key, "+") for key in ends)
    return f"{value} [{low}, {high}]"


def block(rows, columns=tuple(COLUMNS), changes=CHANGES):
    """One network's methods: metrics, and differences to temperature scaling."""
    row = rows[0]
    data, network = NETWORKS[row["network"]][0].split(", ")
    kind = " as strongly compressed JPEG" * (row["part"] == "shift")
    images = f"{row['samples']:,} images to fit on and to judge by"
    lines = [
        [r["method"], *(cell(r, c) for c in columns), *(change(r, c) for c in changes)]
        for r in rows
    ]
    less = [f"{c} less TS's, 95 %" for c in changes]
    title = f"{data}{kind}, {network}: {images}"
    heads = [f"{c} %" if COLUMNS[c][0] == 100 else c for c in columns]
    return Table(["method", *heads, *less], lines, title)


def chosen(rows, **case):
    return [row for row in rows if all(row.get(k) == v for k, v in case.items())]


def of(name, part, samples, **options):
    """Return the function that makes the table of a network and part."""
    if part == "table":
        options["changes"] = ("NLL", "ECE")
    return lambda rows: block(
        chosen(rows, network=name, part=part, samples=samples), **options
    )


def tag(name):
    return name.replace("-", "_")


def log_losses(networks, samples):
    """Return the function that makes the table of log-losses less those of TS."""

    def table(rows):
        lines = {}
        for name in networks:
            for row in chosen(rows, network=name, part="table", samples=samples):
                method, text = row["method"], change(row, "NLL")
                if method == REFERENCE:
                    method = "TS: ECE %, NLL"
                    text = f"{cell(row, 'ECE')}, {cell(row, 'NLL')}"
                lines.setdefault(method, [method]).append(text)
        titles = [NETWORKS[name][0] for name in networks]
        title = f"NLL less TS's, 95 % interval: {samples:,} images to fit on"
        return Table(["method", *titles], [*lines.values()], title)

    return table


def corruptions(rows):
    """Log-loss under corruption, beside temperature scaling."""
    lines, methods = {}, {}
    for row in chosen(rows, part="corruption"):
        kind = row["corruption"].replace("_", " ")
        line = lines.setdefault(kind, [kind])
        line.append(cell(row, "NLL"))
        methods[row["method"]] = None
        if row["method"] == "NC":
            line.append(change(row, "NLL"))
            methods["NC less TS, 95 %"] = None
    title = "Log-loss on corrupted images of networks fitted on clean ones"
    return Table(["corruption, severity", *methods], [*lines.values()], title)


def recipes(rows):
    """Seconds to the objective of each recipe."""
    columns = {"seconds": 1, "objective": 4, "temperature": 3, "norm": 2, "epochs": 0}
    lines = [
        [row["preset"], row["fit"], *(f"{row[c]:.{n}f}" for c, n in columns.items())]
        for row in chosen(rows, part="speed")
    ]
    return Table(["recipe", "fit", *columns], lines)


def summary(rows):
    for name in dict.fromkeys(row["network"] for row in rows):
        for part in ("table", "shift"):
            own = chosen(rows, network=name, part=part)
            if own:
                yield block(own)


SHORT = ("accuracy", "ECE", "NLL")
CIFAR10 = [name for name in NETWORKS if name.startswith("cifar10-")]
CIFAR100 = [name for name in NETWORKS if name.startswith("cifar100-")]
TABLES = {
    "shift": of("cifar10-resnet8d", "shift", 5000, columns=SHORT),
    "shift_resnet20": of("cifar10-resnet20", "shift", 2000),
    "cifar10": log_losses(CIFAR10, 2000),
    "cifar100": log_losses(CIFAR100, 1000),
    **{tag(name): of(name, "table", 2000) for name in CIFAR10},
    **{tag(name): of(name, "table", 1000) for name in CIFAR100},
    "corruptions": corruptions,
    "recipes": recipes,
}
