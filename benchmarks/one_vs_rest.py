"""One-vs-rest calibrators beside scikit-learn, betacal and netcal.

Calibrates the saved outputs of a WideResNet on CIFAR-100 (5,000 + 5,000 rows). "ratio"
is the rival's fit time in units of ours; "worst excess" is by how much the calibration
loss of the worst class exceeds the rival's, for parametric methods (at most 1e-6 is
wanted).

Needs data, rivals.
"""

import numpy as np
from scipy.special import log_expit, softmax
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from benchmarks._data import SETS, load_set
from benchmarks._measure import in_turns, normalise, say
from skcalib._numerics import log_odds
from skcalib.calibrators import (
    BetaCalibration,
    HistogramBinning,
    IsotonicCalibration,
    PlattScaling,
)

CHOICES = {"network": SETS}
TINY = {"network": "cifar10-wrn", "repeats": 1}


def run(*, network="cifar100-wrn", repeats=5):
    X, y = load_set(network)
    halves = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    cases = [(isotonic, {}), (platt, {})]
    cases += [(beta, {"variant": variant}) for variant in ("abm", "am", "ab")]
    for compare, options in [*cases, (histogram, {})]:
        try:
            yield compare(*halves, repeats, **options)
        except ModuleNotFoundError as error:
            say(f"{compare.__name__}: {error.name} is not installed, left out")


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


def row(name, seconds, proba, rivals_proba, y_test, excess=np.nan):
    ours, theirs = (times.min() for times in seconds)
    return {
        "method (rival)": name,
        "seconds": ours,
        "rival's": theirs,
        "ratio": theirs / ours,
        "NLL": log_loss(y_test, proba),
        "rival's NLL": log_loss(y_test, normalise(rivals_proba)),
        "worst excess": excess,
    }


def isotonic(X, X_test, y, y_test, repeats):
    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    seconds, (model, curves) = in_turns(
        [
            lambda: IsotonicCalibration().fit(X, y),
            lambda: per_class(lambda: IsotonicRegression(out_of_bounds="clip"), p, y),
        ],
        repeats,
    )
    proba = normalise(model.predict_proba(X_test))
    rivals = predict_per_class(curves, p_test)
    return row("isotonic (scikit-learn)", seconds, proba, rivals, y_test)


def platt(X, X_test, y, y_test, repeats):
    seconds, (model, curves) = in_turns(
        [
            lambda: PlattScaling(fit_on="logits").fit(X, y),
            lambda: per_class(_SigmoidCalibration, X, y),
        ],
        repeats,
    )
    target = smoothed(y[:, np.newaxis] == np.arange(X.shape[1]))
    mine = class_losses(model.coef_ * X + model.intercept_, target)
    rival = class_losses(logit(predict_per_class(curves, X)), target)
    proba, rivals = model.predict_proba(X_test), predict_per_class(curves, X_test)
    name, excess = "Platt on logits (scikit-learn)", (mine - rival).max()
    return row(name, seconds, proba, rivals, y_test, excess)


def beta(X, X_test, y, y_test, repeats, variant):
    from betacal import BetaCalibration as Rival

    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    seconds, (model, curves) = in_turns(
        [
            lambda: BetaCalibration(variant=variant).fit(X, y),
            lambda: per_class(lambda: Rival(variant), p, y),
        ],
        repeats,
    )
    odds = log_odds(X.copy())
    hit = y[:, np.newaxis] == np.arange(X.shape[1])
    u = model.a_ * log_expit(odds) - model.b_ * log_expit(-odds) + model.c_
    rival = class_losses(logit(predict_per_class(curves, p)), hit)
    excess = (class_losses(u, hit) - rival).max()
    proba, rivals = model.predict_proba(X_test), predict_per_class(curves, p_test)
    return row(f"beta {variant} (betacal)", seconds, proba, rivals, y_test, excess)


def histogram(X, X_test, y, y_test, repeats):
    from netcal.binning import HistogramBinning as Rival

    p, p_test = softmax(X, axis=1), softmax(X_test, axis=1)
    seconds, (model, rival) = in_turns(
        [
            lambda: HistogramBinning().fit(X, y),
            lambda: Rival(bins=15).fit(p, y),
        ],
        repeats,
    )
    proba = normalise(model.predict_proba(X_test))
    return row("histogram (netcal)", seconds, proba, rival.transform(p_test), y_test)
