"""Where rows come from, and where what is computed of them runs.

A source owns the reduction: `Source.sum` and `Source.map` hand blocks of rows to a
function, with the parts of other columns that belong to them. What is read from here,
an array or a file, is cut into slices that stay in a core's cache, and threads share
them; a source whose rows lie elsewhere sends the function there, so that it must
pickle and be small: a function of a module, or a `functools.partial` of one.
"""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks._rows import BLOCK_ELEMENTS, map_blocks, row_slices, sum_blocks
from skcalib._numerics import places_by

# Touching a byte may pull in the whole large page of the system's cache it lies in.
LARGE_PAGE = 1 << 21
# Scattered rows may pull in a large page each; they are given back this often.
TAKEN_ROWS = 16
# Blocks of a file in the order of columns lie all over it; it is given back as a whole
# once so many bytes were touched. More often takes longer, as neighbours share pages.
SCATTERED_BYTES = 1 << 23
# Kinds of types that other libraries have arrays of; texts stay arrays of NumPy.
NUMBERS = "iufb"

BlockFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Source(ABC):
    """Rows of (n, K) numbers that are read a block at a time.

    A subclass reads slices and takes rows; the rest is made of these two.

    Attributes
    ----------
    shape : tuple of int
        The numbers of rows and columns.

    dtype : dtype
        That of what is read, float32 or float64.

    is_remote : bool
        Whether the rows lie elsewhere, so that none can be read from here.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    is_remote = False
    ndim = 2

    @property
    def is_here(self) -> bool:
        """Whether what is made of a block may be kept, as an array on the host."""
        return not self.is_remote

    @abstractmethod
    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, float32 or float64; it may share memory with the rows."""

    @abstractmethod
    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""

    def in_memory(self) -> "Source":
        """Return the same rows as an array that lies in memory."""
        return ArraySource(self.read(slice(0, self.shape[0])))

    def subset(self, rows: NDArray[np.intp]) -> "Source":
        """Return the rows of these indices, copied into memory."""
        return ArraySource(self.take(rows))

    def row_groups(self) -> NDArray[np.intp] | None:
        """Return what belongs together of itself: the group of each row, or None."""
        return None

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        return self.read(rows)

    def sum(
        self,
        statistic: Callable[..., Any],
        *beside: Any,
        block_elements: int = BLOCK_ELEMENTS,
        heavy: bool = False,
    ) -> Any:
        """Sum ``statistic(block, *parts)`` over all blocks of rows.

        The parts are those of the columns `beside`, with one entry for each row. The
        rest is as in `CalibrationData.sum`.
        """

        def of_block(rows: slice) -> Any:
            return statistic(self.read(rows), *(part[rows] for part in beside))

        slices = row_slices(self.shape[0], self.shape[1], block_elements)
        return sum_blocks(of_block, slices, heavy=heavy)

    def map(
        self,
        function: Callable[..., NDArray[Any]],
        *beside: Any,
        dtype: np.dtype,
        n_columns: int | None = None,
        out: NDArray[Any] | None = None,
        min_rows: int = 1,
    ) -> Any:
        """Compute ``function(block, *parts)``, one result for each row.

        Parameters
        ----------
        function : callable
            Takes a block and the parts of `beside` to one entry, or one row, a row.

        *beside : ndarray
            Columns with one entry for each row, whose parts go with the blocks.

        dtype : dtype
            That of the result.

        n_columns : int, default=None
            The width of the result; None is one entry a row.

        out : ndarray, default=None
            Where to put the result, new memory by default. The pages of a mapped file
            are given back to the system once they are filled.

        min_rows : int, default=1
            Rows of a block at least, for a function that a block costs much by itself.

        Returns
        -------
        result : ndarray of shape (n_samples,) or (n_samples, n_columns)
            Lazy where the source is.
        """
        if out is None:
            width = () if n_columns is None else (n_columns,)
            out = np.empty((self.shape[0], *width), dtype=dtype)
        result = out
        pages = MemmapSource(out) if is_mapped_file(out) else None

        def fill(rows: slice) -> None:
            result[rows] = function(self.read(rows), *(part[rows] for part in beside))
            if pages is not None:
                pages.release(result[rows])

        slices = row_slices(self.shape[0], self.shape[1], min_rows=min_rows)
        heavy = min_rows * self.shape[1] > BLOCK_ELEMENTS
        for _ in map_blocks(fill, slices, heavy=heavy):
            pass
        return result

    def mapped(
        self, function: BlockFunction, n_columns: int | None = None, dtype: Any = float
    ) -> "Source":
        """Put the rows through a row-wise `function` of float64 blocks.

        It is computed anew at each reading, as float64, unless the rows lie in memory:
        then the result does, too, with the type `dtype`.
        """
        return MappedSource(self, function, n_columns)


