"""Reliability diagrams: how often the classifier is right when it says it is sure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from skcalib._optional import import_optional
from skcalib._validation import came_whole, check_whole, is_dask
from skcalib.metrics import CalibrationAccumulator
from skcalib.metrics._accumulator import bins_of
from skcalib.metrics._bins import check_bootstrap, check_strategy
from skcalib.plotting._binned_rows import (
    FORMULAS,
    BinnedRows,
    band_by_formula,
    check_interval,
    refuse_fractions,
    rows_of,
)
from skcalib.plotting._style import (
    COLOURS,
    FromEstimator,
    add_legend,
    draw_band,
    dress_diagram,
    ink,
    new_axes,
    outcome_of,
    own_axes,
    paper,
    titled,
)

# The histogram lies below the diagram, between these heights.
HISTOGRAM_BASE, HISTOGRAM_TOP = -0.3, -0.1
# Width and height of a diagram, in inches.
SIZE = (4.4, 5.7)
BANDS = {
    "consistency": "range of chance",
    "confidence": "confidence interval",
    **dict.fromkeys(FORMULAS, "confidence interval"),
}


@dataclass(eq=False, repr=False)
class ReliabilityDisplay(FromEstimator):
    """Reliability diagram with gaps, a band of chance and a confidence histogram.

    Make one with `from_estimator`, `from_predictions` or `from_accumulator`; every
    argument is kept as an attribute.

    Parameters
    ----------
    accuracy : ndarray of shape (n_bins,)
        How often the predicted class (or the class `class_`) was right in each bin;
        NaN where a bin is empty.

    confidence : ndarray of shape (n_bins,)
        Mean probability in each bin; NaN where a bin is empty.

    share : ndarray of shape (n_bins,)
        Share of the samples in each bin; sums to 1.

    histogram : ndarray of shape (n_bins,)
        Share of the samples in bins of equal width.

    error : float
        Mean absolute gap between accuracy and confidence.

    error_name : str, default="ECE"
        What this error is called.

    band : tuple of two ndarrays of shape (n_bins,), default=None
        Ends of a range of accuracies in each bin.

    interval : {"consistency", "confidence", "clopper_pearson", "wilson"}, \
            default="consistency"
        What the band is: where the accuracy of a calibrated classifier would lie, or
        where the true accuracy of this one may lie.

    class_ : object, default=None
        The class in question; None means the predicted class.

    name : str, default=None
        Name of the classifier, shown as the title.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the diagram.

    figure_ : matplotlib Figure
        Figure that holds the axes.

    See Also
    --------
    skcalib.metrics.expected_calibration_error : The number that goes with it.

    Examples
    --------
    >>> from skcalib.plotting import ReliabilityDisplay
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> display = ReliabilityDisplay.from_predictions([0, 1, 1, 1], y_proba)
    >>> round(display.error, 3)
    0.35
    """

    accuracy: np.ndarray
    confidence: np.ndarray
    share: np.ndarray
    histogram: np.ndarray
    error: float
    error_name: str = "ECE"
    band: tuple[np.ndarray, np.ndarray] | None = None
    interval: str = "consistency"
    class_: object = None
    name: str | None = None

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        class_: Any = None,
        labels: Any = None,
        pos_label: Any = None,
        sample_weight: Any = None,
        interval: Literal[
            "consistency", "confidence", "clopper_pearson", "wilson"
        ] = "consistency",
        n_bootstrap: int = 500,
        confidence_level: float = 0.95,
        random_state: Any = 0,
        name: str | None = None,
        ax: Any = None,
        legend: bool = True,
    ) -> Self:
        """Draw the diagram of predicted probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True classes.

        y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or \
                (n_samples, 1)
            Predicted probabilities; a single column is that of `pos_label`.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width or of equal mass.

        class_ : object, default=None
            Compare the probability of this class with how often it occurs. By
            default the largest probability with how often its class is right.

        labels : array-like of shape (n_classes,), default=None
            Class of each column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        pos_label : int, float, bool or str, default=None
            Class of a single column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights give the bars of repeated rows.

        interval : {"consistency", "confidence", "clopper_pearson", "wilson"}, \
                default="consistency"
            Which band to draw, see Notes.

        n_bootstrap : int, default=500
            Number of draws behind the band; 0 leaves it out, as it must be of Dask
            collections, of which sums are drawn, without `class_`. "clopper_pearson"
            and "wilson" draw nothing, whatever it is.

        confidence_level : float, default=0.95
            Share of the draws that the band covers in each bin, or level of the
            interval.

        random_state : int, RandomState instance or None, default=0
            Seed of the band.

        name : str, default=None
            Title.

        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.

        legend : bool, default=True
            Whether to explain the colours.

        Returns
        -------
        display : ReliabilityDisplay
            The drawn display.

        Notes
        -----
        The consistency band draws the truth of every sample anew with the probability
        that the classifier states, and shows where the accuracies then lie: bins whose
        point is inside agree with calibration. The confidence band draws the samples
        with replacement, and shows how far chance may have moved the points.

        "clopper_pearson" and "wilson" are confidence intervals of the rate of hits in
        each bin by formula, also where all rows of a bin are hits, which a draw can
        only repeat. The former holds the true rate at least as often as
        `confidence_level` says, the latter on average, and is narrower. Weights have to
        be whole numbers for them.
        """
        check_bootstrap(n_bootstrap, confidence_level)
        check_interval(interval, tuple(FORMULAS))
        draws_nothing = not n_bootstrap or interval in FORMULAS
        if is_dask(y_proba) and draws_nothing and class_ is None:
            if interval in FORMULAS:
                refuse_fractions(came_whole(sample_weight))
            sums = CalibrationAccumulator(
                n_bins=n_bins, metrics=["ece"], labels=labels, pos_label=pos_label
            ).update(y_true, y_proba, sample_weight)
            display = cls._of_sums(sums, strategy, name)
            display.interval = interval
            if interval in FORMULAS:
                stats = bins_of(sums, strategy)
                display.band = band_by_formula(stats, interval, confidence_level)
            return display.plot(ax=ax, legend=legend)
        confidence, hit, weight = rows_of(
            y_true, y_proba, labels, sample_weight, pos_label, class_
        )
        check_strategy(strategy)
        n_bins = check_whole("n_bins", n_bins)
        bins = BinnedRows(confidence, hit, weight, n_bins, strategy)
        display = cls._of_bins(
            bins.stats,
            bins.histogram,
            error_name=_error_name(strategy, class_),
            band=bins.band(interval, n_bootstrap, confidence_level, random_state),
            interval=interval,
            class_=class_,
            name=name,
        )
        return display.plot(ax=ax, legend=legend)

    @classmethod
    def from_accumulator(
        cls,
        accumulator: Any,
        *,
        strategy: Literal["uniform", "quantile"] = "uniform",
        name: str | None = None,
        ax: Any = None,
        legend: bool = True,
    ) -> Self:
        """Draw the diagram of rows that have come in batches.

        There is no band, which would need the rows.

        Parameters
        ----------
        accumulator : CalibrationAccumulator
            What has been made of the rows.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width or of equal mass.

        name : str, default=None
            Title.

        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.

        legend : bool, default=True
            Whether to explain the colours.

        Returns
        -------
        display : ReliabilityDisplay
            The drawn display.

        Examples
        --------
        >>> from skcalib.metrics import CalibrationAccumulator
        >>> from skcalib.plotting import ReliabilityDisplay
        >>> accumulator = CalibrationAccumulator()
        >>> for y_true, y_proba in [([0, 1], [0.1, 0.9]), ([1, 1], [0.8, 0.4])]:
        ...     accumulator = accumulator.update(y_true, y_proba)
        >>> round(ReliabilityDisplay.from_accumulator(accumulator).error, 3)
        0.25
        """
        return cls._of_sums(accumulator, strategy, name).plot(ax=ax, legend=legend)

    @classmethod
    def _of_sums(cls, accumulator, strategy, name):
        return cls._of_bins(
            bins_of(accumulator, check_strategy(strategy)),
            bins_of(accumulator, "uniform").share,
            error_name=_error_name(strategy, None),
            name=name,
        )

    @classmethod
    def _of_bins(cls, stats, histogram, **options):
        """Return the display of sums over bins, whose empty ones are left out."""
        filled = stats.weight > 0
        return cls(
            accuracy=np.where(filled, stats.accuracy, np.nan),
            confidence=np.where(filled, stats.mean_confidence, np.nan),
            share=stats.share,
            histogram=histogram,
            error=stats.mean_gap,
            **options,
        )

    @classmethod
    def compare(
        cls,
        y_true: Any,
        y_probas: Any,
        *,
        axes: Any = None,
        legend: bool = True,
        **options: Any,
    ) -> list[Self]:
        """Draw several classifiers side by side, such as before and after calibration.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True classes.

        y_probas : dict of str to array-like
            Predicted probabilities by title.

        axes : sequence of matplotlib Axes, default=None
            As many as there are titles; by default those of a new figure.

        legend : bool, default=True
            Whether the first explains the colours.

        **options : dict
            Passed on to `from_predictions`.

        Returns
        -------
        displays : list of ReliabilityDisplay
            One for each title, in order.

        Examples
        --------
        >>> from skcalib.plotting import ReliabilityDisplay
        >>> before, after = ReliabilityDisplay.compare(
        ...     [0, 1, 1], {"before": [0.1, 0.9, 0.2], "after": [0.3, 0.7, 0.4]}
        ... )
        >>> after.name
        'after'
        """
        if not isinstance(y_probas, Mapping) or not y_probas:
            raise TypeError("y_probas needs a dict from titles to probabilities.")
        if axes is not None:
            axes = own_axes(axes, len(y_probas), "classifiers")
        # Aside first, so that what is refused leaves no figure, nor axes half drawn.
        figure = import_optional("matplotlib.figure", cls.__name__).Figure()
        displays = [
            cls.from_predictions(
                y_true, y_proba, name=name, ax=figure.add_subplot(), **options
            )
            for name, y_proba in y_probas.items()
        ]
        if axes is None:
            axes = new_axes(cls.__name__, n_columns=len(y_probas), size=SIZE)
        for place, (display, ax) in enumerate(zip(displays, axes, strict=True)):
            display.plot(ax=ax, legend=legend and place == 0)
            if place > 0:
                ax.set_ylabel("")
        return displays

    def plot(
        self, ax: Any = None, *, name: str | None = None, legend: bool = True
    ) -> Self:
        """Draw the diagram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on, and nothing else is touched; by default those of a new
            figure.

        name : str, default=None
            Title; that of the display by default.

        legend : bool, default=True
            Whether to explain the colours.

        Returns
        -------
        display : ReliabilityDisplay
            The display itself.
        """
        if ax is None:
            (ax,) = new_axes(type(self).__name__, size=SIZE)
        self._draw_histogram(ax)
        self._draw_gaps(ax)
        self._dress(ax, self.name if name is None else name)
        if legend:
            add_legend(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_gaps(self, ax):
        ends = [0, 1]
        ax.plot(ends, ends, "--", color=ink(), lw=1, label="calibrated")
        filled = np.isfinite(self.accuracy)
        x, accuracy = self.confidence[filled], self.accuracy[filled]
        if self.band is not None:
            low, high = self.band
            label = BANDS[self.interval]
            draw_band(ax, x, low[filled], high[filled], label=label)
        ax.vlines(x, x, accuracy, color=COLOURS["gap"], lw=5, alpha=0.75, label="gap")
        ax.plot(
            x,
            accuracy,
            "o",
            color=COLOURS["point"],
            markeredgecolor=paper(),
            markersize=7,
            label=outcome_of(self.class_),
            clip_on=False,
            zorder=3,
        )

    def _draw_histogram(self, ax):
        room = HISTOGRAM_TOP - HISTOGRAM_BASE
        n_bins = self.histogram.shape[0]
        ax.bar(
            x=np.arange(n_bins) / n_bins,
            width=1 / n_bins,
            height=self.histogram / self.histogram.max() * room,
            bottom=HISTOGRAM_BASE,
            align="edge",
            color=COLOURS["histogram"],
            edgecolor=paper(),
            linewidth=0.6,
        )
        ax.axhline(0, color=ink(), lw=0.8)

    def _dress(self, ax, name):
        dress_diagram(ax, HISTOGRAM_BASE, HISTOGRAM_TOP, self.class_)
        title = titled(f"{self.error_name} {100 * self.error:.2f} %", name)
        ax.set_title(title, parse_math=False)
        ticks = np.linspace(0, 1, 6)
        ax.set_yticks(
            [HISTOGRAM_BASE, HISTOGRAM_TOP, *ticks],
            [
                "0 %",
                f"{100 * self.histogram.max():.0f} %",
                *(f"{t:.1f}" for t in ticks),
            ],
        )


def _error_name(strategy, class_):
    if class_ is not None:
        return "mean gap"
    return "ECE" if strategy == "uniform" else "AECE"
