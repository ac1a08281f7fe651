"""Pure array functions on rows of logits, and the choice among scored candidates.

Those that end in ``_`` overwrite `x`.
"""

import itertools
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Larger logits are cut to this size, which no difference between two rows survives
# anyway; products with any sensible coefficient, differences and squares stay finite.
LARGEST_LOGIT = 1e60
# Probabilities below this are not told apart from 0 before their logarithm, wherever
# they come from. One number for all rows: what is learned from many of them is to hold
# for each when it is served alone, from Python or from an exported model.
PROBA_FLOOR = 1e-12
# The smallest number of full precision, which keeps denominators above zero.
TINY = np.finfo(np.float64).tiny
# Probabilities of true classes are cut off where scikit-learn does in float64.
SMALLEST_PROBA = np.finfo(np.float64).eps
# Rows of up to so many numbers are looked at as columns (`benchmarks/scale.py`).
NARROW = 32
# Of rows of up to so many numbers the maximum is taken column by column.
FEW_COLUMNS = 10
# Whole numbers in a range of so many are counted in less time than they are sorted.
MOST_COUNTED = 1 << 16


def cut_logits(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Copy the logits to float64, cut to a size whose differences are finite."""
    block = np.array(logits, dtype=np.float64, order="C", like=logits)
    return np.clip(block, -LARGEST_LOGIT, LARGEST_LOGIT, out=block)


def softmax_(x: NDArray[Any]) -> NDArray[Any]:
    """Replace each row by its softmax."""
    x -= row_maxima(x)[:, np.newaxis]
    np.exp(x, out=x)
    x /= x.sum(axis=1, keepdims=True)
    return x


def log_softmax_(x: NDArray[Any]) -> NDArray[Any]:
    """Replace each row by the logarithm of its softmax."""
    x -= row_maxima(x)[:, np.newaxis]
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def entropy(log_proba: NDArray[Any]) -> NDArray[Any]:
    """Entropy of each row of log-probabilities, in nats."""
    return -np.vecdot(np.exp(log_proba), log_proba)


def is_whole(weight: NDArray[Any]) -> bool:
    """Whether all weights are whole numbers: numbers of repetitions."""
    return bool((weight == np.rint(weight)).all())


def log_sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    """Logarithm of the logistic function, without overflow or cancellation."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def split_top(
    x: NDArray[Any],
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """Split each row into its first largest entry and the rest.

    Returns the column `top`, its one-vs-rest log-odds ``x_top - log sum exp(rest)``
    and ``rest``, the softmax of the other columns (0 at `top`). Nothing cancels
    when the probability of `top` is within rounding of 1.
    """
    rows = np.arange(x.shape[0], like=x)
    top, largest = largest_column(x)
    rest = x.copy()
    rest[rows, top] = -np.inf
    second = row_maxima(rest)
    rest -= second[:, np.newaxis]
    np.exp(rest, out=rest)
    total = rest @ np.ones_like(rest[0])
    rest /= total[:, np.newaxis]
    return top, (largest - second) - np.log(total), rest


def log_odds(x: NDArray[Any]) -> NDArray[Any]:
    """One-vs-rest log-odds ``x_k - log(sum of exp(x_j), j != k)`` of every column."""
    if x.shape[1] == 2:
        difference = x[:, 1:] - x[:, :1]
        return np.concatenate([-difference, difference], axis=1)
    top, top_log_odds, rest = split_top(x)
    rows = np.arange(x.shape[0], like=x)
    largest = x[rows, top][:, np.newaxis]
    # exp(-top_log_odds) is the mass of the rest in units of the largest entry.
    others = np.exp(-top_log_odds)[:, np.newaxis] * (1 - rest)
    result = (x - largest) - np.log1p(others)
    result[rows, top] = top_log_odds
    return result


def some_logits(n_rows: int, n_columns: int) -> NDArray[np.float64]:
    """Return rows of logits, always the same, to ask a calibrator what it makes of."""
    return 4 * np.cos(np.arange(n_rows * n_columns)).reshape(n_rows, n_columns)


def true_log_proba(proba: NDArray[Any], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return ln p of column `codes` in each row; p is at least 2.2e-16."""
    own = proba[np.arange(codes.shape[0]), codes].astype(np.float64)
    log_own: NDArray[np.float64] = np.log(np.maximum(own, SMALLEST_PROBA))
    return log_own


def row_maxima(block: NDArray[Any]) -> NDArray[Any]:
    """Return the largest number of each row."""
    if 1 < block.shape[1] <= FEW_COLUMNS and isinstance(block, np.ndarray):
        # A row at a time takes up to fifty times as long.
        largest: NDArray[Any] = reduce(np.maximum, block.T)
        return largest
    return block.max(axis=1)


def in_line(block: NDArray[Any], own: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return a view of all numbers in a line, and where `own`, rows and columns, is.

    With one index it takes a third of the time. What lies otherwise is left as it is.
    """
    if not isinstance(block, np.ndarray):
        return block, own
    (rows, columns), (n_rows, n_columns) = own, block.shape
    if block.flags.c_contiguous:
        return block.reshape(-1), rows * n_columns + columns
    if block.flags.f_contiguous:
        return block.T.reshape(-1), columns * n_rows + rows
    return block, own


def side_by_side(block: NDArray[Any]) -> NDArray[Any] | None:
    """Return the columns of a block one after another, if there are few of them.

    Sums and maxima of short rows then take a fraction of the time. None for others, and
    where the block does not lie on the host.
    """
    if block.shape[1] > NARROW or not isinstance(block, np.ndarray):
        return None
    return np.array(block.T, order="C")


def largest_column(block: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the (first) column and the value of each row's maximum.

    The value is NaN where the row holds one.
    """
    columns = side_by_side(block)
    if columns is None:
        top = block.argmax(axis=1)
        return top, block[np.arange(top.shape[0], like=top), top]
    largest = columns.max(axis=0)
    found = columns == largest
    for before, column in itertools.pairwise(found):
        # True from the first column on that holds it.
        column |= before
    place = columns.shape[0] - found.sum(axis=0, dtype=np.uint8)
    # Rows with NaN have no such column.
    return np.minimum(place, columns.shape[0] - 1).astype(np.intp), largest


def distinct(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the distinct values, ascending, and the place of each value among them.

    Whole numbers that are near each other, such as labels, are counted, not sorted.
    """
    if values.dtype.kind in "iu" and values.size:
        low, high = int(values.min()), int(values.max())
        if high - low <= MOST_COUNTED:
            # Differences of any integer type, modulo 2^64.
            least = np.uint64(low % 2**64)
            offset = (values.astype(np.uint64) - least).astype(np.intp)
            occurs = np.bincount(offset) > 0
            present = np.flatnonzero(occurs).astype(np.uint64) + least
            return present.astype(values.dtype), (np.cumsum(occurs) - 1)[offset]
    if values.dtype.kind == "O" and values.ndim == 1:
        return _distinct_objects(values)
    return np.unique(values, return_inverse=True)


def _distinct_objects(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Sort objects, such as texts, once each, as a sort of all calls Python often."""
    listed = values.tolist()
    place = {name: i for i, name in enumerate(sorted(set(listed)))}
    present = np.fromiter(place, dtype=object, count=len(place))
    index = map(place.__getitem__, listed)
    return present, np.fromiter(index, dtype=np.intp, count=len(listed))


def first_not_finite(block: NDArray[Any]) -> tuple[int, Any] | None:
    """Return the first row that holds NaN or infinity, and the first such value."""
    if np.isfinite(block).all():
        return None
    bad = ~np.isfinite(block)
    row = int(bad.any(axis=1).argmax())
    return row, block[row, bad[row].argmax()]


def occurrence(number: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how often each whole number from 0 on has come before."""
    order = np.argsort(number, kind="stable")
    size = np.bincount(number)
    before = np.empty(number.shape[0], dtype=np.intp)
    before[order] = np.arange(number.shape[0]) - np.repeat(size.cumsum() - size, size)
    return before


def places_by(number: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each number that occurs, ascending, and the places where it does."""
    order = np.argsort(number, kind="stable")
    ends = np.flatnonzero(np.diff(number[order], append=-1)) + 1
    for places in np.split(order, ends[:-1]) if order.size else []:
        yield int(number[places[0]]), places


def hash_rows(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Hash each row to 64 bits; equal rows have equal hashes, -0.0 being 0.0.

    The bytes are mixed word by word and summed with random odd factors. Rows of any
    shape and of any numbers; two that differ share a hash by chance only.
    """
    n_rows = rows.shape[0]
    flat = rows.reshape(n_rows, -1)
    flat = np.ascontiguousarray(flat + 0 if flat.dtype.kind == "f" else flat)
    size = next(s for s in (8, 4, 2, 1) if flat.shape[1] * flat.itemsize % s == 0)
    words = flat.view(np.uint8).view(f"u{size}").astype(np.uint64)
    # Round numbers differ in their upper bits only, which a product would push out.
    words ^= words >> np.uint64(32)
    words *= np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(29)
    rng = np.random.default_rng(0)
    factors = rng.integers(1 << 64, size=words.shape[1], dtype=np.uint64)
    words *= factors | np.uint64(1)
    return words.sum(axis=1, dtype=np.uint64)


def mean_and_error(
    values: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[Any, Any]:
    """Return weighted means along the last axis and their standard errors.

    Weights count repetitions, so the error is that of the repeated units. That of a
    single unit is unknown, and infinite.
    """
    total = weight.sum()
    mean = values @ weight / total
    if total <= 1 and np.count_nonzero(weight) == 1:
        return mean, np.full_like(mean, np.inf)
    square = (values - np.expand_dims(mean, -1)) ** 2 @ weight / total
    return mean, np.sqrt(square / max(total - 1, 1))


def choose(
    scores: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    one_standard_error: bool,
) -> int:
    """Return the row of the best candidate, or the first that it does not beat.

    It beats another one by more than one standard error of their difference (Hastie,
    Tibshirani & Friedman, "The Elements of Statistical Learning", section 7.10).
    `scores` are (candidates, units), the simplest candidate first; a unit is a row, a
    fold or a split, and its scores of two candidates go together.
    """
    best = int((scores @ weight).argmax())
    if not one_standard_error:
        return best
    gap, error = mean_and_error(scores[best] - scores, weight)
    return int((gap <= error).argmax())
