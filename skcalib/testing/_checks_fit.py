"""Checks of fitting: weights, order of rows, refitting, cloning and pickling."""

import pickle

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skcalib.testing._tools import (
    draw_logits,
    fresh,
    fresh_with_splits,
    require,
    require_close,
    require_error,
)


def _draw_in_groups():
    """Three groups of rows, folds for a calibrator that cross-validates."""
    X, y = draw_logits()
    groups = np.arange(len(X)) % 3
    return X, y, groups


def check_weights_equal_repetition(calibrator):
    """Integer weights give the same fit as rows repeated that many times."""
    X, y, groups = _draw_in_groups()
    times = np.random.default_rng(1).integers(1, 4, len(X))
    weighted = fresh_with_splits(calibrator, groups)
    weighted.fit(X, y, sample_weight=times.astype(float))
    repeated = fresh_with_splits(calibrator, groups.repeat(times))
    repeated.fit(X.repeat(times, axis=0), y.repeat(times))
    require_close(
        weighted.predict_proba(X),
        repeated.predict_proba(X),
        "integer weights against repeated rows",
        atol=1e-5,
    )


def check_zero_weights_equal_removal(calibrator):
    """Rows of weight zero are as if they were not there, whatever they hold."""
    X, y, groups = _draw_in_groups()
    kept = np.random.default_rng(2).uniform(size=len(X)) < 0.7
    spoilt = np.where(kept[:, np.newaxis], X, -X)
    weighted = fresh_with_splits(calibrator, groups)
    weighted.fit(spoilt, y, sample_weight=kept.astype(float))
    removed = fresh_with_splits(calibrator, groups[kept]).fit(X[kept], y[kept])
    require_close(
        weighted.predict_proba(X),
        removed.predict_proba(X),
        "zero weights against removed rows",
        atol=1e-5,
    )


def check_unit_weights(calibrator):
    """Weights of 1 are the default."""
    X, y = draw_logits()
    plain = fresh(calibrator).fit(X, y)
    for weight in (None, np.ones(len(X)), [1] * len(X)):
        weighted = fresh(calibrator).fit(X, y, sample_weight=weight)
        require_close(
            weighted.predict_proba(X), plain.predict_proba(X), "weights of 1", atol=1e-9
        )


def check_order_of_rows(calibrator):
    """Fit rows in another order and get the same."""
    X, y, groups = _draw_in_groups()
    order = np.random.default_rng(3).permutation(len(X))
    straight = fresh_with_splits(calibrator, groups).fit(X, y)
    shuffled = fresh_with_splits(calibrator, groups[order]).fit(X[order], y[order])
    require_close(
        shuffled.predict_proba(X),
        straight.predict_proba(X),
        "rows in another order",
        atol=1e-5,
    )


def check_deterministic(calibrator):
    """Two fits on the same data agree to the last bit."""
    X, y = draw_logits()
    first = fresh(calibrator).fit(X, y).predict_proba(X)
    second = fresh(calibrator).fit(X, y).predict_proba(X)
    require(np.array_equal(first, second), "two fits on the same data differ.")


def check_refit_forgets(calibrator):
    """Fit a second time and start afresh, whatever was seen before."""
    X, y = draw_logits()
    other_X, other_y = draw_logits(n_classes=4, seed=1)
    refitted = fresh(calibrator).fit(other_X, other_y).fit(X, y)
    expected = fresh(calibrator).fit(X, y).predict_proba(X)
    require_close(
        refitted.predict_proba(X), expected, "second fit against first", atol=0
    )


def check_clone_and_params(calibrator):
    """`fit` returns self and leaves the parameters alone; a clone is unfitted."""
    X, y = draw_logits()
    fitted = fresh(calibrator)
    before = {key: repr(value) for key, value in fitted.get_params(deep=False).items()}
    require(fitted.fit(X, y) is fitted, "fit does not return self.")
    after = {key: repr(value) for key, value in fitted.get_params(deep=False).items()}
    require(before == after, f"fit changed the parameters from {before} to {after}.")
    copy = clone(fitted)
    require_error(NotFittedError, [], "a clone of a fitted one", copy.predict_proba, X)


def check_pickle(calibrator):
    """Pickle a calibrator, which then predicts the same."""
    X, y = draw_logits()
    fitted = fresh(calibrator).fit(X, y)
    restored = pickle.loads(pickle.dumps(fitted))  # noqa: S301  (our own bytes)
    same = np.array_equal(restored.predict_proba(X), fitted.predict_proba(X))
    require(same, "a pickled calibrator predicts otherwise.")


CHECKS = (
    check_weights_equal_repetition,
    check_zero_weights_equal_removal,
    check_unit_weights,
    check_order_of_rows,
    check_deterministic,
    check_refit_forgets,
    check_clone_and_params,
    check_pickle,
)
