"""Scores of a candidate on the rows of a fold that it was not fitted on."""

import time

import numpy as np

from skcalib._base import fit_checked
from skcalib._numerics import true_log_proba


def fold_score(scorer, calibrator, rows):
    """One score for a fold, by a scorer."""
    weight = rows.sample_weight
    # A scorer without weights is as good where all are alike.
    known = {} if (weight == 1).all() else {"sample_weight": weight}
    return np.array([scorer(calibrator, rows.logits, rows.labels, **known)])


def mean_by_row(scores, weight, splits):
    """Return the mean score of each row that is judged, and its weight.

    A row that several folds judge is one piece of evidence.
    """
    judged = np.concatenate([test for _, test in splits])
    _, row, times = np.unique(judged, return_inverse=True, return_counts=True)
    if times.max() == 1:
        return scores, weight
    means = np.stack([np.bincount(row, of_one) for of_one in scores]) / times
    return means, np.bincount(row, weight) / times


def row_scores(calibrator, rows):
    """One score for a row, the log-probability of its class."""
    return true_log_proba(calibrator.predict_proba(rows.logits), rows.codes)


def fit_and_score(calibrator, data, split, score):
    """Return the scores of one fold and the seconds of the fit."""
    train, test = map(data.subset, split)
    started = time.perf_counter()
    fit_checked(calibrator, train)
    seconds = time.perf_counter() - started
    return score(calibrator, test), seconds
