"""Neural clamping on real networks: the paper's tables and figures, and what it costs.

- table: the paper's tables on images like those of training, with controls
- ablation: the paper's Table 4, by the method `ablation` of a fitted estimator
- gamma: its figure of ECE, log-loss and entropy against gamma, on one split
- starts: its figure of random and data-driven starts, recipe by recipe
- reliability: its reliability diagrams, over all splits together
- theory: its Theorem 3.2 and Lemma 3.1 in numbers, on 200 images
- speed: seconds to the objectives at which the published recipes end

Means and standard deviations over random halves, and 95 % bootstrap intervals of the
difference to temperature scaling (TS): images are drawn, the same ones for every split
and both methods; fitted calibrators stay as they are. Accuracy, ECE, AECE and SCE are
in percent (15 bins), entropy and NLL in nats. One epoch is a forward and a backward
pass of the network over the images of a half; the recipe takes a hundred of them for
each split: hours on a processor with a large network, so choose parts, networks and
methods. `--keep` names a folder in which finished fits stay; with it an interrupted run
goes on. `--figures` names a folder for the drawings.

- NC: `NeuralClamping` with its defaults; NC + SMS: the same perturbation with
  structured matrix scaling in the place of the temperature
- NC (CE), recipe; NC (FL), recipe: `preset="paper"` with gamma 0 and 1: a hundred
  epochs of stochastic gradient descent on the sum over normalised images
- NC (CE), NC (FL): the same objective by ten epochs of L-BFGS
- TS (FL), TS (gamma by ECE): the controls without a perturbation: focal loss with gamma
  1, and with gamma by cross-fitted ECE

Needs the `torch` extra, Pillow, the `plot` extra for `--figures`, data, hours.
"""

import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from benchmarks._clamping_rows import (
    METHODS,
    fit_clamped,
    paper_objective,
    paper_recipe,
    rows_of,
)
from benchmarks._clamping_speed import PRESETS, speed
from benchmarks._clamping_theory import theory
from benchmarks._measure import say
from benchmarks._networks import EVERY, load_logits, make_tasks
from benchmarks._paired import N_BINS, Result, differences, metrics
from benchmarks._tables import Table
from skcalib import TemperatureScaling

FIGURE_GAMMAS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
STARTS = {
    "random": {},
    "data_driven": {"feasible_range": (0, 1)},
    "theorem": {"feasible_range": (0, 1)},
}
RELIABILITY = ["uncalibrated", "TS", "NC (FL), recipe", "NC"]
REFERENCE = "TS"
# Factor and decimal places of the columns.
COLUMNS = {
    "accuracy": (100, 2),
    "entropy": (1, 4),
    "ECE": (100, 2),
    "AECE": (100, 2),
    "SCE": (100, 3),
    "NLL": (1, 4),
    "Brier": (1, 4),
}
PARTS = ("table", "ablation", "gamma", "starts", "reliability", "theory", "speed")
CHOICES = {"parts": PARTS, "networks": EVERY, "methods": METHODS, "presets": PRESETS}
TINY = {
    "networks": ("fashion-cnn",),
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
        sizes = f"{len(task.cal.y)}-{len(task.test.y)}"
        key = f"{task.name}-{task.data}-{sizes}-{task.seed}-{title}"
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
    epochs: dict
    device: str
    keep: Keep

    def tasks(self, name):
        return make_tasks(name, self.splits, self.samples, self.device)


def run(
    *,
    parts=PARTS,
    networks=("fashion-cnn",),
    methods=(),
    presets=tuple(PRESETS),
    splits=5,
    samples=500,
    recipe_epochs=0,
    device="cpu",
    keep="",
    figures="",
):
    """Yield rows network by network; `figures` is a folder for drawings."""
    drawn = []
    epochs = {"max_iter": recipe_epochs} if recipe_epochs else {}
    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            methods, splits, samples, epochs, device, Keep(keep or folder)
        )
        ways = {
            "table": table,
            "ablation": ablation,
            "gamma": gamma,
            "starts": starts,
            "reliability": reliability,
            "theory": theory,
            "speed": partial(speed, presets=presets),
        }
        for part, name in product(parts, networks):
            case = {"part": part, "network": name, "samples": samples}
            for row in ways[part](name, options):
                yield case | row
                drawn.append(case | row)
    if figures:
        from benchmarks._clamping_figure import draw

        draw(drawn, Path(figures))


