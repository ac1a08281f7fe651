"""Fits and metrics of half-precision logits on a GPU, beside the CPU and scikit-learn.

float16 logits, whose right temperature is known, are made on the GPU. Each row times
one thing there, the same on the CPU from the same numbers (with `--cpu-rows` rows, to
which its seconds are scaled), and what scikit-learn's temperature scaling takes on the
GPU through `array_api_dispatch` where it has one. The largest difference of the
probabilities of the first rows, of fits to the same rows, says whether GPU and CPU
agree. Without a GPU there is nothing to see, and a line says so.

Needs a CUDA device with 20 GB, the `torch` extra.
"""

import numpy as np

from benchmarks._measure import in_turns, say
from skcalib import (
    EnsembleTemperatureScaling,
    HistogramBinning,
    OrderPreservingScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.metrics import (
    expected_calibration_error,
    predictive_entropy,
    static_calibration_error,
)

TEMPERATURE = 1.7
HEAD = 1000
TINY = {"rows": 2000, "classes": 10, "cpu_rows": 500, "device": "cpu"}


def run(*, rows=1_000_000, classes=1000, cpu_rows=50_000, device="cuda"):
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        say("no CUDA device: nothing is measured")
        return
    X, y = make_rows(rows, classes, device)
    few, labels = X[:cpu_rows].cpu(), y[:cpu_rows].cpu()
    for calibrator in (
        TemperatureScaling(),
        EnsembleTemperatureScaling(),
        VectorScaling(),
        PlattScaling(),
        OrderPreservingScaling(),
        HistogramBinning(),
    ):
        name = type(calibrator).__name__
        row = compare(
            name,
            lambda c=calibrator: c.fit(X, y),
            lambda c=calibrator: c.fit(few, labels),
            rows / cpu_rows,
        )
        on_host = calibrator.fit(few, labels).predict_proba(few[:HEAD])
        there = calibrator.fit(X[:cpu_rows], y[:cpu_rows]).predict_proba(X[:HEAD])
        row["difference"] = float((there.cpu()[: len(few)] - on_host).abs().max())
        if name == "TemperatureScaling":
            row["scikit-learn s"] = time_sklearn(X, y)
        yield row
    proba = TemperatureScaling().fit(X, y).predict_proba(X)
    some = proba[:cpu_rows].cpu()
    for metric in (
        expected_calibration_error,
        static_calibration_error,
        predictive_entropy,
    ):
        yield compare(
            metric.__name__,
            lambda m=metric: m(y, proba),
            lambda m=metric: m(labels, some),
            rows / cpu_rows,
        )


def make_rows(n_rows, n_classes, device):
    """Draw float16 logits and the labels that their true temperature gives."""
    import torch

    random = torch.Generator(device).manual_seed(0)
    X = torch.empty(n_rows, n_classes, dtype=torch.float16, device=device)
    y = torch.empty(n_rows, dtype=torch.int64, device=device)
    step = max(1, 10_000_000 // n_classes)
    for start in range(0, n_rows, step):
        part = X[start : start + step]
        logits = 3 * torch.randn(part.shape, generator=random, device=device)
        part.copy_(logits)
        proba = torch.softmax(part.float() / TEMPERATURE, dim=1)
        drawn = torch.multinomial(proba, 1, generator=random)
        y[start : start + step] = drawn[:, 0]
    return X, y


def compare(name, on_device, on_cpu, factor):
    """Time one thing on the device, and on fewer rows on the CPU."""
    on_device()  # The first call loads kernels.
    (there, here), _ = in_turns([on_device, on_cpu], 3)
    here = float(np.min(here)) * factor
    return {"what": name, "GPU s": float(np.min(there)), "CPU s, scaled": here}


def time_sklearn(X, y):
    """Seconds of scikit-learn's temperature scaling where the tensor lies."""
    from sklearn import config_context
    from sklearn.calibration import _TemperatureScaling

    logits = X.float()

    def fit():
        with config_context(array_api_dispatch=True):
            return _TemperatureScaling().fit(logits, y)

    try:
        (times,), _ = in_turns([fit], 2)
    except (RuntimeError, ValueError, TypeError) as error:
        say(f"scikit-learn's temperature scaling fails: {error}")
        return None
    return float(np.min(times))
