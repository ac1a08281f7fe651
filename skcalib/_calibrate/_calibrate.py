"""calibrate: from what people have to a calibrated model, figures and a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skcalib._calibrate._calibrated import Calibrated
from skcalib._judging import HeldOut, cross_fit, uncalibrated
from skcalib._networks._given import Given, perturbs_inputs
from skcalib._networks._named import split_labels
from skcalib._progress import Progress
from skcalib._sklearn_compat import safe_indexing
from skcalib._validation import (
    check_calibration_set,
    classes_of_model,
    column_names,
    column_on_host,
    encode_labels,
    logits_from_proba,
    name_classes,
    one_column,
    refuse_dask,
)
from skcalib._warnings import quiet
from skcalib.exceptions import ProbabilitiesAsLogitsWarning
from skcalib.frozen import OnnxLogits, TorchLogits
from skcalib.frozen._base import FrozenLogits
from skcalib.frozen._classifier import read_scores
from skcalib.meta import CalibratedClassifier
from skcalib.meta._chain import of_log_proba
from skcalib.metrics import calibration_report
from skcalib.model_selection import CalibratorSearch
from skcalib.model_selection._candidates import refuse_layouts

# The part of the rows that judges a classifier which is still to be fitted.
JUDGING = 0.2
# So many rows are kept to compare a written file with Python.
_COMPARED = 100


def calibrate(
    model: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    logits: Any = None,
    proba: Any = None,
    calibrator: Any = None,
    classes: ArrayLike | None = None,
    cv: int = 5,
    n_bootstrap: int = 1000,
    random_state: int = 0,
    verbose: int = 0,
) -> Calibrated:
    """Calibrate what you have, and judge it on samples that were held out.

    Parameters
    ----------
    model : classifier, torch.nn.Module, path, bytes or onnx.ModelProto, default=None
        A scikit-learn classifier, a torch module that returns logits, or an ONNX model;
        also a `TorchLogits` or `OnnxLogits` that says more about one. What has been
        fitted stays as it is; a classifier that is not is fitted by cross-fitting, as
        `CalibratedClassifier` does.

    X : array-like, data frame, Dataset or DataLoader, default=None
        Inputs of `model`; a Dataset or DataLoader of a torch module. Unless it is
        still to be fitted, the model must not have been trained on them.

    y : array-like of shape (n_samples,), default=None
        True classes; by default those that come with a Dataset or DataLoader.

    logits, proba : array-like of shape (n_samples, n_classes) or (n_samples,), \