def table(name, options):
    """All methods and controls: means, deviations and differences to TS."""
    methods = options.methods or METHODS
    results = predictions(name, dict.fromkeys([REFERENCE, *methods]), options)
    n_images = len(load_logits(name)[1])
    for method, own in results.items():
        columns = [metrics(result) for result in own]
        row = {"method": method, "splits": options.splits}
        for column in COLUMNS:
            values = [each[column] for each in columns]
            row[column] = float(np.mean(values))
            row[f"{column} deviation"] = float(np.std(values, ddof=1))
        for column, ends in differences(own, results[REFERENCE], n_images).items():
            names = f"{column} less TS", f"{column} low", f"{column} high"
            row |= dict(zip(names, ends, strict=True))
        yield row


def predictions(name, methods, options):
    """Return ``{row: its results, split by split}``."""
    results = {}
    for task in options.tasks(name):
        for method in methods:
            for row, proba in rows_of(task, method, options).items():
                result = Result(task.test.rows, task.test.y, proba)
                results.setdefault(row, []).append(result)
    return results


def ablation(name, options):
    """Each part of a fit alone, mean over the splits."""
    columns = [column.lower() for column in COLUMNS]
    found = {}
    for task in options.tasks(name):

        def judge(task=task):
            fitted = paper_objective(task, 1.0).fit(task.cal.X, task.cal.y)
            reports = fitted.ablation(task.test.X, task.test.y, metrics=columns)
            return {
                part: np.array([report[column].value for column in columns])
                for part, report in reports.items()
            }

        for part, values in options.keep(task, "ablation", judge).items():
            found.setdefault(part, []).append(values)
    for part, values in found.items():
        means = np.mean(values, axis=0).tolist()
        yield {"parts": part, **dict(zip(COLUMNS, means, strict=True))}


def gamma(name, options):
    """One split: the published objective, and temperature alone, against gamma."""
    task = next(options.tasks(name))
    for value in FIGURE_GAMMAS:
        estimator = paper_objective(task, value)
        clamped = fit_clamped(task, estimator, options.keep, f"NC gamma={value}")
        alone = TemperatureScaling(objective="focal", gamma=value)
        alone.fit(task.cal.logits, task.cal.y)
        for method, logits, temperature in (
            ("NC", clamped.test_logits, clamped.temperature),
            ("TS", task.test.logits, alone.temperature_),
        ):
            found = metrics(judged(task, logits, temperature))
            case = {"method": method, "gamma": value, "temperature": temperature}
            yield case | found


def starts(name, options):
    """The recipe from each start, split by split."""
    for task in options.tasks(name):
        for start, more in STARTS.items():
            estimator = paper_recipe(task, 1.0, start, **more, **options.epochs)
            title = "NC (FL), recipe" if start == "random" else f"recipe {start}"
            found = fit_clamped(task, estimator, options.keep, title)
            result = judged(task, found.test_logits, found.temperature)
            case = {"start": start, "split": task.seed, "T": found.temperature}
            yield case | metrics(result)


def reliability(name, options):
    """Bins of confidence and their accuracy, all splits together."""
    methods = [m for m in RELIABILITY if m in (options.methods or METHODS)]
    for method, own in predictions(name, methods, options).items():
        if method not in methods:
            continue
        y = np.concatenate([result.y for result in own])
        proba = np.concatenate([result.proba for result in own])
        confidence, hit = proba.max(axis=1), proba.argmax(axis=1) == y
        index = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
        for place in np.unique(index):
            rows = index == place
            yield {
                "method": method,
                "share": float(rows.mean()),
                "confidence": float(confidence[rows].mean()),
                "hits": float(hit[rows].mean()),
            }


