"""Rows of Dask collections: what is summed is computed by the workers that hold them.

A sum is one graph: every chunk of rows is put through the statistic where it lies, cut
into slices as an array in memory is, and the sums of the chunks are added up in a tree
whose order is fixed by the chunks. So the same chunks give the same bits, however many
workers there are, and when one of them is lost. The solver stays with the caller; what
travels is the statistic, with the parameters that it is bound to, and the sum.
"""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, NoReturn
from uuid import uuid4

import cloudpickle
import dask
import dask.array as da
import numpy as np
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockIdDep
from dask.task_spec import Task, TaskRef
from numpy.typing import NDArray

from skcalib._blocks._rows import BLOCK_ELEMENTS, add_up, row_slices
from skcalib._blocks._sources import BlockFunction, Source

# So many sums are added up by one task.
FAN_IN = 16
# Pickled functions of so many bytes go with each task.
SMALL = 1 << 14

Check = Callable[[NDArray[Any], int, int], None]


class DaskSource(Source):
    """Rows of a Dask array.

    Parameters
    ----------
    array : dask.array.Array
        Of shape (n, K), or (n,) and (n, 1) with the log-odds of the second class.

    check : callable, default=None
        Called as ``check(block, first_row, chunk)`` with what is mapped, to refuse it.
    """

    is_remote = True

    def __init__(
        self,
        array: da.Array,
        check: Check | None = None,
    ) -> None:
        is_column = array.ndim == 1 or array.shape[1] == 1
        self.array = one_column_chunk(array)
        self.shape = (array.shape[0], 2 if is_column else array.shape[1])
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        self._check = check

    def read(self, rows: slice) -> NoReturn:
        """Refuse to bring rows here."""
        refuse_elsewhere()

    def take(self, rows: NDArray[np.intp]) -> NoReturn:
        """Refuse to bring rows here."""
        refuse_elsewhere()

    def sum(
        self,
        statistic: Callable[..., Any],
        *beside: Any,
        block_elements: int = BLOCK_ELEMENTS,
        heavy: bool = False,
    ) -> Any:
        """Sum ``statistic(block, *parts)`` over all chunks, on their workers.

        The columns `beside` are Dask arrays of the same chunks. A statistic may return
        None for a block that has nothing to add.
        """
        of_chunk = partial(_sum_of_chunk, statistic, self.dtype, block_elements)
        return reduce_chunks(of_chunk, [self.array, *beside])

    def map(
        self,
        function: Callable[..., NDArray[Any]],
        *beside: Any,
        dtype: np.dtype,
        n_columns: int | None = None,
        out: NDArray[Any] | None = None,
        min_rows: int = 1,
    ) -> da.Array:
        """Return a lazy array of the same chunks: one result for each row."""
        if out is not None:
            raise TypeError(
                "out is a place in memory or in a file, and what comes of a Dask "
                "collection is lazy. Store it with dask.array.store or to_zarr."
            )
        width = () if n_columns is None else (n_columns,)
        result = width, np.dtype(dtype)
        of_chunk = partial(
            _map_chunk, function, self.dtype, self._check, *result, min_rows
        )
        rows = self.array if self.array.ndim == 2 else self.array[:, np.newaxis]
        parts = [part[:, np.newaxis] for part in beside]
        return da.map_blocks(
            of_chunk,
            rows,
            *parts,
            dtype=dtype,
            chunks=(rows.chunks[0], *width),
            drop_axis=None if width else [1],
            meta=np.empty((0, *width), dtype=dtype),
        )

    def mapped(
        self, function: BlockFunction, n_columns: int | None = None, dtype: Any = float
    ) -> "DaskSource":
        """Put the rows through a row-wise `function` of float64 blocks, when read."""
        width = n_columns or self.shape[1]
        of_block = partial(of_float64, function)
        return DaskSource(self.map(of_block, dtype=np.dtype(float), n_columns=width))


def share_equal(found: da.Array, expected: Any, weight: Any = None) -> float:
    """Return the share of the weight of rows in which two columns are equal."""
    columns = [as_column(expected, "y")]
    if weight is not None:
        columns.append(as_column(weight, "sample_weight"))
    equal, total = reduce_chunks(_count_equal, aligned(found, columns))
    return float(equal / total)


def _count_equal(
    number: int, found: Any, expected: Any, weight: Any = None
) -> tuple[float, float]:
    equal = np.asarray(found) == np.asarray(expected)
    weight = np.ones(equal.shape[0]) if weight is None else np.asarray(weight)
    return float(weight @ equal), float(weight.sum())


def refuse_elsewhere() -> NoReturn:
    """Refuse what needs rows in memory."""
    raise TypeError(
        "This needs all rows in memory, and they are those of a Dask collection, which "
        "are not brought here unasked. Pass X.compute() if they fit into memory."
    )


