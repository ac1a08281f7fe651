"""Checks of labels: their kinds, missing classes, and the order of the columns."""

import numpy as np

from skcalib._warnings import quiet
from skcalib.exceptions import AbsentClassWarning
from skcalib.testing._tools import (
    draw_logits,
    fresh,
    fresh_with_splits,
    require,
    require_close,
    require_probabilities,
)


def _require_labels(fitted, X, expected_classes):
    classes = np.asarray(fitted.classes_)
    require(
        classes.tolist() == list(expected_classes),
        f"classes_ is {classes.tolist()}, expected {list(expected_classes)}.",
    )
    predicted = set(np.asarray(fitted.predict(X)).tolist())
    unknown = predicted - set(classes.tolist())
    require(not unknown, f"predict returned {unknown}, which classes_ does not hold.")


def check_kinds_of_labels(calibrator):
    """Integers, strings and booleans stand for the columns in sorted order."""
    X, y = draw_logits()
    expected = fresh(calibrator).fit(X, y).predict_proba(X)
    for names in ([1, 2, 3], [-5, 0, 1000], ["a", "b", "c"], [0.0, 1.0, 2.0]):
        fitted = fresh(calibrator).fit(X, np.array(names)[y])
        _require_labels(fitted, X, names)
        require_close(fitted.predict_proba(X), expected, f"labels {names}", atol=1e-9)
    X, y = draw_logits(n_classes=2)
    expected = fresh(calibrator).fit(X, y).predict_proba(X)
    for pair in ([False, True], [-1, 1], ["no", "yes"]):
        fitted = fresh(calibrator).fit(X, np.array(pair)[y])
        _require_labels(fitted, X, pair)
        require_close(fitted.predict_proba(X), expected, f"labels {pair}", atol=1e-9)


def check_column_numbers(calibrator):
    """Integers below the number of columns are column numbers; some may be missing."""
    X, y = draw_logits(n_classes=5)
    some = np.isin(y, [1, 3, 4])
    with quiet(AbsentClassWarning):
        fitted = fresh(calibrator).fit(X[some], y[some])
    _require_labels(fitted, X, range(5))
    require_probabilities(fitted.predict_proba(X), X.shape, "missing classes")


def check_fewer_samples_than_classes(calibrator):
    """Fit a calibration set smaller than the number of classes."""
    X, y = draw_logits(n_samples=60, n_classes=20)
    few = np.arange(10)
    with quiet(AbsentClassWarning):
        fitted = fresh(calibrator).fit(X[few], y[few])
    require_probabilities(fitted.predict_proba(X), X.shape, "few samples")


def check_classes_parameter(calibrator):
    """`classes` names the columns, in any order, with or without missing classes."""
    X, y = draw_logits()
    expected = fresh(calibrator).fit(X, y).predict_proba(X)
    for names in (["c", "a", "b"], [7, 3, 5], [2, 0, 1]):
        fitted = fresh(calibrator, classes=names).fit(X, np.array(names)[y])
        _require_labels(fitted, X, names)
        require_close(fitted.predict_proba(X), expected, f"classes={names}", atol=1e-9)
    some = y != 1
    names = ["c", "a", "b"]
    with quiet(AbsentClassWarning):
        fitted = fresh(calibrator, classes=names).fit(X[some], np.array(names)[y[some]])
    _require_labels(fitted, X, names)


def check_order_of_classes(calibrator):
    """Columns in another order give the same probabilities in that order."""
    X, y = draw_logits(n_classes=4)
    order = np.array([2, 0, 3, 1])
    groups = np.arange(len(X)) % 3
    straight = fresh_with_splits(calibrator, groups).fit(X, y)
    expected = straight.predict_proba(X)
    permuted = fresh_with_splits(calibrator, groups).set_params(classes=order)
    permuted.fit(X[:, order], y)
    require_close(
        permuted.predict_proba(X[:, order]),
        expected[:, order],
        "columns in another order",
        atol=1e-5,
    )


CHECKS = (
    check_kinds_of_labels,
    check_column_numbers,
    check_fewer_samples_than_classes,
    check_classes_parameter,
    check_order_of_classes,
)
