"""One-vs-rest calibrators against scikit-learn, betacal and netcal, in one run.

Calibrates the saved outputs of a WideResNet on CIFAR-100 (5,000 + 5,000 rows) and
prints fit times, their ratio and test log-losses; for parametric methods also by how
much the calibration loss of the worst class exceeds the rival's (at most 1e-6 is
wanted).
Rivals that are not installed are named and left out: pip install betacal netcal torch

Usage: SKCALIB_DATA=<folder with logits/> python benchmarks/one_vs_rest.py
"""

import os
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.special import log_expit, softmax
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skcalib import logits_from_proba
from skcalib._numerics import log_odds
from skcalib.calibrators import (
    BetaCalibration,
    HistogramBinning,
    IsotonicCalibration,
    PlattScaling,
)

REPEATS = 5
BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = Path(os.environ.get("SKCALIB_DATA", BESIDE_REPOSITORY))


def load():
    with np.load(DATA / "logits" / "wideresnet-16-4-cifar-100.npz") as arrays:
        logits = logits_from_proba(arrays["predictions"].astype(np.float64))
        y = arrays["ground_truth"].ravel().astype(int)
    return train_test_split(logits, y, test_size=0.5, stratify=y, random_state=0)


def seconds(fit):
    """Best of some runs, and the last result."""
    best = np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = fit()
        best = min(best, time.perf_counter() - start)
    return best, result


def normalise(q):
    # The floor keeps rows and log-losses finite where a rival gives only zeros.
    q = np.maximum(q, 1e-15)
    return q / q.sum(axis=1, keepdims=True)


def class_losses(u, target):
    """Cross-entropy of sigmoid(u) to the targets, class by class."""
    return np.mean(np.logaddexp(0, u) - target * u, axis=0)


def logit(q):
    q = np.clip(q, 1e-300, 1 - 1e-16)
    return np.log(q) - np.log1p(-q)


def smoothed(hit):
    """Platt's targets."""
    own = hit.sum(axis=0)
    return np.where(hit, (own + 1) / (own + 2), 1 / (hit.shape[0] - own + 2))


def per_class(make, scores, y):
    return [make().fit(scores[:, k], y == k) for k in range(scores.shape[1])]


def predict_per_class(models, scores):
    return np.stack([m.predict(scores[:, k]) for k, m in enumerate(models)], axis=1)


def show(name, ours, theirs, y_test, excess=None):
    (time_ours, proba_ours), (time_theirs, proba_theirs) = ours, theirs
    worst = "" if excess is None else f"{excess:13.1e}"
    print(
        f"{name:34}{time_ours:9.3f}{time_theirs:9.3f}{time_theirs / time_ours:8.1f}x"
        f"{log_loss(y_test, proba_ours):10.4f}"
        f"{log_loss(y_test, normalise(proba_theirs)):10.4f}{worst}"
    )


def compare_isotonic(X, X_test, y, y_test):
    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    time_ours, model = seconds(lambda: IsotonicCalibration().fit(X, y))
    time_theirs, curves = seconds(
        lambda: per_class(lambda: IsotonicRegression(out_of_bounds="clip"), p, y)
    )
    ours = time_ours, normalise(model.predict_proba(X_test))
    theirs = time_theirs, predict_per_class(curves, p_test)
    show("isotonic (scikit-learn)", ours, theirs, y_test)


def compare_platt(X, X_test, y, y_test):
    platt = PlattScaling(fit_on="logits")
    time_ours, platt = seconds(lambda: platt.fit(X, y))
    time_theirs, curves = seconds(lambda: per_class(_SigmoidCalibration, X, y))
    target = smoothed(y[:, np.newaxis] == np.arange(X.shape[1]))
    mine = class_losses(platt.coef_ * X + platt.intercept_, target)
    rival = class_losses(logit(predict_per_class(curves, X)), target)
    ours = time_ours, platt.predict_proba(X_test)
    theirs = time_theirs, predict_per_class(curves, X_test)
    show("Platt on logits (scikit-learn)", ours, theirs, y_test, (mine - rival).max())


def compare_beta(X, X_test, y, y_test, variant):
    from betacal import BetaCalibration as Rival

    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    beta = BetaCalibration(variant=variant)
    time_ours, beta = seconds(lambda: beta.fit(X, y))
    time_theirs, curves = seconds(lambda: per_class(lambda: Rival(variant), p, y))
    odds = log_odds(X.copy())
    hit = y[:, np.newaxis] == np.arange(X.shape[1])
    u = beta.a_ * log_expit(odds) - beta.b_ * log_expit(-odds) + beta.c_
    rival = class_losses(logit(predict_per_class(curves, p)), hit)
    excess = (class_losses(u, hit) - rival).max()
    ours = time_ours, beta.predict_proba(X_test)
    theirs = time_theirs, predict_per_class(curves, p_test)
    show(f"beta {variant} (betacal)", ours, theirs, y_test, excess)


def compare_histogram(X, X_test, y, y_test):
    from netcal.binning import HistogramBinning as Rival

    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    time_ours, model = seconds(lambda: HistogramBinning().fit(X, y))
    time_theirs, rival = seconds(lambda: Rival(bins=15).fit(p, y))
    ours = time_ours, normalise(model.predict_proba(X_test))
    show("histogram (netcal)", ours, (time_theirs, rival.transform(p_test)), y_test)


def main():
    X, X_test, y, y_test = load()
    print(
        f"{'method (rival)':34}{'fit s':>9}{'rival s':>9}{'ratio':>9}"
        f"{'test NLL':>10}{'rival':>10}{'worst excess':>13}"
    )
    compare_isotonic(X, X_test, y, y_test)
    compare_platt(X, X_test, y, y_test)
    optional = [
        (compare_beta, {"variant": "abm"}),
        (compare_beta, {"variant": "am"}),
        (compare_beta, {"variant": "ab"}),
        (compare_histogram, {}),
    ]
    for compare, options in optional:
        try:
            compare(X, X_test, y, y_test, **options)
        except ModuleNotFoundError as error:
            print(f"{compare.__name__}: {error.name} is not installed, left out")


if __name__ == "__main__":
    with warnings.catch_warnings():
        # Rivals warn about their own internals.
        warnings.simplefilter("ignore")
        main()
