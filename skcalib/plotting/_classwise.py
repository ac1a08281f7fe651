"""Reliability diagrams of every class, in a grid."""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, Self

import numpy as np

from skcalib._validation import check_columns, check_whole
from skcalib.metrics._bins import check_bootstrap, check_strategy
from skcalib.metrics._multi_label import LabelColumns, refuse_beside_labels
from skcalib.plotting._binned_rows import BinnedRows, check_interval
from skcalib.plotting._style import (
    COLOURS,
    FromEstimator,
    draw_band,
    hide_box,
    ink,
    new_axes,
    own_axes,
    paper,
)

# Classes shown unless they are named.
MOST_PANELS = 12


@dataclass(eq=False, repr=False)
class ClasswiseReliabilityDisplay(FromEstimator):
    """Reliability diagram of each class: its probability against how often it occurs.

    Make one with `from_estimator` or `from_predictions`; every argument is kept as
    an attribute. Arrays have one row a class.

    Parameters
    ----------
    classes : list
        The classes shown.

    frequency : ndarray of shape (n_shown, n_bins)
        How often the class occurs in each bin; NaN where a bin is empty.

    confidence : ndarray of shape (n_shown, n_bins)
        Mean probability of the class in each bin; NaN where a bin is empty.

    share : ndarray of shape (n_shown, n_bins)
        Share of the samples in each bin.

    errors : ndarray of shape (n_shown,)
        Mean absolute gap of each class.

    bands : list of tuple of two ndarrays of shape (n_bins,), default=None
        Ends of a range of frequencies in each bin; one for each class.

    name : str, default=None
        Name of the classifier, shown as the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n_shown,)
        Axes with the diagrams.

    figure_ : matplotlib Figure
        Figure that holds the axes.

    See Also
    --------
    ReliabilityDisplay : The predicted class only, or one class in detail.
    skcalib.metrics.static_calibration_error : The number that goes with it.

    Examples
    --------
    >>> from skcalib.plotting import ClasswiseReliabilityDisplay
    >>> y_proba = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
    >>> display = ClasswiseReliabilityDisplay.from_predictions([0, 1, 2], y_proba)
    >>> display.errors.round(2)
    array([0.23, 0.23, 0.27])
    """

    classes: list
    frequency: np.ndarray
    confidence: np.ndarray
    share: np.ndarray
    errors: np.ndarray
    bands: list | None = None
    name: str | None = None

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        class_: Any = None,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        labels: Any = None,
        pos_label: Any = None,
        sample_weight: Any = None,
        interval: Literal["consistency", "confidence"] = "consistency",
        n_bootstrap: int = 200,
        confidence_level: float = 0.95,
        random_state: Any = 0,
        multilabel: bool = False,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the diagrams of predicted probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True classes.

        y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or \
                (n_samples, 1)
            Predicted probabilities; a single column is that of `pos_label`.

        class_ : int, float, bool, str or list of them, default=None
            Which classes to show, in order. By default all, or if there are more than
            12 those of the largest gaps, the largest first.

        n_bins : int, default=15
            Number of bins.

        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width or of equal mass.

        labels : array-like of shape (n_classes,), default=None
            Class of each column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        pos_label : int, float, bool or str, default=None
            Class of a single column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights give the points of repeated rows.

        interval : {"consistency", "confidence"}, default="consistency"
            Which band to draw, see `ReliabilityDisplay`.

        n_bootstrap : int, default=200
            Number of draws behind the bands; 0 leaves them out.

        confidence_level : float, default=0.95
            Share of the draws that the band covers in each bin.

        random_state : int, RandomState instance or None, default=0
            Seed of the bands.

        multilabel : bool, default=False
            Whether `y_true` and `y_proba` have a column for each of several labels that
            may occur together, see `skcalib.metrics.per_label`; `labels` names them.

        name : str, default=None
            Title.

        ax : sequence of matplotlib Axes, default=None
            As many as there are classes to show; by default those of a new figure.

        Returns
        -------
        display : ClasswiseReliabilityDisplay
            The drawn display.
        """
        check_bootstrap(n_bootstrap, confidence_level)
        check_interval(interval)
        check_whole("n_bins", n_bins)
        check_strategy(strategy)
        read = _read_labels if multilabel else _read_classes
        names, rows_of = read(y_true, y_proba, labels, sample_weight, pos_label)

        def of_column(k):
            confidence, hit, weight = rows_of(k)
            return BinnedRows(confidence, hit, weight, n_bins, strategy)

        if class_ is None:
            columns = _largest_gaps(of_column, len(names))
        else:
            shown = [class_] if np.ndim(class_) == 0 else class_
            columns = [_find(names, label) for label in shown]
            if not columns:
                raise ValueError(
                    "class_ is empty; name at least one class, or leave it out."
                )
        bins = [of_column(k) for k in columns]
        stats = [b.stats for b in bins]
        filled = np.stack([s.weight > 0 for s in stats])
        bands = [
            b.band(interval, n_bootstrap, confidence_level, random_state) for b in bins
        ]
        display = cls(
            classes=[names[k] for k in columns],
            frequency=np.where(filled, [s.accuracy for s in stats], np.nan),
            confidence=np.where(filled, [s.mean_confidence for s in stats], np.nan),
            share=np.stack([s.share for s in stats]),
            errors=np.array([s.mean_gap for s in stats]),
            bands=bands if n_bootstrap else None,
            name=name,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None, *, name: str | None = None) -> Self:
        """Draw the diagrams.

        Parameters
        ----------
        ax : sequence of matplotlib Axes, default=None
            As many as there are classes; by default those of a new figure.

        name : str, default=None
            Title; that of the display by default. It is left out on axes of your own.

        Returns
        -------
        display : ClasswiseReliabilityDisplay
            The display itself.
        """
        n_shown = len(self.classes)
        own_figure = ax is None
        axes = _new_grid(n_shown) if own_figure else own_axes(ax, n_shown, "classes")
        for row, panel in enumerate(axes):
            self._draw(panel, row)
        self.axes_, self.figure_ = axes, axes[0].figure
        if own_figure:
            title = self.name if name is None else name
            self.figure_.supxlabel("probability of the class", fontsize="medium")
            self.figure_.supylabel("frequency of the class", fontsize="medium")
            if title is not None:
                self.figure_.suptitle(title, parse_math=False)
        return self

    def _draw(self, ax, row):
        ax.plot([0, 1], [0, 1], "--", color=ink(), lw=0.8)
        filled = np.isfinite(self.confidence[row])
        x, y = self.confidence[row][filled], self.frequency[row][filled]
        if self.bands is not None:
            low, high = (end[filled] for end in self.bands[row])
            draw_band(ax, x, low, high)
        ax.vlines(x, x, y, color=COLOURS["gap"], lw=3, alpha=0.75)
        # Areas tell how many samples a bin holds; the first bin mostly holds all.
        share = self.share[row][filled]
        size = 8 + 40 * np.sqrt(share / share.max())
        ax.scatter(
            x,
            y,
            s=size,
            color=COLOURS["point"],
            edgecolor=paper(),
            linewidth=0.6,
            zorder=3,
            clip_on=False,
        )
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        ax.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
        title = f"{self.classes[row]}  {100 * self.errors[row]:.2f} %"
        ax.set_title(title, fontsize="medium", parse_math=False)
        hide_box(ax)


def _read_classes(y_true, y_proba, labels, sample_weight, pos_label):
    """Return the classes, and what gives probability, hit and weight of each."""
    codes, proba, weight, names = check_columns(
        y_true, y_proba, labels, sample_weight, pos_label
    )

    def rows_of(k):
        return proba[:, k].astype(np.float64), codes == k, weight

    return names, rows_of


def _read_labels(y_true, y_proba, labels, sample_weight, pos_label):
    """Return the same of labels that may occur together, where they are known."""
    refuse_beside_labels(pos_label)
    given = LabelColumns(y_true, y_proba, sample_weight, labels)

    def rows_of(k):
        rows = given.used(k)
        return given.proba[rows, k], given.is_set[rows, k], given.weight[rows]

    return given.names.tolist(), rows_of


def _find(names, label):
    if label not in names:
        raise ValueError(
            f"class_ holds {label!r}, which is not the class of a column. Name the "
            "classes of all columns if it never occurs in y_true: labels=[...]."
        )
    return names.index(label)


def _largest_gaps(of_column, n_columns):
    if n_columns <= MOST_PANELS:
        return list(range(n_columns))
    gaps = np.array([of_column(k).stats.mean_gap for k in range(n_columns)])
    return np.argsort(-gaps, kind="stable")[:MOST_PANELS].tolist()


def _new_grid(n_panels):
    n_columns = min(n_panels, 5 if n_panels > 8 else 4)
    n_rows = ceil(n_panels / n_columns)
    axes = new_axes(
        "ClasswiseReliabilityDisplay",
        n_rows,
        n_columns,
        size=(2.1, 2.5),  # High enough for the titles.
        sharex=True,
        sharey=True,
    )
    for panel in axes[n_panels:]:
        panel.set_visible(False)
    return axes[:n_panels]
