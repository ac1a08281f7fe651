"""Proximity diagram: confidence and accuracy from lonely samples to common ones."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from skcalib._validation import check_top_label, check_whole
from skcalib.metrics import proximity_calibration_error
from skcalib.metrics._bins import check_bootstrap, mass_quantiles, sum_by_index
from skcalib.metrics._proximity import check_proximity
from skcalib.plotting._binned_rows import redraw
from skcalib.plotting._style import (
    COLOURS,
    FromEstimator,
    add_legend,
    draw_band,
    hide_box,
    ink,
    new_axes,
    paper,
    titled,
)


@dataclass(eq=False, repr=False)
class ProximityDisplay(FromEstimator):
    """Mean confidence and accuracy over the proximity of the samples.

    Make one with `from_estimator` or `from_predictions`; every argument is kept as
    an attribute. The first bin holds the samples of least proximity.

    Parameters
    ----------
    accuracy, confidence : ndarray of shape (n_bins,)
        How often the predicted class was right in each bin of proximity, and the mean
        confidence; NaN where a bin is empty.

    proximity : ndarray of shape (n_bins,)
        Mean proximity of each bin.

    error : float
        Proximity-informed calibration error, with as many bins of proximity and 15 of
        confidence.

    band : tuple of two ndarrays of shape (n_bins,), default=None
        Ends of the range in which the accuracy of a calibrated classifier would lie.

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
    skcalib.metrics.neighbor_proximity : Proximity of samples.
    skcalib.metrics.proximity_calibration_error : The number that goes with it.

    Examples
    --------
    >>> from skcalib.plotting import ProximityDisplay
    >>> y_proba = [[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.3, 0.7]]
    >>> display = ProximityDisplay.from_predictions(
    ...     [0, 1, 1, 0], y_proba, proximity=[0.9, 0.1, 0.8, 0.2], n_proximity_bins=2
    ... )
    >>> display.accuracy
    array([0., 1.])
    """

    accuracy: np.ndarray
    confidence: np.ndarray
    proximity: np.ndarray
    error: float
    band: tuple[np.ndarray, np.ndarray] | None = None
    name: str | None = None

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        proximity: Any,
        n_proximity_bins: int = 15,
        labels: Any = None,
        pos_label: Any = None,
        sample_weight: Any = None,
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

        proximity : array-like of shape (n_samples,)
            Proximity of each sample, see `skcalib.metrics.neighbor_proximity`.

        n_proximity_bins : int, default=15
            Number of bins of equal mass.

        labels : array-like of shape (n_classes,), default=None
            Class of each column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        pos_label : int, float, bool or str, default=None
            Class of a single column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights give the points of repeated rows.

        n_bootstrap : int, default=500
            Number of draws behind the band; 0 leaves it out.

        confidence_level : float, default=0.95
            Share of the draws that the band covers in each bin.

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
        display : ProximityDisplay
            The drawn display.
        """
        n_bins = check_whole("n_proximity_bins", n_proximity_bins)
        check_bootstrap(n_bootstrap, confidence_level)
        confidence, hit, weight = check_top_label(
            y_true, y_proba, labels, sample_weight, pos_label
        )
        column = check_proximity(proximity, confidence)
        index = np.searchsorted(mass_quantiles(column, weight, n_bins), column)
        mean = partial(_bin_means, index, weight, n_bins)
        band = None
        if n_bootstrap:
            rows = confidence, hit, weight
            drawn = redraw(*rows, "consistency", n_bootstrap, random_state)
            draws = [mean(outcome) for outcome, _ in drawn]
            tail = (1 - confidence_level) / 2
            band = tuple(np.quantile(draws, [tail, 1 - tail], axis=0))
        error = proximity_calibration_error(
            y_true,
            y_proba,
            proximity=proximity,
            n_proximity_bins=n_bins,
            labels=labels,
            pos_label=pos_label,
            sample_weight=sample_weight,
        )
        display = cls(mean(hit), mean(confidence), mean(column), error, band, name)
        return display.plot(ax=ax, legend=legend)

    def plot(
        self, ax: Any = None, *, name: str | None = None, legend: bool = True
    ) -> Self:
        """Draw the diagram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.

        name : str, default=None
            Title; that of the display by default.

        legend : bool, default=True
            Whether to explain the colours.

        Returns
        -------
        display : ProximityDisplay
            The display itself.
        """
        if ax is None:
            (ax,) = new_axes("ProximityDisplay", size=(5.2, 3.8))
        shown = np.isfinite(self.accuracy)
        x = np.flatnonzero(shown)
        accuracy, confidence = self.accuracy[shown], self.confidence[shown]
        if self.band is not None:
            low, high = (end[shown] for end in self.band)
            draw_band(ax, x, low, high, label="range of chance")
        ax.vlines(
            x, confidence, accuracy, color=COLOURS["gap"], lw=5, alpha=0.75, label="gap"
        )
        ax.plot(x, confidence, "--", color=ink(), lw=1.2, label="confidence")
        ax.plot(
            x,
            accuracy,
            "o",
            color=COLOURS["point"],
            markeredgecolor=paper(),
            markersize=7,
            label="accuracy",
        )
        n_bins = self.accuracy.shape[0]
        ax.set_xticks(x[[0, -1]], ["least", "most"])
        ax.set_xlabel(f"proximity, {n_bins} bins of equal mass")
        ax.set_xlim(-0.5, n_bins - 0.5)
        name = self.name if name is None else name
        title = titled(f"PIECE {100 * self.error:.2f} %", name)
        ax.set_title(title, parse_math=False)
        if legend:
            add_legend(ax)
        hide_box(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _bin_means(index, weight, n_bins, values):
    """Mean of the values in each bin, NaN where it is empty."""
    mass = sum_by_index(index, weight, n_bins)
    sums = sum_by_index(index, weight * values, n_bins)
    empty = np.full(n_bins, np.nan)
    return np.divide(sums, mass, out=empty, where=mass > 0)
