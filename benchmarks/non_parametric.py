"""Venn-Abers, scaling-binning and BBQ against other libraries, in one run.

Prints the least CPU seconds of fitting and predicting together, their ratio, the
largest difference between the two answers, and both test log-losses. "binary" asks
whether the predicted class of a ResNet-20 on CIFAR-100 is right, "rest" and "pairs" are
one-vs-rest on the same network and one-vs-one on a CNN on Fashion-MNIST (5,000 + 5,000
rows each).

Differences above 1e-6 have their reasons. "pairs": probabilities that round to 1 are
ties for venn-abers, which skcalib tells apart by their log-odds. Scaling-binning: the
logistic regression of the other library stops at its default tolerance. BBQ: netcal
takes bins of equal width and weights them by the BIC, skcalib quantiles and the
evidence, as the paper does. The published code of spline calibration is no package; the
tests compare the splines with its formula.
Rivals that are not installed are named and left out:
pip install venn-abers uncertainty-calibration netcal

Usage: SKCALIB_DATA=<folder> python benchmarks/non_parametric.py [--repeats 3]
"""

import argparse
import contextlib
import io
import time
import warnings

import numpy as np
from _common import load_set
from scipy.special import expit, softmax
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skcalib._numerics import split_top
from skcalib.calibrators import (
    BayesianBinning,
    PlattScaling,
    ScalingBinning,
    VennAbersCalibration,
)


def load(name):
    """Random stratified halves of 10,000 rows: X, X_test, y, y_test."""
    X, y = load_set(name)
    rows = np.random.default_rng(0).permutation(y.size)[:10_000]
    X, y = X[rows].astype(np.float64), y[rows]
    return train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)


def load_binary(name):
    """Log-odds of the predicted class, and whether it is right."""
    X, X_test, y, y_test = load(name)
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


def normalise(q):
    # The floor keeps log-losses finite where a rival gives zeros.
    q = np.maximum(q, 1e-15)
    return q / q.sum(axis=1, keepdims=True)


def ours(calibrator, X, X_test, y):
    return calibrator.fit(X, y).predict_proba(X_test)


def compare(name, functions, repeats, y_test):
    """Time both in turn, the first one ours; print one row."""
    best = [np.inf, np.inf]
    results = [None, None]
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.process_time()
            results[i] = normalise(function())
            best[i] = min(best[i], time.process_time() - start)
    largest = np.abs(results[0] - results[1]).max()
    losses = "".join(f"{log_loss(y_test, q):9.4f}" for q in results)
    print(
        f"{name:42}{best[0]:9.4f}{best[1]:9.3f}{best[1] / best[0]:9.1f}x"
        f"{largest:12.1e}{losses}",
        flush=True,
    )


def venn_abers(repeats):
    from venn_abers.venn_abers import VennAbers, predict_proba_prefitted_va

    def rival():
        model = VennAbers()
        model.fit(two_columns(expit(z)), y)
        return model.predict_proba(two_columns(expit(z_test)))[0]

    z, z_test, y, y_test = load_binary("cifar100-resnet20")
    pair = (lambda: ours(VennAbersCalibration(), z, z_test, y), rival)
    compare("Venn-Abers, binary (venn-abers)", pair, repeats, y_test)
    z, z_test, y, y_test = draw_binary(100_000)
    compare("Venn-Abers, 100,000 samples (venn-abers)", pair, repeats, y_test)
    cases = {"one_vs_rest": "cifar100-resnet20", "one_vs_one": "fashion-mnist"}
    for method, data in cases.items():
        several(predict_proba_prefitted_va, method, data, repeats)


def several(predict, method, data, repeats):
    """Compare one way with several classes."""
    X, X_test, y, y_test = load(data)
    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    calibrator = VennAbersCalibration(method=method)
    pair = (
        lambda: ours(calibrator, X, X_test, y),
        lambda: predict(p, y, p_test, va_tpe=method)[0],
    )
    name = {"one_vs_rest": "rest", "one_vs_one": "pairs"}[method]
    # Once: a hundred classes take the other library minutes.
    repeats = 1 if method == "one_vs_rest" else repeats
    compare(f"Venn-Abers, {name} (venn-abers)", pair, repeats, y_test)


def scaling_binning(repeats):
    from calibration import PlattBinnerCalibrator

    z, z_test, y, y_test = load_binary("cifar100-resnet20")
    platt = PlattScaling(smooth_targets=False)
    calibrator = ScalingBinning(platt, n_bins=10, method="one_vs_rest")

    def rival():
        model = PlattBinnerCalibrator(y.size, num_bins=10)
        model.train_calibration(expit(z), y)
        return two_columns(model.calibrate(expit(z_test)))

    pair = (lambda: ours(calibrator, z, z_test, y), rival)
    name = "scaling-binning, binary (uncertainty-calibration)"
    compare(name[:41], pair, repeats, y_test)


def bayesian_binning(repeats):
    from netcal.binning import BBQ

    z, z_test, y, y_test = load_binary("cifar100-resnet20")

    def rival():
        model = BBQ()
        # Its progress bar.
        with contextlib.redirect_stderr(io.StringIO()):
            model.fit(expit(z), y)
        return two_columns(model.transform(expit(z_test)))

    pair = (lambda: ours(BayesianBinning(), z, z_test, y), rival)
    compare("BBQ, binary (netcal)", pair, repeats, y_test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(
        f"{'method (rival)':42}{'ours s':>9}{'rival s':>9}{'ratio':>10}"
        f"{'difference':>12}{'NLL':>9}{'rival':>9}"
    )
    for part in (venn_abers, scaling_binning, bayesian_binning):
        try:
            part(repeats)
        except ModuleNotFoundError as error:
            print(f"{part.__name__}: {error.name} is not installed, left out")


if __name__ == "__main__":
    with warnings.catch_warnings():
        # Rivals warn about their own internals.
        warnings.simplefilter("ignore")
        main()