default=None
        Logits, or probabilities, in place of a model: pass one of the three.
        Probabilities are turned into logits by `logits_from_proba`.

    calibrator : calibrator, default=None
        What to fit; None is a `CalibratorSearch` with its defaults. A search of
        scikit-learn over a calibrator, such as `GridSearchCV`, is fitted anew in each
        fold, and what it chooses on all samples is what you get. It is judged by one
        class in each row: fit a `MultiLabelCalibration` directly, and an
        `OptionCalibration` or `DenseCalibration`, unless you pass a matrix of logits,
        as of `pad_options` and `as_rows`.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits, see `TemperatureScaling`; a scikit-learn
        classifier knows them.

    cv : int, default=5
        Number of folds: those by which the figures are made, or where a classifier is
        still to be fitted those of its cross-fitting.

    n_bootstrap : int, default=1000
        Bootstrap replicates of the intervals; 0 gives figures without.

    random_state : int, default=0
        Seed of folds and bootstrap.

    verbose : int, default=0
        Whether to report progress: each fold.

    Returns
    -------
    calibrated : Calibrated
        With `predict_proba`, `report`, a printed form and `save`.

    Raises
    ------
    ValueError, TypeError
        If not exactly one of `model`, `logits` and `proba` is given, labels are
        missing, or the calibrator cannot be fitted to them.

    See Also
    --------
    CalibratedClassifier : Has more parameters, and fits into scikit-learn's tools.
    skcalib.model_selection.compare_calibrators : A table of several methods.

    Notes
    -----
    The figures are those of samples that were not fitted on. Of a model that is fitted
    already, and of logits, every sample is judged by a calibrator fitted on the other
    folds, and what is returned is fitted on all. Where a classifier is still to be
    fitted, a fifth of the samples is held out to judge one that is fitted, and
    calibrated, on the others; what is returned is then fitted on all, so that it takes
    about twice the time. The command ``skcalib calibrate`` does the same with files,
    and writes a page with pictures.

    Examples
    --------
    >>> import skcalib
    >>> from skcalib.datasets import make_logits
    >>> logits, y = make_logits(2000, 4, random_state=0)
    >>> ts = skcalib.TemperatureScaling()
    >>> result = skcalib.calibrate(logits=logits, y=y, calibrator=ts, n_bootstrap=0)
    >>> result.predict_proba(logits[:2]).shape
    (2, 4)
    >>> result.report["after"]["nll"].value < result.report["before"]["nll"].value
    True
    >>> result.held_out.how
    '2,000 samples, cross-fitted in 5 folds'
    """
    given = {"model": model, "logits": logits, "proba": proba}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise TypeError(
            f"Pass exactly one of model, logits and proba; got {named or 'none'}."
        )
    if calibrator is None:
        calibrator = CalibratorSearch(random_state=random_state)
    _check_calibrator(calibrator)
    refuse_layouts("calibrate", [calibrator], proba if logits is None else logits)
    tell = Progress("calibrate", shown=verbose > 0).note
    job = _Job(clone(calibrator), classes, cv, random_state, tell)
    if model is not None and _is_classifier(model):
        fitted, held_out = job.of_classifier(model, X, y)
        own, network = _chosen(fitted.calibrators_[0]), None
    else:
        scores, front, network, y = _scores_of(given, X, y)
        labels = None if network is None else Given.of(front).labels
        own, held_out = job.of_scores(scores, y, labels)
        own = own if proba is None else of_log_proba(own)
        fitted = own
        if front is not None:
            fitted = Pipeline([("logits", front), ("calibrator", own)])
    report = {
        when: calibration_report(
            held_out.labels,
            rows,
            labels=held_out.classes,
            n_bootstrap=n_bootstrap,
            random_state=random_state,
        )
        for when, rows in (("before", held_out.before), ("after", held_out.after))
    }
    needs = (
        None if logits is not None else _NEEDS[named[0]].format(type(model).__name__)
    )
    sample = None if model is None else _some_rows(X)
    return Calibrated(fitted, own, held_out, report, network, needs, sample)


_NEEDS = {
    "model": "The calibrated model is a {}, which is no ONNX file.",
    "proba": "A model that takes probabilities is none that could be deployed alone.",
}


class _Job:
    """How a calibrator is fitted, and judged by what it was not fitted on."""

    def __init__(
        self, calibrator: Any, classes: Any, cv: int, seed: int, tell: Any
    ) -> None:
        self.calibrator = calibrator
        self.classes = classes
        self.cv = cv
        self.seed = seed
        self.tell = tell

    def watch(self, splits: list[Any]) -> Iterable[Any]:
        for k, split in enumerate(splits):
            self.tell(f"fold {k + 1} of {len(splits)}", passing=True)
            yield split

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
                "of each row. Fit a calibrator to them: CalibratorSearch().fit(X, y)."
            )
        data = given.in_memory()
        rows = data.logits
        X = rows if names is None else scores
        if np.ndim(scores) == 1 or np.shape(scores)[1] == 1:
            X = rows[:, 1]  # A single column stays one.
        name_classes(self.calibrator, data.classes)
        held_out = cross_fit(
            self.calibrator,
            X,
            data.codes,
            data.classes,
            uncalibrated(rows),
            rows=rows,
            n_folds=self.cv,
            seed=self.seed,
            watch=self.watch,
        )
        self.tell("fitting to all samples")
        with quiet(ProbabilitiesAsLogitsWarning):  # Of this the check above has told.
            return _chosen(self.calibrator.fit(X, data.labels)), held_out

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
        held_out = self._of_fitted if _is_fitted(model) else self._of_unfitted
        return held_out(model, X, y)

    def _of_fitted(self, model: Any, X: Any, y: Any) -> tuple[Any, HeldOut]:
        is_frozen = isinstance(model, FrozenEstimator)
        frozen = model if is_frozen else FrozenEstimator(model)
        whole = CalibratedClassifier(frozen, self.calibrator)
        before, classes = _proba_of(model, X), np.asarray(model.classes_)
        _, codes = encode_labels("calibrate", y, len(classes), classes)
        numbers = isinstance(X, np.ndarray) and X.dtype.kind in "fiub"
        held_out = cross_fit(
            whole,
            X,
            codes,
            classes,
            before,
            rows=X if numbers else np.arange(len(y)),
            n_folds=self.cv,
            seed=self.seed,
            watch=self.watch,
        )
        return whole.fit(X, y), held_out

    def _of_unfitted(self, model: Any, X: Any, y: Any) -> tuple[Any, HeldOut]:
        has_two = np.unique(y, return_counts=True)[1].min() > 1
        train, test = train_test_split(
            np.arange(len(y)),
            test_size=JUDGING,
            stratify=y if has_two else None,
            random_state=self.seed,
        )
        whole = CalibratedClassifier(model, self.calibrator, cv=self.cv)
        self.tell(f"fitting to {len(train):,} samples, to judge by the others")
        trial = clone(whole).fit(safe_indexing(X, train), y[train])
        test = test[np.isin(y[test], trial.classes_)]
        judged_on = safe_indexing(X, test)
        held_out = HeldOut(
            np.searchsorted(trial.classes_, y[test]),
            trial.classes_,
            _proba_of(trial.estimators_[0], judged_on),
            trial.predict_proba(judged_on),
            f"{len(test):,} samples that a first fit to the other {len(train):,} held "
            "out",
        )
        self.tell("fitting to all samples")
        return whole.fit(X, y), held_out


def _check_calibrator(calibrator: Any) -> None:
    """Refuse what is fitted to inputs, and a search that would choose nothing."""
    name = type(calibrator).__name__
    if perturbs_inputs(getattr(calibrator, "estimator", calibrator)):
        raise TypeError(
            f"{name} is fitted on a network's inputs and holds it: call its own "
            "fit(X, y)."
        )
    if not _is_search(calibrator):
        return
    if calibrator.scoring is None:
        raise ValueError(
            f"{name} without scoring compares accuracy, which calibration seldom "
            'changes. Pass scoring="neg_log_loss", or "accuracy" if you mean it.'
        )
    if not calibrator.refit:
        raise ValueError(
            f"{name} with refit={calibrator.refit!r} keeps no calibrator. Leave refit "
            "at True, or name the score to choose by."
        )


def _chosen(calibrator: Any) -> Any:
    """Return the calibrator that a search of scikit-learn has chosen."""
    return calibrator.best_estimator_ if _is_search(calibrator) else calibrator


def _is_search(calibrator: Any) -> bool:
    """Whether it is a `GridSearchCV` or its like, of scikit-learn or elsewhere."""
    return {"estimator", "scoring", "refit"} <= vars(calibrator).keys()


def _is_classifier(model: Any) -> bool:
    methods = ("predict_proba", "decision_function")
    return hasattr(model, "fit") and any(hasattr(model, name) for name in methods)


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


def _some_rows(X: Any) -> Any:
    """Return a few rows from all of an array or data frame, None of anything else."""
    X = np.asarray(X) if isinstance(X, list) else X
    is_frame = hasattr(X, "columns") and not hasattr(X, "__dask_graph__")
    if not (is_frame or isinstance(X, np.ndarray)):
        return None
    n_rows = X.shape[0]
    rows = np.linspace(0, n_rows - 1, min(n_rows, _COMPARED), dtype=np.intp)
    return safe_indexing(X, rows)


def _scores_of(given: dict[str, Any], X: Any, y: Any) -> tuple[Any, Any, Any, Any]:
    """Return logits, what makes them of X, the network if it is ONNX, and labels."""
    if given["model"] is None and X is not None:
        raise TypeError(
            "X holds the inputs of a model, and there is none beside logits or "
            "probabilities. Leave it out."
        )
    if given["logits"] is not None:
        return given["logits"], None, None, y
    if given["proba"] is not None:
        front = FunctionTransformer(logits_from_proba)
        front.set_output(transform="default")
        return logits_from_proba(given["proba"]), front, None, y
    model = given["model"]
    is_array = isinstance(model, (list, tuple)) or hasattr(model, "__array__")
    # Without torch, all that is no file would be taken for a module.
    network = None if is_array else Given.of(model)
    if network is None or network.kind == "callable":
        raise TypeError(
            f"model is a {type(model).__name__}. It is a scikit-learn classifier, a "
            "torch module or an ONNX model; of an array say what it holds, logits=... "
            "or proba=..."
        )
    if X is None:
        raise TypeError("Pass X, the inputs of the model, and y, the true classes.")
    front = model
    if not isinstance(front, FrozenLogits):
        front = OnnxLogits(front) if network.kind == "onnx" else TorchLogits(front)
        front.set_output(transform="default")
    if y is None:
        y = _labels_of(X)
    onnx = network.model if network.kind == "onnx" else None
    return front.fit(X).transform(X), front, onnx, y


def _labels_of(X: Any) -> Any:
    """Return the labels that come with the inputs, None where there are none."""
    if isinstance(X, Mapping):
        return split_labels(X)[1]
    if not hasattr(X, "__getitem__") and not hasattr(X, "dataset"):
        return None
    if hasattr(X, "dtype") or "torch" not in sys.modules:
        return None
    from skcalib._networks._inputs import open_rows

    rows, labels = open_rows(X, batch_size=256)
    return rows.labels if labels is None else labels
