"""Calibration group by group: gaps of confidence and accuracy, all judged at once.

The rows of a group have the mean gap ``sum w (confidence - hit) / sum w``. Its variance
is that of a mean, with the larger of two variances of a row: the mean of
confidence (1 - confidence), which it is if the group is calibrated, and the observed
one, with one degree of freedom less. A group whose few rows all went alike is not taken
to be known exactly. Where all weights are whole, a group has as many rows as they add
up to; else as many as they amount to, whatever their scale (Kish's effective number).

Of a gap that is the same for all rows, and an accuracy a, the variance of a row is
a (1 - a) less the variance of the confidences. A sure group with few errors may have an
accuracy of more errors, whose variance is larger: an interval also holds the gaps that
are near by their own variance. Of one confidence this is Wilson's interval.

Groups share no rows, so that their gaps are independent, and Sidak's correction is
exact: intervals of the level (1 - alpha)^(1/G) hold together with 1 - alpha, and of the
smallest of G p-values, 1 - (1 - p)^G is a p-value. Whether groups differ from one
another is Cochran's Q: gaps about their mean weighted by precision, chi-square with
G - 1 degrees of freedom. The variances are those of groups that have this mean gap,
lest groups of few errors by chance weigh most. Quantiles are Student's, of as many
degrees of freedom as a group has rows less one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py
from scipy.stats import chi2
from scipy.stats import t as student

from skcalib._numerics import distinct, is_whole
from skcalib._optional import import_optional
from skcalib._tables import aligned
from skcalib._validation import (
    check_groups,
    check_top_label,
    effective_number,
    plain_names,
)
from skcalib.metrics._bins import Floats, check_level, sum_by_index

# Variance of a row below which a gap counts as known.
LEAST = 1e-12
# After as many, the common gap and the variances that follow from it agree.
STEPS = 20
_COLUMNS = ("weight", "accuracy", "confidence", "gap", "low", "high", "pvalue")


@dataclass(frozen=True, eq=False, repr=False)
class GroupComparison:
    """What `compare_groups` found, a group at each place of the arrays.

    The arrays are fractions; printed, they are in percent.

    Attributes
    ----------
    groups : list
        The groups, in sorted order.

    weight : ndarray of shape (n_groups,)
        Rows of each group, or the sum of their weights.

    accuracy, confidence : ndarray of shape (n_groups,)
        How often the predicted class is right, and its mean probability.

    gap, low, high : ndarray of shape (n_groups,)
        Confidence minus accuracy, and the ends of intervals that hold for all groups
        together.

    pvalue : ndarray of shape (n_groups,)
        P-value of each gap by itself.

    pvalue_any : float
        P-value of the hypothesis that no group has a gap, corrected for their number.

    pvalue_equal : float
        P-value of the hypothesis that all groups have the same gap.

    confidence_level : float
        Level of the intervals together.
    """

    groups: list[Any]
    weight: Floats
    accuracy: Floats
    confidence: Floats
    gap: Floats
    low: Floats
    high: Floats
    pvalue: Floats
    pvalue_any: float
    pvalue_equal: float
    confidence_level: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings only, ready for JSON.

        Returns
        -------
        comparison : dict
            The attributes, arrays as lists; groups that JSON does not know, such as
            dates and intervals, as text.
        """
        plain = {name: np.asarray(value).tolist() for name, value in vars(self).items()}
        return {**plain, "groups": plain_names(self.groups)}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame.

        Returns
        -------
        frame : pandas.DataFrame
            One row a group.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", "GroupComparison.to_frame")
        index = pandas.Index(self.groups, name="group")
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return pandas.DataFrame(columns, index=index)

    def _table(self) -> Iterator[list[str]]:
        level = f"{100 * self.confidence_level:g} % together"
        yield ["group", "rows", "accuracy %", "confidence %", "gap %", level]
        for i, name in enumerate(plain_names(self.groups)):
            yield [
                str(name),
                f"{self.weight[i]:,.6g}",
                f"{100 * self.accuracy[i]:.2f}",
                f"{100 * self.confidence[i]:.2f}",
                f"{100 * self.gap[i]:+.2f}",
                f"[{100 * self.low[i]:+.2f}, {100 * self.high[i]:+.2f}]",
            ]

    def __str__(self) -> str:
        lines = [
            *aligned(self._table()),
            f"no group has a gap: p = {self.pvalue_any:.3g}",
            f"all have the same gap: p = {self.pvalue_equal:.3g}",
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"GroupComparison({len(self.groups)} groups, "
            f"pvalue_any={self.pvalue_any:.4g}, pvalue_equal={self.pvalue_equal:.4g})"
        )


