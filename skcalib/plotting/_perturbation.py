"""The learned input perturbation as a picture."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skcalib.plotting._filter import draw_filter
from skcalib.plotting._style import hide_box, ink, new_axes, titled

# Blue and red around white: told apart with every common form of colour blindness.
COLOUR_MAP = "RdBu_r"
LINE = "#0072b2"
UNITS = "change, in units of the input"
# So many channels an image has.
FEW_CHANNELS = (1, 3, 4)
# Of more channels the first ones are drawn.
MOST_CHANNELS = 16
# Longer perturbations are drawn as a line, without points.
LONGEST_STEM = 64
# The largest change around grey in a picture in true colours, whose range is 1.
LARGEST_COLOUR = 0.5
# Share of the width for the colour bar.
BAR = 0.12


@dataclass(eq=False, repr=False)
class PerturbationDisplay:
    """What `skcalib.NeuralClamping` does to every input: adds a tensor, or filters it.

    Of a filter the weights are drawn and, below, the factor by which it changes the
    amplitude of each frequency, zero in the middle. Of more than 16 channels the images
    of the first 16 are drawn, as the title says.

    Make one with `from_estimator`; every argument is kept as an attribute.

    Parameters
    ----------
    delta : ndarray of shape (n_features,), (height, width), \
            (n_channels, height, width) or (height, width, n_channels)
        The perturbation, in the units of the input.

    channel_axis : {0, 2} or None, default=None
        Where the channels lie; None where there are none.

    channel_names : list of str, default=None
        Titles of the channels; their numbers by default, or red, green and blue for
        three.

    name : str, default=None
        Name of the estimator, shown in the title.

    kernel : ndarray of shape (n_channels, 1 or n_channels, ...), default=None
        Weights of a filter of the inputs, whose result is added to them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes that hold the whole picture.

    axes_ : ndarray of matplotlib Axes
        Axes of the single panels.

    figure_ : matplotlib Figure
        Figure that holds the axes.

    See Also
    --------
    plot_perturbation : The same in one call.

    Examples
    --------
    >>> import numpy as np
    >>> from skcalib.plotting import PerturbationDisplay
    >>> delta = np.zeros((3, 32, 32))
    >>> display = PerturbationDisplay(delta, channel_axis=0).plot()
    >>> [panel.get_title() for panel in display.axes_]
    ['red', 'green', 'blue']
    """

    delta: np.ndarray
    channel_axis: int | None = None
    channel_names: list[str] | None = None
    name: str | None = None
    kernel: np.ndarray | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        channel_axis: Any = "auto",
        channel_names: Any = None,
        rgb: bool = False,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the perturbation of a fitted estimator.

        Parameters
        ----------
        estimator : NeuralClamping
            Fitted, with the attribute `delta_`.

        channel_axis : {"auto", 0, 2} or None, default="auto"
            Axis of `delta_` along which the channels of an image lie. "auto" takes the
            last one if it has 1, 3 or 4 entries and the first has not, else the first.

        channel_names : list of str, default=None
            Titles of the channels.

        rgb : bool, default=False
            Whether to add a panel in true colours, for three channels: the
            perturbation around grey, amplified by the factor in its title. A filter
            has none.

        name : str, default=None
            Name in the title; that of the estimator's class by default.

        ax : matplotlib Axes, default=None
            Axes whose place the picture takes; by default that of a new figure.

        Returns
        -------
        display : PerturbationDisplay
            The drawn display.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "delta_"):
            raise TypeError(
                f"{type(estimator).__name__} learns no perturbation of its inputs; "
                "only NeuralClamping does."
            )
        delta = np.asarray(estimator.delta_)
        if channel_axis == "auto":
            channel_axis = _find_channels(delta.shape)
        name = type(estimator).__name__ if name is None else name
        kernel = getattr(estimator, "filter_", None)
        display = cls(delta, channel_axis, channel_names, name, kernel)
        return display.plot(ax, rgb=rgb)

    def plot(
        self, ax: Any = None, *, rgb: bool = False, name: str | None = None
    ) -> Self:
        """Draw the perturbation.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes whose place the picture takes, and nothing else is touched; by
            default that of a new figure.

        rgb : bool, default=False
            Whether to add a panel in true colours, for three channels. A
            filter has none.

        name : str, default=None
            Name in the title; that of the display by default.

        Returns
        -------
        display : PerturbationDisplay
            The display itself.
        """
        if self.kernel is not None:
            return self._plot_filter(ax, self.name if name is None else name)
        images = self._images()
        if rgb and len(images) != 3:
            raise ValueError(
                f"rgb=True needs three channels; the perturbation has {len(images)}."
            )
        n_channels = len(images)
        images = images[:MOST_CHANNELS]
        n_panels = len(images) + int(rgb)
        if ax is None:
            ax = _new_axes(images, n_panels)
        if images:
            self._draw_images(ax, images, self._titles(n_channels), n_panels)
        else:
            self._draw_line(ax)
        title = self._title(self.name if name is None else name, n_channels)
        ax.set_title(title, parse_math=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_filter(self, ax, name):
        """Draw the filter, and what is added besides: in the titles, or row by row."""
        kernel = np.asarray(self.kernel)
        channels = list(np.moveaxis(self.delta, self.channel_axis or 0, 0))
        titles = self._titles(kernel.shape[0])
        even = kernel.ndim > 2 and all(np.ptp(part) == 0 for part in channels)
        if even:
            titles = [
                f"{title} {part.flat[0]:+.3g}".strip()
                for title, part in zip(titles, channels, strict=True)
            ]
        added = None if even else channels
        n_images = len(kernel) if kernel.ndim == 4 else 0
        if n_images > MOST_CHANNELS:
            kernel, titles = kernel[:MOST_CHANNELS], titles[:MOST_CHANNELS]
            added = None if even else channels[:MOST_CHANNELS]
        ax, self.axes_ = draw_filter(ax, kernel, added, titles)
        ax.set_title(self._title(name, n_images), parse_math=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _images(self):
        """Return one image a channel, none for a perturbation of one dimension."""
        delta = self.delta
        if delta.ndim == 1:
            return []
        if delta.ndim == 2:
            return [delta]
        if delta.ndim != 3 or self.channel_axis not in (0, 2):
            raise ValueError(
                f"A perturbation of shape {delta.shape} with channel_axis="
                f"{self.channel_axis} is no image. Draw a part of it: "
                "PerturbationDisplay(part, channel_axis=...).plot()."
            )
        return list(np.moveaxis(delta, self.channel_axis, 0))

    def _titles(self, n_channels):
        titles = self.channel_names
        if titles is None:
            numbers = [f"channel {k}" for k in range(n_channels)]
            titles = {1: [""], 3: ["red", "green", "blue"]}.get(n_channels, numbers)
        if len(titles) != n_channels:
            raise ValueError(
                f"channel_names has {len(titles)} entries for {n_channels} channels."
            )
        return titles

    def _draw_images(self, ax, images, titles, n_panels):
        limit = np.abs(self.delta).max() or 1.0
        ax.set_axis_off()
        panels, bar = _split(ax, n_panels)
        for image, panel, title in zip(images, panels, titles, strict=False):
            shown = panel.imshow(
                image, cmap=COLOUR_MAP, vmin=-limit, vmax=limit, interpolation="nearest"
            )
            panel.set_title(title, fontsize="medium", parse_math=False)
        if n_panels > len(images):
            factor = LARGEST_COLOUR / limit
            colours = 0.5 + factor * np.stack(images, axis=-1)
            panels[-1].imshow(np.clip(colours, 0, 1), interpolation="nearest")
            panels[-1].set_title(f"colours, {factor:.3g} times", fontsize="medium")
        if self.delta.any():
            colour_bar = ax.figure.colorbar(shown, cax=bar)
            colour_bar.set_label(UNITS)
            colour_bar.outline.set_visible(False)
        else:
            bar.set_axis_off()
        self.axes_ = np.array(panels)

    def _draw_line(self, ax):
        position = np.arange(self.delta.shape[0])
        ax.axhline(0, color=ink(), lw=0.8)
        if position.shape[0] <= LONGEST_STEM:
            ax.vlines(position, 0, self.delta, color=LINE, lw=2)
            ax.plot(position, self.delta, "o", color=LINE, markersize=5)
        else:
            ax.plot(position, self.delta, color=LINE, lw=1)
        limit = np.abs(self.delta).max() or 1.0
        ax.set(xlabel="feature", ylabel=UNITS, ylim=(-1.1 * limit, 1.1 * limit))
        ax.xaxis.get_major_locator().set_params(integer=True)
        hide_box(ax)
        self.axes_ = np.array([ax])

    def _title(self, name, n_images):
        largest, norm = np.abs(self.delta).max(), np.linalg.norm(self.delta)
        text = f"largest change {largest:.3g}, norm {norm:.3g}"
        if self.kernel is not None:
            taps = " x ".join(str(n) for n in self.kernel.shape[2:])
            text = f"filter of {taps} taps" if taps else "gain and offset"
        elif largest == 0:
            text = "no perturbation (all zero)"
        if n_images > MOST_CHANNELS:
            text += f", first {MOST_CHANNELS} of {n_images} channels"
        return titled(text, name)


def plot_perturbation(estimator: Any, *, ax: Any = None, **options: Any) -> Any:
    """Draw what a fitted `skcalib.NeuralClamping` does to its inputs.

    What is added to images is shown a panel a channel, in one symmetric colour scale in
    the units of the input; to inputs of one dimension as a line. A filter is shown by
    its weights and its frequency response; what it adds to a channel evenly stands in
    the titles.

    Parameters
    ----------
    estimator : NeuralClamping
        Fitted, with the attribute `delta_`.

    ax : matplotlib Axes, default=None
        Axes whose place the picture takes; by default that of a new figure.

    **options : dict
        Passed on to `PerturbationDisplay.from_estimator`: `channel_axis`,
        `channel_names`, `rgb`, `name`.

    Returns
    -------
    display : PerturbationDisplay
        The drawn display.

    See Also
    --------
    PerturbationDisplay : Holds what is drawn, also for a part of a perturbation.

    Examples
    --------
    >>> from skcalib import NeuralClamping
    >>> from skcalib.plotting import plot_perturbation
    >>> X, y = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [0, 0, 1, 1]
    >>> clamping = NeuralClamping(
    ...     lambda x: x, solver="fixed_delta", start=[0.5, -0.5], cv=2
    ... )
    >>> display = plot_perturbation(clamping.fit(X, y))
    >>> display.ax_.get_title()
    'NeuralClamping: largest change 0.5, norm 0.707'
    """
    return PerturbationDisplay.from_estimator(estimator, ax=ax, **options)


def _find_channels(shape):
    """Return the axis of an image's channels, None where there is none."""
    if len(shape) < 3:
        return None
    return 2 if shape[0] not in FEW_CHANNELS and shape[-1] in FEW_CHANNELS else 0


def _grid(n_panels):
    """Return ``(rows, columns)``: one row for a few panels, else about a square."""
    columns = n_panels if n_panels <= 4 else math.ceil(math.sqrt(n_panels))
    return math.ceil(n_panels / columns), columns


def _split(ax, n_panels):
    """Divide the place of `ax` into panels and a narrow one for the colour bar."""
    rows, columns = _grid(n_panels)
    width, height = (1 - BAR) / columns, 1 / rows
    panels = []
    for k in range(n_panels):
        row, column = divmod(k, columns)
        corner = (column * width, 1 - (row + 1) * height)
        panel = ax.inset_axes([*corner, 0.94 * width, 0.86 * height])
        panel.set(xticks=[], yticks=[])
        panels.append(panel)
    return panels, ax.inset_axes([1 - 0.7 * BAR, 0.05, 0.25 * BAR, 0.76])


def _new_axes(images, n_panels):
    size = (6.4, 3.2)
    if images:
        rows, columns = _grid(n_panels)
        size = (max(4.8, 2.5 * columns / (1 - BAR)), 2.7 * rows + 0.5)
    return new_axes("PerturbationDisplay", size=size)[0]
