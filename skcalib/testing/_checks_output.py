"""Checks of what a fitted calibrator returns."""

import numpy as np
from scipy.special import softmax

from skcalib._blocks import open_source
from skcalib._maps import evaluate
from skcalib.testing._tools import (
    draw_logits,
    fresh,
    require,
    require_close,
    require_probabilities,
)

EXTREME_VALUES = (1e4, -1e4, 1e30, -1e30, 1e300, -1e300, 1e-300, 0.0)


def check_probabilities(calibrator):
    """Probabilities have the right shape, are non-negative and sum to 1."""
    for n_classes in (2, 3, 5):
        X, y = draw_logits(n_classes=n_classes)
        fitted = fresh(calibrator).fit(X, y)
        proba = fitted.predict_proba(X)
        require_probabilities(proba, X.shape, f"{n_classes} classes")
        require(
            proba.dtype == np.float64,
            f"float64 logits give probabilities of dtype {proba.dtype}.",
        )


def check_extreme_logits(calibrator):
    """Any finite logits give probabilities."""
    X, y = draw_logits()
    fitted = fresh(calibrator).fit(X, y)
    rows = [[a, b, 0.5] for a in EXTREME_VALUES for b in EXTREME_VALUES]
    rows += [[a, a, a] for a in EXTREME_VALUES]
    for dtype in (np.float64, np.float32):
        limit = np.finfo(dtype).max
        extreme = np.clip(np.array(rows), -limit, limit).astype(dtype)
        what = f"extreme {np.dtype(dtype).name} logits"
        require_probabilities(fitted.predict_proba(extreme), extreme.shape, what)


def check_fit_on_extreme_logits(calibrator):
    """Fit a calibration set of large or of equal logits."""
    X, y = draw_logits()
    sets = {
        "logits of size 1e4": 1e3 * X,
        "all logits equal": np.zeros_like(X),
        "some rows of -1e30": np.where(np.arange(len(X))[:, None] % 10 == 0, -1e30, X),
    }
    for what, logits in sets.items():
        fitted = fresh(calibrator).fit(logits, y)
        proba = fitted.predict_proba(np.vstack([logits, X]))
        require_probabilities(proba, (2 * len(X), X.shape[1]), f"fitted on {what}")


def check_float32(calibrator):
    """Float32 logits give the float32 rounding of the same probabilities."""
    X, y = draw_logits()
    single = X.astype(np.float32)
    fitted = fresh(calibrator).fit(single, y)
    proba = fitted.predict_proba(single)
    require(
        proba.dtype == np.float32,
        f"float32 logits give probabilities of dtype {proba.dtype}.",
    )
    require_probabilities(proba, X.shape, "float32 logits")
    double = single.astype(np.float64)
    require_close(
        proba, fitted.predict_proba(double), "float32 and float64 logits at predict"
    )
    of_double = fresh(calibrator).fit(double, y).predict_proba(double)
    require_close(proba, of_double, "float32 and float64 logits at fit", atol=1e-4)


def check_binary_layouts(calibrator):
    """One column z of log-odds means the two columns (0, z)."""
    X, y = draw_logits(n_classes=2)
    z = X[:, 1] - X[:, 0]
    two_columns = np.column_stack([np.zeros_like(z), z])
    expected = fresh(calibrator).fit(two_columns, y).predict_proba(two_columns)
    for layout in (z, z[:, np.newaxis], z.tolist()):
        proba = fresh(calibrator).fit(layout, y).predict_proba(layout)
        what = f"one column of shape {np.shape(layout)} against (0, z)"
        require_close(proba, expected, what)


def check_row_alone(calibrator):
    """Map a row alike alone and in a batch, also one that looks like p."""
    X, y = draw_logits()
    X[0] = [0.2, 0.3, 0.5]
    fitted = fresh(calibrator).fit(X, y)
    alone = np.vstack([fitted.predict_proba(row[np.newaxis]) for row in X[:20]])
    require_close(alone, fitted.predict_proba(X)[:20], "alone and batch", atol=1e-12)


def check_predict(calibrator):
    """`predict` returns a label whose probability is the largest of the row."""
    X, y = draw_logits()
    fitted = fresh(calibrator).fit(X, y)
    proba = fitted.predict_proba(X)
    labels = fitted.predict(X)
    require(labels.shape == y.shape, f"predict has shape {labels.shape}.")
    column = np.searchsorted(fitted.classes_, labels)
    chosen = proba[np.arange(len(X)), column]
    require_close(chosen, proba.max(axis=1), "p of the predicted class", atol=1e-12)


def check_decision_function(calibrator):
    """Compare the softmax of `decision_function` with `predict_proba`."""
    for n_classes in (2, 3):
        X, y = draw_logits(n_classes=n_classes)
        fitted = fresh(calibrator).fit(X, y)
        if not hasattr(fitted, "decision_function"):
            return
        scores = fitted.decision_function(X)
        if n_classes == 2:
            require(
                scores.shape == y.shape,
                f"decision_function has shape {scores.shape} for two classes.",
            )
            scores = np.column_stack([np.zeros_like(scores), scores])
        what = "softmax of decision_function against predict_proba"
        require_close(softmax(scores, axis=1), fitted.predict_proba(X), what)


def check_calibration_map(calibrator):
    """Compare the map, which is what gets exported, with `predict_proba`."""
    X, y = draw_logits()
    fitted = fresh(calibrator).fit(X, y)
    if not hasattr(fitted, "calibration_map"):
        return
    mapped = evaluate(fitted.calibration_map(), open_source(X))
    require_close(mapped, fitted.predict_proba(X), "map and predict_proba", atol=1e-12)


def check_inputs_unchanged(calibrator):
    """Neither `fit` nor `predict_proba` writes into its arguments."""
    X, y = draw_logits()
    weight = np.linspace(0.5, 2, len(X))
    arguments = {"X": X, "y": y, "sample_weight": weight}
    before = {name: array.copy() for name, array in arguments.items()}
    fitted = fresh(calibrator).fit(X, y, sample_weight=weight)
    fitted.predict_proba(X)
    fitted.predict(X)
    for name, array in arguments.items():
        require(np.array_equal(array, before[name]), f"{name} was overwritten.")
        array.flags.writeable = False
    fresh(calibrator).fit(X, y, sample_weight=weight).predict_proba(X)


def check_memory_layout(calibrator):
    """Compare lists, Fortran order and strided arrays with a plain array."""
    X, y = draw_logits()
    expected = fresh(calibrator).fit(X, y).predict_proba(X)
    layouts = {
        "lists": X.tolist(),
        "Fortran order": np.asfortranarray(X),
        "a strided view": np.repeat(X, 2, axis=0)[::2],
    }
    for what, logits in layouts.items():
        proba = fresh(calibrator).fit(logits, y.tolist()).predict_proba(logits)
        require_close(proba, expected, f"{what} against a plain array")


CHECKS = (
    check_probabilities,
    check_extreme_logits,
    check_fit_on_extreme_logits,
    check_float32,
    check_binary_layouts,
    check_row_alone,
    check_predict,
    check_decision_function,
    check_calibration_map,
    check_inputs_unchanged,
    check_memory_layout,
)
