"""The picture of a monitor: evidence over time, reliability then and now."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib.metrics._bins import BinStats
from skcalib.plotting import ReliabilityDisplay
from skcalib.plotting._style import (
    COLOURS,
    add_legend,
    hide_box,
    ink,
    new_axes,
    own_axes,
)

_SIZE = (4.4, 5.0)


def draw(monitor: Any, axes: Any = None) -> NDArray[Any]:
    """Draw on three axes, by default those of a new figure."""
    if axes is None:
        axes = new_axes("CalibrationMonitor.plot", n_columns=3, size=_SIZE)
    axes = own_axes(axes, 3, "parts of the picture")
    _draw_evidence(monitor, axes[0])
    change = monitor.change_point_
    remembered = monitor._recent.since(change or 0)[1].size
    titles = ("before", "since the change")
    if change is None or remembered < monitor.n_rows_ - change:
        titles = ("older rows", "the last")
    for ax, title, stats in zip(
        axes[1:], titles, monitor._recent.bins(change or 0), strict=True
    ):
        _draw_reliability(stats, title, ax)
    return axes


def _draw_evidence(monitor: Any, ax: Any) -> None:
    rows, evidence = np.array([(0, 0.0), *monitor._history]).T
    ax.plot(rows, evidence, color=COLOURS["point"], label="evidence")
    ax.axhline(
        monitor.threshold_, ls="--", color=COLOURS["gap"], label="alarm from here"
    )
    if monitor.alarm_:
        ax.axvline(monitor.change_point_, ls=":", color=ink(), label="change point")
    ax.set(xlabel="rows", ylabel="log of the wealth", title="evidence")
    hide_box(ax)
    add_legend(ax)


def _draw_reliability(stats: BinStats, title: str, ax: Any) -> None:
    if not stats.weight.any():
        ax.set_title(f"{title}: no rows")
        ax.set_axis_off()
        return
    name = f"{title}, {int(stats.weight.sum()):,} rows"
    ReliabilityDisplay._of_bins(stats, stats.share, name=name).plot(ax=ax, legend=False)