def reduce_chunks(of_chunk: Callable[..., Any], collections: Sequence[Any]) -> Any:
    """Add up ``of_chunk(number, *blocks)`` over the chunks of rows.

    It is computed by the scheduler that is in force: that of the client, if there is
    one. A function that is large, with a matrix of parameters, is a node of the graph
    of its own, and so is sent but once; a small one goes with each task.
    """
    function: Any = of_chunk
    if len(cloudpickle.dumps(of_chunk)) > SMALL:
        function = dask.delayed(of_chunk, pure=False, traverse=False)
    numbers = ArrayBlockIdDep(collections[0].chunks[:1])
    inputs = [(part, "ij"[: part.ndim]) for part in collections]
    # Fused with what makes the chunks, which so are never kept.
    (sums,) = dask.optimize(
        da.blockwise(
            _call,
            "ij"[: collections[0].ndim],
            *(numbers, "i"),
            *(value for pair in inputs for value in pair),
            function=function,
            token=f"skcalib-sum-{uuid4().hex}",
            dtype=object,
            meta=np.empty((0,) * collections[0].ndim, dtype=object),
            concatenate=True,
            align_arrays=False,
        )
    )
    name = f"skcalib-add-{uuid4().hex}"
    level = list(flatten(sums.__dask_keys__()))
    layer: dict[Any, Any] = {}
    depth = 0
    while len(level) > 1 or not layer:
        depth += 1
        groups = [level[j : j + FAN_IN] for j in range(0, len(level), FAN_IN)]
        level = [(name, depth, j) for j in range(len(groups))]
        for key, group in zip(level, groups, strict=True):
            layer[key] = Task(key, _add, *map(TaskRef, group))
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[sums])
    return Delayed(level[0], graph, layer=name).compute()


def _call(number: tuple[int], *blocks: Any, function: Callable[..., Any]) -> Any:
    return function(number[0], *blocks)


def _add(*sums: Any) -> Any:
    """Add sums up in order; those that came may be needed again, and stay."""
    total, *others = [part for part in sums if part is not None] or [None]
    total = tuple(map(copy, total)) if isinstance(total, tuple) else copy(total)
    return add_up(iter([total, *others]))


def _sum_of_chunk(
    statistic: Callable[..., Any],
    dtype: np.dtype,
    block_elements: int,
    number: int,
    chunk: Any,
    *beside: Any,
) -> Any:
    n_columns = 1 if chunk.ndim == 1 else chunk.shape[1]

    def of_block(rows: slice) -> Any:
        parts = (np.asarray(part[rows]) for part in beside)
        return statistic(as_logits(dtype, chunk[rows]), *parts)

    slices = row_slices(chunk.shape[0], n_columns, block_elements)
    return add_up(part for part in map(of_block, slices) if part is not None)


def as_logits(dtype: np.dtype, block: Any) -> NDArray[Any]:
    """Turn rows of a chunk into logits of two columns or more."""
    block = np.asarray(block).astype(dtype, copy=False)
    if block.ndim == 2 and block.shape[1] > 1:
        return block
    columns = np.zeros((block.shape[0], 2), dtype=dtype)
    columns[:, 1] = block.reshape(-1)
    return columns


def _map_chunk(
    function: Callable[..., NDArray[Any]],
    dtype: np.dtype,
    check: Check | None,
    width: tuple[int, ...],
    result: np.dtype,
    min_rows: int,
    chunk: Any,
    *beside: Any,
    block_id: tuple[int, ...],
) -> NDArray[Any]:
    out = np.empty((chunk.shape[0], *width), dtype=result)
    for rows in row_slices(chunk.shape[0], chunk.shape[1], min_rows=min_rows):
        block = as_logits(dtype, chunk[rows])
        if check is not None:
            check(block, rows.start, block_id[0])
        parts = (np.asarray(part[rows]).reshape(-1) for part in beside)
        out[rows] = function(block, *parts)
    return out


def of_float64(function: BlockFunction, block: NDArray[Any]) -> NDArray[Any]:
    return function(np.array(block, dtype=np.float64))


def one_column_chunk(array: da.Array) -> da.Array:
    """Put all columns of a row into one chunk."""
    return array if array.ndim == 1 else array.rechunk({1: -1})


def as_array(values: Any, name: str) -> da.Array:
    """Return a Dask array, or what a Dask data frame or series holds as one."""
    if isinstance(values, da.Array):
        return values
    # What is delayed has any attribute.
    if not isinstance(values, Delayed) and hasattr(values, "to_dask_array"):
        with warnings.catch_warnings():
            # That strings become objects is what is asked for.
            warnings.filterwarnings("ignore", "Dask currently has limited support")
            return values.to_dask_array()
    raise TypeError(
        f"{name} is a {type(values).__module__}.{type(values).__name__}; of Dask's "
        "collections, arrays and data frames can be used."
    )


def as_column(values: Any, name: str) -> Any:
    """Return labels or weights as one column, of Dask or in memory."""
    is_lazy = hasattr(values, "__dask_graph__")
    column = as_array(values, name) if is_lazy else np.asarray(values)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {column.shape} "
            "instead."
        )
    return column


def aligned(array: da.Array, others: Sequence[Any]) -> list[da.Array]:
    """Cut columns into the chunks of the rows of `array`, which comes first.

    Sizes of chunks that are not known are counted, which takes a pass. Columns that lie
    in memory are handed to the workers once.
    """
    array, *known = map(_with_known_chunks, (one_column_chunk(array), *others))
    lengths = [int(part.shape[0]) for part in (array, *known)]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"Columns that belong together have {lengths} rows; they need as many."
        )
    sizes = array.chunks[:1]
    columns = [
        other.rechunk(sizes)
        if isinstance(other, da.Array)
        else da.from_array(other, chunks=sizes).persist()
        for other in known
    ]
    return [array, *columns]


def _with_known_chunks(array: Any) -> Any:
    if np.isnan(array.shape[0]):
        # Not in place: the collection is the caller's.
        array = array.copy()
        array.compute_chunk_sizes()
    return array
