"""Checks that a user's mistake is refused, in words that help."""

import numpy as np
from sklearn.exceptions import NotFittedError

from skcalib.testing._tools import draw_logits, fresh, require_error


def check_unfitted(calibrator):
    """Prediction before `fit` is refused."""
    X, _ = draw_logits()
    for method in ("predict_proba", "predict"):
        call = getattr(fresh(calibrator), method)
        require_error(NotFittedError, [], method, call, X)


def check_non_finite_logits(calibrator):
    """NaN and infinity are refused, and the row is named.

    Minus infinity is not, where it says that a row lacks the class.
    """
    X, y = draw_logits()
    fitted = fresh(calibrator).fit(X, y)
    for value, word in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf")):
        if value == -np.inf and getattr(calibrator, "takes_absent", False):
            continue
        bad = X.copy()
        bad[117, 1] = value
        words = [word, "117"]
        fit, predict = fresh(calibrator).fit, fitted.predict_proba
        require_error(ValueError, words, f"{value} at fit", fit, bad, y)
        require_error(ValueError, words, f"{value} at predict", predict, bad)


def check_number_of_columns(calibrator):
    """Another number of columns at prediction is refused."""
    X, y = draw_logits()
    fitted = fresh(calibrator).fit(X, y)
    name = type(calibrator).__name__
    words = [f"X has 2 features, but {name} is expecting 3 features as input"]
    for method in ("predict_proba", "predict"):
        call = getattr(fitted, method)
        require_error(ValueError, words, method, call, X[:, :2])


def check_wrong_labels(calibrator):
    """Labels that do not fit the columns, or one class only, are refused."""
    X, y = draw_logits()
    cases = {
        "more labels than columns": (np.arange(len(X)) % 4, ["3 columns", "classes"]),
        "two unknown labels": (np.where(y == 0, 10, 20), ["3 columns", "classes"]),
        "one class only": (np.zeros_like(y), ["one class"]),
        "no labels": (None, ["requires y"]),
        "NaN labels": (np.full(len(X), np.nan), ["nan"]),
        "continuous labels": (X[:, 0], ["continuous"]),
    }
    for what, (labels, words) in cases.items():
        require_error(ValueError, words, what, fresh(calibrator).fit, X, labels)
    what, weight = "one class of positive weight", (y == 1).astype(float)
    require_error(ValueError, ["one class"], what, fresh(calibrator).fit, X, y, weight)


def check_wrong_classes(calibrator):
    """`classes` must name each column once and every label."""
    X, y = draw_logits()
    cases = {
        "classes too short": ([0, 1], ["classes", "3 columns"]),
        "a class named twice": ([0, 1, 1], ["classes"]),
        "a label that classes lacks": ([0, 1, 5], ["classes", "2"]),
    }
    for what, (classes, words) in cases.items():
        call = fresh(calibrator, classes=classes).fit
        require_error(ValueError, words, what, call, X, y)


def check_wrong_shapes(calibrator):
    """Empty input, arrays of unequal length and of three axes are refused."""
    X, y = draw_logits()
    cases = {
        "no samples": (X[:0], y[:0], None, ["0"]),
        "no columns": (X[:, :0], y, None, ["0"]),
        "more labels than rows": (X[:-1], y, None, ["149", "150"]),
        "three axes": (X[np.newaxis], y, None, ["dim"]),
        "more weights than rows": (X, y, np.ones(len(X) + 1), ["150", "151"]),
    }
    for what, (*given, words) in cases.items():
        require_error(ValueError, words, what, fresh(calibrator).fit, *given)


def check_wrong_weights(calibrator):
    """Negative, non-finite and all-zero weights are refused."""
    X, y = draw_logits()
    ones = np.ones(len(X))
    cases = {
        "negative weight": (np.where(np.arange(len(X)) == 9, -1.0, ones), ["negative"]),
        "all weights zero": (np.zeros(len(X)), ["zero"]),
        "NaN weight": (np.where(np.arange(len(X)) == 9, np.nan, ones), ["nan"]),
    }
    for what, (weight, words) in cases.items():
        require_error(ValueError, words, what, fresh(calibrator).fit, X, y, weight)


CHECKS = (
    check_unfitted,
    check_non_finite_logits,
    check_number_of_columns,
    check_wrong_labels,
    check_wrong_classes,
    check_wrong_shapes,
    check_wrong_weights,
)
