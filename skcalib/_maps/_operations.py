"""The primitive operations: a fitted calibrator is a short sequence of these.

Each is data and nothing else. What it computes on a row of K numbers stands in its
docstring; the evaluators (NumPy here, ONNX and torch in `skcalib.export`) implement
it, in float64 throughout, so that all of them agree. Only the operations of other
packages, which the evaluators cannot know, bring their forms along as methods.
"""

from dataclasses import dataclass, is_dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Probabilities below this are raised to it before their logarithm.
SMALLEST = float(np.finfo(np.float64).tiny)


class Operation:
    """Base of the operations: a frozen dataclass of numbers, arrays and text.

    skcalib computes its own operations in NumPy, ONNX and torch. One of another package
    defines the methods below, the latter two where it is to be exported. Each maps
    (n_rows, n_columns) numbers in float64, every row by itself, and all give the same.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from skcalib.extending import CalibrationMap, Operation, Softmax
    >>> @dataclass(frozen=True)
    ... class Power(Operation):
    ...     exponent: float
    ...
    ...     def in_numpy(self, x):
    ...         return x**self.exponent
    ...
    ...     def in_onnx(self, build, x, n_columns):
    ...         return build.op("Pow", x, build.constant(self.exponent))
    ...
    ...     def in_torch(self, x, numbers):
    ...         return x**numbers.exponent
    >>> CalibrationMap(Power(3.0), Softmax())
    CalibrationMap(Power, Softmax)
    """

    def __init_subclass__(cls) -> None:
        for base in cls.__bases__:
            if base is not Operation and base.__module__ == __name__:
                raise TypeError(
                    f"{cls.__name__} is derived from {base.__name__}, which skcalib "
                    "computes itself and would take it for. Derive it from Operation."
                )

    def in_numpy(self, x: Any) -> Any:
        """Map an array.

        Parameters
        ----------
        x : ndarray of shape (n_rows, n_columns)
            The rows; they may be overwritten.

        Returns
        -------
        mapped : ndarray of shape (n_rows, n_columns)
            The new rows.
        """
        raise _lacks(self, "NumPy", "in_numpy(self, x)")

    def in_onnx(self, build: Any, x: str, n_columns: int) -> str:
        """Write ONNX nodes.

        Parameters
        ----------
        build : object
            ``build.op(op_type, *names, **attributes)`` adds a node,
            ``build.constant(value)`` a constant in float64, ``build.reduce(op_type,
            name)`` a reduction to one column, such as "ReduceMax"; each returns the
            name of its result. ``build.opset`` is the version of the operators.

        x : str
            The name of the rows.

        n_columns : int
            How many columns the rows have.

        Returns
        -------
        name : str
            The name of the new rows.
        """
        raise _lacks(self, "ONNX", "in_onnx(self, build, x, n_columns)")

    def in_torch(self, x: Any, numbers: Any) -> Any:
        """Map a tensor.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            The rows.

        numbers : object
            The numbers and the arrays of the operation under their names, as float64
            tensors that follow the module from device to device.

        Returns
        -------
        mapped : Tensor of shape (n_rows, n_columns)
            The new rows.
        """
        raise _lacks(self, "torch", "in_torch(self, x, numbers)")


def _lacks(operation: Operation, backend: str, method: str) -> TypeError:
    return TypeError(
        f"{type(operation).__name__} has no {backend} form of its own. Define "
        f"{method}; skcalib.extending.Operation says what it is given."
    )


@dataclass(frozen=True)
class Scale(Operation):
    """Multiply by one `factor`."""

    factor: float


@dataclass(frozen=True)
class Clip(Operation):
    """Cut to the range from `lower` to `upper`."""

    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """``coef @ x + intercept``; a 1-D `coef` multiplies column by column."""

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]


@dataclass(frozen=True)
class Softmax(Operation):
    """Logits to probabilities."""


@dataclass(frozen=True)
class Sigmoid(Operation):
    """Log-odds to probabilities, entry by entry."""


@dataclass(frozen=True)
class LogSoftmax(Operation):
    """Logits to log-probabilities."""


@dataclass(frozen=True)
class Log(Operation):
    """Natural logarithm of positive numbers."""


@dataclass(frozen=True)
class LogSigmoid(Operation):
    """Logarithm of the logistic function, entry by entry."""


@dataclass(frozen=True)
class LogOdds(Operation):
    """Logits to one-vs-rest log-odds ``x_k - log(sum of exp(x_j), j != k)``."""


@dataclass(frozen=True, eq=False)
class BetaLink(Operation):
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
class Lookup(Operation):
    """Put every entry through a table: one for all columns, or one for each."""

    tables: tuple[Table, ...]


@dataclass(frozen=True, eq=False)
class EntropyScale(Operation):
    """Multiply each row of log-probabilities by what the table says of its entropy.

    The entropy is that of the probabilities, in nats.
    """

    table: Table


@dataclass(frozen=True, eq=False)
class ReplaceTop(Operation):
    """Logits to probabilities, with that of the top class looked up.

    The table maps the one-vs-rest log-odds of the first largest logit to its
    probability q; the other classes share 1 - q in proportion to their softmax.
    """

    table: Table


@dataclass(frozen=True, eq=False)
class WeightedSum(Operation):
    """``sum_i weights[i] * parts[i](x) + constant``; each part maps the same x.

    Parameters
    ----------
    weights : tuple of float
        One of each part.

    parts : tuple of CalibrationMap
        What is summed.

    constant : float, default=0.0
        Added to every entry.
    """

    weights: tuple[float, ...]
    parts: tuple["CalibrationMap", ...]
    constant: float = 0.0


@dataclass(frozen=True, eq=False)
class PerColumn(Operation):
    """Log-odds of each column to other log-odds, by maps of two classes.

    A part is given the rows ``(0, x_k)``; what it makes of the second column less what
    it makes of the first, as logarithms, is the result. One part serves all columns, or
    there is one for each.
    """

    parts: tuple["CalibrationMap", ...]


@dataclass(frozen=True)
class Renormalise(Operation):
    """Divide by the sum of the row."""


# Those of skcalib: nobody else has made any yet.
OPERATIONS = tuple(Operation.__subclasses__())


class CalibrationMap:
    """A sequence of operations that takes (n, K) logits to (n, K) probabilities.

    Those of labels that exclude nothing are the `Sigmoid` of each column.
    """

    def __init__(self, *operations: Operation) -> None:
        for operation in operations:
            if not (isinstance(operation, Operation) and is_dataclass(operation)):
                raise TypeError(
                    f"A map is made of operations, and {operation!r:.60} is none. An "
                    "operation of your own is an instance of a dataclass with the base "
                    "skcalib.extending.Operation."
                )
        self.operations = operations

    def __repr__(self) -> str:
        names = ", ".join(type(op).__name__ for op in self.operations)
        return f"CalibrationMap({names})"

    @property
    def logits(self) -> "CalibrationMap | None":
        """The map up to the last softmax or sigmoid, if it ends in one."""
        if self.operations and isinstance(self.operations[-1], Softmax | Sigmoid):
            return CalibrationMap(*self.operations[:-1])
        return None
