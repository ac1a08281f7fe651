"""Experiments and results in the layout of CalArena, and what is read off the results.

A folder is laid out like a checkout of its repository, so that one may stand in its
place: ``calibration_benchmarks/{benchmark}.h5`` has ``{dataset}/{model}/`` with
``probas_cal``, ``labels_cal``, ``probas_test`` and ``labels_test``;
``{benchmark}-experiments.csv`` beside it lists them;
``results/{benchmark}/{method}.csv`` has a line an experiment with the columns
``{method}_logloss``, ``{method}_brier``, ``{method}_ece-15`` and ``{method}_time``.
"""

import csv
import shutil
import urllib.request
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks import _tabular
from benchmarks._data import SETS, load_set
from benchmarks._measure import say
from benchmarks._tabular import Experiment
from skcalib.metrics import expected_calibration_error

PUBLIC = (
    *("tabrepo-binary", "tabarena-binary", "cv-binary", "tabrepo-multiclass"),
    *("tabarena-multiclass", "cv-multiclass", "imagenet-multiclass"),
)
OWN = {
    "tabular-binary": ("judging", "binary"),
    "tabular-multiclass": ("judging", "multiclass"),
    "tuning-binary": ("tuning", "binary"),
    "tuning-multiclass": ("tuning", "multiclass"),
    "networks-multiclass": None,
}
ADDRESS = "https://huggingface.co/datasets/probkit/CalArena/resolve/main/"
ARRAYS = ("probas_cal", "labels_cal", "probas_test", "labels_test")
MEASURES = ("logloss", "brier", "ece-15")
# The smallest probability that CalArena's log-loss tells from zero.
TINY = float(np.finfo(np.float32).tiny)


def files(folder, benchmark):
    """Paths of the experiments and of their list."""
    data = Path(folder) / "calibration_benchmarks"
    return data / f"{benchmark}.h5", data / f"{benchmark}-experiments.csv"


def prepare(folder, benchmark, *, download, source=ADDRESS):
    """Make or download the files of a benchmark that are not there."""
    missing = [path for path in files(folder, benchmark) if not path.exists()]
    if not missing:
        return
    missing[0].parent.mkdir(parents=True, exist_ok=True)
    if benchmark in OWN:
        write(folder, benchmark, own_experiments(benchmark))
    elif download:
        for path in missing:
            say(f"downloading {path.name}")
            partial = path.with_name(f"{path.name}.partial")
            with (
                urllib.request.urlopen(source + path.name) as answer,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
            partial.replace(path)
    else:
        raise FileNotFoundError(
            f"{missing[0]} is not there: --download brings it from {source}, and "
            "--folder names a checkout of CalArena that has it"
        )


def own_experiments(benchmark):
    """Yield what is made here: tabular classifiers, or networks of `_data`."""
    if OWN[benchmark] is None:
        yield from map(network, SETS)
        return
    for dataset, model in _tabular.pairs(*OWN[benchmark]):
        yield _tabular.make(dataset, model)


def network(name):
    """Half of a network's rows to calibrate on, the others to judge by."""
    X, y = load_set(name)
    rows = np.random.default_rng(0).permutation(len(y))
    X = np.exp(X - X.max(axis=1, keepdims=True), dtype=np.float64)
    proba = (X / X.sum(axis=1, keepdims=True)).astype(np.float32)
    cal, test = np.array_split(rows, 2)
    dataset, _, model = name.partition("-")
    return Experiment(dataset, model or name, proba[cal], y[cal], proba[test], y[test])


def write(folder, benchmark, experiments):
    """Write a benchmark's file and its list of experiments."""
    import h5py

    path, index = files(folder, benchmark)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with h5py.File(path.with_suffix(".partial"), "w") as file:
        for experiment in experiments:
            dataset, model, *arrays = experiment
            for name, array in zip(ARRAYS, arrays, strict=True):
                kind = np.float32 if name.startswith("probas") else np.int32
                file.create_dataset(
                    f"{dataset}/{model}/{name}", data=array.astype(kind)
                )
            lines.append(described(experiment))
    path.with_suffix(".partial").replace(path)
    write_csv(index, lines)


def described(experiment):
    """The columns that CalArena gives each experiment."""
    line = {
        "dataset": experiment.dataset,
        "model": experiment.model,
        "cal_size": len(experiment.y_cal),
        "test_size": len(experiment.y_test),
    }
    if experiment.p_cal.ndim == 2:
        line["n_classes"] = experiment.p_cal.shape[1]
    return line


def read(folder, benchmark, limit=0):
    """Return the experiments of a benchmark, the first few with `limit`."""
    import h5py

    path, index = files(folder, benchmark)
    found = []
    with h5py.File(path, "r") as file:
        for line in read_csv(index)[: limit or None]:
            group = file[f"{line['dataset']}/{line['model']}"]
            arrays = [group[name][:] for name in ARRAYS]
            found.append(Experiment(line["dataset"], line["model"], *arrays))
    return found


def write_csv(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results_path(folder, benchmark, method):
    return Path(folder) / "results" / benchmark / f"{method}.csv"


def kept(folder, benchmark, method, experiments):
    """Return a method's results if they were kept for all experiments, else None."""
    path = results_path(folder, benchmark, method)
    lines = read_csv(path) if path.exists() else []
    by_name = {(line["dataset"], line["model"]): line for line in lines}
    try:
        found = [by_name[e.dataset, e.model] for e in experiments]
        texts = [
            {key: line[f"{method}_{key}"] for key in (*MEASURES, "time")}
            for line in found
        ]
    except KeyError:
        return None
    # An empty cell is a method that gave no numbers.
    return [{key: float(text or "inf") for key, text in row.items()} for row in texts]


def keep(folder, benchmark, method, experiments, results):
    lines = [
        described(e) | {f"{method}_{key}": value for key, value in result.items()}
        for e, result in zip(experiments, results, strict=True)
    ]
    write_csv(results_path(folder, benchmark, method), lines)


def judged(proba, y):
    """CalArena's measures of probabilities; infinite where a method gave no numbers."""
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim == 1 or proba.shape[1] == 1:
        proba = np.column_stack([1 - proba.ravel(), proba.ravel()])
    if not np.isfinite(proba).all():
        return dict.fromkeys(MEASURES, np.inf)
    rows = np.arange(len(y))
    clipped = np.maximum(proba, TINY)
    own = clipped[rows, y] / clipped.sum(axis=1)
    of_rows = np.clip(proba, 0, 1)
    of_rows /= of_rows.sum(axis=1, keepdims=True)
    error = proba.copy()
    error[rows, y] -= 1
    return {
        "logloss": -np.log(own).mean(),
        "brier": (error**2).sum(axis=1).mean(),
        "ece-15": expected_calibration_error(y, of_rows),
    }


def win_rates(scores):
    """Of each experiment and method: the share of the others with a larger score."""
    larger = scores[:, np.newaxis, :] > scores[:, :, np.newaxis]
    return larger.sum(axis=2) / (scores.shape[1] - 1)


def mean_ranks(scores):
    return rankdata(scores, axis=1).mean(axis=0)


def interval(values, datasets, draws=1000):
    """Bounds of 95 % of the column means over sets drawn with replacement."""
    names, group = np.unique(datasets, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, group, values)
    weights = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), draws
    )
    means = weights @ sums / (weights @ np.bincount(group))[:, np.newaxis]
    return np.percentile(means, [2.5, 97.5], axis=0)
