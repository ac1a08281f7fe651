"""Logits of a classifier, one column for every class or label of the data."""

import numpy as np
from scipy.special import logsumexp
from sklearn import get_config

from skcalib._blocks import NUMBERS
from skcalib._numerics import PROBA_FLOOR
from skcalib._sklearn_compat import as_table, check_method_params, safe_indexing
from skcalib._validation import (
    check_label_proba,
    column_on_host,
    given_back,
    is_standard,
    is_tensor,
    log_odds_of,
)
from skcalib.frozen._classifier import read_scores


class ClassifierScores:
    """Logits of one fitted classifier, in the columns of `classes`.

    A classifier that was trained on a fold may not know every class. By the rule of
    succession a class that never occurred among `n_train` samples has probability
    1 / (n_train + 1); its column holds the logit that says so.
    """

    def __init__(self, estimator, *, method, classes, n_train):
        self.estimator = estimator
        self.method = method
        self.n_classes = len(classes)
        column_of = {label: k for k, label in enumerate(np.asarray(classes).tolist())}
        known = column_on_host(estimator.classes_)
        self.columns = np.array([column_of[label] for label in known.tolist()])
        self.n_train = n_train
        # Known once there are any.
        self.are_log_proba = False

    def none(self):
        """Return the logits of no rows."""
        return np.empty((0, 1 if self.n_classes == 2 else self.n_classes))

    def __call__(self, X):
        """Return logits of shape (n_samples, n_classes), or of one column if binary."""
        logits, self.are_log_proba = read_scores(self.estimator, self.method, X)
        if np.array_equal(self.columns, np.arange(self.n_classes)):
            return logits
        given, logits = logits, column_on_host(logits)
        if len(self.columns) == 2 and logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        unseen = logsumexp(logits, axis=1, keepdims=True) - np.log1p(self.n_train)
        complete = np.repeat(unseen, self.n_classes, axis=1)
        complete[:, self.columns] = logits
        return given_back(complete, given)


class LabelScores:
    """Log-odds of one fitted classifier of several labels, a column for each.

    A label that was never set among `n_train` samples, or always, has a single column
    of probabilities in some classifiers; the other one is 1 / (n_train + 1).
    """

    are_log_proba = False

    def __init__(self, estimator, *, method, n_labels, n_train):
        self.estimator = estimator
        self.method = method
        self.n_labels = n_labels
        self.n_train = n_train

    def __call__(self, X):
        """Return log-odds of shape (n_samples, n_labels)."""
        scores = None
        if hasattr(self.estimator, "feature_names_in_"):
            X = as_table(X)
        if self.method != "predict_proba":
            decide = getattr(self.estimator, "decision_function", None)
            scores = None if decide is None else np.asarray(decide(X))
        if scores is None and self.method != "decision_function":
            proba = self._complete(self.estimator.predict_proba(X))
            scores = log_odds_of(check_label_proba(proba), PROBA_FLOOR)
        if scores is None or scores.shape[1:] != (self.n_labels,):
            raise ValueError(
                f"{type(self.estimator).__name__} gives no column of scores for each "
                f"of {self.n_labels} labels by method={self.method!r}. Pass a "
                "classifier of several labels that has decision_function or "
                "predict_proba, and name that one as the method."
            )
        return scores

    def _complete(self, proba):
        """Return what a classifier gives, with two columns for every label."""
        if not isinstance(proba, list):
            return proba
        unseen = 1 / (self.n_train + 1)
        of_known = {False: [1 - unseen, unseen], True: [unseen, 1 - unseen]}
        return [
            np.tile(of_known[bool(known[0])], (len(part), 1))
            if np.shape(part)[1:] == (1,)
            else part
            for part, known in zip(proba, self.estimator.classes_, strict=True)
        ]


def is_dispatched(X):
    """Whether scikit-learn computes with the library of `X` instead of NumPy."""
    return get_config()["array_api_dispatch"] and (is_tensor(X) or is_standard(X))


def beside(X, column):
    """Return what a classifier is given beside `X`, as its library wants it."""
    return given_back(column, X) if is_dispatched(X) else column


def labels_told(y, X):
    """Return the labels that a classifier learns from: numbers, beside arrays of such.

    Only NumPy has texts. Numbers of classes are in the order of the classes.
    """
    if not is_dispatched(X) or y.dtype.kind in NUMBERS:
        return y
    return np.unique(y, return_inverse=True)[1]


def fit_fold(estimator, X, y, rows, fit_params, method):
    """Return the scores of one fold, its out-of-fold logits and their rows."""
    train, test = (np.arange(y.shape[0])[part] for part in rows)
    fold_params = check_method_params(X, fit_params, indices=train)
    estimator.fit(safe_indexing(X, train), beside(X, y[train]), **fold_params)
    told = {"method": method, "n_train": train.shape[0]}
    if y.ndim == 2:
        of_labels = LabelScores(estimator, n_labels=y.shape[1], **told)
        return of_labels, of_labels(safe_indexing(X, test)), test
    kept = test[np.isin(y[test], column_on_host(estimator.classes_))]
    scores = ClassifierScores(estimator, classes=np.unique(y), **told)
    logits = scores(safe_indexing(X, kept)) if kept.size else scores.none()
    return scores, logits, kept


def holds_two_classes(rows, y, sample_weight):
    """Whether the rows that count are of two classes, in some label of several."""
    if sample_weight is not None:
        rows = rows[sample_weight[rows] > 0]
    return np.unique(y[rows]).size > 1
