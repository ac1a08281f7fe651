"""The ONNX form of calibration maps: each operation as a few nodes, in float64."""

from functools import singledispatch
from typing import Any

import numpy as np

from skcalib import _maps as ops
from skcalib.export._builder import NodeBuilder
from skcalib.export._tables import PackedTables, pack_tables


def emit_map(
    calibration_map: ops.CalibrationMap, build: NodeBuilder, x: str, n_columns: int
) -> str:
    """Write a map of `x`, float64 of (n, n_columns); return the result's name."""
    for operation in calibration_map.operations:
        x = emit(operation, build, x, n_columns)
    return x


def clip(build: NodeBuilder, x: str) -> str:
    """Cut to the largest logit; `Clip` itself takes no float64 in old opsets."""
    x = build.op("Min", x, build.constant(ops.LARGEST_LOGIT))
    return build.op("Max", x, build.constant(-ops.LARGEST_LOGIT))


@singledispatch
def emit(operation: ops.Operation, build: NodeBuilder, x: str, n_columns: int) -> str:
    """Write one operation; return the name of its result."""
    return operation.in_onnx(build, x, n_columns)


@emit.register
def _(operation: ops.Scale, build: NodeBuilder, x: str, n_columns: int) -> str:
    return build.op("Mul", x, build.constant(operation.factor))


@emit.register
def _(operation: ops.Clip, build: NodeBuilder, x: str, n_columns: int) -> str:
    x = build.op("Max", x, build.constant(operation.lower))
    return build.op("Min", x, build.constant(operation.upper))


@emit.register
def _(operation: ops.Affine, build: NodeBuilder, x: str, n_columns: int) -> str:
    if operation.coef.ndim == 1:
        x = build.op("Mul", x, build.constant(operation.coef))
    else:
        x = build.op("MatMul", x, build.constant(operation.coef.T))
    return build.op("Add", x, build.constant(operation.intercept))


@emit.register
def _(operation: ops.Softmax, build: NodeBuilder, x: str, n_columns: int) -> str:
    return build.op("Softmax", x, axis=1)


@emit.register
def _(operation: ops.Sigmoid, build: NodeBuilder, x: str, n_columns: int) -> str:
    return build.op("Sigmoid", x)


@emit.register
def _(operation: ops.LogSoftmax, build: NodeBuilder, x: str, n_columns: int) -> str:
    x = build.op("Sub", x, build.reduce("ReduceMax", x))
    total = build.reduce("ReduceSum", build.op("Exp", x))
    return build.op("Sub", x, build.op("Log", total))


@emit.register
def _(operation: ops.Log, build: NodeBuilder, x: str, n_columns: int) -> str:
    return build.op("Log", x)


@emit.register
def _(operation: ops.LogSigmoid, build: NodeBuilder, x: str, n_columns: int) -> str:
    return _log_sigmoid(build, x)


@emit.register
def _(operation: ops.LogOdds, build: NodeBuilder, x: str, n_columns: int) -> str:
    is_top, largest, top_log_odds, rest = _split_top(build, x, n_columns)
    # exp(-top_log_odds) is the mass of the rest in units of the largest entry.
    mass = build.op("Exp", build.op("Neg", top_log_odds))
    others = build.op("Mul", mass, build.op("Sub", build.constant(1.0), rest))
    below = build.op("Sub", build.op("Sub", x, largest), _log1p(build, others))
    return build.op("Where", is_top, top_log_odds, below)


@emit.register
def _(operation: ops.BetaLink, build: NodeBuilder, x: str, n_columns: int) -> str:
    log_p = _log_sigmoid(build, x)
    log_not_p = build.op("Sub", log_p, x)
    first = build.op("Mul", build.constant(operation.a), log_p)
    second = build.op("Mul", build.constant(operation.b), log_not_p)
    return build.op("Add", build.op("Sub", first, second), build.constant(operation.c))


@emit.register
def _(operation: ops.Lookup, build: NodeBuilder, x: str, n_columns: int) -> str:
    return _look_up(pack_tables(operation.tables), build, x)


@emit.register
def _(operation: ops.EntropyScale, build: NodeBuilder, x: str, n_columns: int) -> str:
    parts = build.op("Mul", build.op("Exp", x), x)
    entropy = build.op("Neg", build.reduce("ReduceSum", parts))
    return build.op("Mul", x, _look_up(pack_tables([operation.table]), build, entropy))


@emit.register
def _(operation: ops.ReplaceTop, build: NodeBuilder, x: str, n_columns: int) -> str:
    is_top, _, top_log_odds, rest = _split_top(build, x, n_columns)
    proba = _look_up(pack_tables([operation.table]), build, top_log_odds)
    others = build.op("Mul", rest, build.op("Sub", build.constant(1.0), proba))
    return build.op("Where", is_top, proba, others)


