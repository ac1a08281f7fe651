"""Bilevel self-calibration beside other ways to a confidence, on small problems.

All methods have the same 600 rows and the same perceptron, and are judged on others.
"half" trains on 300 rows and calibrates on 300; "ensemble" is five networks, each
trained on four fifths, calibrated on the last fifth, and averaged. In the part
"flipped" a quarter of the inner labels is wrong and the outer ones are right; "checked"
has the outer rows alone, the control for what the inner ones are worth.

Usage: python benchmarks/bilevel.py [--parts blobs spirals alcohol digits flipped]
       [--seeds 5] [--methods NAME ...] [--output results.json] [--tiny]
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn
from torch.nn import functional

from skcalib import IsotonicCalibration, TemperatureScaling
from skcalib.datasets import (
    make_blood_alcohol,
    make_overlapping_blobs,
    make_spirals,
)
from skcalib.metrics import (
    area_under_risk_coverage_curve,
    expected_calibration_error,
)
from skcalib.training import BilevelCalibratedClassifier

N_ROWS, N_TEST = 600, 5000
# Plain training has nothing to stop it by; the others stop when nothing improves.
EPOCHS = {"plain": 40, "most": 100}
# Adam's own steps, in half the time.
ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)
CALIBRATORS = {"TS": TemperatureScaling, "isotonic": IsotonicCalibration}
SIMULATED = {
    "blobs": make_overlapping_blobs,
    "spirals": lambda n, **options: make_spirals(n, noise=0.12, **options),
    "alcohol": make_blood_alcohol,
    "flipped": lambda n, **options: make_spirals(n, noise=0.12, **options),
}
PARTS = ("blobs", "spirals", "alcohol", "digits", "flipped")
BILEVEL = {
    "bilevel": {},
    "bilevel, cg": {"hypergradient": "cg"},
    "bilevel, neumann": {"hypergradient": "neumann"},
    "bilevel, weights 1": {"weight_lr": 0},
}
PLAIN = ("plain", "half, TS", "half, isotonic", "half, stopped, isotonic")
ENSEMBLE = ("ensemble, TS", "ensemble, isotonic", "ensemble, head")
CHECKED = ("checked, plain", "checked, TS", "checked, isotonic", "checked, head")
# Without weights: one network, five, and one or five without the rows in doubt.
REFERENCES = (
    "half, isotonic",
    "ensemble, isotonic",
    "ensemble, head",
    "checked, plain",
    "checked, head",
)


def draw(part, seed):
    """Return training rows, test rows and, where it is known, the posterior."""
    if part == "digits":
        X, y = load_digits(return_X_y=True)
        X, X_test, y, y_test = train_test_split(
            X / 16, y, train_size=N_ROWS, stratify=y, random_state=seed
        )
        return X, y, X_test, y_test, None
    make = SIMULATED[part]
    X, y = make(N_ROWS, random_state=seed)
    return X, y, *make(N_TEST, return_posterior=True, random_state=1000 + seed)


def flip(y, rows, seed):
    """Return labels where half of class 0 among the rows says class 1."""
    chosen = np.random.default_rng(seed).random(len(rows)) < 0.5
    flipped = y.copy()
    flipped[rows[chosen & (y[rows] == 0)]] = 1
    return flipped


def logits_of(module, X):
    with torch.no_grad():
        return module(torch.as_tensor(X, dtype=torch.float32)).double().numpy()


def softmax(logits):
    return torch.softmax(torch.as_tensor(logits), 1).numpy()


def train_plain(X, y, seed, epochs):
    """The perceptron, optimiser and penalty of the bilevel estimator, by themselves."""
    torch.manual_seed(seed)
    mean, scale = X.mean(0), X.std(0)
    x = torch.as_tensor((X - mean) / np.where(scale > 0, scale, 1), dtype=torch.float32)
    codes = torch.as_tensor(y)
    module = nn.Sequential(
        nn.Linear(X.shape[1], 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, int(y.max()) + 1),
    )
    optimizer = ADAM(module.parameters(), weight_decay=2e-4)
    for _ in range(epochs["plain"]):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(module(x[rows]), codes[rows]).backward()
            optimizer.step()
    return lambda inputs: logits_of(module, (inputs - mean) / np.where(scale, scale, 1))


def calibrated(name, logits, y, test_logits):
    return CALIBRATORS[name]().fit(logits, y).predict_proba(test_logits)


def plain_rows(X, y, X_test, seed, halves, epochs):
    """Yield plain training, and half of it with a calibration on the other half."""
    inner, outer = halves
    yield "plain", softmax(train_plain(X, y, seed, epochs)(X_test))
    predict = train_plain(X[inner], y[inner], seed, epochs)
    logits, test_logits = predict(X[outer]), predict(X_test)
    for name in CALIBRATORS:
        yield f"half, {name}", calibrated(name, logits, y[outer], test_logits)
    stopped = fit_bilevel(X, y, seed, epochs, cv=[halves], weight_lr=0).modules_[0]
    logits, test_logits = logits_of(stopped, X[outer]), logits_of(stopped, X_test)
    proba = calibrated("isotonic", logits, y[outer], test_logits)
    yield "half, stopped, isotonic", proba


def fit_bilevel(X, y, seed, epochs, **options):
    classifier = BilevelCalibratedClassifier(
        max_epochs=epochs["most"], optimizer=ADAM, random_state=seed, **options
    )
    return classifier.fit(X, y)


def ensemble_rows(title, X, y, X_test, seed, epochs):
    """Yield the head and the calibrators after five networks, rows out of fold pooled.

    The networks are the same ones, trained with all weights 1.
    """
    folds = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y))
    classifier = fit_bilevel(X, y, seed, epochs, cv=folds, weight_lr=0)
    logits = np.concatenate(
        [
            logits_of(m, X[rows])
            for m, (_, rows) in zip(classifier.modules_, folds, strict=True)
        ]
    )
    labels = np.concatenate([y[rows] for _, rows in folds])
    yield f"{title}, head", classifier.predict_proba(X_test)
    for name in CALIBRATORS:
        members = [
            calibrated(name, logits, labels, logits_of(m, X_test))
            for m in classifier.modules_
        ]
        yield f"{title}, {name}", np.mean(members, 0)


def checked_rows(X, y, X_test, seed, epochs):
    """Yield one network and five that see none but the rows given."""
    yield "checked, plain", softmax(train_plain(X, y, seed, epochs)(X_test))
    yield from ensemble_rows("checked", X, y, X_test, seed, epochs)


def bilevel_rows(X, y, X_test, seed, halves, epochs, wanted):
    for name, options in BILEVEL.items():
        if name in wanted:
            classifier = fit_bilevel(X, y, seed, epochs, **options)
            yield name, classifier.predict_proba(X_test)
        if f"half, {name}" in wanted:
            classifier = fit_bilevel(X, y, seed, epochs, cv=[halves], **options)
            yield f"half, {name}", classifier.predict_proba(X_test)


def judge(proba, y, posterior):
    confidence, top = proba.max(1), proba.argmax(1)
    labels = np.arange(proba.shape[1])
    figures = {
        "accuracy": 100 * np.mean(top == y),
        "NLL": -np.log(np.maximum(proba[np.arange(len(y)), y], 1e-15)).mean(),
        "ECE": 100 * expected_calibration_error(y, proba, labels=labels),
        "AUROC": 100 * roc_auc_score(top == y, confidence),
        "AURC": 100 * area_under_risk_coverage_curve(y, proba, labels=labels),
    }
    if posterior is not None:
        true = posterior[np.arange(len(y)), top]
        figures["error"] = 100 * np.abs(confidence - true).mean()
    return figures


def methods(part):
    """Return the rows of a part unless others are asked for."""
    if part == "flipped":
        return [*PLAIN, *(f"half, {name}" for name in BILEVEL), *ENSEMBLE, *CHECKED]
    return [*PLAIN, "half, bilevel, cg", *ENSEMBLE, "bilevel"]


def results(part, seed, epochs, wanted):
    """Yield (method, figures) of one seed."""
    X, y, X_test, y_test, posterior = draw(part, seed)
    halves = train_test_split(
        np.arange(N_ROWS), test_size=0.5, stratify=y, random_state=seed
    )
    if part == "flipped":
        y = flip(y, halves[0], seed)
    groups = []
    if wanted & set(PLAIN):
        groups.append(plain_rows(X, y, X_test, seed, halves, epochs))
    if wanted & set(ENSEMBLE):
        groups.append(ensemble_rows("ensemble", X, y, X_test, seed, epochs))
    if wanted & set(CHECKED):
        rows = halves[1]
        groups.append(checked_rows(X[rows], y[rows], X_test, seed, epochs))
    groups.append(bilevel_rows(X, y, X_test, seed, halves, epochs, wanted))
    for group in groups:
        for name, proba in group:
            if name in wanted:
                yield name, judge(proba, y_test, posterior)


def interval(values):
    """Mean and half-width of its 95 % interval, by Student's t over the seeds."""
    values = np.asarray(values)
    if len(values) < 2:
        return values.mean(), np.nan
    factor = student.ppf(0.975, len(values) - 1) / np.sqrt(len(values))
    return values.mean(), factor * values.std(ddof=1)


