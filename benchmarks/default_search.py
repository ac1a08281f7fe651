"""The default search beside every single method, on networks and tabular classifiers.

For each set, all methods are fitted on one random half and judged on the other, five
times; with `--samples`, only so many rows are fitted on, at most half of each set. The
mean log-loss of `CalibratorSearch()` is compared with that of the single method whose
mean is the lowest, and ranks in log-loss, Brier score and ECE are averaged over the
sets. Seconds are of the processor. Methods are named as in compare_methods; IOP is the
intra-order-preserving network of probmetrics, softplus its homogenizing map.

Needs data, rivals.
"""

import time

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from benchmarks._data import (
    CLASSIFIERS,
    SETS,
    load_set,
    load_tabular,
)
from benchmarks._data import (
    TABLES as TABULAR,
)
from benchmarks._measure import say
from benchmarks._tables import Table
from benchmarks.compare_methods import METHODS
from skcalib.metrics import expected_calibration_error

OURS = "the default search"
RIVALS = {
    "IOP network (probmetrics)": "IntraOrderPreservingCalibrator",
    "softplus map (probmetrics)": "SoftPlusCalibrator",
}
SINGLE = (
    *("temperature", "ensemble temperature", "vector", "structured vector"),
    *("structured matrix", "order-preserving", "structured matrix, order-preserving"),
    *("Platt", "beta", "isotonic, shared"),
)
# Searching the penalties of 140 classes takes four minutes a fit.
TOO_SLOW = {("langid", "matrix, ODIR")}
MEASURES = ["NLL", "Brier", "ECE"]
ALL_SETS = (*SETS, *(f"{table}-{kind}" for table in TABULAR for kind in CLASSIFIERS))
CHOICES = {"sets": ALL_SETS, "methods": [*METHODS, *RIVALS]}
TINY = {
    "sets": ("magic-gnb", "magic-rf"),
    "methods": ("temperature", "structured vector"),
    "splits": 2,
    "samples": 250,
}


def run(*, sets=ALL_SETS, methods=(*SINGLE, *RIVALS), splits=5, samples=0):
    chosen = dict(filter(None, map(find, [OURS, *methods])))
    for name in sets:
        pieces = list(halves(name, splits, samples))
        reference = None
        for title, method in chosen.items():
            if (name, title) in TOO_SLOW:
                continue
            runs = np.array([judge(method, piece) for piece in pieces])
            reference = runs[:, 0] if reference is None else reference
            excess = reference - runs[:, 0]
            error = excess.std(ddof=1) / np.sqrt(splits) if splits > 1 else np.nan
            yield {
                "set": name,
                "samples": samples or "half",
                "method": title,
                **dict(zip([*MEASURES, "seconds"], runs.mean(axis=0), strict=True)),
                "default less": excess.mean(),
                "error": error,
            }


def find(title):
    """Return title and calibrator, or say that it is not installed."""
    if title in METHODS:
        return title, METHODS[title]
    try:
        from probmetrics import calibrators
        from probmetrics.calibrators import orderpreserving
    except ModuleNotFoundError as error:
        return say(f"{title}: {error.name} is not installed, left out")
    kind = RIVALS[title]
    return title, Rival(
        getattr(orderpreserving, kind, None) or getattr(calibrators, kind)
    )


class Rival:
    """A calibrator of probmetrics, which takes probabilities."""

    def __init__(self, kind):
        self.kind = kind

    def fit(self, X, y):
        self.fitted_ = self.kind()
        self.fitted_.fit(softmax(X, axis=1).astype(np.float32), y)
        return self

    def predict_proba(self, X):
        proba = self.fitted_.predict_proba(softmax(X, axis=1).astype(np.float32))
        return np.asarray(proba, dtype=np.float64)


def halves(name, n_splits, n_samples):
    """Yield logits and labels to fit on, all of a half or a few, and to judge by."""
    X, y = load_set(name) if name in SETS else pooled_tabular(name)
    if not n_samples:
        splits = StratifiedShuffleSplit(n_splits, test_size=0.5, random_state=0)
    else:
        few = min(n_samples, len(y) // 2)
        splits = ShuffleSplit(n_splits, train_size=few, test_size=0.5, random_state=0)
    for cal, test in splits.split(X, y):
        yield X[cal], y[cal], X[test], y[test]


def pooled_tabular(name):
    """Return all rows that a tabular classifier was not trained on."""
    X, y, X_test, y_test = load_tabular(*name.rsplit("-", 1))
    return np.concatenate([X, X_test]), np.concatenate([y, y_test])


def figures(proba, y):
    """Return log-loss, Brier score, ECE in percent; infinity where a rival failed."""
    if not np.isfinite(proba).all():
        return np.inf, np.inf, np.inf
    proba = np.maximum(proba.astype(np.float64), 1e-15)
    proba /= proba.sum(axis=1, keepdims=True)
    rows = np.arange(y.shape[0])
    nll = -np.log(proba[rows, y]).mean()
    ece = 100 * expected_calibration_error(y, proba)
    proba[rows, y] -= 1
    return nll, (proba**2).sum(axis=1).mean(), ece


def judge(method, split):
    """Return log-loss, Brier score, ECE and processor seconds of one fit."""
    X, y, X_test, y_test = split
    if not isinstance(method, Rival):
        method = clone(method).set_params(classes=np.arange(X.shape[1]))
    start = time.process_time()
    method.fit(X, y)
    seconds = time.process_time() - start
    return *figures(method.predict_proba(X_test), y_test), seconds


def by_set(rows):
    """Return ``{set: {method: row}}`` of the fits on halves."""
    sets = {}
    for row in rows:
        if row["samples"] == rows[0]["samples"]:
            sets.setdefault(row["set"], {})[row["method"]] = row
    return sets


def best_single(rows):
    """Log-loss of the default beside the lowest of a single method."""
    lines = []
    for name, found in by_set(rows).items():
        best = min((r for t, r in found.items() if t != OURS), key=lambda r: r["NLL"])
        difference = f"{best['default less']:+.4f} ± {best['error']:.4f}"
        losses = [f"{found[OURS]['NLL']:.4f}", best["method"], f"{best['NLL']:.4f}"]
        lines.append([name, *losses, difference])
    return Table(["set", "default", "best single method", "", "difference"], lines)


def ranks(rows):
    """Mean ranks over the sets, and median seconds."""
    sets = by_set(rows).values()
    titles = [t for t in next(iter(sets)) if all(t in found for found in sets)]
    values = np.array(
        [[[found[t][m] for m in MEASURES] for t in titles] for found in sets]
    )
    mean = 1 + values.argsort(axis=1).argsort(axis=1).mean(axis=0)
    seconds = np.array([[found[t]["seconds"] for t in titles] for found in sets])
    lines = [
        [
            titles[i],
            *(f"{rank:.1f}" for rank in mean[i]),
            f"{np.median(seconds[:, i]):.2g}",
        ]
        for i in mean[:, 0].argsort()
    ]
    heads = [f"mean rank of {len(titles)}", "log-loss", "Brier score", "ECE"]
    return Table([*heads, "median seconds"], lines)


def summary(rows):
    return [best_single(rows), ranks(rows)]


TABLES = {
    "best_single": lambda rows: best_single(
        [r for r in rows if r["samples"] == "half"]
    ),
    "ranks": lambda rows: ranks([r for r in rows if r["samples"] == "half"]),
}
