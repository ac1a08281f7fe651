"""calibrate: from what people have to a calibrated model, figures and a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skcalib._calibrate._calibrated import Calibrated
from skcalib._calibrate._job import Job, check_calibrator
from skcalib._judging import describe
from skcalib._networks._given import Given
from skcalib._networks._named import split_labels
from skcalib._progress import Progress
from skcalib._sklearn_compat import safe_indexing
from skcalib._validation import chosen, is_search, logits_from_proba
from skcalib.frozen import OnnxLogits, TorchLogits
from skcalib.frozen._base import FrozenLogits
from skcalib.meta._chain import of_log_proba
from skcalib.metrics._report import report_by_units
from skcalib.model_selection import CalibratorSearch
from skcalib.model_selection._candidates import refuse_layouts

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
    groups: ArrayLike | None = None,
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

    groups : array-like of shape (n_samples,), default=None
        Rows that belong together, such as copies or augmentations of one image, frames
        of one video or visits of one patient. Those of a group stay on one side of each
        fold, also of those that the calibrator draws (a search of scikit-learn needs a
        splitter that takes groups), and the bootstrap draws them together. Without,
        what was learned of a row judges its like, and the figures are too good.

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
        missing, or the calibrator cannot be fitted to them; if a group is missing, or
        there are too few.

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
    about twice the time. With groups there are no more folds than groups, and
    intervals of few of them, below 20 or so, are too narrow. The command ``skcalib
    calibrate`` does the same with files, and writes a page with pictures.

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

    Ten copies of each of 200 samples, with a little noise:

    >>> import numpy as np
    >>> sample = np.arange(2000) % 200
    >>> noise = np.random.default_rng(0).normal(size=logits.shape)
    >>> logits, y = logits[sample] + 0.01 * noise, y[sample]
    >>> options = {"calibrator": skcalib.IsotonicCalibration(), "n_bootstrap": 0}
    >>> for groups in (None, sample):
    ...     result = skcalib.calibrate(logits=logits, y=y, groups=groups, **options)
    ...     print(round(result.report["after"]["nll"].value, 2))
    0.14
    0.88
    """
    given = {"model": model, "logits": logits, "proba": proba}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise TypeError(
            f"Pass exactly one of model, logits and proba; got {named or 'none'}."
        )
    if calibrator is None:
        calibrator = CalibratorSearch(random_state=random_state)
    check_calibrator(calibrator)
    refuse_layouts("calibrate", [calibrator], proba if logits is None else logits)
    tell = Progress("calibrate", shown=verbose > 0).note
    job = Job(clone(calibrator), classes, groups, cv, random_state, tell)
    if model is not None and _is_classifier(model):
        fitted, held_out = job.of_classifier(model, X, y)
        own, network = chosen(fitted.calibrators_[0]), None
        name = describe(own if is_search(calibrator) else calibrator)
    else:
        scores, front, network, y = _scores_of(given, X, y)
        labels = None if network is None else Given.of(front).labels
        own, held_out = job.of_scores(scores, y, labels)
        name = describe(own if is_search(calibrator) else calibrator)
        fitted = own = own if proba is None else of_log_proba(own)
        if front is not None:
            fitted = Pipeline([("logits", front), ("calibrator", own)])
    report = {
        when: report_by_units(
            held_out.labels,
            rows,
            held_out.unit,
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
    return Calibrated(fitted, own, name, held_out, report, network, needs, sample)


_NEEDS = {
    "model": "The calibrated model is a {}, which is no ONNX file.",
    "proba": "A model that takes probabilities is none that could be deployed alone.",
}


def _is_classifier(model: Any) -> bool:
    methods = ("predict_proba", "decision_function")
    return hasattr(model, "fit") and any(hasattr(model, name) for name in methods)


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
