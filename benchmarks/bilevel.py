"""Bilevel self-calibration beside other ways to a confidence, on small problems.

All methods have the same 600 rows, train the same perceptron with the same steps and
are judged on others. Plain training takes 40 epochs, the others stop when their outer
loss no longer improves. Mean and half of the 95 % interval over the seeds (Student's
t), then what each method has, seed by seed, over isotonic regression of one network, of
the ensemble, and over the checked rows alone. "error" is the mean distance of the
confidence from the true posterior, in percent.

- plain: one network, all rows
- split, TS; split, isotonic: trained on the inner rows, calibrated on the outer ones,
  300 each
- split, stopped, isotonic: the same, stopped by the loss on the calibration rows
- split, bilevel, ...: one network, weights and confidence learned on the outer rows;
  "network" has the confidence as a second output, which is the published form
- ensemble, TS; ensemble, isotonic; ensemble, head: five networks with weights 1, each
  trained on four folds; calibrated on the pooled rows out of fold, and averaged;
  "ensemble, plain" is their mean as it is
- bilevel: the default: the ensemble with learned weights

In the parts flipped and few, half of the first class among the inner rows is labelled
as the second; the outer rows are right, 300 and 60 of the 600. The controls for what
the inner ones are worth:

- checked, one; checked, TS; ...: one network, and the ensemble, of the outer rows alone
- filtered, one: one network of the outer rows and those inner ones whose label is the
  class that "checked, one" gives them

Needs the `torch` extra.
"""

from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn
from torch.nn import functional

