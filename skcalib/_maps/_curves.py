"""Maps of methods that learn a curve for every class, or one for the top class."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skcalib._maps._operations import (
    CalibrationMap,
    LogOdds,
    Lookup,
    Operation,
    Renormalise,
    ReplaceTop,
    Softmax,
    Table,
    WeightedSum,
)

# A share of the softmax that is lost beside any positive value: it decides only in rows
# where every curve gives 0.
FALLBACK = 1e-100

Arrays = Sequence[NDArray[np.float64]]


def make_tables(
    knots: Arrays, values: Arrays, kind: Literal["linear", "constant"]
) -> tuple[Table, ...]:
    """Make one table a curve."""
    return tuple(Table(*pair, kind=kind) for pair in zip(knots, values, strict=True))


def curve_map(
    tables: tuple[Table, ...],
    *,
    top_label: bool = False,
    front: Sequence[Operation] = (),
    softmax_share: float = 0.0,
) -> CalibrationMap:
    """Look up the one-vs-rest log-odds of every class, and divide the row by its sum.

    Before that, `softmax_share` times the probabilities of the logits are added, which
    decide where every table gives 0. With `top_label`, look up only the top class,
    and let the others share what it leaves. The `front` maps the logits first.
    """
    if top_label:
        return CalibrationMap(*front, ReplaceTop(tables[0]))
    curves = (LogOdds(), Lookup(tables))
    if softmax_share == 0:
        return CalibrationMap(*front, *curves, Renormalise())
    parts = (CalibrationMap(*curves), CalibrationMap(Softmax()))
    summed = WeightedSum((1.0, softmax_share), parts)
    return CalibrationMap(*front, summed, Renormalise())
