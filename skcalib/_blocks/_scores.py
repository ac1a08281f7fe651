"""Scores that non-parametric methods sort or bin: log-odds of one class or the top one.

The log-odds order the samples as the probabilities do, but tell apart probabilities
that differ from 1 by less than rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from skcalib._blocks import CalibrationData, map_blocks, row_slices
from skcalib._numerics import cut_logits, log_odds, split_top

# Large blocks: each of the columns is sorted or binned by itself.
BLOCK_ELEMENTS = 1 << 21

# Scores closer than this, relative to their size, are equal up to rounding: sums in
# another order, here or in another runtime, must not move a sample across a step.
TIE = 1e-10

# Scores that lie elsewhere are pooled in cells. Between the probabilities TAIL and
# 1 - TAIL a cell is 2^-16 wide; beyond, 2^-10 in log-odds, which is less.
CELLS, TAIL_CELLS, TAIL = 2.0**16, 2.0**10, 2.0**-6
TAIL_SCORE = float(np.log1p(-TAIL) - np.log(TAIL))

Block = NDArray[np.float64]
Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]
# Takes logits and class codes of a block to (n, n_curves) scores and whether they hit.
Scores = Callable[[NDArray[Any], NDArray[np.intp]], tuple[Block, Hits]]


def one_vs_rest(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[Block, Hits]:
    """Log-odds of every class, and which class is the true one."""
    score = log_odds(cut_logits(logits))
    return score, codes[:, np.newaxis] == np.arange(logits.shape[1], like=codes)


def second_class(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[Block, Hits]:
    """Log-odds of the second of two classes, and whether it is the true one.

    What `one_vs_rest` says of the first is the same mirrored.
    """
    block = cut_logits(logits)
    return block[:, 1:] - block[:, :1], (codes == 1)[:, np.newaxis]


def top_label(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[Block, Hits]:
    """Log-odds of the predicted class, and whether it is the true one."""
    top, score, _ = split_top(cut_logits(logits))
    return score[:, np.newaxis], (top == codes)[:, np.newaxis]


def all_scores(data: CalibrationData, scores: Scores) -> tuple[Block, Hits]:
    """Scores and hits of all samples in memory, one row a curve, for sorting."""

    def read(rows: slice) -> tuple[Block, Hits]:
        score, hit = scores(data.source.read(rows), data.codes[rows])
        return score.T, hit.T

    slices = row_slices(data.n_samples, data.n_classes, BLOCK_ELEMENTS)
    score, hit = zip(*map_blocks(read, slices), strict=True)
    return np.concatenate(score, axis=1), np.concatenate(hit, axis=1)


def pool_ties(score: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Gather scores that are equal up to rounding.

    Returns the lowest and the highest of each group, ascending, and the group of every
    score.
    """
    level, index = np.unique(score, return_inverse=True)
    if not level.size:
        return level, level, index
    size = np.maximum(np.abs(level[1:]), np.abs(level[:-1]))
    apart = np.diff(level) > TIE * size
    group = np.concatenate([[0], np.cumsum(apart)])
    lowest = level[np.concatenate([[True], apart])]
    highest = level[np.concatenate([apart, [True]])]
    return lowest, highest, group[index]


@dataclass
class Cells:
    """The samples of one curve, pooled where their scores are in the same cell.

    Cells are ascending, and those without samples are left out; `low` and `high` are
    the scores that occur in a cell.
    """

    number: NDArray[np.int64]
    total: Floats
    hits: Floats
    low: Floats
    high: Floats

    def pooled(self, first: NDArray[np.intp]) -> "Cells":
        """Pool runs of cells that start at these places."""
        return Cells(
            self.number[first],
            np.add.reduceat(self.total, first),
            np.add.reduceat(self.hits, first),
            np.minimum.reduceat(self.low, first),
            np.maximum.reduceat(self.high, first),
        )

    def __add__(self, other: "Cells") -> "Cells":
        number = np.concatenate([self.number, other.number])
        order = np.argsort(number, kind="stable")
        both = Cells(
            number[order],
            np.concatenate([self.total, other.total])[order],
            np.concatenate([self.hits, other.hits])[order],
            np.concatenate([self.low, other.low])[order],
            np.concatenate([self.high, other.high])[order],
        )
        return both.pooled(_starts(np.diff(both.number) > 0))

    def without_ties(self) -> "Cells":
        """Pool cells whose nearest scores are equal up to rounding."""
        size = np.maximum(np.abs(self.low[1:]), np.abs(self.high[:-1]))
        return self.pooled(_starts(self.low[1:] - self.high[:-1] > TIE * size))


def _starts(apart: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.flatnonzero(np.concatenate([[True], apart]))


def pool_cells(
    data: CalibrationData, scores: Scores, *, factor: float = 1.0, shared: bool = False
) -> list[Cells]:
    """Pool the samples of each curve of scores of ``factor * logits``, by sums.

    No score is taken for another one that is further from it than 2^-16 in probability.
    With `shared`, all columns are one curve.
    """
    statistic = partial(_cells_of_block, scores, factor, shared)
    cells = data.sum(statistic, block_elements=BLOCK_ELEMENTS)
    return [curve.without_ties() for curve in cells]


def _cells_of_block(
    scores: Scores,
    factor: float,
    shared: bool,
    logits: NDArray[Any],
    codes: NDArray[np.intp],
    weight: Floats,
) -> tuple[Cells, ...]:
    score, hit = scores(cut_logits(logits) * factor, codes)
    if shared:
        weight = np.repeat(weight, score.shape[1])
        score, hit = score.reshape(-1, 1), hit.reshape(-1, 1)
    curves = zip(score.T, hit.T, strict=True)
    return tuple(_cells(s, weight, weight * h) for s, h in curves)


def _cells(score: Floats, weight: Floats, hits: Floats) -> Cells:
    order = np.argsort(score, kind="stable")
    score = score[order]
    inner = (expit(np.clip(score, -TAIL_SCORE, TAIL_SCORE)) - 0.5) * CELLS
    outer = np.maximum(np.abs(score) - TAIL_SCORE, 0) * TAIL_CELLS
    number = np.floor(inner + np.copysign(outer, score)).astype(np.int64)
    one_each = Cells(number, weight[order], hits[order], score, score)
    return one_each.pooled(_starts(np.diff(number) > 0))
