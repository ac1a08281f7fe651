"""CLUE beside plain training and other ways to an uncertainty, on small problems.

All networks are small, so that one core bears them: the figures compare methods, not
what networks can do. Seeds change the split, the weights and the order of the samples;
means have half of their 95 % interval over the seeds (Student's t). Every method trains
the same network on the same rows, for the same number of epochs but for "twice the
epochs"; the rows with "TS" or "scaled" use a calibration part besides. "MC" predicts
with 30 passes of dropout; "passes only" is the loss with alpha = 1, which shows what
several passes do without the second term.

- digits: perceptron, digits 0 to 7; shifted by noise; digits 8 and 9 as other inputs
- fashion: perceptron, Fashion-MNIST at 14 x 14; noise; handwritten digits
- cifar10: convolutions, CIFAR-10 at 16 x 16; noise; pieces of clothing
- diabetes: perceptron with a variance output; noise; three times the features
- text: causal transformer of one layer, padded lines of scikit-learn's documentation,
  judged character by character; a tenth of the characters read is wrong; Python code
- speed: processor seconds over those of a plain network: of an epoch with five passes,
  and of predictions, with 50 passes and for classes with as many as `predict_tol` asks

UCE bins -ln p by entropy for classes, squared errors by variance for values, and is in
percent for classes.

Needs the `train` extra, data for two parts.
"""

import copy
import time
from functools import partial

import numpy as np
import torch
from scipy.stats import norm
from torch import nn
from torch.nn import functional

from benchmarks._clue_data import PAD, TASKS
from benchmarks._measure import in_turns, interval, over_seeds
from benchmarks._tables import Table
from skcalib import TemperatureScaling
from skcalib.metrics import (
    adaptive_expected_calibration_error,
    expected_calibration_error,
    expected_normalized_calibration_error,
    interval_coverage,
    interval_sharpness,
    ood_auroc,
    ood_fpr,
    static_calibration_error,
    uncertainty_calibration_error,
)
from skcalib.training import CLUEClassifier, CLUELoss, mc_dropout

N_PASSES = 5
N_PREDICT = 30
N_MEMBERS = 5
BATCH = 64
LONGER = "plain, twice the epochs"


def only_pass(passes, y):
    """Logits and classes of the first pass; tokens become samples, but for padding."""
    return (passes[0], y) if y.ndim == 1 else (passes[0][y != PAD], y[y != PAD])


def plain(passes, y):
    return functional.cross_entropy(*only_pass(passes, y))


def smoothed(passes, y):
    return functional.cross_entropy(*only_pass(passes, y), label_smoothing=0.1)


def focal(passes, y, gamma=2.0):
    logits, y = only_pass(passes, y)
    log_p = torch.log_softmax(logits, -1).gather(1, y[:, None])
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


def squared(passes, y):
    return functional.mse_loss(passes[0, :, 0], y)


def gaussian(passes, y):
    mean, log_variance = passes[0].unbind(-1)
    return functional.gaussian_nll_loss(mean, y, log_variance.exp())


def clue_losses(task):
    """The sweep of alpha and reduction, and the control with passes only."""
    settings = {"task": task}
    if task == "tokens":
        settings["ignore_index"] = PAD
    losses = {}
    if task != "regression":  # Nothing would train its variance.
        losses["passes only"] = CLUELoss(1.0, **settings)
    for reduction in ("batch", "group", "sample"):
        for alpha in (0.9, 0.5):
            loss = CLUELoss(alpha, reduction=reduction, **settings)
            losses[f"CLUE {reduction} {alpha}"] = loss
    return losses


def train(task, loss, n_passes, seed, epochs):
    """Train one network with Adam."""
    torch.manual_seed(seed)
    module = task.build()
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    x, y = task.train
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            passes = mc_dropout(module, x[rows], n_passes, sites=task.sites)
            loss(passes, y[rows]).backward()
            optimizer.step()
    return module.eval()