from benchmarks._measure import over_seeds
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
# Adam's own steps, in half the time.
ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)
CALIBRATORS = {"TS": TemperatureScaling, "isotonic": IsotonicCalibration}
SIMULATED = {
    "blobs": make_overlapping_blobs,
    "spirals": lambda n, **options: make_spirals(n, noise=0.12, **options),
    "alcohol": make_blood_alcohol,
    "flipped": lambda n, **options: make_spirals(n, noise=0.12, **options),
    "few": lambda n, **options: make_spirals(n, noise=0.12, **options),
}
# Share of the outer rows, where the inner ones have wrong labels.
CHECKED_SHARE = {"flipped": 0.5, "few": 0.1}
PARTS = ("blobs", "spirals", "alcohol", "digits", "flipped", "few")
BILEVEL = {
    "bilevel": {},
    "bilevel, network": {"confidence": "network"},
    "bilevel, neumann": {"hypergradient": "neumann"},
    "bilevel, cg": {"hypergradient": "cg"},
    "bilevel, weights 1": {"weight_lr": 0},
}
PLAIN = ("plain", "split, TS", "split, isotonic", "split, stopped, isotonic")
ENSEMBLE = ("ensemble, plain", "ensemble, TS", "ensemble, isotonic", "ensemble, head")
CHECKED = (
    "checked, one",
    "filtered, one",
    *(name.replace("ensemble", "checked") for name in ENSEMBLE),
)
# Without weights: one network, five, and one or five without the rows in doubt.
REFERENCES = (
    "split, isotonic",
    "ensemble, isotonic",
    "ensemble, TS",
    "ensemble, head",
    "checked, one",
    "checked, TS",
    "filtered, one",
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
        yield f"split, {name}", calibrated(name, logits, y[outer], test_logits)
    stopped = fit_bilevel(X, y, seed, epochs, cv=[halves], weight_lr=0).modules_[0]
    logits, test_logits = logits_of(stopped, X[outer]), logits_of(stopped, X_test)
    proba = calibrated("isotonic", logits, y[outer], test_logits)
    yield "split, stopped, isotonic", proba


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
    softmaxes = [softmax(logits_of(m, X_test)) for m in classifier.modules_]
    yield f"{title}, plain", np.mean(softmaxes, 0)
    for name in CALIBRATORS:
        members = [
            calibrated(name, logits, labels, logits_of(m, X_test))
            for m in classifier.modules_
        ]
        yield f"{title}, {name}", np.mean(members, 0)


def checked_rows(X, y, X_test, seed, halves, epochs):
    """Yield networks of the outer rows alone, and one with the inner they confirm."""
    inner, outer = halves
    predict = train_plain(X[outer], y[outer], seed, epochs)
    yield "checked, one", softmax(predict(X_test))
    rows = np.r_[outer, inner[predict(X[inner]).argmax(1) == y[inner]]]
    yield "filtered, one", softmax(train_plain(X[rows], y[rows], seed, epochs)(X_test))
    yield from ensemble_rows("checked", X[outer], y[outer], X_test, seed, epochs)


def bilevel_rows(X, y, X_test, seed, halves, epochs, wanted):
    for name, options in BILEVEL.items():
        if name in wanted:
            classifier = fit_bilevel(X, y, seed, epochs, **options)
            yield name, classifier.predict_proba(X_test)
        if f"split, {name}" in wanted:
            classifier = fit_bilevel(X, y, seed, epochs, cv=[halves], **options)
            yield f"split, {name}", classifier.predict_proba(X_test)


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


def methods_of(part):
    """Return the rows of a part unless others are asked for."""
    if part in CHECKED_SHARE:
        return [*PLAIN, *(f"split, {name}" for name in BILEVEL), *ENSEMBLE, *CHECKED]
    published = ("split, bilevel", "split, bilevel, network")
    return [*PLAIN, *published, *ENSEMBLE, "bilevel"]


def one_seed(part, seed, epochs, wanted):
    """Yield (method, figures) of one seed."""
    X, y, X_test, y_test, posterior = draw(part, seed)
    halves = train_test_split(
        np.arange(N_ROWS),
        test_size=CHECKED_SHARE.get(part, 0.5),
        stratify=y,
        random_state=seed,
    )
    if part in CHECKED_SHARE:
        y = flip(y, halves[0], seed)
    groups = []
    if wanted & set(PLAIN):
        groups.append(plain_rows(X, y, X_test, seed, halves, epochs))
    if wanted & set(ENSEMBLE):
        groups.append(ensemble_rows("ensemble", X, y, X_test, seed, epochs))
    if wanted & set(CHECKED):
        groups.append(checked_rows(X, y, X_test, seed, halves, epochs))
    groups.append(bilevel_rows(X, y, X_test, seed, halves, epochs, wanted))
    for group in groups:
        for name, proba in group:
            if name in wanted:
                yield name, judge(proba, y_test, posterior)


CHOICES = {"parts": PARTS}
TINY = {"seeds": 2, "plain_epochs": 2, "most_epochs": 2, "parts": ("digits",)}
# Decimal places of the columns.
DIGITS = {"accuracy": 1, "NLL": 3, "ECE": 1, "AUROC": 1, "AURC": 1, "error": 1}
TITLES = {
    "blobs": "Three overlapping blobs",
    "spirals": "Two spirals",
    "alcohol": "Blood alcohol over the limit",
    "digits": "Digits",
    "flipped": "Two spirals, half of the first class's 300 inner labels wrong",
    "few": "The same with 60 checked rows, and 540 inner ones",
}


def run(*, parts=PARTS, seeds=5, methods=(), plain_epochs=40, most_epochs=100):
    """Yield one row a part, seed and method: those of the part if none is named."""
    epochs = {"plain": plain_epochs, "most": most_epochs}
    for part in parts:
        wanted = set(methods or methods_of(part))
        for seed in range(seeds):
            for method, figures in one_seed(part, seed, epochs, wanted):
                yield {"part": part, "seed": seed, "method": method, **figures}


def tables_of(part, rows):
    """Return the figures of a part, and what they have over the references."""
    # Of rows that were measured again the last ones count.
    found = {(row["method"], row["seed"]): row for row in rows if row["part"] == part}
    rows = list(found.values())
    digits = {column: n for column, n in DIGITS.items() if column in rows[0]}
    there = {row["method"] for row in rows}
    yield over_seeds(rows, digits, TITLES[part])
    for name in REFERENCES:
        if name in there:
            yield over_seeds(rows, digits, f"{TITLES[part]}: less {name}", minus=name)


def summary(rows):
    for part in dict.fromkeys(row["part"] for row in rows):
        yield from tables_of(part, rows)


TABLES = {part: lambda rows, part=part: next(tables_of(part, rows)) for part in PARTS}
