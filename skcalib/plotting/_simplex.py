"""Three classes in a triangle: from what was said to what was the case."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skcalib._validation import check_columns, check_whole
from skcalib.plotting._style import (
    COLOURS,
    FromEstimator,
    add_legend,
    ink,
    new_axes,
    paper,
)

# Corners of the triangle: first class on the left, second on the right, third on top.
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])


@dataclass(eq=False, repr=False)
class SimplexDisplay(FromEstimator):
    """Triangle of the probabilities of three classes, with arrows to the frequencies.

    The triangle is divided into cells. An arrow starts at the mean prediction of the
    samples of a cell and ends at how often the classes occurred among them: where the
    whole probability vector is calibrated, arrows are short.

    Make one with `from_estimator` or `from_predictions`; every argument is kept as
    an attribute.

    Parameters
    ----------
    classes : list
        The three classes.

    prediction, frequency : ndarray of shape (n_cells, 3)
        Mean prediction and frequencies of the classes in each cell that has an arrow.

    cells : ndarray of shape (n_filled, 3, 3)
        Corners, as probabilities, of the cells that hold samples.

    share : ndarray of shape (n_filled,)
        Share of the samples in each of these cells.

    name : str, default=None
        Name of the classifier, shown as the title.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the triangle.

    figure_ : matplotlib Figure
        Figure that holds the axes.

    References
    ----------
    .. [1] Vaicenavicius, Widmann, Andersson, Lindsten, Roll & Schön. "Evaluating model
       calibration in classification", AISTATS 2019. https://arxiv.org/abs/1902.06977

    Examples
    --------
    >>> from skcalib.plotting import SimplexDisplay
    >>> y_proba = [[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]
    >>> display = SimplexDisplay.from_predictions([0, 1, 2], y_proba, min_samples=2)
    >>> display.frequency
    array([[0.5, 0.5, 0. ]])
    """

    classes: list
    prediction: np.ndarray
    frequency: np.ndarray
    cells: np.ndarray
    share: np.ndarray
    name: str | None = None

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        n_cells: int = 8,
        min_samples: float = 10,
        labels: Any = None,
        sample_weight: Any = None,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the triangle of predicted probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True classes.

        y_proba : array-like of shape (n_samples, 3)
            Predicted probabilities of three classes.

        n_cells : int, default=8
            Number of cells along each side of the triangle.

        min_samples : float, default=10
            Cells of less weight have no arrow: it would tell of chance.

        labels : array-like of shape (3,), default=None
            Class of each column of `y_proba`; see
            `skcalib.metrics.expected_calibration_error`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights give the arrows of repeated rows.

        name : str, default=None
            Title.

        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        display : SimplexDisplay
            The drawn display.
        """
        n_cells = check_whole("n_cells", n_cells)
        codes, proba, weight, classes = check_columns(
            y_true, y_proba, labels, sample_weight
        )
        if proba.shape[1] != 3:
            raise ValueError(
                f"y_proba has {proba.shape[1]} columns; a triangle shows three "
                "classes. Pick three columns and the rows of their classes, and "
                "normalise."
            )
        used = weight > 0
        codes, weight = codes[used], weight[used]
        proba = proba[used].astype(np.float64)
        steps = _cell_of(proba, n_cells)
        unique, index = np.unique(steps, axis=0, return_inverse=True)
        index = np.ravel(index)

        def sum_rows(values):
            columns = (np.bincount(index, weight * column) for column in values.T)
            return np.column_stack(list(columns))

        mass = np.bincount(index, weight)
        shown = mass >= min_samples
        display = cls(
            classes=classes,
            prediction=(sum_rows(proba) / mass[:, np.newaxis])[shown],
            frequency=(sum_rows(np.eye(3)[codes]) / mass[:, np.newaxis])[shown],
            cells=_corners_of(unique, n_cells),
            share=mass / mass.sum(),
            name=name,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None, *, name: str | None = None) -> Self:
        """Draw the triangle.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.

        name : str, default=None
            Title; that of the display by default.

        Returns
        -------
        display : SimplexDisplay
            The display itself.
        """
        if ax is None:
            (ax,) = new_axes("SimplexDisplay", size=(5.2, 4.9))
        # Imported by now, since there are axes.
        from matplotlib.collections import PolyCollection
        from matplotlib.colors import LinearSegmentedColormap

        # Corners hold nearly all samples; the root of the root shows the others too.
        shade = (self.share / self.share.max()) ** 0.25
        # From empty to full, on dark paper too.
        greys = [paper(), COLOURS["histogram"]]
        cells = PolyCollection(
            list(self.cells @ CORNERS),
            array=shade,
            cmap=LinearSegmentedColormap.from_list("share", greys),
            clim=(0, 1),
            edgecolors=paper(),
            linewidths=0.8,
        )
        ax.add_collection(cells)
        ax.plot(*CORNERS[[0, 1, 2, 0]].T, color=ink(), lw=1)
        self._draw_arrows(ax)
        self._dress(ax)
        title = self.name if name is None else name
        if title is not None:
            ax.set_title(title, pad=10, parse_math=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_arrows(self, ax):
        start, end = self.prediction @ CORNERS, self.frequency @ CORNERS
        for a, b in zip(start, end, strict=True):
            ax.annotate(
                "",
                xy=b,
                xytext=a,
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": COLOURS["gap"],
                    "lw": 1.6,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "mutation_scale": 9,
                },
                zorder=3,
            )
        ax.plot(*start.T, "o", color=COLOURS["point"], markersize=3.5, zorder=4)

    def _dress(self, ax):
        for label, corner, ha, va, shift in zip(
            self.classes,
            CORNERS,
            ("center", "center", "center"),
            ("top", "top", "bottom"),
            (-0.03, -0.03, 0.03),
            strict=True,
        ):
            place = corner[0], corner[1] + shift
            ax.text(*place, str(label), ha=ha, va=va, parse_math=False)
        ax.plot(
            [], [], "o-", color=COLOURS["point"], markersize=4, label="predicted", lw=0
        )
        ax.plot([], [], ">", color=COLOURS["gap"], markersize=5, label="occurred")
        add_legend(ax, "upper right")
        ax.set(xlim=(-0.06, 1.06), ylim=(-0.1, 0.98), aspect="equal")
        ax.set_axis_off()


def _cell_of(proba, n_cells):
    """Return the number of the step of each column; three of them name a cell."""
    normal = proba / proba.sum(axis=1, keepdims=True)
    steps = (normal * n_cells).astype(np.intp)
    # On a corner of cells all three may have been rounded to just below a step.
    steps[steps.sum(axis=1) < n_cells - 2] += 1
    # There no step is left to share out: take the cell below.
    rows = np.flatnonzero(steps.sum(axis=1) == n_cells)
    steps[rows, steps[rows].argmax(axis=1)] -= 1
    return steps


def _corners_of(steps, n_cells):
    """Corners of the cells, as probabilities.

    Steps that sum to n - 1 leave one step to share out: a triangle that points as the
    whole does. Those that sum to n - 2 leave two: one that points the other way.
    """
    upright = (steps.sum(axis=1) > n_cells - 2)[:, np.newaxis, np.newaxis]
    moves = np.where(upright, np.eye(3), 1 - np.eye(3))
    corners = steps[:, np.newaxis] + moves
    return corners / corners.sum(axis=2, keepdims=True)
