"""Which methods bear a thousand classes: held-out log-loss, time and memory.

Half of the rows that `make_logits` draws are fitted on, the others are judged. Methods
with parameters for each class overfit a few rows a class, unless they are shrunk.

With `--bend` B other than 1 the logits are also wrong in a way that no temperature
undoes: a logit that lies d below the largest of its row is moved to d (d / 10)^(B - 1)
below. An increasing map takes this back. On the logits of two ImageNet networks such
maps are known to gain .02 nats over a temperature; `--files` runs the methods on these,
or any others: the published pickles of ((logits, y), (logits, y)), calibration and
test, of which nothing but arrays is unpickled, or npz files with the arrays
cal_logits, cal_y, test_logits and test_y.

    python -m benchmarks run many_classes --files probs_densenet161_imgnet_logits.p

"default" is `CalibratorSearch()`, which takes long and is only run when named. "peak
GB" is the highest memory of the process so far, predictions and the data included; name
a single method for its own.
"""

import pickle
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss

from benchmarks._measure import in_turns, peak_memory_of_process
from benchmarks._tables import Table
from skcalib import (
    DirichletCalibration,
    OrderPreservingScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.metrics import expected_calibration_error
from skcalib.model_selection import CalibratorSearch

METHODS = {
    "temperature": TemperatureScaling(),
    "structured vector": StructuredMatrixScaling(structure="vector"),
    "structured matrix": StructuredMatrixScaling(),
    "order-preserving": OrderPreservingScaling(),
    "vector": VectorScaling(),
    "Dirichlet, both penalties 1e8": DirichletCalibration(
        off_diagonal_penalty=1e8, intercept_penalty=1e8
    ),
    "default": CalibratorSearch(),
}
CHOICES = {"methods": METHODS}
TINY = {"samples": 2000, "classes": 20}
DRAWN = "make_logits"
# The gap that a bend leaves as it is.
PIVOT = 10.0
ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
PARTS = ("cal_logits", "cal_y", "test_logits", "test_y")


def run(
    *, samples=50_000, classes=1000, bend=1.0, methods=tuple(METHODS)[:-1], files=("",)
):
    for file in files:
        X, y, X_test, y_test = load(file) if file else drawn(samples, classes, bend)
        for name in methods:
            labels = np.arange(X.shape[1])
            method = METHODS[name].set_params(classes=labels)
            (seconds,), _ = in_turns([lambda m=method: m.fit(X, y)], 1)  # noqa: B023
            proba = method.predict_proba(X_test)
            yield {
                "logits": Path(file).stem or DRAWN,
                "bend": bend,
                "method": name,
                "log-loss": log_loss(y_test, proba, labels=labels),
                "ECE": expected_calibration_error(y_test, proba, labels=labels),
                "seconds": seconds[0],
                "peak GB": peak_memory_of_process() / 1e9,
            }


def drawn(samples, classes, bend):
    """Half of the rows of `make_logits`, bent, to fit on, and half to judge by."""
    X, y = make_logits(samples, classes, random_state=0)
    if bend != 1:
        gap = X.max(axis=1, keepdims=True) - X
        X = -gap * (gap / PIVOT) ** (bend - 1)
    half = samples // 2
    return X[:half], y[:half], X[half:], y[half:]


def load(file):
    """Return logits and labels for calibration and test of a file."""
    if file.endswith(".npz"):
        with np.load(file) as arrays:
            parts = [arrays[name] for name in PARTS]
    else:
        with Path(file).open("rb") as opened:
            (X, y), (X_test, y_test) = OnlyArrays(opened, encoding="latin1").load()
        parts = [X, y, X_test, y_test]
    return parts[0], parts[1].ravel(), parts[2], parts[3].ravel()


class OnlyArrays(pickle.Unpickler):
    """Reads arrays, and calls nothing else that a file may name."""

    def find_class(self, module, name):
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"the file asks for {module}.{name}; only arrays of NumPy are read"
        )


def losses(rows, bend):
    # Early rows had neither bends nor files; of several of a method the last counts.
    found = {
        row["method"]: row
        for row in rows
        if (row.get("bend", 1.0), row.get("logits", DRAWN)) == (bend, DRAWN)
    }
    lines = [[name, f"{row['log-loss']:.3f}"] for name, row in found.items()]
    return Table(["method", "log-loss"], lines)


TABLES = {
    "losses": lambda rows: losses(rows, 1.0),
    "bent": lambda rows: losses(rows, 1.5),
}
