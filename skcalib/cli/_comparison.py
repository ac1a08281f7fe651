"""The table of a comparison, for a spreadsheet and as a page."""

import csv
import io

import numpy as np

from skcalib.cli._report import as_address, new_figure, template, today
from skcalib.model_selection import CalibratorComparison
from skcalib.plotting import CalibratorComparisonDisplay

_SHOWN = ("nll", "brier", "ece")


def as_csv(table: CalibratorComparison) -> str:
    """Return a row a method, with mean and deviation of every metric as fractions.

    `best` lists the metrics of which the method is the best, or cannot be told from it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    pairs = [[metric, f"{metric} std"] for metric in table.metrics]
    writer.writerow(["method", *np.ravel(pairs).tolist(), "best"])
    numbers = np.stack([table.mean, table.std], axis=2)
    for name, row, is_best in zip(table.names, numbers, table.is_best, strict=True):
        best = " ".join(np.array(table.metrics)[is_best].tolist())
        writer.writerow([name, *row.ravel().tolist(), best])
    return text.getvalue()


def render_comparison(
    table: CalibratorComparison, read: dict[str, str], judged_on: str
) -> str:
    """Return the comparison as a page of HTML, which loads nothing."""
    figure = new_figure(9.6, 1.4 + 0.3 * len(table.names))
    CalibratorComparisonDisplay.from_comparison(
        table, metrics=_SHOWN, ax=figure.subplots(1, len(_SHOWN), sharey=True)
    )
    best = table.is_best[:, table.metrics.index("nll")]
    text: str = template("comparison.html").render(
        names=table.names,
        table=table._repr_html_(),
        picture=as_address(figure),
        read=read,
        judged_on=judged_on,
        ties=[name for name, is_tie in zip(table.names, best, strict=True) if is_tie],
        date=today(),
    )
    return text
