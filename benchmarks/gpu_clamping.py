"""Neural clamping on a GPU: fits, presets, memory, and whether a CPU ends there too.

For each network one split of `samples` images to fit on and as many to judge by. Rows
are the logits as they are, temperature and structured matrix scaling of them, and
`NeuralClamping` with its defaults and with both presets: the seconds of the fit on the
device, what it held of its memory at the most, and the metrics of the paper's table.
"equal" rows are fits of `cpu_samples` images on the device and on the CPU: the
difference of temperatures, and the largest of a probability. What does not fit into
`seconds` is left out, and named. For large networks there is `large_networks`.

Needs a CUDA device, the `torch` extra, Pillow, data.
"""

import time

import numpy as np
import torch
from scipy.special import softmax

from benchmarks._measure import say
from benchmarks._networks import NETWORKS, make_tasks
from benchmarks._paired import Result, metrics
from skcalib import NeuralClamping, StructuredMatrixScaling, TemperatureScaling

CHOICES = {"networks": NETWORKS, "device": ("cpu", "cuda")}
TINY = {
    "networks": ("cifar10-resnet8d",),
    "samples": 60,
    "cpu_samples": 40,
    "epochs": 1,
    "device": "cpu",
}
OF_LOGITS = {"TS": TemperatureScaling, "SMS": StructuredMatrixScaling}
CLAMPED = {
    "NC": {},
    "NC, paper": {"preset": "paper"},
    "NC, reference": {"preset": "reference"},
}
EQUAL = {
    "NC": {},
    "NC, L-BFGS": {"solver": "lbfgs", "perturbation": "full", "penalty": 0.01},
}


def run(
    *,
    networks=tuple(NETWORKS),
    samples=5000,
    cpu_samples=500,
    epochs=0,
    seconds=540.0,
    device="cuda",
):
    if device == "cuda" and not torch.cuda.is_available():
        say("no CUDA device: nothing is measured")
        return
    end = time.perf_counter() + seconds
    limit = {"max_iter": epochs} if epochs else {}
    for part in (fits, equality):
        rows = cpu_samples if part is equality else samples
        for name in networks:
            (task,) = make_tasks(name, 1, rows, device)
            for fit in part(task, device, limit):
                if time.perf_counter() > end:
                    say(f"left out for want of time: {part.__name__} of {name} and on")
                    return
                yield {"network": name, **fit()}


def fits(task, device, limit):
    """Yield what to measure for the table: functions that return a row."""
    yield lambda: judged("uncalibrated", task, softmax(task.test.logits, axis=1))
    for method, kind in OF_LOGITS.items():
        yield lambda m=method, k=kind: of_logits(m, k(), task)
    for method, options in CLAMPED.items():
        presets = limit if options else {}
        yield lambda m=method, o=options | presets: clamped(m, o, task, device)


def of_logits(method, calibrator, task):
    start = time.perf_counter()
    calibrator.fit(task.cal.logits, task.cal.y)
    seconds = time.perf_counter() - start
    proba = calibrator.predict_proba(task.test.logits)
    return judged(method, task, proba, seconds)


def clamped(method, options, task, device):
    clamping, seconds, memory = fitted(task, device, options)
    return judged(method, task, clamping.predict_proba(task.test.X), seconds, memory)


def fitted(task, device, options):
    """Return a fit, its seconds and the bytes of the device that it took."""
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    start = time.perf_counter()
    clamping = NeuralClamping(task.module, device=device, channels_last=True, **options)
    clamping.fit(task.cal.X, task.cal.y)
    seconds = time.perf_counter() - start
    return (
        clamping,
        seconds,
        torch.cuda.max_memory_allocated() - before if on_gpu else 0,
    )


def judged(method, task, proba, seconds=0.0, memory=0):
    found = metrics(Result(task.test.rows, task.test.y, proba))
    row = {"method": method, "seconds": seconds, "memory MB": memory / 1e6}
    return row | {name: float(value) for name, value in found.items()}


def equality(task, device, limit):
    """Yield comparisons with a fit on the CPU: functions that return a row."""
    for method, options in EQUAL.items():
        yield lambda m=method, o=options: compared(m, o | limit, task, device)


def compared(method, options, task, device):
    there, seconds, _ = fitted(task, device, options)
    here, on_cpu, _ = fitted(task, "cpu", options)
    proba = [fit.predict_proba(task.test.X) for fit in (there, here)]
    return {
        "method": f"{method}, equal",
        "seconds": seconds,
        "CPU seconds": on_cpu,
        "difference of T": abs(there.temperature_ - here.temperature_),
        "largest difference": float(np.abs(proba[0] - proba[1]).max()),
    }
