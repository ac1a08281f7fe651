"""Checks of weights, and how many samples rows of such weights are."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._blocks import on_host
from skcalib._numerics import is_whole
from skcalib._sklearn_compat import check_sample_weight
from skcalib._validation._containers import column_on_host, is_dask, refuse_dates

# Weights count rows, so they are left as they are, unless the largest lies outside
# these powers of two: then neither sums nor products of two overflow or vanish, and
# there are as good as infinitely many rows, or none, before and after.
SMALLEST_WEIGHT, LARGEST_WEIGHT = -100, 100
# Weights that count samples already, in each thread; None, which is ones, always does.
_counted: ContextVar[Any] = ContextVar("_counted", default=None)
# In a fit, a row of so many samples is one of infinitely many: of more, what a prior
# adds is no longer told from nothing.
MOST_REPETITIONS = 2.0**50


def check_weight(sample_weight: ArrayLike | None, y: ArrayLike) -> NDArray[np.float64]:
    """Return float64 weights, non-negative and not all zero; ones by default.

    Where the largest is above 2^100 or below 2^-100, all are multiplied by the power of
    two that takes it there.
    """
    refuse_dates(sample_weight, "sample_weight")
    weight: NDArray[np.float64]
    weight = check_sample_weight(column_on_host(sample_weight), y, dtype=np.float64)
    refuse_negative(weight)
    if not weight.any():
        raise ValueError("sample_weight is zero everywhere; no sample is left to fit.")
    exponent = sensible_exponent(float(weight.max()))
    return np.ldexp(weight, exponent) if exponent else weight


def are_repetitions(whole: bool, largest: float) -> bool:
    """Whether weights up to `largest`, `whole` numbers or not, say how often rows came.

    Of those that `check_weight` has made smaller it cannot be told any more.
    """
    return whole or largest >= 2.0 ** (LARGEST_WEIGHT - 1)


def effective_number(total: Any, squares: Any, repeated: bool) -> Any:
    """Return the number of samples that weights of this sum, and sum of squares, are.

    Of repetitions that is their sum. Other weights only compare rows, whether they sum
    to 1, to the number of rows or to that of a population: they amount to Kish's
    effective number of rows, which takes no notice of their scale.
    """
    return total if repeated else total * (total / squares)


def as_repetitions(weight: Any) -> Any:
    """Return weights that add up to the `effective_number` of samples.

    The largest is at most `MOST_REPETITIONS`.
    """
    largest = float(weight.max())
    if are_repetitions(is_whole(weight), largest):
        most = MOST_REPETITIONS
        return weight if largest <= most else weight * (most / largest)
    total, squares = float(weight.sum()), float((weight * weight).sum())
    return weight * (effective_number(total, squares, False) / total)


@contextmanager
def counted_before(weight: Any) -> Iterator[None]:
    """Leave these weights as they are, which one fit hands to another.

    They may be shares of repetitions, which are not whole any more.
    """
    before = _counted.set(weight)
    try:
        yield
    finally:
        _counted.reset(before)


def counted(weight: Any, sample_weight: Any, is_part: bool) -> Any:
    """Return checked weights that count samples; `sample_weight` are those that came.

    Those of a part of the rows are left as they are.
    """
    if sample_weight is _counted.get():
        return weight
    if not is_part:
        return as_repetitions(weight)
    check_part(float(weight.max()))
    return weight


def came_whole(sample_weight: Any) -> bool:
    """Whether weights that were checked are whole numbers as they came."""
    if is_dask(sample_weight):
        from skcalib._blocks._dask import as_column

        return is_whole(as_column(sample_weight, "sample_weight"))
    weight = 1.0 if sample_weight is None else column_on_host(sample_weight)
    return is_whole(np.asarray(weight, dtype=np.float64))


def check_part(largest: float) -> None:
    """Refuse weights up to `largest` that do not add up with those of other parts."""
    # What `check_weight` has changed lies outside.
    if not 2.0**SMALLEST_WEIGHT <= largest <= MOST_REPETITIONS:
        raise ValueError(
            f"The largest sample_weight of these rows is {largest:.1e} or beyond; that "
            f"of each part of a stream is to be from {2.0**SMALLEST_WEIGHT:.1e} to "
            f"{MOST_REPETITIONS:.1e}. Multiply the weights of all parts by one factor."
        )


def sensible_exponent(largest: float) -> int:
    """Return the power of two by which weights up to `largest` are multiplied."""
    exponent = int(np.frexp(largest)[1])
    return min(max(exponent, SMALLEST_WEIGHT), LARGEST_WEIGHT) - exponent


def refuse_negative(weight: NDArray[np.float64]) -> None:
    """Refuse negative weights, naming the first."""
    if (weight < 0).any():
        row = int((weight < 0).argmax())
        value = on_host(weight[row])
        raise ValueError(
            f"sample_weight holds a negative value: {value} in row {row}. "
            "Negative values in sample_weight have no meaning here."
        )
