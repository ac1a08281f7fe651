"""A calibration set: logits, classes and weights, read in blocks of rows."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks._rows import BLOCK_ELEMENTS, map_blocks, on_host, row_slices
from skcalib._blocks._sources import BlockFunction, Source

Statistic = Callable[[NDArray[Any], NDArray[np.intp], NDArray[np.float64]], Any]


class CalibrationData:
    """What a fit sees: logits, class codes and weights, read in blocks of rows.

    A solver asks for sums over rows of a `statistic` of one block and never for the
    rows themselves; so it does not know where they lie, nor how many threads read them.

    Parameters
    ----------
    source : Source
        Where the (n, K) logits lie.

    codes : ndarray of shape (n_samples,)
        The column of the true class of each row, 0 to K - 1.

    weight : ndarray of shape (n_samples,)
        Non-negative weights, of any sum above 0.

    classes : ndarray of shape (n_classes,), default=None
        The label of each column, its number by default.

    row : ndarray of shape (n_samples,), default=None
        The number of the row that each came from, where labels came as shares: of such
        a row there is one for each class that has a share in it.

    groups : ndarray of shape (n_samples,), default=None
        The group of each row, those of the source by default, such as the images that
        pixels are of. Folds keep the rows of a group together.

    Attributes
    ----------
    weight : ndarray of shape (n_samples,)
        The weights divided by their sum.

    sample_weight : ndarray of shape (n_samples,)
        The weights, of any sum above 0.

    total_weight : float
        Their sum: the effective number of samples, which equals the number of rows
        where all weights are 1.

    n_samples, n_classes : int
        The numbers of rows and columns.
    """

    row: NDArray[np.intp] | None = None
    _groups: NDArray[Any] | None = None

    def __init__(
        self,
        source: Source,
        codes: NDArray[np.intp],
        weight: NDArray[np.float64],
        classes: NDArray[Any] | None = None,
        row: NDArray[np.intp] | None = None,
        groups: NDArray[Any] | None = None,
    ) -> None:
        self.source = source
        self.codes = codes
        self.sample_weight = weight
        self.total_weight = float(weight.sum())
        self.weight = weight / self.total_weight
        self.n_samples, self.n_classes = source.shape
        self.classes = np.arange(self.n_classes) if classes is None else classes
        self.row, self._groups = row, groups

    @property
    def groups(self) -> NDArray[Any] | None:
        """The group of each row, None where there are none."""
        if self._groups is None:  # Made once, however often the data are mapped.
            self._groups = self.source.row_groups()
        return self._groups

    def once(self, key: Hashable, find: Callable[[], Any]) -> Any:
        """Return ``find()``, from memory where it was asked for with this key before.

        What several calibrators need of the same rows, such as their temperature, is
        found once and kept as long as this object.
        """
        found = self.__dict__.setdefault("_found", {})
        if key not in found:
            found[key] = find()
        return found[key]

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was found behind: a copy may be given other rows."""
        return {k: v for k, v in self.__dict__.items() if k != "_found"}

    def sum(
        self,
        statistic: Statistic,
        *,
        block_elements: int = BLOCK_ELEMENTS,
        heavy: bool = False,
    ) -> Any:
        """Sum ``statistic(logits, codes, weight)`` over all blocks of rows.

        Parameters
        ----------
        statistic : callable
            Returns a number, an array or a tuple of them, in new memory: what the first
            block gives is added to in place. It pickles and is small, since it may have
            to be sent to where the rows lie: a function of a module, or a
            `functools.partial` of one.

        block_elements : int, default=65536
            About how many logits a block has.

        heavy : bool, default=False
            Whether a block takes matrix products or the like, so that threads pay even
            where there are few blocks.

        Returns
        -------
        total : number, array or tuple of them
            The sum, a tuple being summed entry by entry.
        """
        return self.source.sum(
            statistic,
            self.codes,
            self.weight,
            block_elements=block_elements,
            heavy=heavy,
        )

    @property
    def _beside_source(self) -> tuple[Any, ...]:
        return self.codes, self.sample_weight, self.classes, self.row, self.groups

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what there is one of for each row that came, one for each row here."""
        return values if self.row is None else values[self.row]

    def class_weights(self) -> NDArray[np.float64]:
        """Return the share of every class in the weights; 0 where it never occurs."""
        shares = on_host(np.bincount(self.codes, self.weight, self.n_classes))
        return np.asarray(shares, dtype=np.float64)

    @property
    def present(self) -> NDArray[np.intp]:
        """The columns whose classes occur, ascending."""
        return np.flatnonzero(self.class_weights())

    @property
    def logits(self) -> NDArray[Any]:
        """All logits in memory, for methods that sort."""
        return self.source.read(slice(0, self.n_samples))

    @property
    def labels(self) -> NDArray[Any]:
        """The true class of each row."""
        return self.classes[self.codes]

    def in_memory(self) -> "CalibrationData":
        """Read the logits once and for all."""
        return CalibrationData(self.source.in_memory(), *self._beside_source)

    def subset(self, rows: NDArray[np.intp]) -> "CalibrationData":
        """Copy the rows of these indices, with the weights rescaled to sum to 1."""
        codes, weight, classes, row, groups = self._beside_source
        row = None if row is None else row[rows]
        beside = codes[rows], weight[rows], classes, row, several(groups, rows)
        return CalibrationData(self.source.subset(rows), *beside)

    def used(self) -> "CalibrationData":
        """Leave out the rows of weight 0, if there are any."""
        used = self.weight > 0
        return self if used.all() else self.subset(np.flatnonzero(used))

    def every(self, step: int) -> "CalibrationData":
        """Return every `step`-th row, in memory."""
        return self.subset(np.arange(0, self.n_samples, step))

    def head(self, n_rows: int) -> NDArray[Any]:
        """Return the logits of the first rows."""
        return self.source.read(slice(0, n_rows))

    def rows(self, statistic: Statistic) -> NDArray[np.float64]:
        """Compute ``statistic(logits, codes, weight)``, one row for each sample."""

        def of_block(rows: slice) -> NDArray[np.float64]:
            block = self.source.read(rows)
            result = statistic(block, self.codes[rows], self.weight[rows])
            return np.asarray(result, dtype=np.float64)

        slices = row_slices(self.n_samples, self.n_classes)
        return np.concatenate(list(map_blocks(of_block, slices)))

    def mapped(
        self, function: BlockFunction, *, keep_type: bool = False
    ) -> "CalibrationData":
        """Put the logits through a row-wise `function` of float64 blocks.

        The result is kept in memory if the logits are, and computed anew at each
        reading if they are not.

        Parameters
        ----------
        function : callable
            Takes (n_rows, n_classes) numbers, which it may overwrite, to as many.

        keep_type : bool, default=False
            Whether the result in memory has the type of the logits; else it is float64.

        Returns
        -------
        data : CalibrationData
            The same rows with other logits.
        """
        dtype = self.source.dtype if keep_type else np.dtype(np.float64)
        source = self.source.mapped(function, dtype=dtype)
        return type(self)(source, *self._beside_source)

    def columns(self, index: NDArray[np.intp]) -> "CalibrationData":
        """Keep some columns, which must hold the classes of all rows."""
        number = np.full(self.n_classes, -1)
        number[index] = np.arange(index.shape[0])
        source = self.source.mapped(partial(_of_columns, index), index.shape[0])
        codes = np.asarray(number, like=self.codes)[self.codes]
        classes = self.classes[index]
        beside = codes, self.sample_weight, classes, self.row, self.groups
        return type(self)(source, *beside)


def several(groups: NDArray[Any] | None, rows: NDArray[np.intp]) -> NDArray[Any] | None:
    """Return the groups of some rows, None where they are but one."""
    some = None if groups is None else groups[rows]
    return some if some is not None and (some[1:] != some[:-1]).any() else None


def _of_columns(index: NDArray[np.intp], block: NDArray[Any]) -> NDArray[Any]:
    return block[:, index]
