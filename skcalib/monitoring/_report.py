"""What a monitor knows, as numbers and as text."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skcalib.metrics._bins import BinStats
from skcalib.monitoring import _bets
from skcalib.monitoring._input import group_names

# The interval of the mean gap is narrowest, for its level, after some 1,000 rows.
_MIXING = 30.0
# Variance factor of a hit or miss about its probability, whatever that is (Hoeffding).
_VARIANCE = 0.25


@dataclass(frozen=True)
class MonitorReport:
    """What a `CalibrationMonitor` knows; printed, a summary.

    Attributes
    ----------
    n_rows, n_classes : int
        What was seen.

    evidence, threshold : float
        Logarithm of the wealth, and of ``1 / alpha``.

    alarm : bool
        Whether the threshold was ever reached.

    alarm_row, change_point : int or None
        Rows seen at the alarm, and the row since which the best bet gains.

    suspect : str or None
        What the best bet holds against the probabilities, once there is an alarm.

    group : object
        The group in whose rows it gains; None for all rows.

    accuracy, confidence, log_loss : float
        Means over all rows.

    gap : float
        Confidence minus accuracy, over all rows.

    gap_low, gap_high : float or None
        A confidence interval of the expected gap at the level ``1 - alpha`` that holds
        at all times together; None for late labels.

    ece_before, ece_since : float or None
        Expected calibration error in 15 bins before the change and since, as far as
        rows are remembered; without an alarm, of older rows and of those remembered.

    group_evidence : dict
        Logarithm of the wealth of each group.
    """

    n_rows: int
    n_classes: int
    evidence: float
    threshold: float
    alarm: bool
    alarm_row: int | None
    change_point: int | None
    suspect: str | None
    group: Any
    accuracy: float
    confidence: float
    log_loss: float
    gap: float
    gap_low: float | None
    gap_high: float | None
    ece_before: float | None
    ece_since: float | None
    group_evidence: dict[Any, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and text, ready for JSON.

        Returns
        -------
        report : dict
            The attributes by name.
        """
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.n_rows:,} rows of {self.n_classes} classes",
            f"evidence    {self.evidence:.2f} (alarm from {self.threshold:.2f})",
            f"accuracy    {100 * self.accuracy:.2f} %",
            f"confidence  {100 * self.confidence:.2f} %",
        ]
        if self.gap_low is not None and self.gap_high is not None:
            ends = f"[{100 * self.gap_low:.2f}, {100 * self.gap_high:.2f}]"
            lines.append(f"gap         {100 * self.gap:.2f} % {ends}")
        if not self.alarm:
            return "\n".join(["No alarm.", *lines])
        where = "" if self.group is None else f" in group {self.group!r}"
        head = [
            f"ALARM after {self.alarm_row:,} rows; not calibrated since about row "
            f"{self.change_point:,}{where}.",
            f"{self.suspect}",
        ]
        return "\n".join([*head, *lines])


def make_report(monitor: Any) -> MonitorReport:
    """Report on a monitor that has seen rows."""
    n_rows, (confidence, hits, loss) = monitor.n_rows_, monitor._sums
    bet, _, subject = monitor._suspect()
    settings = monitor._settings
    names = [] if settings["groups"] is None else group_names(monitor)
    gap = float(confidence - hits) / n_rows
    is_late = bool(settings["delay"])
    half = math.nan if is_late else gap_half_width(n_rows, settings["alpha"])
    before, now = monitor._recent.bins(monitor.change_point_ or 0)
    return MonitorReport(
        n_rows=n_rows,
        n_classes=monitor.classes_.shape[0],
        evidence=monitor.evidence_,
        threshold=monitor.threshold_,
        alarm=monitor.alarm_,
        alarm_row=monitor.alarm_row_,
        change_point=monitor.change_point_,
        suspect=(
            _bets.describe(bet, monitor.classes_.tolist()) if monitor.alarm_ else None
        ),
        group=names[subject - 1] if monitor.alarm_ and subject else None,
        accuracy=float(hits) / n_rows,
        confidence=float(confidence) / n_rows,
        log_loss=float(loss) / n_rows,
        gap=gap,
        gap_low=None if is_late else gap - half,
        gap_high=None if is_late else gap + half,
        ece_before=_ece(before),
        ece_since=_ece(now),
        group_evidence={
            name: float(np.mean([stream[k].evidence for stream in monitor._streams]))
            for k, name in enumerate(names, start=1)
        },
    )


def gap_half_width(n_rows: int, alpha: float) -> float:
    """Return half the width of an interval of the mean gap that holds at all times.

    Hits minus their probabilities given the past are sub-Gaussian with the variance
    factor 1/4 whether the model is calibrated or not. Robbins' mixture over a normal
    distribution of the slope with variance 1 / rho bounds their sum S, with V = n / 4:

        P(ever  S^2 > 2 (V + rho) (ln(1 / alpha) + ln((V + rho) / rho) / 2)) <= alpha .
    """
    total = _VARIANCE * n_rows + _MIXING
    bound = 2 * total * (math.log(1 / alpha) + math.log(total / _MIXING) / 2)
    return math.sqrt(bound) / n_rows


def _ece(stats: BinStats) -> float | None:
    return stats.mean_gap if stats.weight.any() else None
