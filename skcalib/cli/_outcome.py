"""What a calibration came to, printed for people and as a dict for programs."""

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from skcalib import _learned
from skcalib._judging import HeldOut, describe
from skcalib.cli._console import print_text, working
from skcalib.cli._export import Served
from skcalib.cli._options import Judging
from skcalib.metrics import CalibrationReport
from skcalib.metrics._registry import METRICS
from skcalib.metrics._report import report_by_units

# The metrics that are shown.
TITLES = {
    metric.name: metric.named(metric.plain_title)
    for metric in METRICS.values()
    if metric.plain_title is not None
}
# Of more columns the first are shown.
MOST_COLUMNS = 20


@dataclass(frozen=True)
class Outcome:
    """A fitted and written calibrator, judged before and after.

    `read` names what went in; `rival` are the held-out probabilities of the simplest
    method, for a report on another one.
    """

    method: str
    calibrator: Any
    n_fit: int
    held_out: HeldOut
    before: CalibrationReport
    after: CalibrationReport
    served: Served | None
    saved: Path | None = None
    read: dict[str, str] = field(default_factory=dict)
    rival: NDArray[Any] | None = None

    @property
    def description(self) -> str:
        """The calibrator and its parameters that are not at their defaults."""
        return describe(self.calibrator)

    @property
    def class_names(self) -> str:
        """The first of the classes, separated by commas."""
        names = [str(label) for label in self.held_out.classes[:MOST_COLUMNS]]
        if len(self.held_out.classes) > len(names):
            names.append("...")
        return ", ".join(names)

    @property
    def learned(self) -> dict[str, Any]:
        """The learned numbers and short vectors, by name."""
        return _learned.learned(self.calibrator)

    @property
    def learned_text(self) -> list[tuple[str, str]]:
        """The same as text, those of a dict one by one."""
        return _learned.learned_text(self.calibrator)

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "method": self.method,
            "calibrator": self.description,
            "learned": self.learned,
            "n_fit": self.n_fit,
            "judged_on": self.held_out.how,
            "columns": self.held_out.columns,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            **({"output": None} if self.served is None else self.served.to_dict()),
            "saved": None if self.saved is None else str(self.saved),
        }


def measure(
    labels: NDArray[Any],
    proba: NDArray[Any],
    classes: NDArray[Any],
    judging: Judging,
    unit: NDArray[np.intp] | None = None,
) -> CalibrationReport:
    """Return the metrics that are shown; intervals draw rows of a unit together."""
    with working("Measuring"):
        return report_by_units(
            labels,
            proba,
            unit,
            labels=classes,
            n_bins=judging.n_bins,
            metrics=TITLES,
            n_bootstrap=judging.n_bootstrap,
            random_state=judging.seed,
        )


def judged(
    method: str,
    calibrator: Any,
    n_fit: int,
    held_out: HeldOut,
    served: Served | None,
    judging: Judging,
    saved: Path | None = None,
) -> Outcome:
    """Measure before and after, over the same bootstrap samples."""
    before, after = (
        measure(held_out.labels, proba, held_out.classes, judging, held_out.unit)
        for proba in (held_out.before, held_out.after)
    )
    return Outcome(method, calibrator, n_fit, held_out, before, after, served, saved)


def as_text(report: CalibrationReport, metric: str) -> tuple[str, str]:
    """Write a metric and its interval; the interval is empty where there is none."""
    return METRICS[metric].written(*report[metric])


def print_outcome(outcome: Outcome, report: Path | None) -> None:
    """Print what was fitted, the table of before and after, and what was written."""
    print_text(f"{outcome.description}, fitted on {outcome.n_fit:,} samples")
    for name, value in outcome.learned_text:
        print_text(f"  {name} = {value}")
    print_columns(outcome.held_out.columns)
    print_text(f"Judged on {outcome.held_out.how}:\n")
    print_reports({"before": outcome.before, "after": outcome.after})
    print_text(textwrap.fill(outcome.held_out.summary, 76) + "\n")
    if outcome.served is not None:
        print_served(outcome.served)
    if outcome.saved is not None:
        print_text(f"Wrote {outcome.saved}")
    if report is not None:
        print_text(f"Wrote {report}")


def print_served(served: Served) -> None:
    """Print what was written as ONNX, and how it compares with Python."""
    print_text(f"Wrote {served.path}")
    print_text(f"  {served.outputs_text}")
    if served.largest_difference is not None:
        print_text(
            f"  run in onnxruntime on {served.n_compared:,} samples; largest "
            f"difference to Python in any probability: {served.difference_text}"
        )


def print_columns(columns: dict[str, Any] | None) -> None:
    """Print which class each named column of a table was taken for."""
    if columns is None:
        return
    shown = [f"{name} = {label}" for name, label in columns.items()]
    if len(shown) > MOST_COLUMNS:
        shown[MOST_COLUMNS:] = [f"and {len(shown) - MOST_COLUMNS:,} more"]
    print_text(f"Columns and their classes: {', '.join(shown)}")


def print_reports(reports: dict[str, CalibrationReport]) -> None:
    """Print a table with one column a report."""
    level = next(iter(reports.values())).confidence_level
    with_intervals = next(iter(reports.values())).n_bootstrap > 0
    note = f" [{100 * level:g} % interval]" if with_intervals else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column()
    for name in reports:
        table.add_column(escape(name + note), justify="right")
    for metric, title in TITLES.items():
        cells = [" ".join(as_text(report, metric)) for report in reports.values()]
        table.add_row(title, *(escape(cell.strip()) for cell in cells))
    Console().print(table)
