"""The NumPy evaluator of calibration maps."""

from collections.abc import Sequence
from functools import partial, singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import Source, on_host
from skcalib._maps import _operations as ops
from skcalib._numerics import (
    cut_logits,
    entropy,
    log_odds,
    log_sigmoid,
    log_softmax_,
    softmax_,
    split_top,
)

# Rows of a block at least where columns are mapped one by one: each of the calls takes
# as long as a few hundred numbers.
ROWS_BY_COLUMN = 256

Block = NDArray[np.float64]


def evaluate(
    calibration_map: ops.CalibrationMap,
    source: Source,
    out: NDArray[Any] | None = None,
) -> Any:
    """Map all rows of `source`, into `out` if given; float32 in gives float32 out."""
    return source.map(
        partial(_mapped, calibration_map),
        dtype=source.dtype,
        n_columns=source.shape[1],
        out=out,
        min_rows=_min_rows(calibration_map.operations),
    )


def _min_rows(operations: Sequence[ops.Operation]) -> int:
    return ROWS_BY_COLUMN if any(map(_is_by_column, operations)) else 1


def _is_by_column(operation: ops.Operation) -> bool:
    if isinstance(operation, ops.WeightedSum):
        return any(_min_rows(part.operations) > 1 for part in operation.parts)
    if isinstance(operation, ops.Lookup):
        return len(operation.tables) > 1
    return isinstance(operation, ops.PerColumn) and len(operation.parts) > 1


def top_labels(
    calibration_map: ops.CalibrationMap | None, source: Source, labels: NDArray[Any]
) -> Any:
    """Return the label of the first largest column of each mapped row.

    None leaves the rows as they are. Only a few blocks are in memory at a time.
    """
    function = partial(_top_labels, calibration_map, source.dtype, labels)
    operations = () if calibration_map is None else calibration_map.operations
    return source.map(function, dtype=labels.dtype, min_rows=_min_rows(operations))


def _top_labels(
    calibration_map: ops.CalibrationMap | None,
    dtype: np.dtype,
    labels: NDArray[Any],
    block: NDArray[Any],
) -> NDArray[Any]:
    if calibration_map is not None:
        # Ties are those of what `evaluate` returns.
        block = _mapped(calibration_map, block).astype(dtype, copy=False)
    top = np.argmax(block, axis=1)
    if labels.dtype.kind not in "iufb":
        # Only NumPy has texts.
        top = on_host(top)
    chosen: NDArray[Any] = np.asarray(labels, like=top)[top]
    return chosen


def _mapped(calibration_map: ops.CalibrationMap, block: NDArray[Any]) -> Block:
    return evaluate_block(calibration_map, cut_logits(block))


def evaluate_block(calibration_map: ops.CalibrationMap, x: Block) -> Block:
    """Map one block of rows, which may be overwritten."""
    for operation in calibration_map.operations:
        x = apply(operation, x)
    return x


@singledispatch
def apply(operation: ops.Operation, x: Block) -> Block:
    """Compute one operation on a block, which may be overwritten."""
    mapped: Block = operation.in_numpy(x)
    return mapped


@apply.register
def _(operation: ops.Scale, x: Block) -> Block:
    x *= operation.factor
    return x


@apply.register
def _(operation: ops.Clip, x: Block) -> Block:
    return np.clip(x, operation.lower, operation.upper, out=x)


@apply.register
def _(operation: ops.Affine, x: Block) -> Block:
    x = x * operation.coef if operation.coef.ndim == 1 else x @ operation.coef.T
    x += operation.intercept
    return x


@apply.register
def _(operation: ops.Softmax, x: Block) -> Block:
    return softmax_(x)


@apply.register
def _(operation: ops.Sigmoid, x: Block) -> Block:
    return np.exp(log_sigmoid(x))


@apply.register
def _(operation: ops.LogSoftmax, x: Block) -> Block:
    return log_softmax_(x)


@apply.register
def _(operation: ops.Log, x: Block) -> Block:
    return np.log(x, out=x)


@apply.register
def _(operation: ops.LogSigmoid, x: Block) -> Block:
    return log_sigmoid(x)


@apply.register
def _(operation: ops.LogOdds, x: Block) -> Block:
    return log_odds(x)


@apply.register
def _(operation: ops.BetaLink, x: Block) -> Block:
    log_p = log_sigmoid(x)
    # ln(1 - p) = ln p - log-odds
    return operation.a * log_p - operation.b * (log_p - x) + operation.c


@apply.register
def _(operation: ops.Lookup, x: Block) -> Block:
    if len(operation.tables) == 1:
        return look_up(operation.tables[0], x)
    for k, table in enumerate(operation.tables):
        x[:, k] = look_up(table, x[:, k])
    return x


@apply.register
def _(operation: ops.EntropyScale, x: Block) -> Block:
    x *= look_up(operation.table, entropy(x))[:, np.newaxis]
    return x


@apply.register
def _(operation: ops.ReplaceTop, x: Block) -> Block:
    top, top_log_odds, rest = split_top(x)
    proba = look_up(operation.table, top_log_odds)
    rest *= (1 - proba)[:, np.newaxis]
    rest[np.arange(x.shape[0], like=x), top] = proba
    return rest


@apply.register
def _(operation: ops.WeightedSum, x: Block) -> Block:
    total = np.full_like(x, operation.constant)
    for weight, part in zip(operation.weights, operation.parts, strict=True):
        total += weight * evaluate_block(part, x.copy())
    return total


@apply.register
def _(operation: ops.PerColumn, x: Block) -> Block:
    if len(operation.parts) == 1:
        return _map_log_odds(operation.parts[0], x.reshape(-1)).reshape(x.shape)
    for k, part in enumerate(operation.parts):
        x[:, k] = _map_log_odds(part, x[:, k])
    return x


def _map_log_odds(part: ops.CalibrationMap, x: Block) -> Block:
    column = x[:, np.newaxis]
    block = np.concatenate([np.zeros_like(column), column], axis=1)
    if part.logits is None:
        block = evaluate_block(part, block)
        block = np.log(np.maximum(block, ops.SMALLEST))
    else:
        block = evaluate_block(part.logits, block)
    return block[:, 1] - block[:, 0]


@apply.register
def _(operation: ops.Renormalise, x: Block) -> Block:
    x /= x.sum(axis=1, keepdims=True)
    return x


def look_up(table: ops.Table, x: Block) -> Block:
    """Evaluate `table` at every entry of `x`."""
    if table.kind == "linear":
        return np.interp(x, table.knots, table.values)
    values = np.asarray(table.values, like=x)
    return values[np.searchsorted(table.knots, x, side="left")]
