"""A calibration set in the chunks of Dask collections, and views of it.

Whatever is a view, a part of the rows or columns or other logits, is a list of steps
that each block goes through on its worker, before a statistic sees it.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from skcalib._blocks._dask import (
    DaskSource,
    as_logits,
    of_float64,
    reduce_chunks,
    refuse_elsewhere,
)
from skcalib._blocks._data import CalibrationData, Statistic
from skcalib._blocks._rows import BLOCK_ELEMENTS, row_slices
from skcalib._blocks._sources import ArraySource, BlockFunction
from skcalib._numerics import (
    distinct,
    first_not_finite,
    hash_rows,
    is_whole,
    occurrence,
)

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
# First rows of which few are distinct where a classifier has few scores.
HEAD = 1000
# Changes logits, codes and weights of a block, or leaves rows out.
Step = partial[Rows]


class HashedFold(NamedTuple):
    """The rows of a fold, or all others, told by a hash of their numbers and class.

    So a row and its twins are in the same fold, in whatever chunk they lie, unless they
    are `tied`: then the hash is of how many twins come before a row in its block, too.
    """

    n_folds: int
    seed: int
    fold: int
    inside: bool
    tied: bool = False


class DaskData(CalibrationData):
    """A calibration set whose rows lie in the chunks of Dask collections.

    Parameters
    ----------
    source : DaskSource
        The logits.

    beside : sequence of dask.array.Array
        Labels, and weights if there are any, in the chunks of the logits.

    steps : sequence of callable
        The first is `encode`, bound to what it needs.

    classes : ndarray of shape (n_classes,)
        The label of each column.

    n_samples : int
        The number of rows.

    share : ndarray of shape (n_classes,)
        The share of each class in the weights.

    total_weight : float
        The sum of the weights.
    """

    source: DaskSource

    def __init__(
        self,
        source: DaskSource,
        beside: Sequence[Any],
        steps: Sequence[Step],
        classes: NDArray[Any],
        n_samples: int,
        share: NDArray[np.float64],
        total_weight: float,
    ) -> None:
        self.source, self._beside, self._steps = source, beside, tuple(steps)
        self.classes, self.n_classes = classes, classes.shape[0]
        self.n_samples, self._share = n_samples, share
        self.total_weight = total_weight

    def _with_step(self, step: Step, **changes: Any) -> "DaskData":
        view = copy(self)
        view.__dict__.update(changes, _steps=(*self._steps, step))
        return view

    def sum(
        self,
        statistic: Statistic,
        *,
        block_elements: int = BLOCK_ELEMENTS,
        heavy: bool = False,
    ) -> Any:
        """Sum ``statistic(logits, codes, weight)``, as `CalibrationData.sum` does."""
        through = partial(_of_rows, self._steps, statistic)
        return self.source.sum(through, *self._beside, block_elements=block_elements)

    def class_weights(self) -> NDArray[np.float64]:
        """Return the share of every class in the weights; 0 where it never occurs."""
        return self._share

    def every(self, step: int) -> CalibrationData:
        """Return every `step`-th row, in memory."""
        sizes = self.source.array.chunks[0]
        starts = [0, *accumulate(sizes)]
        collections = [self.source.array, *self._beside]
        of_chunk = partial(
            _every_of_chunk, step, starts, self.source.dtype, self._steps
        )
        found = reduce_chunks(of_chunk, collections)
        if found is None:  # All of these rows have weight 0, or lie in other folds.
            return self.every(step // 2)
        logits, codes, weight = map(np.concatenate, found)
        return CalibrationData(ArraySource(logits), codes, weight, self.classes)

    def head(self, n_rows: int) -> NDArray[Any]:
        """Return the logits of the first rows."""
        first = as_logits(self.source.dtype, self.source.array[:n_rows].compute())
        # What becomes of logits does not depend on their class, nor on their weight.
        codes, weight = np.zeros(len(first), dtype=np.intp), np.ones(len(first))
        for step in self._steps[1:]:
            if step.func is not _in_fold:
                first = step(first, codes, weight)[0]
        return first

    def used(self) -> "DaskData":
        """Return the set itself: no statistic sees a row of weight 0."""
        return self

    def subset(self, rows: Any) -> "DaskData":
        """Take the rows of a `HashedFold`, with the weights rescaled to sum to 1."""
        if not isinstance(rows, HashedFold):
            refuse_elsewhere()
        view = self._with_step(partial(_in_fold, rows))
        counted = view.sum(partial(_count, self.n_classes))
        if counted is None:
            raise ValueError(
                f"Fold {rows.fold} of {rows.n_folds} leaves no rows of positive weight "
                f"to {'judge by' if rows.inside else 'fit on'}. Use fewer folds."
            )
        n_samples, share = counted
        total = float(share.sum())
        return view._with_step(
            partial(_rescaled, 1 / total),
            n_samples=n_samples,
            total_weight=self.total_weight * total,
            _share=share / total,
        )

    def hashed_splits(
        self, cv: Any, random_state: Any
    ) -> list[tuple[HashedFold, HashedFold]]:
        """Return (train, test) folds for an integer `cv`, or for None, which is 5."""
        n_folds = 5 if cv is None else cv
        if not isinstance(n_folds, Integral) or n_folds < 2:
            raise ValueError(
                f"cv={cv!r}; the folds of a Dask collection are told by a hash of its "
                "rows, so that cv is their number, at least 2."
            )
        seed = int(check_random_state(random_state).randint(1 << 31))
        head = hash_rows(self.head(HEAD))
        # A classifier of few scores, such as a tree: equal rows are no twins.
        tied = np.unique(head).shape[0] < head.shape[0] / 2
        pairs = []
        for k in range(int(n_folds)):
            test = HashedFold(int(n_folds), seed, k, inside=True, tied=tied)
            pairs.append((test._replace(inside=False), test))
        return pairs

    def mapped(self, function: BlockFunction, *, keep_type: bool = False) -> "DaskData":
        """Put the logits through a row-wise `function` of float64 blocks."""
        return self._with_step(partial(_with_logits, function))

    def columns(self, index: NDArray[np.intp]) -> "DaskData":
        """Keep some columns, which must hold the classes of all rows."""
        number = np.full(self.n_classes, -1)
        number[index] = np.arange(index.shape[0])
        return self._with_step(
            partial(_of_columns, index, number),
            classes=self.classes[index],
            n_classes=index.shape[0],
            _share=self._share[index],
        )


def encode(
    present: NDArray[Any] | None,
    columns: NDArray[np.intp],
    exponent: int,
    total: float,
    logits: NDArray[Any],
    labels: NDArray[Any],
    weight: NDArray[Any] | None = None,
) -> Rows:
    """Turn labels into codes and weights into those that sum to 1; leave 0 out.

    The label ``present[i]`` is that of the column ``columns[i]``; None says that labels
    are the numbers of columns, which spares a search for each row. Weights are taken
    times two to the power of `exponent`, and then divided by `total`.
    """
    if present is None:
        codes = labels.astype(np.intp, copy=False)
    else:
        codes = columns[np.searchsorted(present, labels)]
    if weight is None:
        return logits, codes, np.full(codes.shape[0], 1 / total)
    used = weight > 0
    if not used.all():
        logits, codes, weight = logits[used], codes[used], weight[used]
    return logits, codes, np.ldexp(weight.astype(np.float64), exponent) / total


def _in_fold(
    rows: HashedFold, logits: NDArray[Any], codes: NDArray[Any], weight: NDArray[Any]
) -> Rows:
    pairs = np.column_stack([hash_rows(logits), codes.astype(np.uint64)])
    key = hash_rows(pairs)
    if rows.tied:
        unit = np.unique(key, return_inverse=True)[1]
        key = hash_rows(np.column_stack([key, occurrence(unit).astype(np.uint64)]))
    key += np.uint64(rows.seed)
    # Mixed once more (the end of SplitMix64), so that all bits have a say in the fold.
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    key ^= key >> np.uint64(31)
    taken = (key % np.uint64(rows.n_folds) == rows.fold) == rows.inside
    return logits[taken], codes[taken], weight[taken]


def _rescaled(
    factor: float, logits: NDArray[Any], codes: NDArray[Any], weight: NDArray[Any]
) -> Rows:
    return logits, codes, weight * factor


def _with_logits(
    function: BlockFunction,
    logits: NDArray[Any],
    codes: NDArray[Any],
    weight: NDArray[Any],
) -> Rows:
    return of_float64(function, logits), codes, weight


def _of_columns(
    index: NDArray[np.intp],
    number: NDArray[np.intp],
    logits: NDArray[Any],
    codes: NDArray[Any],
    weight: NDArray[Any],
) -> Rows:
    return logits[:, index], number[codes], weight


def _through(steps: Sequence[Step], *rows: NDArray[Any]) -> Rows | None:
    """Put rows through the steps; None if none of them are left."""
    for step in steps:
        rows = step(*rows)
        if not rows[1].shape[0]:
            return None
    return rows  # type: ignore[return-value]


def _of_rows(steps: Sequence[Step], statistic: Statistic, *rows: NDArray[Any]) -> Any:
    left = _through(steps, *rows)
    return None if left is None else statistic(*left)


def _count(
    n_classes: int, logits: NDArray[Any], codes: NDArray[np.intp], weight: NDArray[Any]
) -> tuple[int, NDArray[np.float64]]:
    return codes.shape[0], np.bincount(codes, weight, n_classes).astype(np.float64)


def _every_of_chunk(
    step: int,
    starts: list[int],
    dtype: np.dtype,
    steps: Sequence[Step],
    number: int,
    *blocks: Any,
) -> tuple[Any, ...] | None:
    # Copies: views would keep whole chunks until all of them have been read.
    rows_of = slice(-starts[number] % step, None, step)
    first, *beside = (np.array(part[rows_of]) for part in blocks)
    if not first.shape[0]:
        return None
    rows = _through(steps, as_logits(dtype, first), *beside)
    # Lists add up to one of all chunks.
    return None if rows is None else tuple([part] for part in rows)


@dataclass
class Inspection:
    """What is found out about all rows before a fit."""

    first_bad: tuple[int, int, Any] | None = None  # chunk, row and value
    negative: tuple[int, int, Any] | None = None
    largest_weight: float = 0.0
    # Sum of the squared weights, in units of that of the largest.
    squares: float = 0.0
    whole: bool = True  # Whether all weights are.
    # Weight of the rows of each label.
    labels: dict[Any, float] = field(default_factory=dict)

    def __iadd__(self, other: "Inspection") -> "Inspection":
        labels = dict(self.labels)
        for label, weight in other.labels.items():
            labels[label] = labels.get(label, 0.0) + weight
        self.labels = labels
        self.first_bad = self.first_bad or other.first_bad
        self.negative = self.negative or other.negative
        largest = max(self.largest_weight, other.largest_weight)
        if largest:
            self.squares *= (self.largest_weight / largest) ** 2
            self.squares += other.squares * (other.largest_weight / largest) ** 2
        self.largest_weight = largest
        self.whole &= other.whole
        return self


def inspect(array: Any, labels: Any, weight: Any | None) -> Inspection | None:
    """Look at all rows once; None if there are none."""
    collections = [array, labels] if weight is None else [array, labels, weight]
    found: Inspection | None = reduce_chunks(_inspect_chunk, collections)
    return found


def _inspect_chunk(
    number: int, chunk: Any, labels: Any, weight: Any = None
) -> Inspection | None:
    if not chunk.shape[0]:
        return None
    found = Inspection()
    for rows in row_slices(*chunk.reshape(chunk.shape[0], -1).shape):
        block = np.asarray(chunk[rows])
        bad = first_not_finite(block.reshape(block.shape[0], -1))
        if bad is not None:
            found.first_bad = number, rows.start + bad[0], bad[1]
            break
    y = np.asarray(labels)
    w = np.ones(y.shape[0]) if weight is None else np.asarray(weight, dtype=np.float64)
    # NaN is no weight either.
    wrong = np.flatnonzero(~(w >= 0) | np.isinf(w))
    if wrong.size:
        found.negative = number, int(wrong[0]), w[wrong[0]]
        return found
    present, code = distinct(y)
    mass = np.bincount(code, w, present.shape[0])
    found.labels = dict(zip(present.tolist(), mass.tolist(), strict=True))
    found.largest_weight, found.whole = float(w.max()), is_whole(w)
    if found.largest_weight:
        found.squares = float(((w / found.largest_weight) ** 2).sum())
    return found
