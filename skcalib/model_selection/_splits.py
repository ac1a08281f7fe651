"""Folds for sets that are small, many-classed or in class order."""

from numbers import Integral

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state


def make_splits(cv, X, codes, random_state):
    """Return a list of (train, test) row numbers.

    An integer means stratified folds of shuffled rows. Every class is dealt out over
    the folds in turn, however few samples it has, so none has to be left out.
    """
    n_samples = codes.shape[0]
    if isinstance(cv, Integral):
        shuffled = check_random_state(random_state).permutation(n_samples)
        by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
        fold = np.empty(n_samples, dtype=np.intp)
        fold[by_class] = np.arange(n_samples) % min(cv, n_samples)
        pairs = [(fold != k, fold == k) for k in range(fold.max() + 1)]
    else:
        pairs = check_cv(cv, codes, classifier=True).split(X, codes)
    rows = np.arange(n_samples)
    return [(rows[train], rows[test]) for train, test in pairs]
