"""Smooth reliability diagram: a kernel, or isotonic regression, in place of bins."""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from skcalib._numerics import is_whole
from skcalib.metrics._bins import check_bootstrap, check_option
from skcalib.metrics._corp import isotonic_rates, score_parts
from skcalib.metrics._smooth import smooth_error, smoothed_densities
from skcalib.plotting._binned_rows import check_interval, redraw, rows_of
from skcalib.plotting._reliability import BANDS, SIZE
from skcalib.plotting._style import (
    COLOURS,
    FromEstimator,
    add_legend,
    dress_diagram,
    ink,
    new_axes,
    outcome_of,
    titled,
)

# Steps of the curve between 0 and 1.
STEPS = 512
# The density lies below the diagram, between these heights.
DENSITY_BASE, DENSITY_TOP = -0.3, -0.08
# The curve is left out where fewer samples lie within a kernel's width.
FEWEST = 3


@dataclass(eq=False, repr=False)
class SmoothReliabilityDisplay(FromEstimator):
    """Reliability diagram as a curve: by a kernel, or by isotonic regression (CORP).

    Make one with `from_estimator` or `from_predictions`; every argument is kept as
    an attribute.

    Parameters
    ----------
    grid : ndarray of shape (n_points,)
        Confidences from 0 to 1.

    accuracy : ndarray of shape (n_points,)
        How often the predicted class (or the class `class_`) is right near each
        confidence; NaN where there are hardly any samples.

    density : ndarray of shape (n_points,)
        Density of the confidence.

    error : float
        Smooth calibration error, also the width of the kernel; with
        ``method="isotonic"`` the miscalibration part of the Brier score.

    band : tuple of two ndarrays of shape (n_points,), default=None
        Ends of a range of accuracies.

    interval : {"consistency", "confidence"}, default="confidence"
        What the band is, see `ReliabilityDisplay`.

    class_ : object, default=None
        The class in question; None means the predicted class.

    name : str, default=None
        Name of the classifier, shown as the title.

    method : {"kernel", "isotonic"}, default="kernel"
        How the curve was found.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the diagram.

    figure_ : matplotlib Figure
        Figure that holds the axes.

    See Also
    --------
    ReliabilityDisplay : The same with bins.
    skcalib.metrics.smooth_calibration_error : The number that goes with it.
    skcalib.metrics.score_decomposition : The number of the isotonic curve.

    Examples
    --------
    >>> from skcalib.plotting import SmoothReliabilityDisplay
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> display = SmoothReliabilityDisplay.from_predictions([0, 1, 1, 1], y_proba)
    >>> round(display.error, 3)
    0.171
    """

    grid: np.ndarray
    accuracy: np.ndarray
    density: np.ndarray
    error: float
    band: tuple[np.ndarray, np.ndarray] | None = None
    interval: str = "confidence"
    class_: object = None
    name: str | None = None
    method: str = "kernel"

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        method: Literal["kernel", "isotonic"] = "kernel",
        class_: Any = None,
        labels: Any = None,
        pos_label: Any = None,
        sample_weight: Any = None,
        interval: Literal["consistency", "confidence"] = "confidence",
        n_bootstrap: int = 200,
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

        method : {"kernel", "isotonic"}, default="kernel"
            The curve: residuals smoothed by the kernel of the smooth calibration error,
            or isotonic regression of the hits on the confidence (CORP) [1]_, which has
            nothing to choose and never falls.

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
            Non-negative weights; integer weights give the curve of repeated rows.

        interval : {"consistency", "confidence"}, default="confidence"
            Which band to draw: around the curve, by drawing the samples with
            replacement, or around calibration, by drawing the truth of every sample
            with the probability that the classifier states.

        n_bootstrap : int, default=200
            Number of draws behind the band; 0 leaves it out.

        confidence_level : float, default=0.95
            Share of the draws that the band covers at each confidence.

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
        display : SmoothReliabilityDisplay
            The drawn display.

        Notes
        -----
        The curve is a mean of the residuals, hit minus confidence, near each
        confidence, added to the confidence: where a classifier is calibrated it lies
        on the diagonal, whatever the width of the kernel.

        The isotonic curve has flat pieces, joined by straight lines, between the least
        and the largest confidence. Its consistency band repeats the regression for
        every draw [1]_.

        References
        ----------
        .. [1] Dimitriadis, Gneiting & Jordan. "Stable Reliability Diagrams for
           Probabilistic Classifiers", PNAS 118, 2021.
           https://arxiv.org/abs/2008.03033
        """
        check_bootstrap(n_bootstrap, confidence_level)
        check_interval(interval)
        check_option("method", method, CURVES)
        rows = rows_of(y_true, y_proba, labels, sample_weight, pos_label, class_)
        confidence, hit, weight = (column[rows[2] > 0] for column in rows)
        error = smooth_error(confidence, hit, weight)
        # A kernel narrower than the grid cannot be drawn.
        curve = CURVES[method](confidence, max(error, 2 / STEPS))
        accuracy, density = curve.of(hit, weight)
        if method == "isotonic":
            error = score_parts(confidence, hit, weight, "brier").miscalibration
        display = cls(
            grid=np.linspace(0, 1, STEPS + 1),
            accuracy=accuracy,
            density=density,
            error=error,
            band=curve.band(
                hit,
                weight,
                np.isfinite(accuracy),
                interval,
                n_bootstrap,
                confidence_level,
                random_state,
            ),
            interval=interval,
            class_=class_,
            name=name,
            method=method,
        )
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
        display : SmoothReliabilityDisplay
            The display itself.
        """
        if ax is None:
            (ax,) = new_axes("SmoothReliabilityDisplay", size=SIZE)
        ax.plot([0, 1], [0, 1], "--", color=ink(), lw=1, label="calibrated")
        if self.band is not None:
            around_curve = self.interval == "confidence"
            colour = COLOURS["point"] if around_curve else COLOURS["band"]
            ax.fill_between(
                self.grid,
                *self.band,
                color=colour,
                alpha=0.25 if around_curve else None,
                lw=0,
                label=BANDS[self.interval],
            )
        outcome = outcome_of(self.class_)
        ax.plot(self.grid, self.accuracy, color=COLOURS["point"], lw=2, label=outcome)
        height = self.density / self.density.max() * (DENSITY_TOP - DENSITY_BASE)
        ax.fill_between(
            self.grid,
            DENSITY_BASE,
            DENSITY_BASE + height,
            color=COLOURS["histogram"],
            lw=0,
        )
        self._dress(ax, self.name if name is None else name)
        if legend:
            add_legend(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _dress(self, ax, name):
        ax.axhline(0, color=ink(), lw=0.8)
        dress_diagram(ax, DENSITY_BASE, DENSITY_TOP, self.class_)
        told = f"smooth ECE {100 * self.error:.2f} %"
        if self.method == "isotonic":
            told = f"miscalibration {self.error:.4f}"
        ax.set_title(titled(told, name), parse_math=False)
        ticks = np.linspace(0, 1, 6)
        ax.set_yticks(ticks, [f"{t:.1f}" for t in ticks])


class _Curve:
    """Smoothed accuracies of fixed confidences for any outcomes and weights."""

    def __init__(self, confidence, width):
        self._confidence = confidence
        self._width = width
        self._grid = np.linspace(0, 1, STEPS + 1)

    def of(self, hit, weight):
        """Accuracy on the grid, NaN where hardly any weight lies, and the density."""
        density, residual = smoothed_densities(
            self._confidence,
            [weight, weight * (hit - self._confidence)],
            self._width,
            STEPS,
        )
        total = weight.sum()
        n_rows = total if is_whole(weight) else np.count_nonzero(weight)
        near = density * self._width > FEWEST * total / n_rows
        accuracy = np.full(STEPS + 1, np.nan)
        accuracy[near] = self._grid[near] + residual[near] / density[near]
        return np.clip(accuracy, 0, 1), np.maximum(density, 0) / total

    def band(
        self, hit, weight, shown, interval, n_bootstrap, confidence_level, random_state
    ):
        """Return the ends of the range of the accuracy, NaN where it is not shown."""
        if n_bootstrap == 0:
            return None
        rows = self._confidence, hit, weight
        draws = [
            self.of(*drawn)[0]
            for drawn in redraw(*rows, interval, n_bootstrap, random_state)
        ]
        tail = (1 - confidence_level) / 2
        ends = np.full((2, STEPS + 1), np.nan)
        columns = np.stack(draws)[:, shown]
        # Where a draw has no samples it stays on the diagonal.
        columns = np.where(np.isnan(columns), self._grid[shown], columns)
        ends[:, shown] = np.quantile(columns, [tail, 1 - tail], axis=0)
        return ends[0], ends[1]


class _IsotonicCurve(_Curve):
    """Isotonic regression in place of the smoothed accuracies."""

    def of(self, hit, weight):
        """Accuracy on the grid, NaN beyond all confidences, and the density."""
        _, density = super().of(hit, weight)
        knots, rates = isotonic_rates(self._confidence, hit, weight)
        accuracy = np.interp(self._grid, knots, rates)
        outside = self._grid < self._confidence.min() - 1 / STEPS
        outside |= self._grid > self._confidence.max() + 1 / STEPS
        accuracy[outside] = np.nan
        return accuracy, density


CURVES = {"kernel": _Curve, "isotonic": _IsotonicCurve}
