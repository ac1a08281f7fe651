"""Tables of all columns packed into rectangles, as the exported lookups read them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skcalib._maps import Table

Rectangle = NDArray[np.float64]


@dataclass(frozen=True)
class PackedTables:
    """One row a table, padded to ``2 ** n_steps`` pieces.

    Piece ``i`` of x is the number of knots below x, and there the function is
    ``start[i] + rise[i] * (x - origin[i]) / width[i]``. `knots` are padded with
    infinity to ``2 ** n_steps - 1``, which a binary search passes in `n_steps` steps.
    """

    knots: Rectangle
    start: Rectangle
    rise: Rectangle
    origin: Rectangle
    width: Rectangle
    n_steps: int

    @property
    def is_constant(self) -> bool:
        """Whether every piece of every table is flat."""
        return not self.rise.any()


def pack_tables(tables: Sequence[Table]) -> PackedTables:
    """Pack linear and constant tables, also mixed."""
    tables = [_thinned(table) for table in tables]
    n_steps = max(int(table.knots.shape[0]).bit_length() for table in tables)
    n_steps = max(n_steps, 1)
    shape = (len(tables), 2**n_steps)
    knots = np.full((len(tables), 2**n_steps - 1), np.inf)
    start, rise = np.zeros(shape), np.zeros(shape)
    origin, width = np.zeros(shape), np.ones(shape)
    for row, table in enumerate(tables):
        n_knots = table.knots.shape[0]
        knots[row, :n_knots] = table.knots
        if table.kind == "constant":
            start[row, : n_knots + 1] = table.values
            continue
        start[row, 0] = table.values[0]
        start[row, 1 : n_knots + 1] = table.values
        rise[row, 1:n_knots] = np.diff(table.values)
        origin[row, 1:n_knots] = table.knots[:-1]
        width[row, 1:n_knots] = np.diff(table.knots)
    return PackedTables(knots, start, rise, origin, width, n_steps)


def _thinned(table: Table) -> Table:
    """Leave out the knots inside flat stretches, of which splines have many."""
    values = table.values
    if table.kind == "constant" or values.shape[0] < 3:
        return table
    is_inside = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    kept = np.concatenate([[True], ~is_inside, [True]])
    return Table(table.knots[kept], values[kept], table.kind)
