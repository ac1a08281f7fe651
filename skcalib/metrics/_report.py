"""Metrics of a classifier at once, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skcalib._validation import (
    Rows,
    check_proba,
    check_whole,
    is_dask,
    is_event,
    is_shares,
    rows_of_shares,
)
from skcalib.metrics._accumulator import CalibrationAccumulator
from skcalib.metrics._bins import Floats, check_bootstrap
from skcalib.metrics._estimates import CalibrationReport, MetricEstimate, interval
from skcalib.metrics._groups import GroupComparison, compare_groups
from skcalib.metrics._multi_label import (
    IN_LABEL_REPORT,
    multilabel_report,
    refuse_beside_labels,
)
from skcalib.metrics._registry import (
    IN_REPORT,
    RANKED,
    check_names,
    evaluate,
)
from skcalib.metrics._resampling import RowStatistics, bootstrap_weights


def calibration_report(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 15,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
    metrics: Iterable[str] | None = None,
    n_bootstrap: int = 1000,
    confidence_level: float = 0.95,
    random_state: int | np.random.RandomState | None = 0,
    multilabel: bool = False,
    groups: ArrayLike | None = None,
) -> CalibrationReport:
    """Compute metrics of predicted probabilities, with bootstrap intervals.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
        True classes. Or shares of all classes, such as those of several annotators: a
        row is then one of each class, weighted.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    n_bins : int, default=15
        Number of bins of the binned metrics.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights give the values of repeated rows.

    metrics : iterable of str, default=None
        Which metrics, in order; by default "accuracy", "nll", "brier", "entropy",
        "ece", "aece", "sce", "mce", "rmsce", "ks" and "smooth_ece". Also known are
        "overconfidence", "underconfidence", "sweep_ece" and whatever else the guide to
        the metrics lists by name.

    n_bootstrap : int, default=1000
        Number of bootstrap replicates; 0 gives values without intervals.

    confidence_level : float, default=0.95
        Level of the intervals, between 0 and 1.

    random_state : int, RandomState instance or None, default=0
        Seed of the bootstrap; None draws anew each time.

    multilabel : bool, default=False
        Whether `y_true` and `y_proba` have a column for each of several labels that may
        occur together, as in `per_label`. The metrics are then those of the
        probability of each label and their mean, without "accuracy" and "sce"; `labels`
        names the labels.

    groups : array-like of shape (n_samples,), default=None
        The group of each row, for `compare_groups`, whose table is ``report.groups``.
        Of true classes only, not of shares.

    Returns
    -------
    report : CalibrationReport
        Mapping from the name of a metric to (value, low, high), with `to_frame`,
        `to_dict` and a printed form. With `multilabel` these are the means, and
        ``report.labels`` has the report of each label.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also for the name of an unknown metric.

    Notes
    -----
    Intervals run between percentiles of the metric over resampled rows. They hold the
    classifier fixed and say how far another test set of this size could move the
    metric. Calibration errors average absolute gaps, so noise raises them, and
    resampling adds noise: their percentiles are moved down by the mean excess of the
    replicates over the value, though not below 0. What remains is the upward bias of
    the value itself, which the sample size decides: compare at equal sizes. Rows that
    are all alike, such as hits alone of one probability, tell no interval: its ends are
    None. Where there are few errors, intervals are too narrow: see the guide.

    "nll" and "brier" follow `sklearn.metrics.log_loss` and `brier_score_loss`: the
    probability of the true class counts as 2.2e-16 at least, and the Brier score is
    the sum over the classes, halved for two classes.

    Examples
    --------
    >>> from skcalib.metrics import calibration_report
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> report = calibration_report(
    ...     [0, 1, 1, 1], y_proba, metrics=["accuracy", "ece"], random_state=0
    ... )
    >>> report["accuracy"].value
    0.75
    >>> sorted(report)
    ['accuracy', 'ece']
    """
    names = check_names(metrics, IN_LABEL_REPORT if multilabel else IN_REPORT)
    check_bootstrap(n_bootstrap, confidence_level)
    if multilabel:
        refuse_beside_labels(pos_label, groups)
        return multilabel_report(
            y_true,
            y_proba,
            names,
            n_bins=check_whole("n_bins", n_bins),
            labels=labels,
            sample_weight=sample_weight,
            n_bootstrap=n_bootstrap,
            confidence_level=confidence_level,
            random_state=random_state,
        )
    given = y_true, y_proba, labels, sample_weight, pos_label
    compared = _compared(given, groups, confidence_level)
    if is_dask(y_proba) and not n_bootstrap:
        return _report_of_sums(given, names, n_bins, confidence_level)
    *shared, row = rows_of_shares(*given)
    drawn = n_bootstrap, confidence_level, random_state
    found = _report_of_rows((*shared, pos_label), names, n_bins, drawn, row)
    if row is not None:
        found.n_samples = int(row[-1] + 1)
    found.groups = compared
    return found


def report_by_units(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    unit: NDArray[np.intp] | None,
    *,
    labels: ArrayLike,
    n_bins: int = 15,
    metrics: Iterable[str] | None = None,
    n_bootstrap: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = 0,
) -> CalibrationReport:
    """Return the report of rows of which the bootstrap draws those of a unit together.

    `unit` is a number of each row from 0 on; None draws rows.
    """
    names = check_names(metrics, IN_REPORT)
    check_bootstrap(n_bootstrap, confidence_level)
    given = y_true, y_proba, labels, None, None
    drawn = n_bootstrap, confidence_level, random_state
    return _report_of_rows(given, names, n_bins, drawn, unit)


def _report_of_rows(
    given: tuple[Any, ...],
    names: list[str],
    n_bins: int,
    drawn: tuple[int, float, Any],
    unit: NDArray[np.intp] | None,
) -> CalibrationReport:
    n_bootstrap, confidence_level, _ = drawn
    top = not RANKED.keys().isdisjoint(names)
    codes, proba, weight = check_proba(*given, top_label=top, blocks=True)
    if not weight.all() and n_bootstrap:
        # Or a replicate could draw rows of no weight only.
        codes, proba, weight = _used(codes, proba, weight)
    n_bins, event = check_whole("n_bins", n_bins), is_event(given[0], given[-1])
    rows = RowStatistics(proba, codes, n_bins, event)
    value = evaluate(rows, weight[np.newaxis], names)
    values = {name: float(value[name][0]) for name in names}
    ends = _intervals(rows, weight, unit, values, *drawn)
    return CalibrationReport(
        {name: MetricEstimate(values[name], *ends[name]) for name in names},
        n_samples=int(np.count_nonzero(weight)),
        n_classes=proba.shape[1],
        n_bins=rows.n_bins,
        n_bootstrap=int(n_bootstrap),
        confidence_level=float(confidence_level),
    )


def _compared(
    given: tuple[Any, ...], groups: ArrayLike | None, confidence_level: float
) -> GroupComparison | None:
    if groups is None:
        return None
    y_true, y_proba, labels, sample_weight, pos_label = given
    if not is_dask(y_true) and is_shares(y_true):
        raise ValueError(
            "groups beside shares of classes: groups are compared by how often the "
            "predicted class is right, which takes one class in each row. Leave groups "
            "out, or pass the true class of each row as y_true."
        )
    return compare_groups(
        y_true,
        y_proba,
        groups,
        labels=labels,
        pos_label=pos_label,
        sample_weight=sample_weight,
        confidence_level=confidence_level,
    )


def _report_of_sums(
    given: tuple[Any, ...], names: list[str], n_bins: int, confidence_level: float
) -> CalibrationReport:
    """Report on rows that lie elsewhere, from sums over them."""
    y_true, y_proba, labels, sample_weight, pos_label = given
    sums = CalibrationAccumulator(
        n_bins=n_bins, metrics=names, labels=labels, pos_label=pos_label
    ).update(y_true, y_proba, sample_weight)
    return CalibrationReport(
        {k: MetricEstimate(v, None, None) for k, v in sums.compute().items()},
        n_samples=sums.n_samples_,
        n_classes=sums.n_classes_,
        n_bins=n_bins,
        n_bootstrap=0,
        confidence_level=float(confidence_level),
    )


def _used(
    codes: NDArray[np.intp], proba: Rows, weight: Floats
) -> tuple[NDArray[np.intp], Rows, Floats]:
    """Leave out rows of weight 0."""
    if not isinstance(proba, np.ndarray) and not proba.is_here:
        kept = np.flatnonzero(weight)
        return codes[kept], proba.subset(kept), weight[kept]
    if not isinstance(proba, np.ndarray):
        raise ValueError(
            f"sample_weight is 0 in {np.count_nonzero(weight == 0)} rows of a file, "
            "which a bootstrap must not draw. Leave the intervals out, n_bootstrap=0, "
            "or read the other rows first."
        )
    used = weight > 0
    return codes[used], proba[used], weight[used]


def _intervals(
    rows: RowStatistics,
    weight: Floats,
    unit: NDArray[np.intp] | None,
    values: dict[str, float],
    n_bootstrap: int,
    confidence_level: float,
    random_state: Any,
) -> dict[str, tuple[float, float] | tuple[None, None]]:
    if n_bootstrap == 0:
        return dict.fromkeys(values, (None, None))
    random = check_random_state(random_state)
    parts = [
        evaluate(rows, weights, values)
        for weights in bootstrap_weights(weight, n_bootstrap, random, unit)
    ]
    draws = {name: np.concatenate([part[name] for part in parts]) for name in values}
    return {k: interval(k, v, draws[k], confidence_level) for k, v in values.items()}
