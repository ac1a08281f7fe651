"""Calibrators side by side: a dot and an interval for each method and metric."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skcalib.metrics import calibration_report
from skcalib.metrics._registry import METRICS, listed
from skcalib.metrics._scorers import measured, sign_of
from skcalib.plotting._style import COLOURS, hide_box, ink, new_axes, own_axes

# Values further from the best than this many times the median are left outside.
REACH = 4.0


@dataclass(eq=False, repr=False)
class CalibratorComparisonDisplay:
    """Metrics of several methods with their intervals, one panel a metric.

    Make one with `from_comparison` or `from_predictions`; every argument is kept as
    an attribute.

    Parameters
    ----------
    names : list of str
        Methods.

    metrics : list of str
        Names of metrics, one panel each.

    value, low, high : ndarray of shape (n_methods, n_metrics)
        Values and the ends of their intervals.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n_metrics,)
        Axes with the panels.

    figure_ : matplotlib Figure
        Figure that holds the axes.

    See Also
    --------
    skcalib.model_selection.compare_calibrators : Makes the comparison.

    Examples
    --------
    >>> from skcalib import TemperatureScaling, VectorScaling
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.model_selection import compare_calibrators
    >>> from skcalib.plotting import CalibratorComparisonDisplay
    >>> logits, y = make_logits(random_state=0)
    >>> table = compare_calibrators([TemperatureScaling(), VectorScaling()], logits, y)
    >>> display = CalibratorComparisonDisplay.from_comparison(table, metrics=["nll"])
    >>> display.names
    ['uncalibrated', 'TemperatureScaling', 'VectorScaling']
    """

    names: list
    metrics: list
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def from_comparison(
        cls,
        comparison: Any,
        *,
        metrics: Any = ("nll", "brier", "ece"),
        ax: Any = None,
        sort: bool = True,
    ) -> Self:
        """Draw what `skcalib.model_selection.compare_calibrators` returned.

        Parameters
        ----------
        comparison : CalibratorComparison
            Or any object with its attributes `names`, `metrics`, `mean` and `std`.

        metrics : sequence of str, default=("nll", "brier", "ece")
            Which of its metrics to show; the first one sorts the methods, unless it is
            neither better when lower nor when higher.

        ax : sequence of matplotlib Axes, default=None
            One for each metric; by default those of a new figure.

        sort : bool, default=True
            Passed on to `plot`.

        Returns
        -------
        display : CalibratorComparisonDisplay
            The drawn display; intervals are one standard deviation to each side.
        """
        metrics, known = listed(metrics), list(comparison.metrics)
        unknown = [metric for metric in metrics if metric not in known]
        if unknown:
            raise ValueError(f"The comparison has no {unknown}. It has {known}.")
        columns = [known.index(metric) for metric in metrics]
        mean = np.asarray(comparison.mean)[:, columns]
        std = np.asarray(comparison.std)[:, columns]
        display = cls(list(comparison.names), metrics, mean, mean - std, mean + std)
        return display.plot(ax=ax, sort=sort)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_probas: Any,
        *,
        metrics: Any = ("nll", "brier", "ece"),
        ax: Any = None,
        sort: bool = True,
        **options: Any,
    ) -> Self:
        """Draw metrics of predicted probabilities, with bootstrap intervals.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True classes.

        y_probas : dict of str to array-like
            Predicted probabilities by name.

        metrics : sequence of str, default=("nll", "brier", "ece")
            Names that `skcalib.metrics.calibration_report` knows.

        ax : sequence of matplotlib Axes, default=None
            One for each metric; by default those of a new figure.

        sort : bool, default=True
            Passed on to `plot`.

        **options : dict
            Passed on to `skcalib.metrics.calibration_report`.

        Returns
        -------
        display : CalibratorComparisonDisplay
            The drawn display.
        """
        if not isinstance(y_probas, Mapping) or not y_probas:
            raise TypeError("y_probas needs a dict from names to probabilities.")
        metrics = listed(metrics)
        options = {"n_bootstrap": 200, "random_state": 0, **options}
        reports = [
            calibration_report(y_true, y_proba, metrics=metrics, **options)
            for y_proba in y_probas.values()
        ]
        # Without an interval its ends are the value.
        cells = np.array(
            [
                [[v, v if a is None else a, v if b is None else b] for v, a, b in rows]
                for rows in (report.values() for report in reports)
            ]
        )
        display = cls(list(y_probas), metrics, *np.moveaxis(cells, 2, 0))
        return display.plot(ax=ax, sort=sort)

    def plot(self, ax: Any = None, *, sort: bool = True) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : sequence of matplotlib Axes, default=None
            One for each metric; by default those of a new figure.

        sort : bool, default=True
            Whether to sort the methods by the first metric, the best on top; by one of
            which none is best they are not.

        Returns
        -------
        display : CalibratorComparisonDisplay
            The display itself.
        """
        n_methods, n_metrics = self.value.shape
        if ax is None:
            ax = new_axes(
                "CalibratorComparisonDisplay",
                n_columns=n_metrics,
                size=(2.9, 0.9 + 0.3 * n_methods),
                sharey=True,
            )
        axes = own_axes(ax, n_metrics, "metrics")
        sign = sign_of(self.metrics[0]) if sort else 0
        order = np.argsort(sign * self.value[:, 0], kind="stable")
        order = order if sign else np.arange(n_methods)
        names = [self.names[i] for i in order]
        for column, panel in enumerate(axes):
            self._draw(panel, column, order)
            panel.set_ylim(n_methods - 0.5, -0.5)
            if column == 0 or not panel.get_shared_y_axes().joined(axes[0], panel):
                panel.set_yticks(np.arange(n_methods), names, parse_math=False)
                names = [""] * n_methods  # Those of the first panel are enough.
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _draw(self, ax, column, order):
        metric = self.metrics[column]
        scale, title = _unit(metric)
        value, low, high = (
            scale * a[order, column] for a in (self.value, self.low, self.high)
        )
        sign = sign_of(metric)
        best = (sign * value).argmin()
        centre = value[best] if sign else np.median(value)
        inside = _inside(value, centre)
        rows = np.arange(value.shape[0])
        colours = np.full(rows.shape, COLOURS["point"])
        across = ax.get_yaxis_transform()
        ax.hlines(rows, 0, 1, transform=across, color=ink(), alpha=0.1, lw=1)
        if sign:
            colours[best] = COLOURS["gap"]
            ax.axvline(centre, color=COLOURS["gap"], lw=1, alpha=0.6)
        ax.hlines(rows[inside], low[inside], high[inside], colors=colours[inside], lw=2)
        ax.scatter(value[inside], rows[inside], c=colours[inside], s=36, zorder=3)
        self._mark_outside(ax, value, rows[~inside], centre)
        ax.set_title(title, fontsize="medium")
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=4)
        hide_box(ax, ("top", "right", "left"))

    def _mark_outside(self, ax, value, rows, centre):
        """Name values that would squeeze all others together, at the border."""
        for row in rows:
            right = value[row] > centre
            ax.annotate(
                f"{value[row]:.3g} →" if right else f"← {value[row]:.3g}",
                (1 if right else 0, row),
                xycoords=ax.get_yaxis_transform(),
                ha="right" if right else "left",
                va="center",
                fontsize="small",
                color=COLOURS["point"],
            )


def _unit(name):
    """Return the factor of what is drawn, and its title."""
    metric = measured(name)
    title = (name in METRICS and METRICS[name].title) or name
    if metric is None or metric.percent_decimals is None:
        return 1, title
    return 100, f"{title} (%)"


def _inside(value, centre):
    """Whether a value is near enough to the best for all to be told apart."""
    distance = np.abs(value - centre)
    typical = np.median(distance)
    if typical == 0 and distance.any():  # More than half are equal.
        typical = np.median(distance[distance > 0])
    return distance <= REACH * typical
