"""Folds for sets that are small, many-classed, weighted, repetitive or in class order.

Rows that are alike stay together: a row whose twin was fitted on is no held-out row.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from skcalib._blocks import CalibrationData, Source, map_blocks, on_host, row_slices
from skcalib._numerics import hash_rows, occurrence
from skcalib._validation._groups import check_groups

DEFAULT_FOLDS = 5
# A set that is repeated as a whole has each row as often; one drawn with replacement
# has hardly any more often than this, and some of them once.
MOST_ALIKE = 8

Codes = NDArray[np.intp]
Split = tuple[Codes, Codes]


def make_splits(
    cv: Any,
    X: Any,
    codes: Codes,
    weight: NDArray[np.float64],
    random_state: Any,
    groups: Any = None,
    *,
    balanced: bool = True,
) -> list[Split]:
    """Return a list of (train, test) row numbers; rows of weight 0 are left out.

    An integer, or None for 5, means stratified folds of shuffled rows. Every class is
    dealt out over the folds in turn, however few samples it has, so none has to be left
    out. Equal rows of a class are dealt out as one, so that folds do not depend on how
    often a row is repeated, unless they share a score and nothing else (`_part_ties`);
    with `groups`, which a source of rows may have itself, rows of a group are. Anything
    else is what scikit-learn takes; it counts all rows of `X`, and repetitions are its
    own concern.

    Without groups folds need not be `balanced`: then how many rows of a class a fold
    has is left to chance. In balanced ones it is what the other folds have, so that
    shares of classes that were learned by chance seem to hold for the held-out rows.

    `X` is an array of any rows, or a source of blocks.
    """
    # Folds are drawn on the host; of rows on a device, only hashes come there.
    codes, weight = on_host(codes), on_host(weight)
    used = weight > 0
    if groups is None and hasattr(X, "row_groups"):
        groups = X.row_groups()
    if groups is not None:
        groups = _one_for_each(groups, codes.shape[0])
    if cv is None or isinstance(cv, Integral):
        n_folds = DEFAULT_FOLDS if cv is None else int(cv)
        if n_folds < 2:
            raise ValueError(f"cv={cv} is not an integer above 1.")
        rows = np.flatnonzero(used)
        if groups is None:
            score = _row_hashes(X, codes.shape[0])[rows]
            unit = _number(_with_class(score, codes[rows]))
            unit = _part_ties(unit, score, n_folds)
            fold = _deal_alike(unit, codes[rows], n_folds, random_state, balanced)
        else:
            unit = number_groups(groups[rows], several=True)
            fold = _deal_groups(unit, codes[rows], weight[rows], n_folds, random_state)
        return [(rows[fold != k], rows[fold == k]) for k in range(fold.max() + 1)]
    every = np.arange(codes.shape[0])
    whole = X.read(slice(0, every.size)) if isinstance(X, Source) else X
    pairs = check_cv(cv, codes, classifier=True).split(whole, codes, groups)
    splits = [tuple(every[part][used[part]] for part in pair) for pair in pairs]
    if not splits:
        raise ValueError(f"cv={cv!r} gives no split of the {codes.shape[0]} rows.")
    for i, (train, test) in enumerate(splits):
        if train.size == 0 or test.size == 0:
            raise ValueError(
                f"Split {i} of cv has {train.size} rows to fit on and {test.size} to "
                "judge by, rows of weight 0 left out; both need at least one."
            )
    return splits


def grouped(data: CalibrationData, groups: Any) -> CalibrationData:
    """Return a calibration set that knows the group of each row that came, if any."""
    if groups is None:
        return data
    if data.source.is_remote:
        raise ValueError(
            "X is a Dask collection, and folds of its rows know no groups. Leave them "
            "out, or pass X.compute() if it fits into memory."
        )
    n_rows = data.n_samples if data.row is None else int(data.row.max()) + 1
    groups = data.spread(_one_for_each(groups, n_rows))
    return type(data)(
        data.source, data.codes, data.sample_weight, data.classes, data.row, groups
    )


def splits_of(cv: Any, data: CalibrationData, random_state: Any) -> list[Split]:
    """Return the splits of a calibration set, as `make_splits` does.

    Where labels came as shares, all that came as one row stays together, and a splitter
    counts those rows, each of its likeliest class.
    """
    codes, weight, groups = data.codes, data.sample_weight, data.groups
    if data.row is None:
        return make_splits(cv, data.source, codes, weight, random_state, groups)
    _, number = np.unique(data.row, return_inverse=True)
    if cv is None or isinstance(cv, Integral):
        together = number if groups is None else groups
        return make_splits(cv, data.source, codes, weight, random_state, together)
    order = np.lexsort((-weight, number))
    likeliest = order[np.unique(number[order], return_index=True)[1]]
    rows = data.source.take(likeliest)
    groups = None if groups is None else groups[likeliest]
    weight = np.bincount(number, weight).astype(np.float64)
    splits = make_splits(cv, rows, codes[likeliest], weight, random_state, groups)
    return [
        (np.flatnonzero(np.isin(number, train)), np.flatnonzero(np.isin(number, test)))
        for train, test in splits
    ]


def number_equal_rows(X: Any, codes: Codes) -> Codes:
    """Return a number of each row, from 0 on, that equal rows of a class share.

    Rows are told apart by a hash of 64 bits.
    """
    return _number(_with_class(_row_hashes(X, codes.shape[0]), codes))


def lone_class(splits: Sequence[Split], codes: Codes) -> tuple[int, int] | None:
    """Return the first split that leaves one class only to fit on, and that class.

    None if there is no such split.
    """
    for i, (train, _) in enumerate(splits):
        present = np.unique(codes[train])
        if present.size == 1:
            return i, int(present[0])
    return None


def _row_hashes(X: Any, n_rows: int) -> NDArray[np.uint64]:
    """Return a hash of each row."""
    if hasattr(X, "row_hashes"):
        hashes: NDArray[np.uint64] = X.row_hashes()
        return hashes
    read = X.read if isinstance(X, Source) else X.__getitem__
    slices = row_slices(n_rows, int(np.prod(X.shape[1:])))
    return np.concatenate(list(map_blocks(lambda rows: hash_rows(read(rows)), slices)))


def _with_class(hashes: NDArray[np.uint64], codes: Codes) -> NDArray[np.uint64]:
    """Return a hash of each row and its class."""
    return hash_rows(np.column_stack([hashes, codes.astype(np.uint64)]))


def _number(values: NDArray[Any]) -> Codes:
    """Return the place of each value in the order of first occurrence."""
    _, first, number = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.intp)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[number]


def _part_ties(unit: Codes, score: NDArray[np.uint64], n_folds: int) -> Codes:
    """Part the rows of a unit that have no more in common than their score.

    A classifier of few different scores, such as a tree, gives the same one to rows of
    several classes, and to far more rows than a repetition of the set explains. Left
    together, all rows of that score and class would be missing where their fold is, and
    those of its other classes not. Rows of a set that is repeated as a whole go on in
    as many copies.
    """
    size = np.bincount(unit)
    first = np.unique(unit, return_index=True)[1]
    _, place, n_classes = np.unique(
        score[first], return_inverse=True, return_counts=True
    )
    times = np.gcd.reduce(size)
    times = times if times <= MOST_ALIKE else 1
    few = size.shape[0] < 2 * n_folds
    usual = times if few else size.min()
    tied = ((n_classes[place] > 1) | (size > MOST_ALIKE * usual))[unit]
    copies = occurrence(unit) // times
    return _number(np.where(tied, copies, 0) * size.shape[0] + unit)


def _one_for_each(groups: Any, n_rows: int) -> NDArray[Any]:
    if np.ndim(groups) == 2:
        groups = column_or_1d(groups, warn=True)
    return check_groups(groups, n_rows)


def number_groups(groups: NDArray[Any], *, several: bool = False) -> Codes:
    """Return a number of each row, from 0 on, that those of a group share.

    The order is that of first occurrence. If it has to be `several`, one is refused.
    """
    unit = _number(groups)
    if several and not unit.any():
        raise ValueError(
            f"groups holds one group only: {groups.tolist()[0]!r}. Rows of a group "
            "stay together, so folds need at least two groups."
        )
    return unit


def _deal_alike(
    unit: Codes, codes: Codes, n_folds: int, random_state: Any, balanced: bool
) -> Codes:
    """Deal units out to the folds in random order, `balanced` those of each class.

    Where they are not, no class of several units is left to one fold alone.
    """
    n_units = unit.max() + 1
    n_folds = min(n_folds, n_units)
    code = np.empty(n_units, dtype=np.intp)
    code[unit] = codes
    order = check_random_state(random_state).permutation(n_units)
    by_class = order[np.argsort(code[order], kind="stable")]
    fold = np.empty(n_units, dtype=np.intp)
    fold[by_class if balanced else order] = np.arange(n_units) % n_folds
    if balanced:
        return fold[unit]
    starts = np.flatnonzero(np.diff(code[by_class], prepend=-1))
    lowest, highest = (
        f.reduceat(fold[by_class], starts) for f in (np.minimum, np.maximum)
    )
    several = np.diff(starts, append=n_units) > 1
    first = by_class[starts[(lowest == highest) & several]]
    fold[first] = (fold[first] + 1) % n_folds
    return fold[unit]


def _deal_groups(
    unit: Codes,
    codes: Codes,
    weight: NDArray[np.float64],
    n_folds: int,
    random_state: Any,
) -> Codes:
    """Deal groups of several classes out so that the classes are spread evenly.

    From the largest group on, each goes to the fold that already has the least of its
    classes, which keeps the sum of the squared shares of the folds small.
    """
    n_units, n_classes = unit.max() + 1, codes.max() + 1
    # A share is that of a class, and in a last column that of all rows.
    pairs, place = np.unique(unit * n_classes + codes, return_inverse=True)
    mass = np.bincount(place, weight)
    owner, column = np.divmod(pairs, n_classes)
    share = mass / np.bincount(codes, weight)[column]
    size = np.bincount(owner, mass) / weight.sum()
    starts = np.searchsorted(owner, np.arange(n_units + 1))
    order = check_random_state(random_state).permutation(n_units)
    order = order[np.argsort(-size[order], kind="stable")]
    load = np.zeros((min(n_folds, n_units), n_classes + 1))
    fold = np.empty(n_units, dtype=np.intp)
    for i in order:
        part = slice(starts[i], starts[i + 1])
        columns = np.append(column[part], n_classes)
        shares = np.append(share[part], size[i])
        fold[i] = np.argmin(load[:, columns] @ shares)
        load[fold[i], columns] += shares
    return fold[unit]