def cells(rows, sign=""):
    """Format the mean of each figure and half of its interval."""
    for column in rows[0]:
        mean, half = interval([row[column] for row in rows])
        digits = 3 if column == "NLL" else 1
        yield f"{column} {mean:{sign}.{digits}f} ± {half:.{digits}f}"


def difference(rows, others):
    return [{c: a[c] - b[c] for c in a} for a, b in zip(rows, others, strict=True)]


def print_table(part, found):
    """Print figures, and what each method has over the references, seed by seed."""
    print(f"\n{part}: mean ± half of its 95 % interval over the seeds")
    for name, rows in found.items():
        print(f"  {name:26}", "  ".join(cells(rows)))
    for reference in REFERENCES:
        if reference in found:
            print(f"  minus {reference}:")
            for name, rows in found.items():
                over = difference(rows, found[reference])
                print(f"  {name:26}", "  ".join(cells(over, "+")))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", help="rows to show; default: all")
    parser.add_argument("--output", type=Path, help="JSON file for all figures")
    parser.add_argument("--tiny", action="store_true", help="only try the script")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, epochs = options.seeds, EPOCHS
    if options.tiny:
        seeds, epochs = 2, dict.fromkeys(EPOCHS, 2)
    everything = {}
    for part in options.parts:
        wanted = set(options.methods or methods(part))
        found, start = {}, time.perf_counter()
        for seed in range(seeds):
            for name, figures in results(part, seed, epochs, wanted):
                found.setdefault(name, []).append(figures)
        print_table(part, found)
        print(f"  {time.perf_counter() - start:.0f} s")
        everything[part] = found
        if options.output:
            options.output.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
