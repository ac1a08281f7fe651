"""Scorers: calibration metrics as scikit-learn's model selection calls them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer as get_sklearn_scorer
from sklearn.metrics import get_scorer_names as get_sklearn_scorer_names

from skcalib._sklearn_compat import Scorer, what_is_scored
from skcalib._validation import as_rows, label_names, pad_options, spread_weight
from skcalib.metrics._multi_label import per_label
from skcalib.metrics._registry import METRICS, Metric


class CalibrationScorer(Scorer):
    """Call ``scorer(estimator, X, y)`` for a metric of its probabilities, or minus it.

    The metric is told the class of each column, ``labels=estimator.classes_``, so a
    fold that lacks a class still scores. With `multilabel` it is the mean over labels.
    """

    def __init__(
        self,
        metric: Callable[..., float] | str,
        sign: int = -1,
        multilabel: bool = False,
    ) -> None:
        super().__init__(metric, sign, {}, "predict_proba")
        self._multilabel = multilabel

    def _score(
        self, method_caller: Any, estimator: Any, X: Any, y_true: Any, **kwargs: Any
    ) -> float:
        # The tuple gives these scorers an entry of their own in the cache that several
        # metrics share. Of a binary problem it holds the second class, while the entry
        # of the plain name may hold the `pos_label` of another metric.
        y_proba = method_caller(estimator, ("predict_proba",), X)
        if self._multilabel:
            names = getattr(estimator, "classes_", None)
            if isinstance(names, np.ndarray):  # Else those of each label.
                label_names(y_true, None, names, len(names), "classes_")
            values = per_label(self.metric, y_true, y_proba, **kwargs)
            return float(self.sign * values.mean())
        y_true, y_proba, kwargs = in_rows(estimator, y_true, y_proba, kwargs)
        if y_proba.ndim == 1:
            y_proba = np.column_stack([1 - y_proba, y_proba])
        kwargs = {"labels": estimator.classes_, **kwargs}
        return float(self.sign * self.metric(y_true, y_proba, **kwargs))

    def __repr__(self) -> str:
        name = getattr(self.metric, "__name__", self.metric)
        sign = "" if self.sign < 0 else ", sign=1"
        multilabel = ", multilabel=True" if self._multilabel else ""
        return f"CalibrationScorer({name}{sign}{multilabel})"


def in_rows(
    estimator: Any, y_true: Any, y_proba: Any, options: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return what an estimator predicts as rows, with the labels and weights of each.

    Pixels and tokens are told apart from rows by the last step, or what a search chose.
    """
    inner = estimator
    while hasattr(inner, "best_estimator_") or hasattr(inner, "steps"):
        of_search = getattr(inner, "best_estimator_", None)
        inner = inner.steps[-1][1] if of_search is None else of_search
    if hasattr(inner, "class_axis") and np.ndim(y_true) > 1:
        weight = options.get("sample_weight")
        if weight is not None:
            weight = spread_weight(weight, y_true, inner.ignore_index)
            options = {**options, "sample_weight": weight}
        layout = {n: getattr(inner, n) for n in ("class_axis", "ignore_index")}
        y_proba, y_true = as_rows(y_proba, y_true, **layout)
    if isinstance(y_proba, list) and all(np.ndim(row) == 1 for row in y_proba):
        n_options = len(estimator.classes_)
        y_proba = pad_options(y_proba, absent=0, n_options=n_options)
    elif isinstance(y_proba, np.ma.MaskedArray):
        y_proba = pad_options(y_proba, absent=0)
    return y_true, y_proba, options


# The metric of each name, and the sign: "neg_" turns one that is better when lower.
SCORED = {
    f"{prefix}{metric.function.__name__}": (metric, sign)
    for metric in METRICS.values()
    for prefix, sign, unless in (("neg_", -1, "higher"), ("", 1, "lower"))
    if metric.function is not None and metric.better != unless
}


def measured(name: str) -> Metric | None:
    """Return the metric of a column, which may hold scores; None of the seconds."""
    return SCORED[name][0] if name in SCORED else METRICS.get(name)


