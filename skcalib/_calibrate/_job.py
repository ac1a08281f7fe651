"""How what is calibrated is fitted, and judged by rows that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from sklearn.utils.validation import check_is_fitted

from skcalib._judging import (
    HeldOut,
    cross_fit,
    in_samples,
    uncalibrated,
    units,
    wants_groups,
)
from skcalib._networks._given import perturbs_inputs
from skcalib._sklearn_compat import safe_indexing
from skcalib._validation import (
    check_calibration_set,
    check_groups,
    check_search,
    chosen,
    classes_of_model,
    column_names,
    column_on_host,
    encode_labels,
    is_column,
    make_splits,
    name_classes,
    number_groups,
    one_column,
    refuse_dask,
)
from skcalib._warnings import quiet
from skcalib.exceptions import ProbabilitiesAsLogitsWarning
from skcalib.frozen._classifier import read_scores
from skcalib.meta import CalibratedClassifier

# The part of the rows that judges a classifier which is still to be fitted.
JUDGING = 0.2
Rows = NDArray[np.intp]


class Job:
    """How a calibrator is fitted, and judged by what it was not fitted on."""

    def __init__(
        self,
        calibrator: Any,
        classes: Any,
        groups: Any,
        cv: int,
        seed: int,
        tell: Any,
    ) -> None:
        self.calibrator = calibrator
        self.classes = classes
        self.groups = groups
        self.told = groups is not None and wants_groups(calibrator)
        self.cv = cv
        self.seed = seed
        self.tell = tell

    def watch(self, splits: list[Any]) -> Iterable[Any]:
        for k, split in enumerate(splits):
            self.tell(f"fold {k + 1} of {len(splits)}", passing=True)
            yield split

    def check_groups(self, n_rows: int) -> dict[str, Any]:
        """Check that each row has its group; return those that fit is told of."""
        if self.groups is not None:
            self.groups = check_groups(self.groups, n_rows)
        return {"groups": self.groups} if self.told else {}

    def of_scores(self, scores: Any, y: Any, labels: Any) -> tuple[Any, HeldOut]:
        """Return a calibrator of logits, and what others of its kind say held out.

        `labels` are those by which a model names the columns, if it does.
        """
        refuse_dask("calibrate", scores)
        names, classes = column_names(scores), self.classes
        if classes is None:
            classes = classes_of_model(y, labels)
        given = check_calibration_set(
            "calibrate", scores, y, None, classes, names=names
        )
        if given.row is not None:
            raise ValueError(
                "y holds shares of the classes, and calibrate judges by the true class "
                "of each row. Fit a calibrator to them: CalibratorSearch().fit(X, y), "
                "where X are logits, or logits_from_proba(proba)."
            )
        data = given.in_memory()
        if self.groups is None and data.groups is not None:  # Of pixels, their image.
            self.groups, self.told = data.groups, wants_groups(self.calibrator)
        rows, known = data.logits, self.check_groups(len(data.codes))
        X = rows if names is None else scores
        if is_column(scores):
            X = rows[:, 1]  # A single column stays one.
        name_classes(self.calibrator, data.classes)
        before = uncalibrated(rows)
        held_out = self._judged(
            self.calibrator, X, data.codes, data.classes, before, rows=rows
        )
        self.tell("fitting to all samples")
        with quiet(ProbabilitiesAsLogitsWarning):  # Of this the check above has told.
            return chosen(self.calibrator.fit(X, data.labels, **known)), held_out

    def _judged(self, estimator: Any, *given: Any, rows: Any) -> HeldOut:
        """Judge every sample by an estimator of the other folds."""
        return cross_fit(
            estimator,
            *given,
            rows=rows,
            n_folds=self.cv,
            seed=self.seed,
            groups=self.groups,
            told=self.told,
            watch=self.watch,
        )

    def of_classifier(self, model: Any, X: Any, y: Any) -> tuple[Any, HeldOut]:
        """Return a calibrated classifier, and what others of its kind say held out."""
        if X is None or y is None:
            raise TypeError("Pass X and y, the features and the class of each row.")
        if self.classes is not None:
            raise TypeError(
                "classes names the columns of logits, and a classifier knows its own. "
                "Leave it out."
            )
        y = one_column(y)
        if len(y) > 0 and (y == y[0]).all():
            raise ValueError(
                f"y holds one class only: {y.tolist()[0]!r}. calibrate needs samples "
                "of at least two classes."
            )
        known = self.check_groups(len(y))
        if _is_fitted(model):
            return self._of_fitted(model, X, y, known)
        return self._of_unfitted(model, X, y)

    def _of_fitted(self, model: Any, X: Any, y: Any, known: Any) -> tuple[Any, HeldOut]:
        is_frozen = isinstance(model, FrozenEstimator)
        frozen = model if is_frozen else FrozenEstimator(model)
        whole = CalibratedClassifier(frozen, self.calibrator)
        before, classes = _proba_of(model, X), np.asarray(model.classes_)
        _, codes = encode_labels("calibrate", y, len(classes), classes)
        numbers = isinstance(X, np.ndarray) and X.dtype.kind in "fiub"
        rows = X if numbers else np.arange(len(y))
        held_out = self._judged(whole, X, codes, classes, before, rows=rows)
        return whole.fit(X, y, **known), held_out

    def _of_unfitted(self, model: Any, X: Any, y: Any) -> tuple[Any, HeldOut]:
        train, test = self._parted(y)
        self.tell(f"fitting to {len(train):,} samples, to judge by the others")
        groups = None if self.groups is None else self.groups[train]
        trial = self._cross_fitted(model, safe_indexing(X, train), y[train], groups)
        test = test[np.isin(y[test], trial.classes_)]
        judged_on = safe_indexing(X, test)
        unit = None if self.groups is None else units(self.groups[test])
        held_out = HeldOut(
            np.searchsorted(trial.classes_, y[test]),
            trial.classes_,
            _proba_of(trial.estimators_[0], judged_on),
            trial.predict_proba(judged_on),
            f"{in_samples(len(test), unit)} that a first fit to the other "
            f"{len(train):,} held out",
            unit=unit,
        )
        self.tell("fitting to all samples")
        return self._cross_fitted(model, X, y, self.groups), held_out

    def _parted(self, y: Any) -> Sequence[Rows]:
        """Return the rows to fit a classifier to, and those to judge it by."""
        rows = np.arange(len(y))
        if self.groups is None:
            has_two = np.unique(y, return_counts=True)[1].min() > 1
            stratify = y if has_two else None
            options = {"test_size": JUDGING, "random_state": self.seed}
            halves: list[Rows] = train_test_split(rows, stratify=stratify, **options)
            return halves
        if number_groups(self.groups, several=True).max() < 2:
            raise ValueError(
                f"groups holds two groups only, {np.unique(self.groups).tolist()}. A "
                "classifier that is still to be fitted needs at least three: two to "
                "cross-fit, and one to judge by."
            )
        _, codes = np.unique(y, return_inverse=True)
        n_parts, weight = round(1 / JUDGING), np.ones(len(y))
        parts = make_splits(n_parts, rows, codes, weight, self.seed, self.groups)
        return min(parts, key=lambda part: abs(len(part[1]) - JUDGING * len(y)))

    def _cross_fitted(self, model: Any, X: Any, y: Any, groups: Any) -> Any:
        """Return a fitted classifier with its calibrator."""
        if groups is None:
            return CalibratedClassifier(model, self.calibrator, cv=self.cv).fit(X, y)
        folds = StratifiedGroupKFold(min(self.cv, np.unique(groups).size))
        whole = CalibratedClassifier(model, self.calibrator, cv=folds)
        return whole.fit(X, y, groups=groups)


def check_calibrator(calibrator: Any) -> None:
    """Refuse what is none, or fitted to inputs, and a search that chooses nothing."""
    if not hasattr(calibrator, "fit") or isinstance(calibrator, type):
        raise TypeError(
            f"calibrator is {calibrator!r}. Pass a calibrator, such as "
            "TemperatureScaling(), or None for a search among several."
        )
    name = type(calibrator).__name__
    if perturbs_inputs(getattr(calibrator, "estimator", calibrator)):
        raise TypeError(
            f"{name} is fitted on a network's inputs and holds it: call its own "
            "fit(X, y)."
        )
    check_search(calibrator)


def _is_fitted(model: Any) -> bool:
    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True


def _proba_of(classifier: Any, X: Any) -> NDArray[Any]:
    """Return what a classifier says of itself, or the softmax of its scores."""
    if hasattr(classifier, "predict_proba"):
        return np.asarray(column_on_host(classifier.predict_proba(X)))
    # Not as a data frame, whatever scikit-learn's transform_output says.
    rows: NDArray[Any] = uncalibrated(read_scores(classifier, "auto", X)[0])
    return rows
