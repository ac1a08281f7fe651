"""Which methods bear a thousand classes: held-out log-loss, time and memory.

Half of the drawn rows are fitted on, the others are judged. Methods with parameters for
each class overfit a few rows a class, unless they are shrunk. "default" is
``CalibratorSearch()``, which takes long and is only run when named.

Usage: python benchmarks/many_classes.py [--samples 50000] [--classes 1000]
       [--methods TS SVS default ...] [--tiny]
"""

import argparse
import time
import warnings

import numpy as np
from _common import peak_memory_of_process
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from skcalib import (
    DirichletCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.model_selection import CalibratorSearch

METHODS = {
    "TS": TemperatureScaling(),
    "SVS": StructuredMatrixScaling(structure="vector"),
    "SMS": StructuredMatrixScaling(),
    "VS": VectorScaling(),
    "Dirichlet, penalties 1e8": DirichletCalibration(
        off_diagonal_penalty=1e8, intercept_penalty=1e8
    ),
    "default": CalibratorSearch(),
}


def report(name, X, y, X_test, y_test):
    method = METHODS[name].set_params(classes=np.arange(X.shape[1]))
    start = time.perf_counter()
    method.fit(X, y)
    seconds = time.perf_counter() - start
    loss = log_loss(y_test, method.predict_proba(X_test), labels=method.classes_)
    gigabytes = peak_memory_of_process() / 1e9
    print(f"{name:26}{loss:9.4f}{seconds:9.1f}{gigabytes:9.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS)[:-1]
    )
    parser.add_argument("--tiny", action="store_true", help="only try the script")
    options = parser.parse_args()
    if options.tiny:
        options.samples, options.classes = 2000, 20
    X, y = make_logits(options.samples, options.classes, random_state=0)
    half = options.samples // 2
    print(f"{'method':26}{'log-loss':>9}{'seconds':>9}{'peak GB':>9}")
    # A fit that stops early is judged as it is.
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(1):
        for name in options.methods:
            report(name, X[:half], y[:half], X[half:], y[half:])


if __name__ == "__main__":
    main()
