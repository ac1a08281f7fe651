"""Logits of a fitted scikit-learn classifier."""

from typing import Any, Literal

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from skcalib._sklearn_compat import HasMethods, StrOptions, as_table
from skcalib._validation import (
    column_on_host,
    given_back,
    is_standard,
    is_tensor,
    log_proba_rows,
    logits_from_proba,
    readable_proba,
)
from skcalib.frozen._base import FrozenLogits


class ClassifierLogits(FrozenLogits):
    """Return the scores of a fitted classifier as logits.

    Parameters
    ----------
    estimator : classifier
        A fitted scikit-learn classifier. It is shared by clones and never fitted here.

    method : {"auto", "decision_function", "predict_proba"}, default="auto"
        Where the logits come from: the decision function as it is, or the logarithm of
        the probabilities. "auto" takes the decision function if there is one with a
        column a class, or a single one for two classes; else `predict_log_proba`, which
        tells apart what `predict_proba` rounds to 0; else the probabilities.

    See Also
    --------
    skcalib.CalibratedClassifier : Fits classifier and calibrator together, on
        different samples.

    Notes
    -----
    Probabilities below 1e-12 are raised to that before the logarithm, see
    `skcalib.logits_from_proba`. Logarithms of `predict_log_proba` are cut there only if
    some of them are those of 0, else at the least number of single precision, 1.2e-38.

    Where there is no decision function, `skcalib.CalibratedClassifier` puts a
    `skcalib.ProbabilityFloor` in front of its calibrator. A pipeline does the same with
    ``make_pipeline(ClassifierLogits(clf), ProbabilityFloor(TemperatureScaling()))``.

    A calibrator behind it knows the classes of the columns from `y`. If that lacks one,
    pass ``classes=clf.classes_`` to the calibrator; `fit` warns where others would be
    taken for them.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skcalib.frozen import ClassifierLogits
    >>> classifier = LogisticRegression().fit([[-1.0], [1.0]], ["no", "yes"])
    >>> ClassifierLogits(classifier).transform([[0.0]]).round(3) + 0.0
    array([[0.]])
    """

    _network = "estimator"
    _parameter_constraints: dict = {
        "estimator": [HasMethods("decision_function"), HasMethods("predict_proba")],
        "method": [StrOptions({"auto", "decision_function", "predict_proba"})],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        method: Literal["auto", "decision_function", "predict_proba"] = "auto",
    ) -> None:
        self.estimator = estimator
        self.method = method

    def __sklearn_tags__(self):
        """Tags: the inputs are those of the classifier."""
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def _note_features(self, X):
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.estimator, name):
                setattr(self, name, getattr(self.estimator, name))

    def _check_names(self, X):
        """Leave it to the classifier."""

    def _classes(self):
        return column_on_host(self.estimator.classes_).tolist()

    def _check(self, X):
        return self._compute(X)

    def _compute(self, X):
        return read_scores(self.estimator, self.method, X)[0]


def read_scores(estimator, method, X):
    """Return the logits of a fitted classifier, and whether they are log-probabilities.

    The logits have a column a class, or one for two classes.
    """
    if not is_classifier(estimator):
        raise TypeError(
            f"ClassifierLogits needs a classifier; got {type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    if hasattr(estimator, "feature_names_in_"):
        X = as_table(X)
    if method in ("auto", "decision_function") and hasattr(
        estimator, "decision_function"
    ):
        scores = estimator.decision_function(X)
        if not is_tensor(scores) and not is_standard(scores):
            scores = np.asarray(scores)
        columns = scores[:, np.newaxis] if scores.ndim == 1 else scores
        n_classes, pairwise = estimator.classes_.shape[0], _is_pairwise(estimator)
        n_columns = 1 if n_classes == 2 else n_classes
        if columns.shape[1] == n_columns and not (pairwise and n_classes == 3):
            return columns, False
        if method == "decision_function" or not hasattr(estimator, "predict_proba"):
            raise ValueError(
                f"The decision function has {columns.shape[1]} columns for "
                f"{'the pairs of ' if pairwise else ''}{n_classes} classes. Use "
                "method='predict_proba' or decision_function_shape='ovr' where the "
                "classifier has it."
            )
    if not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"{type(estimator).__name__} has no predict_proba to take logits from; "
            "use method='decision_function' or another classifier."
        )
    if method == "auto" and hasattr(estimator, "predict_log_proba"):
        # Most take the logarithm of probabilities, which may be 0.
        with np.errstate(divide="ignore"):
            rows = estimator.predict_log_proba(X)
        return given_back(log_proba_rows(column_on_host(rows)), rows), True
    rows = estimator.predict_proba(X)
    logits = logits_from_proba(np.asarray(column_on_host(readable_proba(rows))))
    return given_back(logits, rows), True


def _is_pairwise(estimator):
    """Whether the scores have a column a pair of classes: of three, three columns."""
    if hasattr(estimator, "best_estimator_"):
        return _is_pairwise(estimator.best_estimator_)
    if hasattr(estimator, "steps"):
        return _is_pairwise(estimator.steps[-1][1])
    return getattr(estimator, "decision_function_shape", None) == "ovo"
