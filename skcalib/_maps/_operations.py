"""The primitive operations: a fitted calibrator is a short sequence of these.

Each is data and nothing else. What it computes on a row of K numbers stands in its
docstring; the evaluators (NumPy here, ONNX and torch in `skcalib.export`) implement
it, in float64 throughout, so that all of them agree.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scale:
    """Multiply by one `factor`."""

    factor: float


@dataclass(frozen=True)
class Clip:
    """Cut to the range from `lower` to `upper`."""

    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Affine:
    """``coef @ x + intercept``; a 1-D `coef` multiplies column by column."""

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]


@dataclass(frozen=True)
class Softmax:
    """Logits to probabilities."""


@dataclass(frozen=True)
class LogSoftmax:
    """Logits to log-probabilities."""


@dataclass(frozen=True)
class Log:
    """Natural logarithm of positive numbers."""


@dataclass(frozen=True)
class LogSigmoid:
    """Logarithm of the logistic function, entry by entry."""


@dataclass(frozen=True)
class LogOdds:
    """Logits to one-vs-rest log-odds ``x_k - log(sum of exp(x_j), j != k)``."""


@dataclass(frozen=True, eq=False)
class BetaLink:
    """One-vs-rest log-odds of p to ``a ln p - b ln(1 - p) + c``, column by column."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    c: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """A function of one number, constant beyond its ends.

    ``kind="linear"`` joins the points (`knots`, `values`) by straight lines; `knots`
    ascend strictly. ``kind="constant"`` has one more value than knots; the pieces
    are closed on the right, (knot_i, knot_i+1].
    """

    knots: NDArray[np.float64]
    values: NDArray[np.float64]
    kind: Literal["linear", "constant"]


@dataclass(frozen=True, eq=False)
class Lookup:
    """Put every entry through a table: one for all columns, or one for each."""

    tables: tuple[Table, ...]


@dataclass(frozen=True, eq=False)
class EntropyScale:
    """Multiply each row of log-probabilities by what the table says of its entropy.

    The entropy is that of the probabilities, in nats.
    """

    table: Table


@dataclass(frozen=True, eq=False)
class ReplaceTop:
    """Logits to probabilities, with that of the top class looked up.

    The table maps the one-vs-rest log-odds of the first largest logit to its
    probability q; the other classes share 1 - q in proportion to their softmax.
    """

    table: Table


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """``sum_i weights[i] * parts[i](x) + constant``; each part maps the same x."""

    weights: tuple[float, ...]
    parts: tuple["CalibrationMap", ...]
    constant: float = 0.0


@dataclass(frozen=True)
class Renormalise:
    """Divide by the sum of the row."""


Operation = (
    Scale
    | Clip
    | Affine
    | Softmax
    | LogSoftmax
    | Log
    | LogSigmoid
    | LogOdds
    | BetaLink
    | Lookup
    | EntropyScale
    | ReplaceTop
    | WeightedSum
    | Renormalise
)


class CalibrationMap:
    """A sequence of operations that takes (n, K) logits to (n, K) probabilities."""

    def __init__(self, *operations: Operation) -> None:
        self.operations = operations

    def __repr__(self) -> str:
        names = ", ".join(type(op).__name__ for op in self.operations)
        return f"CalibrationMap({names})"

    @property
    def logits(self) -> "CalibrationMap | None":
        """The map up to the last softmax, if it ends in one."""
        if self.operations and isinstance(self.operations[-1], Softmax):
            return CalibrationMap(*self.operations[:-1])
        return None