@emit.register
def _(operation: ops.WeightedSum, build: NodeBuilder, x: str, n_columns: int) -> str:
    total = build.constant(operation.constant)
    for weight, part in zip(operation.weights, operation.parts, strict=True):
        mapped = emit_map(part, build, x, n_columns)
        weighted = build.op("Mul", mapped, build.constant(weight))
        total = build.op("Add", total, weighted)
    return total


@emit.register
def _(operation: ops.PerColumn, build: NodeBuilder, x: str, n_columns: int) -> str:
    if len(operation.parts) == 1:
        every = _emit_log_odds(operation.parts[0], build, build.reshape(x, [-1, 1]))
        return build.reshape(every, [-1, n_columns])
    columns = []
    for k, part in enumerate(operation.parts):
        column = build.op("Gather", x, build.constant([k], np.int64), axis=1)
        columns.append(_emit_log_odds(part, build, column))
    return build.op("Concat", *columns, axis=1)


def _emit_log_odds(part: ops.CalibrationMap, build: NodeBuilder, x: str) -> str:
    """Write what a map of two classes makes of one column of log-odds."""
    zero = build.op("Mul", x, build.constant(0.0))
    pair = build.op("Concat", zero, x, axis=1)
    mapped = emit_map(part.logits or part, build, pair, 2)
    if part.logits is None:
        mapped = log_of(build, mapped)
    return build.op("MatMul", mapped, build.constant([[-1.0], [1.0]]))


def log_of(build: NodeBuilder, proba: str) -> str:
    """Write the logarithm, finite for 0."""
    return build.op("Log", build.op("Max", proba, build.constant(ops.SMALLEST)))


@emit.register
def _(operation: ops.Renormalise, build: NodeBuilder, x: str, n_columns: int) -> str:
    return build.op("Div", x, build.reduce("ReduceSum", x))


def nothing(build: NodeBuilder, x: str) -> str:
    """Write 0, or NaN where `x` is NaN."""
    return build.op("Mul", clip(build, x), build.constant(0.0))


def _log1p(build: NodeBuilder, x: str) -> str:
    return build.op("Log", build.op("Add", x, build.constant(1.0)))


def _log_sigmoid(build: NodeBuilder, x: str) -> str:
    tail = build.op("Exp", build.op("Neg", build.op("Abs", x)))
    negative = build.op("Min", x, build.constant(0.0))
    return build.op("Sub", negative, _log1p(build, tail))


def _split_top(build: NodeBuilder, x: str, n_columns: int) -> tuple[str, str, str, str]:
    """Write ``(is_top, largest, top_log_odds, rest)``; see `skcalib._numerics`."""
    top = build.op("ArgMax", x, axis=1, keepdims=1)
    is_top = build.op("Equal", top, build.constant(np.arange(n_columns), np.int64))
    largest = build.reduce("ReduceMax", x)
    others = build.op("Where", is_top, build.constant(-np.inf), x)
    second = build.reduce("ReduceMax", others)
    rest = build.op("Exp", build.op("Sub", others, second))
    # Largest numbers of some batches pass over NaN; sums do not.
    total = build.reduce("ReduceSum", build.op("Add", rest, nothing(build, x)))
    gap = build.op("Sub", largest, second)
    top_log_odds = build.op("Sub", gap, build.op("Log", total))
    return is_top, largest, top_log_odds, build.op("Div", rest, total)


def _look_up(tables: PackedTables, build: NodeBuilder, x: str) -> str:
    """Write a binary search of every entry, with memory for a few copies of `x`."""
    rows = np.arange(tables.knots.shape[0])
    knots = build.constant(tables.knots.ravel())
    # The search walks through the flat array, each column from its own first knot.
    first = rows * tables.knots.shape[1]
    piece = ""
    for step in (2**i for i in reversed(range(tables.n_steps))):
        if not piece:
            knot = build.constant(tables.knots[:, step - 1])
        else:
            probe = build.constant(first + step - 1, np.int64)
            knot = build.op("Gather", knots, build.op("Add", piece, probe), axis=0)
        below = build.cast(build.op("Less", knot, x), np.int64)
        taken = build.op("Mul", below, build.constant(step, np.int64))
        piece = build.op("Add", piece, taken) if piece else taken
    offset = build.constant(rows * tables.start.shape[1], np.int64)
    index = build.op("Add", piece, offset)

    def gather(values: Any) -> str:
        return build.op("Gather", build.constant(values.ravel()), index, axis=0)

    start = gather(tables.start)
    if tables.is_constant:
        # As along a slope.
        return build.op("Add", start, nothing(build, x))
    along = build.op("Sub", x, gather(tables.origin))
    share = build.op("Div", along, gather(tables.width))
    return build.op("Add", start, build.op("Mul", share, gather(tables.rise)))
