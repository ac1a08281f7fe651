"""compare_calibrators: all metrics of several calibrators on held-out data."""

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.parallel import delayed

from skcalib._base import BaseCalibrator, fit_checked
from skcalib._judging import wants_groups
from skcalib._maps import CalibrationMap, Softmax
from skcalib._progress import Progress
from skcalib._validation import (
    check_calibration_set,
    check_whole,
    grouped,
    lone_class,
    refuse_dask,
    splits_of,
)
from skcalib.metrics._registry import COLUMNS, OF_ROWS, PER_ROW, RANKED, evaluate
from skcalib.metrics._resampling import RowStatistics, bootstrap_weights
from skcalib.metrics._scorers import SCORED
from skcalib.model_selection._candidates import (
    common_calibrators,
    named_candidates,
    refuse_layouts,
    run_told,
)
from skcalib.model_selection._comparison import CalibratorComparison


class Uncalibrated(BaseCalibrator):
    """The softmax of the logits, as the classifier itself would say."""

    _parameter_constraints: dict = {"classes": ["array-like", None]}

    keeps_class = True

    def __init__(self, *, classes: Any = None) -> None:
        self.classes = classes

    def fit_calibration(self, data: Any) -> None:
        """Learn nothing."""

    def calibration_map(self) -> Any:
        """Return the softmax alone."""
        return CalibrationMap(Softmax())


