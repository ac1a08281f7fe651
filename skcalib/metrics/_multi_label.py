"""Metrics of labels that may occur together: of each label, and their mean.

The probability of a label is that of an event, over the whole range from 0 to 1: rare
labels are never turned into predictions that they are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skcalib._optional import import_optional
from skcalib._tables import aligned, html_table
from skcalib._validation import (
    check_indicator,
    check_label_proba,
    check_weight,
    check_whole,
    label_names,
)
from skcalib.metrics._bins import Floats
from skcalib.metrics._estimates import CalibrationReport, MetricEstimate, interval
from skcalib.metrics._registry import IN_REPORT, check_names, evaluate
from skcalib.metrics._resampling import RowStatistics, bootstrap_weights

# How often a label is set, and its error once more.
NOT_OF_EVENTS = ("accuracy", "sce")
IN_LABEL_REPORT = [name for name in IN_REPORT if name not in NOT_OF_EVENTS]


def per_label(
    metric: str | Callable[..., float],
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    **options: Any,
) -> NDArray[np.float64]:
    """Compute a metric of each of several labels that may occur together.

    Parameters
    ----------
    metric : callable or str
        A metric of `skcalib.metrics`, or the name of one in a report.

    y_true : array-like of shape (n_samples, n_labels)
        1 where a label is set, 0 where it is not, -1 or NaN where it is not known.

    y_proba : array-like of shape (n_samples, n_labels), or list of n_labels arrays
        Predicted probability of each label; in a list, of each label not being set and
        being set, as `~sklearn.multioutput.MultiOutputClassifier` gives them.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    **options : dict
        Further arguments of the metric, such as `n_bins`.

    Returns
    -------
    values : ndarray of shape (n_labels,)
        The metric of each label on the rows where it is known, read as an event:
        ``metric(y, p, pos_label="event")``.

    See Also
    --------
    calibration_report : Several metrics with intervals, with ``multilabel=True``.

    Examples
    --------
    >>> from skcalib.metrics import expected_calibration_error, per_label
    >>> y_true = [[1, 0], [0, 0], [1, 1], [1, -1]]
    >>> y_proba = [[0.9, 0.1], [0.2, 0.1], [0.9, 0.7], [0.9, 0.5]]
    >>> errors = per_label(expected_calibration_error, y_true, y_proba)
    >>> errors.round(3)
    array([0.125, 0.167])
    >>> round(float(errors.mean()), 3)
    0.146
    """
    labels = LabelColumns(y_true, y_proba, sample_weight)
    if isinstance(metric, str):
        (name,) = check_names([metric], IN_LABEL_REPORT)
        n_bins = check_whole("n_bins", options.pop("n_bins", 15))
        if options:
            raise TypeError(f"{metric!r} of a report takes no {sorted(options)}.")
        return np.array(
            [evaluate(*labels.rows(k, n_bins), [name])[name][0] for k in labels]
        )
    return np.array([metric(**labels.arguments(k), **options) for k in labels])


class MultiLabelReport(CalibrationReport):
    """Means of metrics over labels by name, and the metrics of each label.

    ``report["ece"]`` is that of the mean, ``report.labels["oedema"]["ece"]`` that of a
    label.

    Attributes
    ----------
    labels : dict
        The `CalibrationReport` of each label.

    n_samples, n_classes : int
        Shape of the probabilities, rows without weight left out.

    n_bins, n_bootstrap, confidence_level
        As those of a `CalibrationReport`.
    """

    labels: dict[Any, CalibrationReport]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings only, ready for JSON.

        Returns
        -------
        report : dict
            That of the means, and under "labels" those of the labels.
        """
        of_labels = {str(name): part.to_dict() for name, part in self.labels.items()}
        return {**super().to_dict(), "labels": of_labels}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame.

        Returns
        -------
        frame : pandas.DataFrame
            One row a label and metric, the means first, columns value, low and high.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", "MultiLabelReport.to_frame")
        parts = {"mean": super().to_frame()}
        parts |= {name: part.to_frame() for name, part in self.labels.items()}
        return pandas.concat(parts, names=["label"])

    @property
    def _title(self) -> str:
        title = super()._title
        return title.replace("classes", "labels, the mean over them", 1)

    def _table(self) -> Iterator[list[str]]:
        """Yield the titles and the row of each label."""
        yield ["Label", "samples", *(title for title, *_ in self._rows())]
        for name, part in self.labels.items():
            values = (value for _, value, _ in part._rows())
            yield [str(name), f"{part.n_samples:,}", *values]

    def __str__(self) -> str:
        return "\n".join([super().__str__(), "", *aligned(self._table())])

    def _repr_html_(self) -> str:
        return super()._repr_html_() + html_table(self._table())


