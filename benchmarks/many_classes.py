"""Which methods bear a thousand classes: held-out log-loss, time and memory.

Half of the rows that `make_logits` draws are fitted on, the others are judged. Methods
with parameters for each class overfit a few rows a class, unless they are shrunk.
"default" is `CalibratorSearch()`, which takes long and is only run when named. "peak
GB" is the highest memory of the process so far, predictions and 0.4 GB of data
included; name a single method for its own.
"""

import numpy as np
from sklearn.metrics import log_loss

from benchmarks._measure import in_turns, peak_memory_of_process
from benchmarks._tables import Table
from skcalib import (
    DirichletCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.model_selection import CalibratorSearch

METHODS = {
    "temperature": TemperatureScaling(),
    "structured vector": StructuredMatrixScaling(structure="vector"),
    "structured matrix": StructuredMatrixScaling(),
    "vector": VectorScaling(),
    "Dirichlet, both penalties 1e8": DirichletCalibration(
        off_diagonal_penalty=1e8, intercept_penalty=1e8
    ),
    "default": CalibratorSearch(),
}
CHOICES = {"methods": METHODS}
TINY = {"samples": 2000, "classes": 20}


def run(*, samples=50_000, classes=1000, methods=tuple(METHODS)[:-1]):
    X, y = make_logits(samples, classes, random_state=0)
    half = samples // 2
    for name in methods:
        method = METHODS[name].set_params(classes=np.arange(classes))
        (seconds,), _ = in_turns([lambda m=method: m.fit(X[:half], y[:half])], 1)
        proba = method.predict_proba(X[half:])
        yield {
            "method": name,
            "log-loss": log_loss(y[half:], proba, labels=method.classes_),
            "seconds": seconds[0],
            "peak GB": peak_memory_of_process() / 1e9,
        }


def losses(rows):
    return Table(
        ["method", "log-loss"], [[r["method"], f"{r['log-loss']:.3f}"] for r in rows]
    )


TABLES = {"losses": losses}
