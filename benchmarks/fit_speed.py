"""Speed, memory and losses of the fits beside other libraries, in one run.

Prints seconds (least and median), passes (times of one NumPy float64 softmax over the
same array), the ratio to our seconds, extra memory of the process, and by how much each
training loss exceeds ours; the losses are all computed here in float64 from the learned
parameters, penalties included. The libraries take turns, so that what else the machine
does hits all alike. Rivals that are not installed are named and left out:
pip install probmetrics torch "scikit-learn>=1.8"

Usage: SKCALIB_DATA=<folder with logits/> python benchmarks/fit_speed.py
       [--parts large small odir import] [--repeats 5] [--threads 1] [--slow] [--tiny]
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time

import numpy as np
import sklearn
from _common import load_set, reset_peak_memory, resident_memory
from _fits import (
    ENSEMBLE,
    TEMPERATURE,
    VECTOR,
    Sample,
    dirichlet_problem,
    double,
    log_loss,
    ours,
    probmetrics_fits,
    sklearn_temperature,
    structured_problem,
)
from scipy.special import log_softmax, softmax
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from skcalib import (
    DirichletCalibration,
    EnsembleTemperatureScaling,
    MatrixScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits

ALLOWED_EXCESS = 1e-6
# A run that takes as long is not repeated.
LONG = 20.0

# Both penalties; the weak ones leave 10,100 parameters to 5,000 rows.
ODIR_STRENGTHS = [100.0, 10_000.0]
SLOW_STRENGTHS = [1.0, 0.01]


def measure(run):
    """Return seconds, extra bytes at the peak (nan where unknown) and the result."""
    known = reset_peak_memory()
    before = resident_memory()[0] if known else np.nan
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    return seconds, resident_memory()[1] - before if known else np.nan, result


def softmax_pass(X):
    proba = np.exp(X - X.max(axis=1, keepdims=True))
    return proba / proba.sum(axis=1, keepdims=True)


def time_of_pass(X, repeats):
    copy = X.astype(np.float64)
    seconds = min(measure(lambda: softmax_pass(copy))[0] for _ in range(repeats))
    print(f"\n{X.shape[0]:,} x {X.shape[1]:,} {X.dtype}; one pass {seconds:.4f} s")
    return seconds


def run_in_turns(fits, repeats):
    """Return for each fit its seconds, its extra bytes and its last result."""
    runs = [[] for _ in fits]
    results = [None] * len(fits)
    for _ in range(repeats):
        for i, fit in enumerate(fits):
            if not runs[i] or runs[i][0][0] < LONG:
                *figures, results[i] = measure(fit.run)
                runs[i].append(figures)
    return [
        (*np.transpose(figures), result)
        for figures, result in zip(runs, results, strict=True)
    ]


def losses(problem, parameters, sample):
    """Return the training loss with its penalty, and the test loss if there is one."""
    training = log_loss(problem.scores(double(sample.X), *parameters), sample.y)
    training += problem.penalty(*parameters)
    if sample.X_test is None:
        return training, np.nan
    scores = problem.scores(double(sample.X_test), *parameters)
    return training, log_loss(scores, sample.y_test)


def compare(problem, fits, sample, one_pass, repeats):
    """Print one line a library; the first of `fits` is ours."""
    print(
        f"{problem.title:<26}{'least s':>9}{'median s':>10}{'passes':>8}{'ratio':>8}"
        f"{'extra MB':>10}{'training loss':>15}{'above ours':>12}{'test NLL':>10}"
    )
    reference = None
    outcomes = run_in_turns(fits, repeats)
    for fit, (seconds, extra, result) in zip(fits, outcomes, strict=True):
        training, test = losses(problem, fit.parameters(result), sample)
        reference = reference or (seconds.min(), training)
        ratio, excess = seconds.min() / reference[0], training - reference[1]
        print(
            f"  {fit.name:<24}{seconds.min():9.4f}{np.median(seconds):10.4f}"
            f"{seconds.min() / one_pass:8.1f}{ratio:8.2f}{extra.min() / 1e6:10.1f}"
            f"{training:15.9f}{excess:12.1e}{test:10.4f}"
            f"{'  LOWER THAN OURS' if excess < -ALLOWED_EXCESS else ''}",
            flush=True,
        )


def structured(structure, sample):
    """Return the problem, and our and the rival's fit."""
    coefficients = "temperature_", "coef_", "intercept_"
    calibrator = StructuredMatrixScaling(structure=structure)
    fits = [
        ours(calibrator, sample, *coefficients),
        *probmetrics_fits(sample, f"structured {structure}"),
    ]
    return structured_problem(structure, *sample.X.shape), fits


def dirichlet(sample):
    """Return the problem and our fit; no other library fits a thousand classes."""
    strength = 100.0 * sample.X.shape[1] ** 2
    calibrator = DirichletCalibration(
        off_diagonal_penalty=strength, intercept_penalty=strength
    )
    return dirichlet_problem(strength), [
        ours(calibrator, sample, "coef_", "intercept_")
    ]


def part_large(options):
    """Many classes and rows in single precision."""
    shape = (2_000, 50) if options.tiny else (25_000, 1_000)
    X, y = make_logits(*shape, dtype=np.float32, random_state=0)
    sample = Sample(X, y, softmax(X, axis=1))
    rest = sample, time_of_pass(X, options.repeats), options.repeats
    print(f"the logits take {X.nbytes / 1e6:.1f} MB")
    fits = [
        ours(TemperatureScaling(), sample, "temperature_"),
        *sklearn_temperature(sample),
        *probmetrics_fits(sample, "temperature"),
    ]
    compare(TEMPERATURE, fits, *rest)
    if options.slow:
        compare(*structured("vector", sample), *rest)
        compare(*structured("matrix", sample), *rest)
        compare(*dirichlet(sample), *rest)


