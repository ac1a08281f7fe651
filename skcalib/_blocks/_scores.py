"""Scores that non-parametric methods sort or bin: log-odds of one class or the top one.

The log-odds order the samples as the probabilities do, but tell apart probabilities
that differ from 1 by less than rounding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData, map_blocks, row_slices
from skcalib._numerics import cut_logits, log_odds, split_top

# Large blocks: each of the columns is sorted or binned by itself.
BLOCK_ELEMENTS = 1 << 21

# Scores closer than this, relative to their size, are equal up to rounding: sums in
# another order, here or in another runtime, must not move a sample across a step.
TIE = 1e-10

Block = NDArray[np.float64]
Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]
# Takes logits and class codes of a block to (n, n_curves) scores and whether they hit.
Scores = Callable[[NDArray[Any], NDArray[np.intp]], tuple[Block, Hits]]


def one_vs_rest(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[Block, Hits]:
    """Log-odds of every class, and which class is the true one."""
    score = log_odds(cut_logits(logits))
    return score, codes[:, np.newaxis] == np.arange(logits.shape[1])


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
