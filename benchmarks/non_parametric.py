"""Venn-Abers, scaling-binning and BBQ beside other libraries.

"seconds" are the least processor seconds of fitting and predicting together, "ratio"
the other library's in units of ours, "difference" the largest one between the two
answers. "binary" asks whether the predicted class of a ResNet-20 on CIFAR-100 is right,
"rest" and "pairs" are one-vs-rest on the same network and one-vs-one on a CNN on
Fashion-MNIST (5,000 + 5,000 rows each).

Differences above 1e-6 have their reasons. "pairs": probabilities that round to 1 are
ties for venn-abers, which skcalib tells apart by their log-odds. Scaling-binning: the
logistic regression of the other library stops at its default tolerance. BBQ: netcal
takes bins of equal width and weights them by the BIC, skcalib quantiles and the
evidence, as the paper does. The published code of spline calibration is no package; the
tests compare the splines with its formula.

Needs data, rivals.
"""

import contextlib
import io
import time

import numpy as np
from scipy.special import expit, softmax
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from benchmarks._data import load_set
from benchmarks._measure import in_turns, normalise, say
from skcalib._numerics import split_top
from skcalib.calibrators import (
    BayesianBinning,
    PlattScaling,
    ScalingBinning,
    VennAbersCalibration,
)

TINY = {"repeats": 1, "samples": 1500}


def run(*, repeats=3, samples=10_000):
    for part in (venn_abers, scaling_binning, bayesian_binning):
        try:
            yield from part(repeats, samples)
        except ModuleNotFoundError as error:
            say(f"{part.__name__}: {error.name} is not installed, left out")


def load(name, samples):
    """Random stratified halves of some rows: X, X_test, y, y_test."""
    X, y = load_set(name)
    rows = np.random.default_rng(0).permutation(y.size)[:samples]
    X, y = X[rows].astype(np.float64), y[rows]
    return train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)


def load_binary(name, samples):
    """Log-odds of the predicted class, and whether it is right."""
    X, X_test, y, y_test = load(name, samples)
    (top, z, _), (top_test, z_test, _) = split_top(X), split_top(X_test)
    return z, z_test, (top == y).astype(int), (top_test == y_test).astype(int)


def draw_binary(n):
    """Draw over-confident log-odds and labels, n to fit on and n to judge by."""
    rng = np.random.default_rng(0)
    z = rng.normal(scale=3, size=(2, n))
    y = (rng.random(z.shape) < expit(z / 2)).astype(int)
    return *z, *y


def two_columns(p):
    return np.stack([1 - p, p], axis=1)


def ours(calibrator, X, X_test, y):
    return calibrator.fit(X, y).predict_proba(X_test)


def compare(name, functions, repeats, y_test):
    """Return the row of both, the first one ours."""
    seconds, results = in_turns(functions, repeats, time.process_time)
    results = [normalise(proba) for proba in results]
    best = [times.min() for times in seconds]
    losses = [log_loss(y_test, proba) for proba in results]
    return {
        "method (rival)": name,
        "seconds": best[0],
        "rival's": best[1],
        "ratio": best[1] / best[0],
        "difference": np.abs(results[0] - results[1]).max(),
        "NLL": losses[0],
        "rival's NLL": losses[1],
    }


def venn_abers(repeats, samples):
    from venn_abers.venn_abers import VennAbers, predict_proba_prefitted_va

    def rival():
        model = VennAbers()
        model.fit(two_columns(expit(z)), y)
        return model.predict_proba(two_columns(expit(z_test)))[0]

    z, z_test, y, y_test = load_binary("cifar100-resnet20", samples)
    pair = (lambda: ours(VennAbersCalibration(), z, z_test, y), rival)
    yield compare("Venn-Abers, binary (venn-abers)", pair, repeats, y_test)
    z, z_test, y, y_test = draw_binary(10 * samples)
    yield compare(
        f"Venn-Abers, {10 * samples:,} samples (venn-abers)", pair, repeats, y_test
    )
    cases = {"one_vs_rest": "cifar100-resnet20", "one_vs_one": "fashion-mnist"}
    for method, data in cases.items():
        yield several(predict_proba_prefitted_va, method, load(data, samples), repeats)


def several(predict, method, halves, repeats):
    """Compare one way with several classes."""
    X, X_test, y, y_test = halves
    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    calibrator = VennAbersCalibration(method=method)
    pair = (
        lambda: ours(calibrator, X, X_test, y),
        lambda: predict(p, y, p_test, va_tpe=method)[0],
    )
    name = {"one_vs_rest": "rest", "one_vs_one": "pairs"}[method]
    # Once: a hundred classes take the other library minutes.
    repeats = 1 if method == "one_vs_rest" else repeats
    return compare(f"Venn-Abers, {name} (venn-abers)", pair, repeats, y_test)


def scaling_binning(repeats, samples):
    from calibration import PlattBinnerCalibrator

    z, z_test, y, y_test = load_binary("cifar100-resnet20", samples)
    platt = PlattScaling(smooth_targets=False)
    calibrator = ScalingBinning(platt, n_bins=10, method="one_vs_rest")

    def rival():
        model = PlattBinnerCalibrator(y.size, num_bins=10)
        model.train_calibration(expit(z), y)
        return two_columns(model.calibrate(expit(z_test)))

    pair = (lambda: ours(calibrator, z, z_test, y), rival)
    yield compare(
        "scaling-binning, binary (uncertainty-calibration)", pair, repeats, y_test
    )


def bayesian_binning(repeats, samples):
    from netcal.binning import BBQ

    z, z_test, y, y_test = load_binary("cifar100-resnet20", samples)

    def rival():
        model = BBQ()
        # Its progress bar.
        with contextlib.redirect_stderr(io.StringIO()):
            model.fit(expit(z), y)
        return two_columns(model.transform(expit(z_test)))

    pair = (lambda: ours(BayesianBinning(), z, z_test, y), rival)
    yield compare("BBQ, binary (netcal)", pair, repeats, y_test)