def ensemble(task, loss, first, seed, epochs):
    seeds = [seed + 1000 * k for k in range(1, N_MEMBERS)]
    return [first, *(train(task, loss, 1, s, epochs) for s in seeds)]


def clue_networks(task, kind, seed, epochs, wanted):
    """Yield (name of the method, network) for the wanted CLUE losses."""
    for name, loss in clue_losses(kind).items():
        if f"{name}, MC" in wanted:
            yield f"{name}, MC", train(task, loss, N_PASSES, seed, epochs)


def stacked(module, x, mc):
    """Stacked results: passes with dropout, or the one without."""
    with torch.no_grad():
        if mc:
            torch.manual_seed(0)
            return mc_dropout(module, x, N_PREDICT, max_rows=20_000)
        return module(x)[None]


def mean_proba(passes):
    return torch.softmax(passes.double(), -1).mean(0).numpy()


def entropies(proba):
    return -(proba * np.log(np.maximum(proba, 1e-300))).sum(axis=1)


def judge_classes(proba, y):
    """All figures of probabilities."""
    error = -np.log(np.maximum(proba[np.arange(len(y)), y], 1e-15))
    labels = np.arange(proba.shape[1])
    return {
        "accuracy": 100 * np.mean(proba.argmax(1) == y),
        "NLL": error.mean(),
        "ECE": 100 * expected_calibration_error(y, proba, labels=labels),
        "AECE": 100 * adaptive_expected_calibration_error(y, proba, labels=labels),
        "SCE": 100 * static_calibration_error(y, proba, labels=labels),
        "UCE": 100 * uncertainty_calibration_error(error, entropies(proba)),
    }


def class_predictor(module, mc=False):
    def predict(x):
        passes = stacked(module, x, mc)
        return mean_proba(passes if passes.ndim == 3 else passes[:, x != PAD])

    return predict


def true_classes(y):
    return (y if y.ndim == 1 else y[y != PAD]).numpy()


def scaled_classes(task, predict):
    """The same after temperature scaling on the calibration part."""

    def logits(x):
        return np.log(np.maximum(predict(x), 1e-30))

    x, y = task.calibration
    values = logits(x)
    classes = np.arange(values.shape[1])
    calibrator = TemperatureScaling(classes=classes).fit(values, true_classes(y))
    return lambda inputs: calibrator.predict_proba(logits(inputs))


def judge_everywhere(task, predict):
    """Figures on the test part, shifted, and against other inputs."""
    y = true_classes(task.test[1])
    inside = predict(task.test[0])
    shifted = judge_classes(predict(task.shifted[0]), y)
    stated = entropies(inside), entropies(predict(task.outside))
    return {
        **judge_classes(inside, y),
        "shifted NLL": shifted["NLL"],
        "shifted ECE": shifted["ECE"],
        "OOD AUROC": 100 * ood_auroc(*stated),
        "FPR95": 100 * ood_fpr(*stated),
    }


def classification(task, seed, epochs, wanted):
    """Yield (method, figures), for tokens of each that is not padding."""
    kind = "classification" if task.train[1].ndim == 1 else "tokens"
    base = train(task, plain, 1, seed, epochs)
    predictors = {"plain": class_predictor(base), "MC": class_predictor(base, True)}
    for name, predict in predictors.items():
        yield name, judge_everywhere(task, predict)
        yield f"{name}, TS", judge_everywhere(task, scaled_classes(task, predict))
    if LONGER in wanted:
        predict = class_predictor(train(task, plain, 1, seed, 2 * epochs))
        yield LONGER, judge_everywhere(task, predict)
    for name, loss in (("label smoothing", smoothed), ("focal", focal)):
        if name in wanted:
            predict = class_predictor(train(task, loss, 1, seed, epochs))
            yield name, judge_everywhere(task, predict)
    if "deep ensemble" in wanted:
        modules = ensemble(task, plain, base, seed, epochs)
        members = [class_predictor(module) for module in modules]
        mean = judge_everywhere(task, lambda x: np.mean([m(x) for m in members], 0))
        yield "deep ensemble", mean
    for name, module in clue_networks(task, kind, seed, epochs, wanted):
        predict = class_predictor(module, mc=True)
        yield name, judge_everywhere(task, predict)
        if name == "CLUE batch 0.9, MC":
            yield f"{name}, TS", judge_everywhere(task, scaled_classes(task, predict))