class PiecesSource(Source):
    """Rows that lie in pieces, one after another, each of which is read as a whole.

    A subclass reads some rows of a piece, and sets `_edges` to where each piece begins,
    and to the end.
    """

    _edges: NDArray[np.intp]

    @abstractmethod
    def _part(self, i: int, rows: Any) -> NDArray[Any]:
        """Return some rows of a piece; they may share memory with it."""

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, float32 or float64; it may share memory with a piece."""
        start, stop, _ = rows.indices(self.shape[0])
        first = int(np.searchsorted(self._edges, start, "right")) - 1
        last = int(np.searchsorted(self._edges, stop, "left"))
        block = np.empty((max(stop - start, 0), self.shape[1]), self.dtype)
        filled = 0
        for i in range(first, last):
            begin = self._edges[i]
            part = self._part(i, slice(max(start - begin, 0), stop - begin))
            if part.shape[0] == block.shape[0]:
                return part
            block[filled : filled + part.shape[0]] = part
            filled += part.shape[0]
        return block

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        out = np.empty((rows.shape[0], self.shape[1]), self.dtype)
        piece = np.searchsorted(self._edges, rows, "right") - 1
        for i, places in places_by(piece):
            out[places] = self._part(i, rows[places] - self._edges[i])
        return out


class ArraySource(Source):
    """Rows of an array that lies in memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, float32 or float64; it may share memory with the array."""
        return self._array[rows].astype(self.dtype, copy=False)

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        return self._array[rows].astype(self.dtype, copy=False)

    def mapped(
        self, function: BlockFunction, n_columns: int | None = None, dtype: Any = float
    ) -> "ArraySource":
        """Put the rows through a row-wise `function` of float64 blocks, at once."""
        lazy = MappedSource(self, function, n_columns)
        return ArraySource(lazy.map(_as_they_are, dtype=dtype, n_columns=lazy.shape[1]))


def _as_they_are(block: NDArray[Any]) -> NDArray[Any]:
    return block


class LentSource(ArraySource):
    """Rows of another kind of array, whose memory NumPy reads; a map gives such arrays.

    What goes to a place that was given, and texts, are returned as they are.
    """

    def map(self, *args: Any, **options: Any) -> Any:
        """Compute one result for each row, numbers as that kind of array."""
        result = super().map(*args, **options)
        is_own = options.get("out") is None and result.dtype.kind in NUMBERS
        return self.alike(result) if is_own else result

    @abstractmethod
    def alike(self, result: NDArray[Any]) -> Any:
        """Return an array of numbers as one of that kind."""


class StandardSource(LentSource):
    """Rows of an array of the array API standard, such as JAX's.

    Parameters
    ----------
    array : ndarray
        The rows as NumPy reads them.

    like : array of the standard
        Tells the library, and where it puts its arrays.
    """

    def __init__(self, array: NDArray[Any], like: Any) -> None:
        super().__init__(array)
        self._like = like

    def alike(self, result: NDArray[Any]) -> Any:
        """Return an array of numbers as one of that library."""
        return alike(result, self._like)


def alike(result: NDArray[Any], like: Any) -> Any:
    """Return `result` as an array of the library of `like`, on its device."""
    return like.__array_namespace__().asarray(result, device=like.device)


class MemmapSource(Source):
    """Rows of a memory-mapped file, which may be larger than memory.

    Pages that a block has touched are given back to the system once the block has
    been copied out, so that the process never holds more than a few blocks, or of a
    file in the order of columns a few megabytes a column.
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        self._mapping: mmap.mmap = array._mmap  # type: ignore[attr-defined]
        # Copy-on-write pages hold changes that giving them back would lose.
        self._may_release = array.mode != "c" and hasattr(mmap, "MADV_DONTNEED")
        whole = np.frombuffer(self._mapping, dtype=np.uint8)
        self._origin = whole.__array_interface__["data"][0]
        self._scattered = 0

    def read(self, rows: slice) -> NDArray[Any]:
        """Return a copy of the block."""
        view = self._array[rows]
        block = np.array(view, dtype=self.dtype, order="C")
        self.release(view)
        return block

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        out = np.empty((rows.shape[0], *self.shape[1:]), dtype=self.dtype)
        for start in range(0, rows.shape[0], TAKEN_ROWS):
            part = slice(start, start + TAKEN_ROWS)
            out[part] = self._array[rows[part]]
            if self._may_release:
                self._mapping.madvise(mmap.MADV_DONTNEED)
        return out

    def release(self, view: NDArray[Any]) -> None:
        """Give back the pages of `view`, and its neighbours that came along."""
        if not self._may_release:
            return
        step = abs(view.strides[0])
        if step < max(map(abs, view.strides)):
            self._scattered += step * view.size
            if self._scattered >= SCATTERED_BYTES:
                self._scattered = 0
                self._mapping.madvise(mmap.MADV_DONTNEED)
            return
        start, stop = np.lib.array_utils.byte_bounds(view)
        first = max(0, start - self._origin - LARGE_PAGE)
        first = first // mmap.PAGESIZE * mmap.PAGESIZE
        last = stop - self._origin + LARGE_PAGE
        self._mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