def compare_groups(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    groups: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> GroupComparison:
    """Compare confidence and accuracy in each group of rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    groups : array-like of shape (n_samples,)
        The group of each row.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows. Others say how much a
        row counts, and not how many rows there are: the less equal they are in a
        group, the wider is its interval.

    confidence_level : float, default=0.95
        Level of the intervals of all groups together.

    Returns
    -------
    comparison : GroupComparison
        Gaps with simultaneous intervals, and two tests; printed, a table.

    See Also
    --------
    skcalib.GroupCalibration : A calibration for every group.

    Notes
    -----
    The intervals are those of means, by Student's t, and of proportions, by Wilson's
    score, whichever reaches further. Where groups are sure or calibrated, they hold
    more often than they say; of groups of a few rows take them as rough. Over- and
    under-confidence within one group may cancel: the expected calibration error of its
    rows shows that.

    Examples
    --------
    >>> from skcalib.metrics import compare_groups
    >>> y = [0, 1, 1, 0] * 100
    >>> proba = [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]] * 100
    >>> found = compare_groups(y, proba, ["a", "a", "b", "b"] * 100)
    >>> found.gap.round(2)
    array([-0.1,  0.1])
    >>> bool(found.pvalue_equal < 0.01)
    True
    """
    check_level(confidence_level)
    confidence, hit, weight = check_top_label(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    names, number = distinct(check_groups(groups, confidence.size))
    found = _moments(confidence, hit, weight, number, names)
    n_groups, freedom = names.size, np.maximum(found.rows - 1, 1)
    pvalue = np.asarray(2 * student.sf(np.abs(found.gap) / found.error, freedom))
    tail = (1 - confidence_level ** (1 / n_groups)) / 2
    reach = np.asarray(student.isf(tail, freedom))
    low, high = found.interval(reach)
    spread = found.spread()
    return GroupComparison(
        groups=names.tolist(),
        weight=found.weight,
        accuracy=found.accuracy,
        confidence=found.confidence,
        gap=found.gap,
        low=low,
        high=high,
        pvalue=pvalue,
        pvalue_any=float(-np.expm1(xlog1py(n_groups, -pvalue.min()))),
        pvalue_equal=float(chi2.sf(spread, n_groups - 1)) if n_groups > 1 else 1.0,
        confidence_level=float(confidence_level),
    )


@dataclass(frozen=True, eq=False)
class _Moments:
    """Means of the rows of each group, and variances.

    Those of the gap of a row if the group is `calibrated`, and as `observed`; its `own`
    of the confidence.
    """

    weight: Floats
    rows: Floats
    accuracy: Floats
    confidence: Floats
    calibrated: Floats
    observed: Floats
    own: Floats

    @property
    def gap(self) -> Floats:
        return self.confidence - self.accuracy

    @property
    def error(self) -> Floats:
        """Standard error of the gap."""
        variance = np.maximum(self.calibrated, self.observed)
        # Where all are sure and right there is none.
        return np.sqrt(np.maximum(variance, LEAST) / self.rows)

    def interval(self, reach: Floats) -> tuple[Floats, Floats]:
        """Return the ends of the gaps that are at most `reach` errors away.

        The errors are that of the gap found, and that of each accuracy a: solved is
        (accuracy - a)^2 = reach^2 (a (1 - a) - own) / rows.
        """
        square, total = reach**2, self.rows + reach**2
        hits = self.accuracy * (1 - self.accuracy)
        inner = self.rows * hits + square / 4 - total * self.own
        half = reach * np.sqrt(np.maximum(inner, 0)) / total
        middle = self.confidence - (self.rows * self.accuracy + square / 2) / total
        plain = reach * self.error
        return (
            np.minimum(self.gap - plain, middle - half),
            np.maximum(self.gap + plain, middle + half),
        )

    def spread(self) -> float:
        """Return Cochran's Q, with the variances of groups that have one gap."""
        precision = self.rows
        hits = self.accuracy * (1 - self.accuracy)
        rest = np.maximum(self.observed - hits, -self.own)
        for _ in range(STEPS):
            middle = np.average(self.gap, weights=precision)
            accuracy = np.clip(self.confidence - middle, 0, 1)
            variance = np.maximum(accuracy * (1 - accuracy) + rest, self.calibrated)
            precision = self.rows / np.maximum(variance, LEAST)
        away = self.gap - np.average(self.gap, weights=precision)
        return float(precision @ away**2)


def _moments(
    confidence: Floats,
    hit: NDArray[np.bool_],
    weight: Floats,
    number: NDArray[np.intp],
    names: NDArray[Any],
) -> _Moments:
    total = sum_by_index(number, weight, names.size)
    if not total.all():
        empty = names.tolist()[int((total == 0).argmax())]
        raise ValueError(f"Group {empty!r} has rows of weight 0 only. Leave it out.")

    def mean_of(values: NDArray[Any]) -> Floats:
        return sum_by_index(number, weight * values, names.size) / total

    squares = sum_by_index(number, weight**2, names.size)
    rows = effective_number(total, squares, is_whole(weight))
    accuracy, mean = mean_of(hit), mean_of(confidence)
    about = mean_of((confidence - hit - (mean - accuracy)[number]) ** 2)
    return _Moments(
        weight=total,
        rows=rows,
        accuracy=accuracy,
        confidence=mean,
        calibrated=mean_of(confidence * (1 - confidence)),
        observed=about * rows / np.maximum(rows - 1, 1),
        own=mean_of((confidence - mean[number]) ** 2),
    )