def moments(passes):
    """Mean and variance of stacked (mean, log variance)."""
    passes = passes.double()
    means, variances = passes[..., 0], passes[..., 1].exp()
    total = means.var(0, correction=0) + variances.mean(0)
    return means.mean(0).numpy(), total.numpy()


def value_predictor(module, mc=False):
    return lambda x: moments(stacked(module, x, mc))


def dropout_only(module):
    """The variance of the passes alone."""

    def predict(x):
        means = stacked(module, x, True)[..., 0].double()
        return means.mean(0).numpy(), means.var(0).numpy() + 1e-12

    return predict


def scaled_variance(task, predict):
    """The variance times the factor that is right on the calibration part."""
    x, y = task.calibration
    mean, variance = predict(x)
    factor = np.mean((y.numpy() - mean) ** 2 / variance)

    def rescaled(inputs):
        mean, variance = predict(inputs)
        return mean, factor * variance

    return rescaled


def judge_values(task, predict):
    """Figures of means and variances, in units of the target's deviation."""
    y = task.test[1].numpy().astype(float)
    mean, variance = predict(task.test[0])
    std = np.sqrt(variance)
    shifted, shifted_variance = predict(task.shifted[0])
    shifted_std = np.sqrt(shifted_variance)
    return {
        "RMSE": np.sqrt(np.mean((y - mean) ** 2)),
        "NLL": -norm.logpdf(y, mean, std).mean(),
        "UCE": uncertainty_calibration_error((y - mean) ** 2, variance, n_bins=5),
        "ENCE": expected_normalized_calibration_error(y, mean, std, n_bins=5),
        "coverage": 100 * interval_coverage(y, mean, std),
        "width": interval_sharpness(std),
        "shifted NLL": -norm.logpdf(y, shifted, shifted_std).mean(),
        "shifted coverage": 100 * interval_coverage(y, shifted, shifted_std),
        "OOD AUROC": 100 * ood_auroc(variance, predict(task.outside)[1]),
    }


def regression(task, seed, epochs, wanted):
    """Yield (method, figures)."""
    base = train(task, squared, 1, seed, epochs)
    head = train(task, gaussian, 1, seed, epochs)
    predictors = {
        "squared error, MC": dropout_only(base),
        "Gaussian likelihood": value_predictor(head),
        "Gaussian likelihood, MC": value_predictor(head, mc=True),
    }
    for name, predict in predictors.items():
        yield name, judge_values(task, predict)
        yield f"{name}, scaled", judge_values(task, scaled_variance(task, predict))
    if "deep ensemble" in wanted:
        modules = ensemble(task, gaussian, head, seed, epochs)
        members = [value_predictor(module) for module in modules]

        def together(x):
            pairs = [member(x) for member in members]
            means, variances = map(np.array, zip(*pairs, strict=True))
            return means.mean(0), means.var(0) + variances.mean(0)

        yield "deep ensemble", judge_values(task, together)
    for name, module in clue_networks(task, "regression", seed, epochs, wanted):
        predict = value_predictor(module, mc=True)
        yield name, judge_values(task, predict)
        if name == "CLUE sample 0.9, MC":
            yield f"{name}, scaled", judge_values(task, scaled_variance(task, predict))


