"""The parts of neural_clamping.py that compare methods: tables, figure, corruptions."""

from functools import partial
from itertools import product

import numpy as np
from _clamping_rows import METHODS, fit_clamped, make_clamped, paper_objective, rows_of
from _networks import load_logits, make_tasks, run_network
from _paired import Result, differences, metrics
from scipy.special import softmax

from skcalib import TemperatureScaling
from skcalib.datasets import corrupt_images

SHIFT_METHODS = ["uncalibrated", "TS", "SVS", "SMS", "NC", "NC (gamma by NLL)"]
CORRUPTION_METHODS = ["NC", "NC (gamma by NLL)", "NC (CE)", "NC (FL)"]
KINDS = ["gaussian_noise", "defocus_blur", "brightness", "contrast"]
SEVERITIES = [1, 3, 5]
FIGURE_GAMMAS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
REFERENCE = "TS"


def tasks(name, options, jpeg=False):
    return make_tasks(name, options.splits, options.samples, options.device, jpeg)


def table(name, keep, options):
    """All methods and controls on clean images."""
    return _compare(name, options.methods or METHODS, keep, options)


def shift(name, keep, options):
    """Fitted and judged on compressed images."""
    methods = options.methods or SHIFT_METHODS
    return _compare(name, methods, keep, options, jpeg=True)


def corruption(name, keep, options):
    """Fitted on clean images, judged on corrupted ones: a table for each corruption."""
    results = {}
    for task in tasks(name, options):
        temperature = TemperatureScaling().fit(task.cal.logits, task.cal.y)
        fits = {REFERENCE: (np.zeros(task.cal.X.shape[1:]), temperature.temperature_)}
        for method in options.methods or CORRUPTION_METHODS:
            found = fit_clamped(task, make_clamped(task, method), keep, method)
            fits[method] = found.delta, found.temperature
        for kind, severity in product(KINDS, SEVERITIES):
            block = results.setdefault(f"{kind} {severity}", {})
            for method, (delta, value) in fits.items():
                # Without a perturbation the logits are those of temperature scaling.
                title = f"{kind}-{severity}-{method if delta.any() else REFERENCE}"
                run = partial(_corrupted_logits, task, kind, severity, delta)
                logits = keep(task, title, run)["logits"]
                block.setdefault(method, []).append(_result(task, logits, value))
    return {title: _summaries(name, block) for title, block in results.items()}


def gamma(name, keep, options):
    """One split: the published objective, and temperature alone, against gamma."""
    task = next(tasks(name, options))
    rows = {}
    for value in FIGURE_GAMMAS:
        title = {0.0: "NC (CE)", 1.0: "NC (FL)"}.get(value, f"NC gamma={value}")
        clamped = fit_clamped(task, paper_objective(task, value), keep, title)
        alone = TemperatureScaling(objective="focal", gamma=value)
        alone.fit(task.cal.logits, task.cal.y)
        for method, logits, temperature in (
            ("NC", clamped.test_logits, clamped.temperature),
            ("TS", task.test.logits, alone.temperature_),
        ):
            found = metrics(_result(task, logits, temperature))
            rows[f"{method} {value}"] = {**found, "temperature": temperature}
    return rows


def _corrupted_logits(task, kind, severity, delta):
    images = corrupt_images(
        task.test.X, kind, severity, channel_axis=1, random_state=task.seed
    )
    return {"logits": run_network(task.module, images + np.float32(delta))}


def _compare(name, methods, keep, options, jpeg=False):
    if REFERENCE not in methods:
        methods = [REFERENCE, *methods]
    results = {}
    for task in tasks(name, options, jpeg):
        for method in methods:
            for row, proba in rows_of(task, method, keep).items():
                result = Result(task.test.rows, task.test.y, proba)
                results.setdefault(row, []).append(result)
    return _summaries(name, results)


def _result(task, logits, temperature):
    proba = softmax(logits.astype(np.float64) / temperature, axis=1)
    return Result(task.test.rows, task.test.y, proba)


def _summaries(name, results):
    """Mean and deviation of the metrics of each row, and its distance to TS."""
    n_images = len(load_logits(name)[1])
    found = {}
    for row, own in results.items():
        columns = [metrics(result) for result in own]
        found[row] = {
            "mean": {c: float(np.mean([m[c] for m in columns])) for c in columns[0]},
            "std": {c: float(np.std([m[c] for m in columns])) for c in columns[0]},
            "to TS": differences(own, results[REFERENCE], n_images),
        }
    return found
