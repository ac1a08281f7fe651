"""Folds for sets that are small, many-classed, weighted or in class order."""

from numbers import Integral

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state

DEFAULT_FOLDS = 5


def make_splits(cv, X, codes, weight, random_state):
    """Return a list of (train, test) row numbers; rows of weight 0 are left out.

    An integer, or None for 5, means stratified folds of shuffled rows. Every class is
    dealt out over the folds in turn, however few samples it has, so none has to be left
    out. Anything else is what scikit-learn takes, and counts all rows of `X`.
    """
    used = weight > 0
    if cv is None or isinstance(cv, Integral):
        n_folds = DEFAULT_FOLDS if cv is None else cv
        if n_folds < 2:
            raise ValueError(f"cv={cv} is not an integer above 1.")
        rows = np.flatnonzero(used)
        fold = _deal(codes[rows], n_folds, random_state)
        return [(rows[fold != k], rows[fold == k]) for k in range(fold.max() + 1)]
    every = np.arange(codes.shape[0])
    pairs = check_cv(cv, codes, classifier=True).split(X, codes)
    splits = [tuple(every[part][used[part]] for part in pair) for pair in pairs]
    if not splits:
        raise ValueError(f"cv={cv!r} gives no split of the {codes.shape[0]} rows.")
    for i, (train, test) in enumerate(splits):
        if train.size == 0 or test.size == 0:
            raise ValueError(
                f"Split {i} of cv has {train.size} rows to fit on and {test.size} to "
                "judge by, rows of weight 0 left out; both need at least one."
            )
    return splits


def _deal(codes, n_folds, random_state):
    """Deal the rows of each class out to the folds in turn, in random order."""
    n_samples = codes.shape[0]
    order = check_random_state(random_state).permutation(n_samples)
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(n_samples, dtype=np.intp)
    fold[order] = np.arange(n_samples) % min(n_folds, n_samples)
    return fold