def compare_calibrators(
    calibrators: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    cv: Any = 5,
    groups: Any = None,
    n_bins: int = 15,
    n_bootstrap: int = 100,
    scoring: Sequence[str] = (),
    classes: Any = None,
    random_state: Any = 0,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> CalibratorComparison:
    """Compare calibrators, and no calibration, on data they were not fitted on.

    Parameters
    ----------
    calibrators : list of calibrators or dict from name to calibrator
        What to compare; a list may hold pairs of name and calibrator. None takes
        temperature, ensemble temperature, order-preserving, Platt, beta, structured
        vector, vector, structured matrix scaling and strict isotonic regression. All
        are judged by one class in each row: fit a `MultiLabelCalibration` directly, and
        an `OptionCalibration` or `DenseCalibration`, unless you pass a matrix of
        logits, as of `pad_options` and `as_rows`.

    X : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Logits of held-out samples.

    y : array-like of shape (n_samples,) or (n_samples, n_classes)
        True classes, or shares of all classes in each row.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows of `X`, used in the fits and in the metrics.

    X_test, y_test : array-like, default=None
        Test data in the layout of `X` and `y`. Given, every calibrator is fitted once
        on all of `X` and judged on them; `cv` is not used.

    cv : int, cross-validation generator or iterable, default=5
        How to split `X` without test data: anything that scikit-learn takes. An
        integer gives stratified folds of shuffled rows, None 5, in which equal rows of
        a class stay together; ``StratifiedShuffleSplit(5, test_size=0.5)`` gives five
        random halves.

    groups : array-like of shape (n_samples,), default=None
        Rows of `X` that belong together, such as frames of one video: a group stays on
        one side of each split, also of those that a calibrator draws. A splitter given
        as `cv` decides for itself.

    n_bins : int, default=15
        Number of bins of ECE, AECE and SCE.

    n_bootstrap : int, default=100
        Number of bootstrap samples of the test rows that give the standard deviation
        with `X_test`; at least 2.

    scoring : list of str, default=()
        Names of scorers of skcalib, see `~skcalib.metrics.get_scorer`, whose scores are
        columns more: "neg_ks_calibration_error".

    classes : array-like of shape (n_classes,), default=None
        Label of each column, see the parameter of the calibrators.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling and of the bootstrap.

    n_jobs : int, default=None
        Number of fits at the same time; None is 1, -1 all processors.

    verbose : int, default=0
        Whether to report progress: each calibrator that is done.

    Returns
    -------
    comparison : CalibratorComparison
        One row a method, "uncalibrated" first; accuracy, entropy (nats), ECE, AECE,
        SCE, NLL (nats), Brier score (summed over the classes, halved for two) and the
        seconds of a fit, with
        standard deviations over the folds or bootstrap samples. Print it, or take
        `to_frame()`, `to_dict()`, `sorted()`, or, with the best marked,
        `to_markdown()` or `to_latex()`.

    Raises
    ------
    ValueError, TypeError
        If only one of `X_test` and `y_test` is given, the data are not logits and
        labels as the calibrators need them, or `scoring` names what is no column.

    See Also
    --------
    CalibratorSearch : Choose one of them.

    Notes
    -----
    Binned errors are biased upwards on few samples: compare methods within one table,
    not tables of test sets that differ in size. The mean ECE of the folds is larger for
    the same reason than the ECE of their predictions put together, as
    `skcalib.metrics.calibration_report` has it of a whole test set.

    Examples
    --------
    >>> from skcalib import TemperatureScaling, VectorScaling
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.model_selection import compare_calibrators
    >>> logits, y = make_logits(random_state=0)
    >>> table = compare_calibrators([TemperatureScaling(), VectorScaling()], logits, y)
    >>> table.names
    ['uncalibrated', 'TemperatureScaling', 'VectorScaling']
    >>> nll = table.to_frame()["nll", "mean"]
    >>> bool(nll["TemperatureScaling"] < nll["uncalibrated"])
    True
    """
    if (X_test is None) != (y_test is None):
        missing = "X_test" if X_test is None else "y_test"
        raise ValueError(f"{missing} is missing: give both X_test and y_test, or none.")
    check_whole("n_bins", n_bins)
    measured = {name: (name, 1) for name in COLUMNS}
    measured |= _scored(scoring)
    for rows in (X, X_test):
        refuse_dask("compare_calibrators", rows)
    uncalibrated = Uncalibrated(classes=classes)
    candidates = {"uncalibrated": uncalibrated, **_further(calibrators)}
    refuse_layouts("compare_calibrators", candidates.values(), X)
    data = check_calibration_set(uncalibrated, X, y, sample_weight, classes).in_memory()
    if groups is not None:
        for calibrator in candidates.values():
            wants_groups(calibrator)  # Refuses some.
        data = grouped(data, groups)
    if X_test is None:
        tasks = _fold_tasks(data, cv, random_state)
    else:
        test = check_calibration_set(
            uncalibrated, X_test, y_test, None, data.classes, reset=False
        )
        tasks = [_test_task(data, test.in_memory(), n_bootstrap, random_state)]
    calls = (
        delayed(_fit_and_measure)(
            clone(calibrator), *task, n_bins, [*measured.values()]
        )
        for calibrator in candidates.values()
        for task in tasks
    )
    tell = Progress("compare_calibrators", shown=verbose > 0).note
    outcomes = run_told(calls, list(candidates), len(tasks), n_jobs, tell)
    columns = [*measured, "fit seconds"]
    values = np.array(outcomes).reshape(len(candidates), -1, len(columns))
    if X_test is not None:
        # The first are the values themselves, without resampling.
        return CalibratorComparison(candidates, columns, values[:, 0], values[:, 1:])
    ratio = np.mean([test.n_samples / train.n_samples for train, test, *_ in tasks])
    return CalibratorComparison(
        candidates, columns, values.mean(axis=1), values, float(ratio)
    )


def _further(calibrators):
    """Return what is compared with doing nothing, by name."""
    if calibrators is None:
        calibrators = common_calibrators()
    named = named_candidates(calibrators)
    if "uncalibrated" in named:
        raise ValueError(
            'calibrators names one "uncalibrated", which is what all are compared '
            "with. Give it another name."
        )
    return named


def _scored(scoring):
    """Return the metric of each scorer, and its sign."""
    if isinstance(scoring, str):
        raise TypeError(f"scoring={scoring!r} is a string; pass a list of names.")
    known = {
        name: (metric.name, sign)
        for name, (metric, sign) in SCORED.items()
        if {metric.name} & {*RANKED, *PER_ROW, *OF_ROWS}
    }
    unknown = [name for name in scoring if name not in known]
    if unknown:
        raise ValueError(
            f"scoring holds names that cannot be columns: {unknown}. These can: "
            f"{sorted(known)}."
        )
    return {name: known[name] for name in scoring}


def _fold_tasks(data, cv, random_state):
    """Return (train, test, no bootstrap samples, any seed) of each fold."""
    splits = splits_of(cv, data, random_state)
    if len(splits) < 2:
        raise ValueError("cv gives a single split; a standard deviation needs two.")
    lone = lone_class(splits, data.codes)
    if lone is not None:
        raise ValueError(
            f"Split {lone[0]} of cv leaves rows of one class only to fit on, "
            f"{data.classes.tolist()[lone[1]]!r}. Pass more rows of the others, splits "
            "that leave two classes to fit on, or X_test and y_test."
        )
    return [(data.subset(train), data.subset(test), 0, 0) for train, test in splits]


def _test_task(data, test, n_bootstrap, random_state):
    """Return (train, test, number of bootstrap samples, seed of these)."""
    n_bootstrap = check_whole("n_bootstrap", n_bootstrap, 2)
    return data, test, n_bootstrap, check_random_state(random_state).randint(2**31)


def _fit_and_measure(calibrator, train, test, n_bootstrap, seed, n_bins, measured):
    """Return the metrics, those of each bootstrap sample, and the seconds of the fit.

    `measured` are names of metrics and their signs.
    """
    started = time.perf_counter()
    fit_checked(calibrator, train)
    seconds = time.perf_counter() - started
    rows = RowStatistics(calibrator.predict_proba(test.logits), test.codes, n_bins)
    weight, random = test.sample_weight, np.random.RandomState(seed)
    # What came as one row is drawn as one.
    drawn = bootstrap_weights(weight, n_bootstrap, random, test.row)
    parts = [
        evaluate(rows, weights, [name for name, _ in measured])
        for weights in chain([weight[np.newaxis]], drawn)
    ]
    columns = [
        sign * np.concatenate([part[name] for part in parts]) for name, sign in measured
    ]
    return np.column_stack([*columns, np.full(1 + n_bootstrap, seconds)])
