"""Metrics of a classifier at once, each with a bootstrap interval."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skcalib._optional import import_optional
from skcalib._validation import Rows, check_proba, check_whole, is_dask
from skcalib.metrics._accumulator import CalibrationAccumulator
from skcalib.metrics._bins import Floats, check_bootstrap
from skcalib.metrics._registry import (
    IN_REPORT,
    METRICS,
    RANKED,
    check_names,
    evaluate,
)
from skcalib.metrics._resampling import RowStatistics, bootstrap_weights


class MetricEstimate(NamedTuple):
    """A metric and the ends of its interval, None where none was asked for."""

    value: float
    low: float | None
    high: float | None


class CalibrationReport(Mapping[str, MetricEstimate]):
    """Metrics by name, as `calibration_report` returns them.

    ``report["ece"]`` is a `MetricEstimate`, a tuple (value, low, high).

    Attributes
    ----------
    n_samples, n_classes : int
        Shape of the probabilities, rows without weight left out.

    n_bins : int
        Number of bins of the binned metrics.

    n_bootstrap : int
        Number of bootstrap replicates.

    confidence_level : float
        Level of the intervals.
    """

    def __init__(
        self,
        estimates: dict[str, MetricEstimate],
        *,
        n_samples: int,
        n_classes: int,
        n_bins: int,
        n_bootstrap: int,
        confidence_level: float,
    ) -> None:
        self._estimates = estimates
        self.n_samples = n_samples
        self.n_classes = n_classes
        self.n_bins = n_bins
        self.n_bootstrap = n_bootstrap
        self.confidence_level = confidence_level

    def __getitem__(self, name: str) -> MetricEstimate:
        return self._estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._estimates)

    def __len__(self) -> int:
        return len(self._estimates)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings only, ready for JSON.

        Returns
        -------
        report : dict
            The attributes, and under "metrics" a dict (value, low, high) by name.
        """
        return {
            "n_samples": self.n_samples,
            "n_classes": self.n_classes,
            "n_bins": self.n_bins,
            "n_bootstrap": self.n_bootstrap,
            "confidence_level": self.confidence_level,
            "metrics": {name: e._asdict() for name, e in self._estimates.items()},
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame.

        Returns
        -------
        frame : pandas.DataFrame
            One row a metric, columns value, low and high.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", "CalibrationReport.to_frame")
        frame = pandas.DataFrame(
            list(self._estimates.values()),
            index=pandas.Index(list(self._estimates), name="metric"),
            columns=list(MetricEstimate._fields),
        )
        return frame.astype(float)

    @property
    def _title(self) -> str:
        title = (
            f"Calibration on {self.n_samples:,} samples of {self.n_classes:,} classes"
        )
        if self.n_bootstrap:
            title += f", {100 * self.confidence_level:.4g} % bootstrap intervals"
        return title

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for name, (value, low, high) in self._estimates.items():
            interval = "" if low is None else f"[{low:.4f}, {high:.4f}]"
            yield str(METRICS[name].title), f"{value:.4f}", interval

    def __str__(self) -> str:
        width = max(len(title) for title, *_ in self._rows())
        lines = [f"{a:<{width}}  {b:>8}  {c}".rstrip() for a, b, c in self._rows()]
        return "\n".join([self._title, "", *lines])

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={self[name].value:.4g}" for name in self)
        return f"CalibrationReport({values})"

    def _repr_html_(self) -> str:
        head = "<tr><th>Metric</th><th>Value</th><th>Interval</th></tr>"
        body = "".join(
            f"<tr><td>{escape(a)}</td><td>{b}</td><td>{c}</td></tr>"
            for a, b, c in self._rows()
        )
        caption = f"<caption>{escape(self._title)}</caption>"
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"


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
    random_state: int | np.random.RandomState | None = None,
) -> CalibrationReport:
    """Compute metrics of predicted probabilities, with bootstrap intervals.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

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

    random_state : int, RandomState instance or None, default=None
        Seed of the bootstrap; an int gives the same intervals every time.

    Returns
    -------
    report : CalibrationReport
        Mapping from the name of a metric to (value, low, high), with `to_frame`,
        `to_dict` and a printed form.

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
    the value itself, which the sample size decides: compare at equal sizes.

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
    names = check_names(metrics, IN_REPORT)
    check_bootstrap(n_bootstrap, confidence_level)
    if is_dask(y_proba) and not n_bootstrap:
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
    codes, proba, weight = check_proba(
        y_true,
        y_proba,
        labels,
        sample_weight,
        pos_label,
        top_label=not RANKED.keys().isdisjoint(names),
        blocks=True,
    )
    if not weight.all() and n_bootstrap:
        # Or a replicate could draw rows of no weight only.
        codes, proba, weight = _used(codes, proba, weight)
    rows = RowStatistics(proba, codes, check_whole("n_bins", n_bins))
    value = evaluate(rows, weight[np.newaxis], names)
    values = {name: float(value[name][0]) for name in names}
    low, high = _intervals(
        rows, weight, values, n_bootstrap, confidence_level, random_state
    )
    return CalibrationReport(
        {name: MetricEstimate(values[name], low[name], high[name]) for name in names},
        n_samples=int(np.count_nonzero(weight)),
        n_classes=proba.shape[1],
        n_bins=rows.n_bins,
        n_bootstrap=int(n_bootstrap),
        confidence_level=float(confidence_level),
    )


def _used(
    codes: NDArray[np.intp], proba: Rows, weight: Floats
) -> tuple[NDArray[np.intp], Rows, Floats]:
    """Leave out rows of weight 0."""
    if hasattr(proba, "subset"):
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
    values: dict[str, float],
    n_bootstrap: int,
    confidence_level: float,
    random_state: Any,
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    names = list(values)
    if n_bootstrap == 0:
        return dict.fromkeys(names), dict.fromkeys(names)
    random = check_random_state(random_state)
    parts = [
        evaluate(rows, weights, names)
        for weights in bootstrap_weights(weight, n_bootstrap, random)
    ]
    tail = (1 - confidence_level) / 2
    low: dict[str, float | None] = {}
    high: dict[str, float | None] = {}
    for name in names:
        draws = np.concatenate([part[name] for part in parts])
        ends = np.quantile(draws, [tail, 1 - tail])
        if METRICS[name].is_gap:
            ends = np.maximum(ends - (draws.mean() - values[name]), 0)
        low[name], high[name] = ends.tolist()
    return low, high