PARTS = {
    "digits": (classification, plain, "classification"),
    "fashion": (classification, plain, "classification"),
    "cifar10": (classification, plain, "classification"),
    "diabetes": (regression, squared, "regression"),
    "text": (classification, plain, "tokens"),
}
SHORT = [LONGER, "label smoothing", "focal", "deep ensemble", "passes only, MC"]
SWEEP = [f"{name}, MC" for name in clue_losses("classification") if "CLUE" in name]
CHOICES = {"parts": (*PARTS, "speed")}
TINY = {
    "parts": ("digits", "diabetes"),
    "methods": ("focal", "CLUE batch 0.9, MC"),
    "seeds": 2,
    "epochs": 1,
    "repeats": 1,
}
# Decimal places of the columns.
CLASSES = {
    **{"accuracy": 1, "NLL": 3, "ECE": 1, "UCE": 1},
    **{"shifted NLL": 3, "shifted ECE": 1, "OOD AUROC": 0},
}
VALUES = {
    **{"RMSE": 3, "NLL": 2, "UCE": 2, "ENCE": 2, "coverage": 1, "width": 2},
    **{"shifted NLL": 2, "shifted coverage": 1, "OOD AUROC": 0},
}
TITLES = {
    "digits": "Digits 0 to 7",
    "fashion": "Fashion-MNIST",
    "cifar10": "CIFAR-10, a convolutional network",
    "diabetes": "Diabetes, in units of the target's standard deviation",
    "text": "Next characters, after training on 400 lines of documentation",
}


def run(
    *,
    parts=CHOICES["parts"],
    seeds=5,
    methods=(*SHORT, *SWEEP),
    epochs=0,
    repeats=5,
):
    """Yield a row a part, seed and method; `epochs` in the place of the parts' own."""
    for part in parts:
        if part == "speed":
            yield from speed(repeats)
            continue
        for seed in range(seeds):
            task = TASKS[part](seed)
            follow = PARTS[part][0]
            for method, figures in follow(task, seed, epochs or task.epochs, methods):
                yield {"part": part, "seed": seed, "method": method, **figures}


def speed(repeats):
    """Yield ratios of the least processor times, a row a network."""
    for name, (_, base, kind) in PARTS.items():
        try:
            task = TASKS[name](0)
        except FileNotFoundError:
            continue
        tasks = {name: task}
        if name in ("cifar10", "text"):
            tasks[f"{name}, dropout before the last layer"] = with_late_dropout(task)
        for title, task in tasks.items():
            row = {
                "speed": title,
                "training": training_ratio(task, base, kind, repeats),
            }
            if kind == "classification":
                row |= prediction_ratios(task, repeats)
            if kind == "tokens":
                row["50 passes"] = token_ratio(task, repeats)
            yield row


def with_late_dropout(task):
    def build():
        module = task.build()
        if isinstance(module, nn.Sequential):
            *layers, last = module
            kept = [layer for layer in layers if not isinstance(layer, nn.Dropout)]
            return nn.Sequential(*kept, nn.Dropout(0.3), last)
        module.output = nn.Sequential(nn.Dropout(0.3), module.output)
        return module

    sites = ["output"] if task.train[1].ndim > 1 else None
    return task._replace(build=build, sites=sites)


def training_ratio(task, base, kind, repeats):
    """The time of an epoch with five passes over that of plain training."""
    loss = CLUELoss(task=kind, ignore_index=PAD if kind == "tokens" else -100)
    (plainly, passes), _ = in_turns(
        [
            partial(train, task, base, 1, 0, 1),
            partial(train, task, loss, N_PASSES, 0, 1),
        ],
        repeats,
        time.process_time,
    )
    return passes.min() / plainly.min()


