"""What the default search costs: time, memory and log-loss by rows and classes.

Half of the rows that `make_logits` draws are fitted on, the others are judged. Seconds
are of the processor; "candidates" is the sum and "slowest" the longest of the fits of
single candidates to all rows, by the clock. "extra MB" is how far the resident memory
rises above its level before the fit, logits included, as the system tells it (Linux).
Sizes are given as ROWSxCLASSES.
"""

import time

import numpy as np
from sklearn.metrics import log_loss

from benchmarks._measure import reset_peak_memory, resident_memory
from benchmarks._tables import Table
from skcalib import EnsembleTemperatureScaling
from skcalib.datasets import make_logits
from skcalib.model_selection import CalibratorSearch

SIZES = ("5000x10", "5000x100", "25000x1000")
TINY = {"sizes": ("300x3", "300x2")}


def run(*, sizes=SIZES):
    for size in sizes:
        n, k = map(int, size.split("x"))
        X, y = make_logits(2 * n, k, dtype=np.float32, random_state=0)
        labels = np.arange(k)
        known = reset_peak_memory()
        before = resident_memory()[0] if known else np.nan
        start = time.process_time()
        search = CalibratorSearch(classes=labels).fit(X[:n], y[:n])
        seconds = time.process_time() - start
        extra = resident_memory()[1] - before if known else np.nan
        single = EnsembleTemperatureScaling(classes=labels).fit(X[:n], y[:n])
        alone = search.cv_results_["mean_fit_time"][1:-1]
        yield {
            "size": size,
            "seconds": seconds,
            "candidates": alone.sum(),
            "slowest": alone.max(),
            "extra MB": extra / 1e6,
            "log-loss": held_out_loss(search, X[n:], y[n:]),
            "of temperatures": held_out_loss(single, X[n:], y[n:]),
        }


def held_out_loss(calibrator, X, y):
    proba = calibrator.predict_proba(X).astype(np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    return log_loss(y, proba, labels=calibrator.classes_)


def costs(rows):
    # Seconds by the clock are in the rows; a busy machine makes nonsense of them.
    head = ["rows x classes", "seconds", "extra MB"]
    lines = [
        [
            row["size"],
            f"{row['seconds']:.2g}",
            f"{row['extra MB']:.0f}",
            f"{row['log-loss']:.4f}",
            f"{row['of temperatures']:.4f}",
        ]
        for row in rows
    ]
    return Table([*head, "log-loss", "ensemble of temperatures"], lines)


TABLES = {"costs": costs}