class MappedSource(Source):
    """Rows of another source, put through a function each time they are read."""

    def __init__(
        self, source: Source, function: BlockFunction, n_columns: int | None = None
    ) -> None:
        self._source = source
        self._function = function
        self.shape = (source.shape[0], n_columns or source.shape[1])
        self.dtype = np.dtype(np.float64)

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, as float64."""
        return self._function(np.array(self._source.read(rows), dtype=np.float64))

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices."""
        return self._function(np.array(self._source.take(rows), dtype=np.float64))


class RepeatedSource(Source):
    """Rows of another source, some of them several times in a row, at no memory.

    `row` is the number of each in the other source. It ascends, or else blocks of that
    are read that hold more than is needed.
    """

    def __init__(self, source: Source, row: NDArray[np.intp]) -> None:
        self._source = source
        self._row = row
        self.shape = (row.shape[0], source.shape[1])
        self.dtype = source.dtype

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block."""
        row = self._row[rows]
        if not row.size:
            return self._source.read(slice(0, 0))
        first = row.min()
        return self._source.read(slice(first, row.max() + 1))[row - first]

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        return self._source.take(self._row[rows])

    def in_memory(self) -> Source:
        """Return the same rows, those that are repeated once in memory."""
        return RepeatedSource(self._source.in_memory(), self._row)

    def subset(self, rows: NDArray[np.intp]) -> Source:
        """Return the rows of these indices, those that are repeated once in memory."""
        kept, row = np.unique(self._row[rows], return_inverse=True)
        return RepeatedSource(self._source.subset(kept), row)

    def mapped(
        self, function: BlockFunction, n_columns: int | None = None, dtype: Any = float
    ) -> Source:
        """Put each row of the other source through a row-wise `function` once."""
        return RepeatedSource(
            self._source.mapped(function, n_columns, dtype=dtype), self._row
        )


def is_mapped_file(array: Any) -> TypeGuard[np.memmap[Any, Any]]:
    """Whether an array is a memory-mapped file, and not merely of its type."""
    return isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None
