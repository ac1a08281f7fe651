"""The learned filter of the inputs as a picture: weights and frequency response."""

import numpy as np

from skcalib.plotting._style import new_axes

# Weights around 0, gains around 1, and what is added around 0.
COLOUR_MAPS = {"weight": "RdBu_r", "gain": "PuOr_r", "added": "RdBu_r"}
# Frequencies along an axis at which the response is drawn.
POINTS = 65
FREQUENCY = "cycles a sample"
# Share of the width for the colour bars.
BAR = 0.14
# A legend of more lines than these hides them.
MOST_NAMED = 10


def frequency_response(kernel):
    """Return the gain of ``x + w * x`` at frequencies from -1/2 to 1/2.

    That of each channel, for inputs that are alike in all channels.

    Parameters
    ----------
    kernel : ndarray of shape (n_channels, 1 or n_channels, ...)
        The weights w.

    Returns
    -------
    gain : ndarray of shape (n_channels, 65, ...)
        Factor of the amplitude; 1 where the filter changes nothing.
    """
    weights = np.asarray(kernel, dtype=np.float64).sum(axis=1)
    axes = tuple(range(1, weights.ndim))
    padded = np.zeros((weights.shape[0], *[POINTS] * len(axes)))
    padded[tuple(slice(0, n) for n in weights.shape)] = weights
    # A shift turns phases only, but beside the 1 it would count.
    centred = np.roll(padded, [-(n // 2) for n in weights.shape[1:]], axes)
    response = 1 + np.fft.fftn(centred, axes=axes)
    return np.abs(np.fft.fftshift(response, axes=axes))


def draw_filter(ax, kernel, delta, titles):
    """Draw a filter in the place of `ax`, or in a new figure; return the panels.

    `delta` has one array a channel to be drawn too, None where it is in the titles.
    """
    n_axes = kernel.ndim - 2
    if n_axes > 2:
        raise ValueError(
            f"A filter along {n_axes} axes is no image. Draw a part of it: "
            "PerturbationDisplay(delta, kernel=kernel[:, :, k]).plot()."
        )
    n_rows = 2 if delta is None else 3
    if ax is None:
        size = (2.2 * len(kernel) / (1 - BAR) + 0.6, 2.2 * n_rows + 0.5)
        size = size if n_axes == 2 else (6.4, 2.2 * n_rows + 0.5)
        (ax,) = new_axes("PerturbationDisplay", size=size)
    ax.set_axis_off()
    if n_axes == 2:
        return ax, _draw_images(ax, kernel, delta, titles)
    return ax, _draw_lines(ax, kernel, delta, titles, n_rows)


def _draw_images(ax, kernel, delta, titles):
    """Draw a row of images each of weights, gains and what is added."""
    rows = {"weight": [_side_by_side(filters) for filters in kernel]}
    rows["gain"] = list(frequency_response(kernel))
    if delta is not None:
        rows["added"] = list(delta)
    panels = []
    for place, (name, images) in enumerate(rows.items()):
        middle = 1.0 if name == "gain" else 0.0
        limit = np.nanmax(np.abs(np.stack(images) - middle)) or 1.0
        for column, image in enumerate(images):
            panel = ax.inset_axes(_place(place, column, len(rows), len(images)))
            shown = panel.imshow(
                image,
                cmap=COLOUR_MAPS[name],
                vmin=middle - limit,
                vmax=middle + limit,
                interpolation="nearest",
                extent=(-0.5, 0.5, -0.5, 0.5) if name == "gain" else None,
            )
            if name == "gain":
                panel.set(xticks=[-0.5, 0, 0.5], yticks=[-0.5, 0, 0.5])
                panel.set_xlabel(FREQUENCY, fontsize="small")
                panel.tick_params(labelsize="small")
            else:
                panel.set(xticks=[], yticks=[])
            if place == 0:
                title = titles[column]
                panel.set_title(title, fontsize="medium", parse_math=False)
            panels.append(panel)
        height = 0.62 / len(rows)
        low = 1 - (place + 1) / len(rows) + 0.2 / len(rows)
        bar = ax.inset_axes([1 - 0.7 * BAR, low, 0.22 * BAR, height])
        ax.figure.colorbar(shown, cax=bar).set_label(name)
    return np.array(panels)


def _place(row, column, n_rows, n_columns):
    """Return the corner and the size of a panel, in shares of the whole."""
    width, height = (1 - BAR) / n_columns, 1 / n_rows
    corner = column * width + 0.06 * width, 1 - (row + 1) * height + 0.2 * height
    return [*corner, 0.82 * width, 0.64 * height]


def _side_by_side(filters):
    """Return the filters of one channel beside each other, with gaps between them."""
    gap = np.full((filters.shape[1], 1), np.nan)
    parts = [part for weights in filters for part in (gap, weights)]
    return np.concatenate(parts[1:], axis=1)


def _draw_lines(ax, kernel, delta, titles, n_rows):
    """Draw filters of one axis, a line a channel; of features, a point each."""
    panels = np.array(
        [
            ax.inset_axes([0.1, 1 - (row + 0.82) / n_rows, 0.88, 0.6 / n_rows])
            for row in range(n_rows)
        ]
    )
    if kernel.ndim == 2:
        gain = 1 + kernel.sum(axis=1)
        panels[0].plot(kernel.sum(axis=1), "o", markersize=4)
        panels[1].plot(gain, "o", markersize=4)
        panels[0].set(xlabel="feature", ylabel="weight")
        panels[1].set(xlabel="feature", ylabel="gain")
    else:
        reach = kernel.shape[2] // 2
        taps = np.arange(-reach, reach + 1)
        frequency = np.linspace(-0.5, 0.5, POINTS)
        half = frequency >= 0
        gains = frequency_response(kernel)
        for filters, gain, title in zip(kernel, gains, titles, strict=True):
            panels[0].plot(taps, filters.sum(axis=0), "o-", markersize=4, label=title)
            panels[1].plot(frequency[half], gain[half])
        panels[0].set(xlabel="tap", ylabel="weight", xticks=taps)
        panels[1].set(xlabel=FREQUENCY, ylabel="gain")
        if len(kernel) <= MOST_NAMED and any(titles):
            for text in panels[0].legend(fontsize="small").get_texts():
                text.set_parse_math(False)
    if delta is not None:
        points = "o" if kernel.ndim == 2 else "-"
        panels[2].plot(
            np.stack([np.ravel(part) for part in delta], axis=-1).squeeze(), points
        )
        panels[2].set(
            xlabel="feature" if kernel.ndim == 2 else "sample", ylabel="added"
        )
    return panels
