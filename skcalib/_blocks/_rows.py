"""Blocks of rows: how an array is cut, and how work on the pieces runs in threads."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from skcalib._sklearn_compat import n_threads

T = TypeVar("T")

# A block of this many numbers and its temporaries stay in a core's own cache.
BLOCK_ELEMENTS = 1 << 16
# Below this many numbers, handing blocks to threads costs more than it saves, unless
# the work on each number is heavy.
THREADING_ELEMENTS = 1 << 22


def row_slices(
    n_rows: int,
    n_columns: int,
    block_elements: int = BLOCK_ELEMENTS,
    min_rows: int = 1,
) -> list[slice]:
    """Cut `n_rows` rows into slices of about `block_elements` numbers."""
    step = max(min_rows, block_elements // max(1, n_columns))
    return [slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step)]


def slices_of(rows: Any, block_elements: int = BLOCK_ELEMENTS) -> list[slice]:
    """Cut rows of an array or a source, which may ask for other slices."""
    if hasattr(rows, "slices"):
        slices: list[slice] = rows.slices(block_elements)
        return slices
    return row_slices(rows.shape[0], rows.shape[1], block_elements)


def map_blocks(
    function: Callable[[T], Any], slices: Sequence[T], *, heavy: bool = False
) -> Iterator[Any]:
    """Yield ``function(rows)`` for each slice, in order, computed by threads.

    What stands for a slice of rows may also be an object that holds their numbers.

    Few slices are computed here and now, unless each is `heavy` work, such as matrix
    products. Only a few results wait at any time, so that large ones do not pile up.
    """
    few = len(slices) < THREADING_ELEMENTS // BLOCK_ELEMENTS
    threads = 1 if few and not heavy else min(n_threads(), len(slices))
    if threads < 2:
        yield from map(function, slices)
        return
    pending: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for rows in slices:
                pending.append(pool.submit(function, rows))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def sum_blocks(
    function: Callable[[T], Any], slices: Sequence[T], *, heavy: bool = False
) -> Any:
    """Sum ``function(rows)`` over the slices; a tuple is summed entry by entry.

    The order of addition is the order of the slices, whatever the number of threads,
    so the same machine gives the same sum. The first result is added to in place.
    """
    return add_up(map_blocks(function, slices, heavy=heavy))


def add_up(results: Iterator[Any]) -> Any:
    """Add up what comes, in order, in the place of the first; nothing gives None."""
    total = next(results, None)
    if not isinstance(total, tuple):
        for result in results:
            total += result
        return total
    sums = list(total)
    for result in results:
        for i, part in enumerate(result):
            sums[i] += part
    return tuple(sums)


def on_host(values: Any) -> Any:
    """Bring what was computed on a device to the host; leave all else as it is.

    Tuples, lists and dataclasses are gone through entry by entry.
    """
    if hasattr(values, "on_host"):
        return values.on_host()
    if isinstance(values, (tuple, list)):
        return type(values)(map(on_host, values))
    if is_dataclass(values) and not isinstance(values, type):
        names = [field.name for field in fields(values)]
        return replace(values, **{k: on_host(getattr(values, k)) for k in names})
    return values