def sign_of(name: str) -> int:
    """Return 1 where lower is better, -1 where higher is, 0 where neither."""
    metric = measured(name)
    if metric is None or metric.better == "neither":
        return 0
    return 1 if metric.better == "lower" and name not in SCORED else -1


_SCORERS = {
    name: CalibrationScorer(metric.function, sign)
    for name, (metric, sign) in SCORED.items()
    if metric.function is not None
}
ece_scorer = _SCORERS["neg_expected_calibration_error"]
aece_scorer = _SCORERS["neg_adaptive_expected_calibration_error"]
sce_scorer = _SCORERS["neg_static_calibration_error"]
entropy_scorer = _SCORERS["predictive_entropy"]


# Scores of scikit-learn that know no labels of which some are not known.
_OF_LABELS = {"neg_brier_score": "brier", "neg_log_loss": "nll"}


def get_scorer(scoring: Any, *, multilabel: bool = False) -> Any:
    """Return the scorer of a name: skcalib's own or any of scikit-learn's.

    Parameters
    ----------
    scoring : str, callable or None
        A name that `get_scorer_names` lists. A callable, or None, is returned as is.

    multilabel : bool, default=False
        Whether the labels of a row may occur together, so that `y` has a column a
        label: the score is then the mean over the labels, see `per_label`. Known are
        skcalib's own names, "neg_log_loss" and "neg_brier_score".

    Returns
    -------
    scorer : callable
        Called as ``scorer(estimator, X, y)``; higher is better. A name gives a new
        copy each time.

    Raises
    ------
    ValueError
        If no scorer has this name.

    See Also
    --------
    get_scorer_names : All names.

    Notes
    -----
    Calibration errors are better when lower, so scorers return minus the metric and
    their names start with ``neg_``.

    The entropy is no error, and there is a name for each direction.
    "predictive_entropy", which is `entropy_scorer`, is higher for the less sure
    classifier; it is in this direction that papers on over-confident networks report
    it. "neg_predictive_entropy" is higher for the surer one, which says more if both
    are equally well calibrated. Neither is a reason to choose a classifier: alone, one
    prefers the class frequencies and the other over-confidence.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from skcalib import TemperatureScaling
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.metrics import get_scorer
    >>> logits, y = make_logits(random_state=0)
    >>> scorer = get_scorer("neg_expected_calibration_error")
    >>> cross_val_score(TemperatureScaling(), logits, y, scoring=scorer).shape
    (5,)
    """
    if multilabel:
        return _multilabel_scorer(scoring)
    if isinstance(scoring, str) and scoring in _SCORERS:
        return copy.deepcopy(_SCORERS[scoring])
    if isinstance(scoring, str) and scoring not in get_sklearn_scorer_names():
        raise ValueError(
            f"{scoring!r} is not the name of a scorer. "
            "skcalib.metrics.get_scorer_names() lists all names."
        )
    return get_sklearn_scorer(scoring)


def is_log_loss(scoring: Any) -> bool:
    """Whether a score is minus the log-loss: by its name, or scikit-learn's scorer."""
    known = what_is_scored(get_sklearn_scorer("neg_log_loss"))
    return what_is_scored(get_scorer(scoring)) == known


def _multilabel_scorer(scoring: Any) -> CalibrationScorer:
    if isinstance(scoring, str) and scoring in _OF_LABELS:
        return CalibrationScorer(_OF_LABELS[scoring], multilabel=True)
    if not isinstance(scoring, str) or scoring not in _SCORERS:
        raise ValueError(
            f"{scoring!r} is no scorer of several labels. With multilabel=True there "
            f"are {[*_OF_LABELS]} and skcalib's own names."
        )
    plain = _SCORERS[scoring]
    return CalibrationScorer(plain.metric, plain.sign, multilabel=True)


def get_scorer_names() -> list[str]:
    """List the names that `get_scorer` takes.

    Returns
    -------
    names : list of str
        skcalib's own names and scikit-learn's, sorted.

    Examples
    --------
    >>> from skcalib.metrics import get_scorer_names
    >>> "neg_expected_calibration_error" in get_scorer_names()
    True
    """
    return sorted({*_SCORERS, *get_sklearn_scorer_names()})
