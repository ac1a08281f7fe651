"""Results on stdout: tables for people, JSON for programs."""

import json
import math
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from skcalib.cli._outcome import METRICS, Outcome, as_text
from skcalib.metrics import CalibrationReport

# Of more columns the first are shown.
MOST_COLUMNS = 20


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object; numbers that JSON does not know become null."""
    print_text(json.dumps(_known_to_json(content), indent=2))


def _known_to_json(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _known_to_json(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_known_to_json(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def print_outcome(outcome: Outcome, report: Path | None) -> None:
    """Print what was fitted, the table of before and after, and what was written."""
    print_text(f"{outcome.description}, fitted on {outcome.n_fit:,} samples")
    for name, value in outcome.learned_text:
        print_text(f"  {name} = {value}")
    print_columns(outcome.held_out.columns)
    print_text(f"Judged on {outcome.held_out.how}:\n")
    print_reports({"before": outcome.before, "after": outcome.after})
    print_text(textwrap.fill(outcome.summary, 76) + "\n")
    served = outcome.served
    print_text(f"Wrote {served.path}")
    print_text(f"  {served.outputs_text}")
    if served.largest_difference is not None:
        print_text(
            f"  run in onnxruntime on {served.n_compared:,} samples; largest "
            f"difference to Python in any probability: {served.difference_text}"
        )
    if report is not None:
        print_text(f"Wrote {report}")


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
    for metric, (title, *_) in METRICS.items():
        cells = [" ".join(as_text(report, metric)) for report in reports.values()]
        table.add_row(title, *(escape(cell.strip()) for cell in cells))
    Console().print(table)


def print_text(text: str) -> None:
    """Print text as it is, brackets and all."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
