"""Fits that `fit_speed` compares: ours, those of other libraries, and what they fit.

Every library's result is read as parameters in float64, and the loss at them is
computed here by one function for all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import sklearn
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.utils.fixes import parse_version


class Sample(NamedTuple):
    """Logits to fit on, their probabilities for rivals, and a test half if any."""

    X: np.ndarray
    y: np.ndarray
    proba: np.ndarray
    X_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


class Fit(NamedTuple):
    """One library's fit, and how to read parameters from its result."""

    name: str
    run: Callable[[], Any]
    parameters: Callable[[Any], tuple]


class Problem(NamedTuple):
    """What all libraries minimise: log-loss of softmax(scores) plus a penalty."""

    title: str
    scores: Callable[..., np.ndarray]
    penalty: Callable[..., float] = lambda *_: 0.0


def log_loss(scores, y):
    rows = np.arange(y.shape[0])
    return float(np.mean(logsumexp(scores, axis=1) - scores[rows, y]))


TEMPERATURE = Problem("temperature", lambda X, temperature: X / temperature)
VECTOR = Problem("vector", lambda X, coef, intercept: X * coef + intercept)


def ensemble_scores(X, temperature, weights):
    mixed = weights[0] * softmax(X / temperature, axis=1)
    mixed += weights[1] * softmax(X, axis=1)
    return np.log((mixed + weights[2] / X.shape[1]) / np.sum(weights))


ENSEMBLE = Problem("ensemble temperature", ensemble_scores)


def structured_problem(structure, n_samples, n_classes):
    """Structured scaling: a vector as `coef` is the diagonal of the matrix."""
    share, unit = 1 / (n_samples + 1), n_classes / n_samples

    def scores(X, temperature, coef, intercept):
        proba = softmax(X / temperature, axis=1)
        z = np.log((1 - share) * proba + share / n_classes)
        return (z * coef if coef.ndim == 1 else z @ coef.T) + intercept

    def penalty(temperature, coef, intercept):
        diagonal = coef if coef.ndim == 1 else np.diag(coef)
        off_diagonal = np.sum(coef**2) - np.sum(diagonal**2)
        near = np.sum(intercept**2) + np.sum((diagonal - 1) ** 2)
        return unit * (near + (n_classes - 1) * off_diagonal)

    return Problem(f"structured {structure}", scores, penalty)


def dirichlet_problem(strength):
    """Dirichlet scaling, both penalties of the same strength."""

    def scores(X, coef, intercept):
        return log_softmax(X, axis=1) @ coef.T + intercept

    def penalty(coef, intercept):
        n_classes = len(intercept)
        off_diagonal = np.sum(coef**2) - np.sum(np.diag(coef) ** 2)
        mean_square = off_diagonal / (n_classes * (n_classes - 1))
        return strength * (mean_square + np.mean(intercept**2))

    return Problem(f"Dirichlet, {strength:g}", scores, penalty)


def ours(calibrator, sample, *attributes):
    return Fit(
        "skcalib",
        lambda: calibrator.fit(sample.X, sample.y),
        lambda fitted: tuple(getattr(fitted, name) for name in attributes),
    )


class PassedOn(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its scores."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X

    def predict(self, X):
        return self.classes_[X.argmax(axis=1)]


def sklearn_temperature(sample):
    """The public way, and the class that does the work in it by itself."""
    if parse_version(sklearn.__version__) < parse_version("1.8"):
        return []
    from sklearn.calibration import _TemperatureScaling
    from sklearn.frozen import FrozenEstimator

    X, y = sample.X, sample.y
    wrapped = CalibratedClassifierCV(
        FrozenEstimator(PassedOn().fit(X, y)), method="temperature"
    )

    def read(fitted):
        return (1 / float(fitted.beta_),)

    def fit_wrapped():
        return wrapped.fit(X, y).calibrated_classifiers_[0].calibrators[0]

    return [
        Fit("scikit-learn", fit_wrapped, read),
        Fit("- without its wrapper", lambda: _TemperatureScaling().fit(X, y), read),
    ]


def double(array):
    return np.asarray(array, dtype=np.float64)


def step_temperature(fitted):
    """Temperature of the first step of structured scaling."""
    return 1 / float(fitted.ts_.cal_.invtemp_)


def sms_parameters(fitted):
    matrix = double(fitted.W_)
    return step_temperature(fitted), matrix[:, :-1], matrix[:, -1]


# Method: how to make the calibrator from the package, and how to read its parameters.
PROBMETRICS = {
    "temperature": (
        lambda package: package.get_calibrator("temp-scaling"),
        lambda fitted: (1 / float(fitted.invtemp_),),
    ),
    "vector": (
        lambda package: package.logistic.VectorScalingCalibrator(),
        lambda fitted: (1 / double(fitted.temp_), double(fitted.bias_)),
    ),
    "ensemble": (
        lambda package: package.ETSCalibrator(loss="ce"),
        lambda fitted: (float(fitted.t_), double(fitted.w_)),
    ),
    "structured vector": (
        lambda package: package.get_calibrator("svs"),
        lambda fitted: (
            step_temperature(fitted),
            double(fitted.v_),
            double(fitted.b_),
        ),
    ),
    "structured matrix": (
        lambda package: package.get_calibrator("sms"),
        sms_parameters,
    ),
}


def probmetrics_fits(sample, method, dtypes=("float32",)):
    """Fits to probabilities, which that library takes, of each of the types."""
    try:
        from probmetrics import calibrators
    except ImportError:
        return []
    make, parameters = PROBMETRICS[method]
    fits = []
    for dtype in dtypes:
        proba = sample.proba.astype(dtype, copy=False)
        fits.append(
            Fit(
                f"probmetrics, {dtype}",
                lambda proba=proba: make(calibrators).fit(proba, sample.y),
                parameters,
            )
        )
    return fits
