"""What `input_filter` compares: ways to serve a network on corrupted images.

Each is a function of a task and a name that returns arrays by name: probabilities of
the images that are judged, and, with an underscore first, what else is kept.
"""

import copy

import numpy as np
import torch
from torch.nn import functional

from benchmarks._networks import run_network
from skcalib import NeuralClamping, StructuredMatrixScaling, TemperatureScaling
from skcalib.clamping._change import convolve
from skcalib.model_selection import CalibratorSearch

# Where the processor computes in bfloat16 by itself, filters are learned in it, as that
# takes half as long, and judged in single precision: what they find differs by less
# than chance. Elsewhere it would take many times as long.
HALF = torch.ops.mkldnn._is_mkldnn_bf16_supported()
# The first two change no result; on processors they are the quickest.
ENGINE = {
    "batch_size": 64,
    "channels_last": True,
    "precision": "bf16" if HALF else None,
}
BATCH = 64
# Of the training of the first convolution.
RATE, EPOCHS, PATIENCE = 1e-3, 20, 4
# Of filters without labels: their rate, epochs, and rows a batch, enough for moments.
BLIND_RATE, BLIND_EPOCHS, BLIND_BATCH = 5e-3, 6, 200


def on_outputs(make):
    def probabilities(task, name):
        calibrator = make(task).fit(task.cal.logits, task.cal.y)
        return {name: calibrator.predict_proba(task.test.logits)}

    return probabilities


def clamped(**options):
    """Fit on the inputs; calibrators behind it are rows of their own."""

    def probabilities(task, name):
        estimator = NeuralClamping(
            task.module, gamma=0, random_state=task.seed, **ENGINE, **options
        )
        estimator.fit(task.cal.X, task.cal.y)
        kernel = np.zeros(0) if estimator.filter_ is None else estimator.filter_
        found = kernel, estimator.delta_
        own = (
            TemperatureScaling(),
            StructuredMatrixScaling(),
            CalibratorSearch(random_state=task.seed),
        )
        cal, test = (seen_through(task, half, *found) for half in (task.cal, task.test))
        served, structured, searched = (
            calibrator.fit(cal, task.cal.y).predict_proba(test) for calibrator in own
        )
        return {
            name: served,
            f"{name} + SMS": structured,
            f"{name} + search": searched,
            "_kernel": kernel,
            "_delta": estimator.delta_,
            "_temperature": np.array(own[0].temperature_),
            "_chosen": np.array(str(estimator.perturbation_)),
        }

    return probabilities


def seen_through(task, half, kernel, delta):
    """Return the logits of a half; those that are there where nothing is changed."""
    if not kernel.size and not delta.any():
        return half.logits
    return through_filter(task.module, half.X, kernel, delta)


def through_filter(module, X, kernel, delta):
    """Return the logits of filtered inputs."""
    changed = X + delta
    if kernel.size:
        changed += convolve(torch.from_numpy(X), torch.from_numpy(kernel)).numpy()
    return run_network(module, changed)


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
        with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
            logits = module(X[part])
        return functional.cross_entropy(logits.float(), y[part])

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


def without_labels(make_loss):
    """Fit a full filter of 3 taps by a loss of unlabelled images, then TS."""

    def probabilities(task, name):
        module = copy.deepcopy(task.module).eval().requires_grad_(False)
        channels = task.cal.X.shape[1]
        kernel = torch.zeros(channels, channels, 3, 3, requires_grad=True)
        delta = torch.zeros(channels, 1, 1, requires_grad=True)
        optimiser = torch.optim.Adam([kernel, delta], lr=BLIND_RATE)
        loss_of = make_loss(module)
        rng = np.random.default_rng(task.seed)
        X = torch.from_numpy(task.cal.X)
        n_batches = -(-len(X) // BLIND_BATCH)
        for _ in range(BLIND_EPOCHS):
            for part in np.array_split(rng.permutation(len(X)), n_batches):
                optimiser.zero_grad()
                x = X[part]
                loss_of(x + convolve(x, kernel) + delta).backward()
                optimiser.step()
        found = kernel.detach().numpy(), delta.detach().numpy()
        temperature = TemperatureScaling()
        temperature.fit(seen_through(task, task.cal, *found), task.cal.y)
        return {name: temperature.predict_proba(seen_through(task, task.test, *found))}

    return probabilities


def entropy(module):
    """The mean entropy of the predictions."""

    def loss(x):
        log_proba = functional.log_softmax(module(x), dim=1)
        return -(log_proba.exp() * log_proba).sum(1).mean()

    return loss


def feature_statistics(module):
    """How far the moments of each batch-normalised channel are from those of training.

    It is the divergence of normal distributions, summed over channels and layers.
    """
    distances = []

    def compare(part, inputs, _):
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        ratio = (variance + part.eps) / (part.running_var + part.eps)
        shift = (mean - part.running_mean) ** 2 / (part.running_var + part.eps)
        distances.append((ratio - ratio.log() - 1 + shift).mean() / 2)

    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.register_forward_hook(compare)

    def loss(x):
        distances.clear()
        module(x)
        return sum(distances)

    return loss


def with_temperature(module, task):
    temperature = TemperatureScaling()
    temperature.fit(run_network(module, task.cal.X), task.cal.y)
    return temperature.predict_proba(run_network(module, task.test.X))


METHODS = {
    "TS": on_outputs(lambda task: TemperatureScaling()),
    "SMS": on_outputs(lambda task: StructuredMatrixScaling()),
    "search": on_outputs(lambda task: CalibratorSearch(random_state=task.seed)),
    "delta": clamped(perturbation="low_frequency"),
    "filter": clamped(),
    "BN statistics": batch_statistics,
    "first conv": first_convolution,
    "entropy": without_labels(entropy),
    "feature statistics": without_labels(feature_statistics),
}