def prediction_ratios(task, repeats):
    """The time of predictions over that of one run of the network, and what they are.

    "passes" is their mean number where they end at the tolerance, "away" how far the
    probabilities then are from those of 1,000 passes, root mean square.
    """
    X, y = (values.numpy() for values in task.train)
    classifier = CLUEClassifier(
        task.build, max_epochs=task.epochs, lr=5e-3, batch_size=BATCH, random_state=0
    ).fit(X, y)
    X = task.test[0].numpy()
    module = classifier.module_
    rows = []
    hook = module.register_forward_hook(lambda *run: rows.append(len(run[2])))
    proba = classifier.predict_proba(X)
    hook.remove()
    all_passes = clone_fitted(classifier, predict_tol=0)
    many = clone_fitted(classifier, predict_tol=0, n_predict_passes=1000)

    def plainly():
        with torch.no_grad():
            parts = task.test[0].split(BATCH)
            return torch.cat([torch.softmax(module(x), 1) for x in parts])

    runs = [plainly, *(partial(c.predict_proba, X) for c in (all_passes, classifier))]
    (base, fixed, adaptive), _ = in_turns(runs, repeats, time.process_time)
    return {
        "50 passes": fixed.min() / base.min(),
        "to the tolerance": adaptive.min() / base.min(),
        "passes": sum(rows) / len(X),
        "away": np.sqrt(np.mean((proba - many.predict_proba(X)) ** 2)),
    }


def token_ratio(task, repeats):
    """The time of predictions from 50 passes over that of one run of the network."""
    module = train(task, plain, 1, 0, 1)

    def run(function):
        with torch.no_grad():
            for x in task.test[0].split(BATCH):
                torch.softmax(function(x), -1)

    def passes(x):
        return mc_dropout(module, x, 50, share_masks=True, sites=task.sites)

    (base, fixed), _ = in_turns(
        [partial(run, module), partial(run, passes)], repeats, time.process_time
    )
    return fixed.min() / base.min()


def clone_fitted(estimator, **parameters):
    return copy.copy(estimator).set_params(**parameters)


def of_part(part):
    """Return the function that makes the table of a part."""

    def table(rows):
        rows = [row for row in rows if row.get("part") == part]
        digits = VALUES if part == "diabetes" else CLASSES
        return over_seeds(rows, digits, TITLES[part])

    return table


def less_scaling(column):
    """Return the function that makes a table of what CLUE has over plain training, TS.

    Mean and half of the 95 % interval over the seeds; negative is better.
    """

    def table(rows):
        parts = [part for part, (_, _, kind) in PARTS.items() if kind != "regression"]
        values = {
            (row["part"], row["method"], row["seed"]): row[column]
            for row in rows
            if row.get("part") in parts
        }
        lines = []
        for method in ["passes only, MC", *SWEEP]:
            cells = []
            for part in parts:
                seeds = [s for p, m, s in values if (p, m) == (part, method)]
                mean, half = interval(
                    [
                        values[part, method, s] - values[part, "plain, TS", s]
                        for s in seeds
                    ]
                )
                cells.append(f"{mean:+.1f} ± {half:.1f}")
            lines.append([method, *cells])
        return Table(["method", *parts], lines, f"{column} less that of plain, TS")

    return table


def speed_table(rows):
    rows = [row for row in rows if "speed" in row]
    ratios = ("training", "50 passes", "to the tolerance")
    lines = []
    for row in rows:
        cells = [f"{row[ratio]:.2f}" if ratio in row else "" for ratio in ratios]
        passes = f"{row['passes']:.0f}" if "passes" in row else ""
        away = f"{row['away']:.4f}" if "away" in row else ""
        lines.append([row["speed"], *cells, passes, away])
    return Table(["network", *ratios, "passes", "away"], lines, "Times a plain network")


def summary(rows):
    parts = dict.fromkeys(row["part"] for row in rows if "part" in row)
    tables = [of_part(part)(rows) for part in parts]
    return (
        [*tables, speed_table(rows)] if any("speed" in row for row in rows) else tables
    )


TABLES = {
    **{part: of_part(part) for part in PARTS},
    "against_scaling": less_scaling("ECE"),
    "against_scaling_shifted": less_scaling("shifted ECE"),
    "speed": speed_table,
}
