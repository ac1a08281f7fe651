"""Metrics by name, each with the ends of an interval: what a report holds."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np

from skcalib._optional import import_optional
from skcalib._tables import html_table
from skcalib.metrics._bins import Floats
from skcalib.metrics._groups import GroupComparison
from skcalib.metrics._registry import METRICS

# Rounding of the sums that draws are made of.
_ALIKE = 1e-12


class MetricEstimate(NamedTuple):
    """A metric and the ends of its interval.

    They are None where none was asked for, or all draws of the bootstrap are alike.
    """

    value: float
    low: float | None
    high: float | None


class CalibrationReport(Mapping[str, MetricEstimate]):
    """Metrics by name, as `calibration_report` returns them.

    ``report["ece"]`` is a `MetricEstimate`, a tuple (value, low, high) of fractions.
    Printed, accuracy and calibration errors are in percent.

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

    groups : GroupComparison or None
        What `compare_groups` finds, if groups were given.
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
        self.groups: GroupComparison | None = None

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
        groups = {} if self.groups is None else {"groups": self.groups.to_dict()}
        return {
            "n_samples": self.n_samples,
            "n_classes": self.n_classes,
            "n_bins": self.n_bins,
            "n_bootstrap": self.n_bootstrap,
            "confidence_level": self.confidence_level,
            "metrics": {name: e._asdict() for name, e in self._estimates.items()},
            **groups,
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
        for name, estimate in self._estimates.items():
            metric = METRICS[name]
            yield metric.named(metric.title), *metric.written(*estimate)

    def __str__(self) -> str:
        width = max(len(title) for title, *_ in self._rows())
        lines = [f"{a:<{width}}  {b:>8}  {c}".rstrip() for a, b, c in self._rows()]
        groups = [] if self.groups is None else ["", str(self.groups)]
        return "\n".join([self._title, "", *lines, *groups])

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={self[name].value:.4g}" for name in self)
        return f"CalibrationReport({values})"

    def _repr_html_(self) -> str:
        head = ("Metric", "Value", "Interval")
        table = html_table([head, *self._rows()], self._title)
        if self.groups is None:
            return table
        return f"{table}<pre>{escape(str(self.groups))}</pre>"


def interval(
    name: str, value: float, draws: Floats, confidence_level: float
) -> tuple[float, float] | tuple[None, None]:
    """Return percentiles of the draws; those of a gap are moved down by their excess.

    A gap lies between 0 and 1, and so do these. Draws that are NaN are left out. Draws
    that are all alike, as those of a single row or of hits alone, tell no interval, but
    for a gap that is 0 in all of them, such as that of one direction.
    """
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return None, None
    spread = np.ptp(draws)
    at_bound = METRICS[name].is_gap and value == 0
    if spread <= _ALIKE * max(1.0, abs(value)) and not at_bound:
        return None, None
    tail = (1 - confidence_level) / 2
    ends = np.quantile(draws, [tail, 1 - tail])
    if METRICS[name].is_gap:
        ends = np.clip(ends - (draws.mean() - value), 0, 1)
    low, high = ends.tolist()
    return low, high