def load_small(tiny):
    X, y = load_set("cifar10-wrn" if tiny else "cifar100-wrn")
    # Rows that sum to 1 exactly: logits and probabilities then say the same.
    X, X_test, y, y_test = train_test_split(
        log_softmax(X, axis=1), y, test_size=0.5, stratify=y, random_state=0
    )
    return Sample(X, y, softmax(X, axis=1), X_test, y_test)


def part_small(options):
    """A real network with a hundred classes."""
    sample = load_small(options.tiny)
    rest = sample, time_of_pass(sample.X, options.repeats), options.repeats
    both = "float32", "float64"
    temperature = [
        ours(TemperatureScaling(), sample, "temperature_"),
        *sklearn_temperature(sample),
        *probmetrics_fits(sample, "temperature", both),
    ]
    ensemble = [
        ours(EnsembleTemperatureScaling(), sample, "temperature_", "weights_"),
        *probmetrics_fits(sample, "ensemble", both),
    ]
    vector = [
        ours(VectorScaling(), sample, "coef_", "intercept_"),
        *probmetrics_fits(sample, "vector", both),
    ]
    compare(TEMPERATURE, temperature, *rest)
    compare(ENSEMBLE, ensemble, *rest)
    compare(VECTOR, vector, *rest)
    compare(*structured("vector", sample), *rest)
    compare(*structured("matrix", sample), *rest)


def odir_gradient_norm(X, y, calibrator, strength):
    """Size of the gradient of the whole objective, from its formula."""
    n_samples, n_classes = X.shape
    coef, intercept = calibrator.coef_, calibrator.intercept_
    residual = softmax(X @ coef.T + intercept, axis=1)
    residual[np.arange(n_samples), y] -= 1
    off_diagonal = coef - np.diag(np.diag(coef))
    by_coef = residual.T @ X / n_samples
    by_coef += 2 * strength * off_diagonal / (n_classes * (n_classes - 1))
    by_intercept = residual.mean(axis=0) + 2 * strength * intercept / n_classes
    return np.hypot(np.linalg.norm(by_coef), np.linalg.norm(by_intercept))


def part_odir(options):
    """Whether fits of given penalties converge, and how fast."""
    sample = load_small(options.tiny)
    one_pass = time_of_pass(sample.X, options.repeats)
    print(
        f"{'both penalties':<30}{'least s':>9}{'passes':>8}{'steps':>7}"
        f"{'training loss':>15}{'gradient':>10}{'from here':>10}{'test NLL':>10}"
    )
    for kind in (MatrixScaling, DirichletCalibration):
        for strength in ODIR_STRENGTHS + SLOW_STRENGTHS * options.slow:
            calibrator = kind(off_diagonal_penalty=strength, intercept_penalty=strength)
            fit = ours(calibrator, sample)
            ((seconds, _, _),) = run_in_turns([fit], options.repeats)
            norm = odir_gradient_norm(sample.X, sample.y, calibrator, strength)
            test = log_loss(
                np.log(calibrator.predict_proba(sample.X_test)), sample.y_test
            )
            print(
                f"  {f'{kind.__name__}, {strength:g}':<28}{seconds.min():9.3f}"
                f"{seconds.min() / one_pass:8.1f}{calibrator.n_iter_:7d}"
                f"{calibrator.loss_:15.9f}{calibrator.gradient_norm_:10.1e}"
                f"{norm:10.1e}{test:10.4f}",
                flush=True,
            )


def import_seconds(module):
    code = (
        f"import time; start = time.perf_counter(); import {module}; "
        "print(time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def part_import(options):
    """Whether importing the package costs more than scikit-learn's calibration."""
    modules = ["skcalib", "sklearn.calibration"]
    repeats = 2 if options.tiny else max(10, options.repeats)
    seconds = np.array([[import_seconds(m) for m in modules] for _ in range(repeats)])
    mine, theirs = seconds.min(axis=0)
    print(
        f"\nimport skcalib {mine:.3f} s, sklearn.calibration {theirs:.3f} s, "
        f"ratio {mine / theirs:.3f} (least of {repeats})"
    )


PARTS = {
    "large": part_large,
    "small": part_small,
    "odir": part_odir,
    "import": part_import,
}


def name_missing():
    """Say which rivals are left out."""
    if importlib.util.find_spec("probmetrics") is None:
        print("probmetrics is not installed, left out")
    if not hasattr(sklearn.calibration, "_TemperatureScaling"):
        print(f"scikit-learn {sklearn.__version__} has no temperature, left out")


def limit_torch(n_threads):
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(n_threads)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="for all libraries")
    parser.add_argument(
        "--slow",
        action="store_true",
        help="1,000 classes with a matrix and weak ODIR penalties too",
    )
    parser.add_argument("--tiny", action="store_true", help="only try the script")
    return parser.parse_args()


def main():
    options = parse_arguments()
    print(f"threads: {options.threads} for every library; {os.cpu_count()} processors")
    name_missing()
    limit_torch(options.threads)
    with threadpool_limits(options.threads):
        for part in options.parts:
            PARTS[part](options)


if __name__ == "__main__":
    main()
