"""The default search beside every single method, on networks and tabular classifiers.

For each set, all methods are fitted on one random half and judged on the other, five
times; the mean log-loss of ``CalibratorSearch()`` is compared with that of the single
method whose mean is the lowest, and ranks in log-loss, Brier score and ECE are averaged
over the sets. A rival that is not installed is left out: pip install probmetrics==1.3.0

Usage: SKCALIB_DATA=<folder> python benchmarks/default_search.py
       [--sets cifar100-wrn letter-rf ...] [--methods TS SMS ...] [--splits 5]
       [--samples 250] [--output results.json]
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _common import CLASSIFIERS, SETS, TABLES, load_set, load_tabular
from compare_methods import METHODS
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from threadpoolctl import threadpool_limits

from skcalib.metrics import expected_calibration_error

OURS = "default"
# The median over the sets of each method's time in units of this one's is printed.
UNIT = "OP"
SINGLE = [
    "TS",
    "ETS",
    "VS",
    "MS-ODIR",
    "SVS",
    "SMS",
    "OP",
    "SMS-OP",
    "Platt",
    "beta",
    "IROvA-TS",
    "IRM",
]
# Searching the penalties of 140 classes takes four minutes a fit.
TOO_SLOW = {("langid", "MS-ODIR")}
MEASURES = ["NLL", "Brier", "ECE"]
ALL_SETS = [*SETS, *(f"{table}-{kind}" for table in TABLES for kind in CLASSIFIERS)]


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


def rivals():
    try:
        from probmetrics.calibrators import SoftPlusCalibrator
        from probmetrics.calibrators.orderpreserving import (
            IntraOrderPreservingCalibrator,
        )
    except ImportError:
        print("probmetrics is not installed, left out", file=sys.stderr)
        return {}
    return {
        "rival, intra-order-preserving": Rival(IntraOrderPreservingCalibrator),
        "rival, softplus": Rival(SoftPlusCalibrator),
    }


def halves(name, n_splits, n_samples=None):
    """Yield logits and labels to fit on, all of a half or a few, and to judge by."""
    X, y = load_set(name) if name in SETS else pooled_tabular(name)
    if n_samples is None:
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


def judge_all(name, methods, n_splits, n_samples):
    """Return for each method the figures of every split."""
    splits = list(halves(name, n_splits, n_samples))
    results = {}
    for title, method in methods.items():
        if (name, title) not in TOO_SLOW:
            runs = [judge(method, split) for split in splits]
            results[title] = np.array(runs).tolist()
    return results


def report(results):
    """Print log-losses beside the best single method's, and mean ranks."""
    print(f"{'set':24}{'default':>9}{'best single':>13}{'':30}{'excess':>9}{'s':>19}")
    for name, runs in results.items():
        others = {t: np.mean(runs[t], axis=0)[0] for t in runs if t != OURS}
        best = min(others, key=others.get)
        loss, *_, seconds = np.mean(runs[OURS], axis=0)
        excess = np.subtract(runs[OURS], runs[best])[:, 0]
        error = excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else np.nan
        print(
            f"{name:24}{loss:9.4f}{others[best]:13.4f}  {best:28}"
            f"{excess.mean():+9.4f} ± {error:.4f}{seconds:10.2f}"
        )
    titles = [t for t in next(iter(results.values())) if ("langid", t) not in TOO_SLOW]
    values = np.array(
        [[np.mean(runs[t], axis=0) for t in titles] for runs in results.values()]
    )
    ranks = 1 + values[:, :, :3].argsort(axis=1).argsort(axis=1).mean(axis=0)
    seconds = values[:, :, 3]
    unit = seconds[:, titles.index(UNIT)] if UNIT in titles else np.nan
    times = np.median(seconds, axis=0), np.median(seconds.T / unit, axis=1)
    columns = "".join(f"{m:>8}" for m in MEASURES)
    print(f"\n{'mean rank, median seconds':32}{columns}{'s':>9}{f's / {UNIT}':>9}")
    for i in ranks[:, 0].argsort():
        row = "".join(f"{r:8.2f}" for r in ranks[i])
        print(f"{titles[i]:32}{row}{times[0][i]:9.4f}{times[1][i]:9.2f}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sets", nargs="+", choices=ALL_SETS, default=ALL_SETS, metavar="SET"
    )
    parser.add_argument(
        "--methods", nargs="+", help="beside the default; all and rivals by default"
    )
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--samples", type=int, help="to fit on; half of each set")
    parser.add_argument("--output", type=Path, help="a .json file for all figures")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    # Ties and few samples make some methods stop early; their figures say it all.
    warnings.simplefilter("ignore")
    methods = {title: METHODS[title] for title in [OURS, *SINGLE]} | rivals()
    if arguments.methods:
        methods = {title: methods[title] for title in [OURS, *arguments.methods]}
    results = {}
    with threadpool_limits(1):
        for name in arguments.sets:
            results[name] = judge_all(
                name, methods, arguments.splits, arguments.samples
            )
            print(f"{name} done", file=sys.stderr, flush=True)
            if arguments.output:
                arguments.output.write_text(json.dumps(results, indent=1))
    report(results)


if __name__ == "__main__":
    main()