def multilabel_report(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    names: list[str],
    *,
    n_bins: int,
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
    n_bootstrap: int,
    confidence_level: float,
    random_state: Any,
) -> MultiLabelReport:
    """Return what `calibration_report` does with ``multilabel=True``."""
    given = LabelColumns(y_true, y_proba, sample_weight, labels)
    rows = [given.rows(k, n_bins) for k in given]
    values = [
        {name: float(value[0]) for name, value in evaluate(*part, names).items()}
        for part in rows
    ]
    draws = _draw(given, rows, names, n_bootstrap, random_state)
    shared: dict[str, Any] = {
        "n_bins": n_bins,
        "n_bootstrap": int(n_bootstrap),
        "confidence_level": float(confidence_level),
    }

    def estimate(name: str, value: float, drawn: Floats) -> MetricEstimate:
        return MetricEstimate(value, *interval(name, value, drawn, confidence_level))

    means = {name: float(np.mean([v[name] for v in values])) for name in names}
    report = MultiLabelReport(
        {n: estimate(n, v, _mean_draws(draws[n])) for n, v in means.items()},
        n_samples=int(np.count_nonzero(given.weight)),
        n_classes=len(given.names),
        **shared,
    )
    report.labels = {
        label: CalibrationReport(
            {name: estimate(name, v, draws[name][k]) for name, v in values[k].items()},
            n_samples=len(given.used(k)),
            n_classes=2,
            **shared,
        )
        for k, label in enumerate(given.names.tolist())
    }
    return report


def refuse_beside_labels(pos_label: object, groups: Any = None) -> None:
    """Refuse the name of a class, and groups, where there are labels."""
    if pos_label is not None:
        raise ValueError(
            f"pos_label={pos_label!r} beside multilabel=True: every column is the "
            "probability that its label is set. Leave pos_label out."
        )
    if groups is not None:
        raise ValueError(
            "groups beside multilabel=True: groups are compared by predicted classes, "
            "which labels have not. Report one label at a time."
        )


def _draw(
    labels: LabelColumns,
    rows: list[tuple[RowStatistics, Floats]],
    names: list[str],
    n_bootstrap: int,
    random_state: Any,
) -> dict[str, Floats]:
    """Return (n_labels, n_bootstrap) values of each metric; rows are drawn whole.

    A draw that leaves out all rows where a label is known says nothing of it.
    """
    draws = {name: np.full((len(rows), n_bootstrap), np.nan) for name in names}
    random, start = check_random_state(random_state), 0
    used = np.flatnonzero(labels.weight)
    for drawn in bootstrap_weights(labels.weight[used], n_bootstrap, random):
        weights = np.zeros((drawn.shape[0], labels.weight.shape[0]))
        weights[:, used] = drawn
        for k, (statistics, _) in enumerate(rows):
            part = weights[:, labels.used(k)]
            told = np.flatnonzero(part.any(axis=1))
            for name, values in evaluate(statistics, part[told], names).items():
                draws[name][k, start + told] = values
        start += drawn.shape[0]
    return draws


def _mean_draws(draws: Floats) -> Floats:
    """Return the means over the labels, without draws that say nothing of any."""
    told: Floats = draws[:, ~np.isnan(draws).all(axis=0)]
    return np.asarray(np.nanmean(told, axis=0))


class LabelColumns:
    """Checked labels and their probabilities; iterates over the columns."""

    def __init__(
        self,
        y_true: ArrayLike,
        y_proba: ArrayLike,
        sample_weight: ArrayLike | None,
        names: ArrayLike | None = None,
    ) -> None:
        self.proba = check_label_proba(y_proba)
        self.is_set, is_known = check_indicator(y_true, self.proba.shape, "y_true")
        self.weight = check_weight(sample_weight, self.proba)
        self.names = label_names(y_true, y_proba, names, self.proba.shape[1], "labels")
        self._is_used = is_known & (self.weight > 0)[:, np.newaxis]
        lacking = ~self._is_used.any(axis=0)
        if lacking.any():
            raise ValueError(
                "y_true holds no known entry of label "
                f"{self.names[lacking].tolist()[0]!r}, of "
                "which nothing can be said. Leave its column out."
            )

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.proba.shape[1]))

    def used(self, k: int) -> NDArray[np.intp]:
        """Return the rows where a label is known."""
        return np.flatnonzero(self._is_used[:, k])

    def arguments(self, k: int) -> dict[str, Any]:
        """Return what a metric is called with for a label."""
        rows = self.used(k)
        return {
            "y_true": self.is_set[rows, k],
            "y_proba": self.proba[rows, k],
            "pos_label": "event",
            "sample_weight": self.weight[rows],
        }

    def rows(self, k: int, n_bins: int) -> tuple[RowStatistics, Floats]:
        """Return the statistics of the rows of a label, and a row of weights."""
        rows = self.used(k)
        p = self.proba[rows, k]
        codes = self.is_set[rows, k].astype(np.intp)
        statistics = RowStatistics(np.column_stack([1 - p, p]), codes, n_bins, True)
        return statistics, self.weight[rows][np.newaxis]