def judged(task, logits, temperature):
    proba = softmax(logits.astype(np.float64) / temperature, axis=1)
    return Result(task.test.rows, task.test.y, proba)


def cell(row, column, key="", sign=""):
    factor, digits = COLUMNS[column]
    return f"{factor * row[key or column]:{sign}.{digits}f}"


def with_deviation(row, column):
    return f"{cell(row, column)} ± {cell(row, column, f'{column} deviation')}"


def change(row, column):
    """Difference to temperature scaling with its interval."""
    if row["method"] == REFERENCE:
        return ""
    ends = (f"{column} less TS", f"{column} low", f"{column} high")
    value, low, high = (cell(row, column, key, "+") for key in ends)
    return f"{value} [{low}, {high}]"


def heads(columns):
    return [f"{c} %" if COLUMNS[c][0] == 100 else c for c in columns]


def titled(rows):
    """What network, images and splits the rows are of."""
    row = rows[0]
    of = f"{EVERY[row['network']][0]}: {row['samples']:,} images to fit on"
    return f"{of}, as many to judge by"


def block(rows):
    """One network's methods: metrics, and the log-loss beside temperature scaling."""
    lines = [
        [r["method"], *(with_deviation(r, c) for c in COLUMNS), change(r, "NLL")]
        for r in rows
    ]
    title = f"{titled(rows)}; mean and deviation of {rows[0]['splits']} splits"
    columns = ["method", *heads(COLUMNS), "NLL less TS's, 95 %"]
    return Table(columns, lines, title)


def chosen(rows, **case):
    return [row for row in rows if all(row.get(k) == v for k, v in case.items())]


def parts_table(rows):
    """The paper's Table 4."""
    own = chosen(rows, part="ablation")
    lines = [[row["parts"], *(cell(row, c) for c in COLUMNS)] for row in own]
    return Table(["what is kept", *heads(COLUMNS)], lines, titled(own))


def starts_table(rows):
    """Mean and deviation of each start."""
    own = chosen(rows, part="starts")
    lines = []
    for start in STARTS:
        line = [start]
        for column in ("ECE", "NLL"):
            factor, digits = COLUMNS[column]
            values = [factor * row[column] for row in chosen(own, start=start)]
            line.append(
                f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
            )
        lines.append(line)
    return Table(["start", "ECE %", "NLL"], lines, titled(own))


def recipes(rows):
    """Seconds to the objective of each recipe."""
    lines = []
    seen = set()
    for row in chosen(rows, part="speed"):
        if row["seconds"] in seen:  # a fit that reached a harder goal as well
            continue
        seen.add(row["seconds"])
        case = [EVERY[row["network"]][0], f"{row['samples']:,}", row["preset"]]
        columns = {"seconds": 1, "objective": 5, "temperature": 3, "epochs": 0}
        found = [f"{row[c]:.{n}f}" for c, n in columns.items()]
        times = f"{row['times']:.0f}" if "times" in row else ""
        lines.append([*case, row["fit"], *found, times])
    columns = ["network", "images", "recipe", "fit", "seconds", "objective"]
    return Table([*columns, "T", "epochs", "times less"], lines)


def theory_table(rows):
    """What first order says, and what is found."""
    own = chosen(rows, part="theory")
    lines = [[r["what"], f"{r['first order']:.2f}", f"{r['found']:.2f}"] for r in own]
    title = f"{EVERY[own[0]['network']][0]}, 200 images"
    return Table(["", "predicted", "found"], lines, title)


def summary(rows):
    for name in dict.fromkeys(row["network"] for row in rows):
        own = chosen(rows, network=name, part="table")
        if own:
            yield block(own)


TABLES = {
    "table": lambda rows: block(chosen(rows, part="table", network="fashion-cnn")),
    "cifar": lambda rows: block(chosen(rows, part="table", network="cifar10-resnet8d")),
    "ablation": parts_table,
    "starts": starts_table,
    "theory": theory_table,
    "recipes": recipes,
}
