"""Speed, memory and losses of the fits beside other libraries; cost of the import.

"seconds" are the least, and "passes" the same in units of one NumPy float64 softmax
over the same array, which carries from machine to machine. "ratio" is seconds in units
of ours: above 1 is slower than skcalib. The libraries take turns. "extra MB" is how far
the resident memory rises above its level before the fit (Linux). "loss" is the full
objective, penalties included, computed here in float64 from the parameters that each
library learned; "above ours" may be negative by rounding.

probmetrics takes probabilities: it gets the softmax of the same logits, which is not
timed, in single and, where it keeps it, double precision. scikit-learn is timed through
`CalibratedClassifierCV` around a frozen estimator, the public way, and without that
wrapper. Part odir has fits with given penalties, with the norm of the gradient that the
estimator reports and the one recomputed from the formula. Part import starts new
processes in turn. `--slow` adds structured scaling of a thousand classes, and weak
penalties, whose optimum is far away: minutes.

Needs data, rivals.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import sklearn.calibration
from scipy.special import log_softmax, softmax
from sklearn.model_selection import train_test_split

from benchmarks._data import SETS, load_set
from benchmarks._fits import (
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
from benchmarks._measure import in_turns, reset_peak_memory, resident_memory, say
from benchmarks._tables import Table
from skcalib import (
    DirichletCalibration,
    EnsembleTemperatureScaling,
    MatrixScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits

# Both penalties; the weak ones leave 10,100 parameters to 5,000 rows.
ODIR_STRENGTHS = [100.0, 10_000.0]
SLOW_STRENGTHS = [1.0, 0.01]
PARTS = ("large", "small", "odir", "import")
CHOICES = {"parts": PARTS, "network": SETS}
TINY = {"samples": 2000, "classes": 50, "network": "cifar10-wrn", "repeats": 1}


def run(
    *,
    parts=PARTS,
    network="cifar100-wrn",
    samples=25_000,
    classes=1000,
    repeats=5,
    slow=False,
):
    name_missing()
    if "large" in parts:
        yield from large(samples, classes, repeats, slow)
    if "small" in parts:
        yield from small(network, repeats)
    if "odir" in parts:
        yield from odir(network, repeats, slow)
    if "import" in parts:
        yield from imports(max(2 * repeats, 2))


def name_missing():
    """Say which rivals are left out."""
    if importlib.util.find_spec("probmetrics") is None:
        say("probmetrics is not installed, left out")
    if not hasattr(sklearn.calibration, "_TemperatureScaling"):
        say(f"scikit-learn {sklearn.__version__} has no temperature, left out")


def with_memory(function, extra):
    """The function, noting how much memory it takes where the system tells."""

    def measured():
        known = reset_peak_memory()
        before = resident_memory()[0] if known else np.nan
        result = function()
        extra.append(resident_memory()[1] - before if known else np.nan)
        return result

    return measured


def softmax_pass(X):
    proba = np.exp(X - X.max(axis=1, keepdims=True))
    return proba / proba.sum(axis=1, keepdims=True)


def time_of_pass(X, repeats):
    copy = X.astype(np.float64)
    (seconds,), _ = in_turns([lambda: softmax_pass(copy)], repeats)
    return seconds.min()


def losses(problem, parameters, sample):
    """Return the training loss with its penalty, and the test loss if there is one."""
    training = log_loss(problem.scores(double(sample.X), *parameters), sample.y)
    training += problem.penalty(*parameters)
    if sample.X_test is None:
        return training, np.nan
    scores = problem.scores(double(sample.X_test), *parameters)
    return training, log_loss(scores, sample.y_test)


def compare(problem, fits, sample, one_pass, repeats):
    """Yield one row a library; the first of `fits` is ours."""
    extra = [[] for _ in fits]
    functions = [with_memory(f.run, e) for f, e in zip(fits, extra, strict=True)]
    reference = None
    for fit, seconds, result, more in zip(
        fits, *in_turns(functions, repeats), extra, strict=True
    ):
        training, test = losses(problem, fit.parameters(result), sample)
        reference = reference or (seconds.min(), training)
        yield {
            "fit": problem.title,
            "rows": f"{sample.X.shape[0]:,} x {sample.X.shape[1]:,}",
            "library": fit.name,
            "seconds": seconds.min(),
            "median": np.median(seconds),
            "passes": seconds.min() / one_pass,
            "ratio": seconds.min() / reference[0],
            "extra MB": min(more) / 1e6,
            "loss": training,
            "above ours": training - reference[1],
            "test NLL": test,
        }


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


def large(samples, classes, repeats, slow):
    """Many classes and rows in single precision."""
    X, y = make_logits(samples, classes, dtype=np.float32, random_state=0)
    sample = Sample(X, y, softmax(X, axis=1))
    rest = sample, time_of_pass(X, repeats), repeats
    fits = [
        ours(TemperatureScaling(), sample, "temperature_"),
        *sklearn_temperature(sample),
        *probmetrics_fits(sample, "temperature"),
    ]
    yield from compare(TEMPERATURE, fits, *rest)
    if slow:
        yield from compare(*structured("vector", sample), *rest)
        yield from compare(*structured("matrix", sample), *rest)
        yield from compare(*dirichlet(sample), *rest)


def load_small(network):
    X, y = load_set(network)
    # Rows that sum to 1 exactly: logits and probabilities then say the same.
    X, X_test, y, y_test = train_test_split(
        log_softmax(X, axis=1), y, test_size=0.5, stratify=y, random_state=0
    )
    return Sample(X, y, softmax(X, axis=1), X_test, y_test)


def small(network, repeats):
    """A real network with a hundred classes."""
    sample = load_small(network)
    rest = sample, time_of_pass(sample.X, repeats), repeats
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
        ours(VectorScaling(prior=None), sample, "coef_", "intercept_"),
        *probmetrics_fits(sample, "vector", both),
    ]
    yield from compare(TEMPERATURE, temperature, *rest)
    yield from compare(ENSEMBLE, ensemble, *rest)
    yield from compare(VECTOR, vector, *rest)
    yield from compare(*structured("vector", sample), *rest)
    yield from compare(*structured("matrix", sample), *rest)


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


def odir(network, repeats, slow):
    """Whether fits of given penalties converge, and how fast."""
    sample = load_small(network)
    one_pass = time_of_pass(sample.X, repeats)
    for kind in (MatrixScaling, DirichletCalibration):
        for strength in ODIR_STRENGTHS + SLOW_STRENGTHS * slow:
            calibrator = kind(off_diagonal_penalty=strength, intercept_penalty=strength)
            (seconds,), _ = in_turns([ours(calibrator, sample).run], repeats)
            proba = calibrator.predict_proba(sample.X_test)
            yield {
                "calibrator": kind.__name__,
                "both penalties": strength,
                "seconds": seconds.min(),
                "passes": seconds.min() / one_pass,
                "steps": calibrator.n_iter_,
                "loss": calibrator.loss_,
                "gradient": calibrator.gradient_norm_,
                "from here": odir_gradient_norm(
                    sample.X, sample.y, calibrator, strength
                ),
                "test NLL": log_loss(np.log(proba), sample.y_test),
            }


def import_seconds(module):
    code = (
        f"import time; start = time.perf_counter(); import {module}; "
        "print(time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def imports(repeats):
    """Whether importing the package costs more than scikit-learn's calibration."""
    modules = ["skcalib", "sklearn.calibration"]
    seconds = [[import_seconds(module) for module in modules] for _ in range(repeats)]
    for module, least in zip(modules, np.min(seconds, axis=0), strict=True):
        yield {"import": module, "seconds": least}


def by_fit(rows):
    """One line a fit: our seconds, passes and memory, and the rivals' ratios."""
    lines = {}
    for row in rows:
        if "library" not in row:
            continue
        name = f"{row['fit']}, {row['rows']}"
        text = f"{row['ratio']:.1f}x, {row['extra MB']:.0f} MB"
        if row["library"] == "skcalib":
            ours = f"{row['seconds']:.2g} s, {row['passes']:.1f} passes"
            lines[name] = [name, f"{ours}, {row['extra MB']:.0f} MB", []]
        elif not row["library"].startswith("-"):
            lines[name][2].append(f"{row['library']} {text}")
    return Table(
        ["fit", "skcalib", "rivals"], [[*r, "; ".join(t)] for *r, t in lines.values()]
    )


TABLES = {"by_fit": by_fit}
