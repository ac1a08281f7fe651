"""Every metric, once: what reports, tests, scorers, comparisons and the command read.

A metric is added here, in its own file and in ``skcalib.metrics.__init__``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skcalib.metrics._bins import BinStats, Floats, RankedScores
from skcalib.metrics._brownian import largest_distance_tail, range_tail
from skcalib.metrics._conditional import top_label_calibration_error
from skcalib.metrics._directions import (
    overconfidence,
    overconfidence_error,
    underconfidence,
    underconfidence_error,
)
from skcalib.metrics._entropy import predictive_entropy
from skcalib.metrics._kde import kde_calibration_error
from skcalib.metrics._ks import ks_calibration_error, largest_cumulated_gap
from skcalib.metrics._kuiper import (
    kuiper_calibration_error,
    range_of_cumulated_gaps,
)
from skcalib.metrics._proper import calibration_loss, refinement_loss
from skcalib.metrics._resampling import (
    Replicate,
    RowStatistics,
    row_mean,
    unbiased_squared_gap,
)
from skcalib.metrics._skce import squared_kernel_calibration_error
from skcalib.metrics._smooth import (
    smooth_calibration_error,
    smooth_error,
    smooth_errors,
)
from skcalib.metrics._static import static_calibration_error
from skcalib.metrics._sweep import sweep_calibration_error, sweep_error
from skcalib.metrics._top_label import (
    adaptive_expected_calibration_error,
    expected_calibration_error,
    largest_gap,
    maximum_calibration_error,
    root_mean_squared_calibration_error,
    root_mean_squared_gap,
)
from skcalib.metrics._variational import variational_calibration_error


@dataclass(frozen=True)
class Metric:
    """What is known of a metric; a reader passes over one that lacks what it reads."""

    # By this name reports, `calibration_test` and `compare_calibration` know it.
    name: str
    # `function(y_true, y_proba, *, labels, sample_weight)` gives it a scorer.
    function: Callable[..., float] | None = None
    # "neither" has a scorer of each sign.
    better: Literal["lower", "higher", "neither"] = "lower"
    # To be resampled it is a function of one replicate, rows in the order of
    # confidence, and so of the predicted class alone ...
    of_ranked: Callable[[Replicate], float] | None = None
    # (many at once, where that takes less time: rows in their order, rows of weights)
    of_many: Callable[[RankedScores, Floats], Floats] | None = None
    # ... or the mean of a number of each row ...
    per_row: Callable[[RowStatistics], Floats] | None = None
    # ... or of all rows, for every row of weights at once ...
    of_rows: Callable[[RowStatistics, Floats], Floats] | None = None
    # ... and then, where it is known, of the sums per class and bin.
    of_class_bins: Callable[[BinStats], float] | None = None
    # What becomes of it where rows are added up as they come, and confidences rounded
    # to cells: the same, something near, or, where this is None, nothing.
    accumulated: Literal["exact", "near"] | None = None
    # Of a calibrated classifier, for many rows: how likely a value exceeds this many
    # standard deviations of the mean residual.
    tail: Callable[[float], float] | None = None
    # Made of absolute gaps, from 0 to 1, which the noise of resampling raises.
    is_gap: bool = False
    # In a report: its title, and whether it has to be asked for, as what repeats others
    # or takes its time has.
    title: str | None = None
    on_request: bool = False
    # In the tables of the command: its title, which explains more.
    plain_title: str | None = None
    # Whatever is printed is in percent, with so many decimals; None is the unit itself,
    # with four. Values are fractions everywhere.
    percent_decimals: int | None = None

    def named(self, title: str | None) -> str:
        """Return one of the titles with the unit of what `written` writes."""
        return f"{title}" if self.percent_decimals is None else f"{title} %"

    def written(
        self, value: float, low: float | None, high: float | None
    ) -> tuple[str, str]:
        """Write a value and its interval, which is empty where there is none."""
        decimals = self.percent_decimals
        factor, digits = (1, 4) if decimals is None else (100, decimals)
        text = f"{factor * value:.{digits}f}"
        if low is None or high is None:
            return text, ""
        return text, f"[{factor * low:.{digits}f}, {factor * high:.{digits}f}]"


# In the order of a report.
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            better="higher",
            of_ranked=lambda r: float(r.bins.hit.sum() / r.bins.weight.sum()),
            accumulated="exact",
            title="Accuracy",
            plain_title="Accuracy",
            percent_decimals=2,
        ),
        Metric(
            "nll",
            per_row=lambda rows: rows.log_loss,
            accumulated="exact",
            title="Log loss",
            plain_title="Log loss (NLL)",
        ),
        Metric(
            "brier",
            per_row=lambda rows: rows.brier,
            accumulated="exact",
            title="Brier score",
            plain_title="Brier score",
        ),
        Metric(
            "entropy",
            predictive_entropy,
            better="neither",
            per_row=lambda rows: rows.entropy,
            accumulated="exact",
            title="Entropy",
        ),
        Metric(
            "ece",
            expected_calibration_error,
            of_ranked=lambda r: r.bins.mean_gap,
            accumulated="exact",
            is_gap=True,
            title="ECE",
            plain_title="ECE",
            percent_decimals=2,
        ),
        Metric(
            "aece",
            adaptive_expected_calibration_error,
            of_ranked=lambda r: r.mass_bins.mean_gap,
            accumulated="near",
            is_gap=True,
            title="AECE (equal mass)",
            plain_title="ECE, equal mass",
            percent_decimals=2,
        ),
        Metric(
            "sce",
            static_calibration_error,
            of_rows=RowStatistics.static_errors,
            of_class_bins=lambda bins: bins.mean_gap,
            accumulated="exact",
            is_gap=True,
            title="SCE (class-wise)",
            plain_title="ECE, classwise (SCE)",
            # An average over all classes: small where they are many.
            percent_decimals=3,
        ),
        Metric(
            "mce",
            maximum_calibration_error,
            of_ranked=lambda r: largest_gap(r.bins),
            accumulated="exact",
            is_gap=True,
            title="Maximum CE",
            percent_decimals=2,
        ),
        Metric(
            "rmsce",
            root_mean_squared_calibration_error,
            of_ranked=lambda r: root_mean_squared_gap(r.bins),
            accumulated="exact",
            is_gap=True,
            title="Root mean squared CE",
            percent_decimals=2,
        ),
        Metric(
            "ks",
            ks_calibration_error,
            of_ranked=lambda r: largest_cumulated_gap(r.cumulated),
            accumulated="near",
            tail=largest_distance_tail,
            is_gap=True,
            title="KS error",
            plain_title="KS error, without bins",
            percent_decimals=2,
        ),
        Metric(
            "smooth_ece",
            smooth_calibration_error,
            of_ranked=lambda r: smooth_error(
                r.ranked.confidence, r.ranked.hit, r.weight
            ),
            of_many=lambda ranked, weights: smooth_errors(
                ranked.confidence, ranked.hit, weights
            ),
            accumulated="near",
            is_gap=True,
            title="Smooth ECE",
            percent_decimals=2,
        ),
        Metric(
            "kuiper",
            kuiper_calibration_error,
            of_ranked=lambda r: range_of_cumulated_gaps(r.cumulated),
            accumulated="near",
            tail=range_tail,
            is_gap=True,
            title="Kuiper error",
            on_request=True,
            percent_decimals=2,
        ),
        Metric(
            "overconfidence",
            overconfidence_error,
            of_ranked=lambda r: overconfidence(r.bins),
            accumulated="exact",
            is_gap=True,
            title="Overconfidence",
            on_request=True,
            percent_decimals=2,
        ),
        Metric(
            "underconfidence",
            underconfidence_error,
            of_ranked=lambda r: underconfidence(r.bins),
            accumulated="exact",
            is_gap=True,
            title="Underconfidence",
            on_request=True,
            percent_decimals=2,
        ),
        Metric(
            "sweep_ece",
            sweep_calibration_error,
            of_ranked=lambda r: sweep_error(r.ranked, r.weight),
            is_gap=True,
            title="ECE sweep",
            on_request=True,
            percent_decimals=2,
        ),
        Metric(
            "squared_ce",
            of_ranked=lambda r: unbiased_squared_gap(r.ranked, r.weight, r.n_bins),
        ),
        Metric("skce", squared_kernel_calibration_error),
        Metric("kde_ce", kde_calibration_error),
        Metric("variational_ce", variational_calibration_error),
        Metric("top_label_ce", top_label_calibration_error),
        Metric("calibration_loss", calibration_loss),
        Metric("refinement_loss", refinement_loss),
    )
}

# Columns of `compare_calibrators`, in their order, and what stands above them.
COLUMNS = {
    "accuracy": "accuracy",
    "entropy": "entropy",
    "ece": "ECE",
    "aece": "AECE",
    "sce": "SCE",
    "nll": "NLL",
    "brier": "Brier",
}
IN_REPORT = [name for name, metric in METRICS.items() if metric.title is not None]
RANKED = {name: m.of_ranked for name, m in METRICS.items() if m.of_ranked is not None}
PER_ROW = {name: m.per_row for name, m in METRICS.items() if m.per_row is not None}
OF_ROWS = {name: m.of_rows for name, m in METRICS.items() if m.of_rows is not None}
ACCUMULATED = [name for name in IN_REPORT if METRICS[name].accumulated is not None]


def check_names(metrics: Iterable[str] | None, known: list[str]) -> list[str]:
    """Return the names, those of a report by default; refuse what is not known."""
    default = [name for name in known if not METRICS[name].on_request]
    names = default if metrics is None else listed(metrics)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"metrics holds unknown names: {unknown}. Known are {known}."
            if unknown
            else "metrics is empty; name at least one."
        )
    return names


def listed(metrics: Iterable[str]) -> list[str]:
    """Return names in a list; refuse a single one, whose letters are none."""
    if isinstance(metrics, str):
        raise TypeError(f"metrics={metrics!r} is a string; pass a list of names.")
    return list(metrics)


def evaluate(
    rows: RowStatistics, weights: Floats, names: Iterable[str]
) -> dict[str, Floats]:
    """Compute each metric for every row of `weights`, which has one column a row."""
    values: dict[str, Floats] = {}
    ranked_weights = weights[:, rows.ranked.order]
    replicates = [Replicate(rows.ranked, w, rows.n_bins) for w in ranked_weights]
    for name in names:
        if name in PER_ROW:
            values[name] = row_mean(PER_ROW[name](rows), weights)
        elif name in OF_ROWS:
            values[name] = OF_ROWS[name](rows, weights)
        elif (of_many := METRICS[name].of_many) is not None:
            values[name] = of_many(rows.ranked, ranked_weights)
        else:
            values[name] = np.array([RANKED[name](r) for r in replicates])
    return values
