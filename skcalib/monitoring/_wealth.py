"""The wealth of all bets on one stream of rows, restarted again and again.

A bet on one recalibrator that has stood through a long calibrated past is as good as
lost when the change comes. So the capital is not wagered at once: at the start of
block s, a fixed part v_s of it enters each recalibrator, and the rest is kept. With

    W_j(t) = sum over starts s <= t of v_s prod_{r = s..t} e_rj ,
    kept(t) = 1 - sum over starts s <= t of v_s ,
    E(t) = kept(t) + sum_j w_j W_j(t) ,

E is a mixture of wealths with weights fixed beforehand, so again a non-negative
supermartingale from 1 under the hypothesis of `_bets`. W needs one addition a block and
one product a row. The rest kept after s blocks is 1 / (1 + ln(1 + s)), with which the
price of a start, -ln v_s = ln s + 2 ln ln s + ..., grows slowest among simple choices:
11 nats after a thousand blocks. The largest product over all starts, kept beside the
sum (Page's CUSUM), gives the start that explains the rows best: the change point. It
leaves out v_s, by which a bet that loses nothing in a calm past, such as a learned one,
would always begin at the first row; for the same reason each row costs a slack.

Wealths of two streams that were watched apart are merged as if the other stream were
one block of this one: the gains of each recalibrator since the other's first row are
multiplied. Since H0 holds given all earlier rows, of both streams, this is a wealth
in the stream of both.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib.monitoring import _bets

Array = NDArray[np.float64]

# Rows after which the learned bets are learned anew, and a share of the capital enters.
BLOCK = 32
# What a bet has to gain by a row, in nats, to be dated from it. Of 0, .001 and .003 the
# one whose dates were nearest; `python -m benchmarks run monitoring --parts dates`.
SLACK = 0.001
# The learned bets weigh the past in two ways: alike, or by half each so many blocks.
HALF_LIFE = 30
N_LEARNED = 2
_FADING = np.array([[1.0], [0.5 ** (1 / HALF_LIFE)]])
# What the state is made of, by name: one entry a recalibrator, or sums by class.
_BY_BET = ("wealth", "plain", "best", "start")
_BY_CLASS = ("residual", "variance")


def kept(n_blocks: int) -> float:
    """Return the share of the capital that has not been wagered after some blocks."""
    return 1 / (1 + math.log1p(n_blocks))


class Wealth:
    """What was gained and lost by all bets on a stream of rows.

    Attributes
    ----------
    n_rows : int
        Rows seen.

    n_blocks : int
        Blocks begun; a block ends after 32 rows, or where a stream is merged.

    wealth, plain, best : ndarray of shape (n_bets,)
        Logarithms, for each recalibrator: of its wealth over all starts, of the product
        of its gains on all rows, and of the largest such product from a start on, less
        the slack.

    start : ndarray of shape (n_bets,)
        The row at which the largest product starts, as `update` was told.

    residual, variance : ndarray of shape (2, n_classes)
        Sums by which the learned bets are learned, of finished blocks.
    """

    def __init__(self, n_classes: int, tolerance: float) -> None:
        n_bets = _bets.n_fixed(n_classes) + N_LEARNED
        self.n_classes, self.tolerance = n_classes, tolerance
        self.n_rows = self.n_blocks = self.n_open = 0
        self.wealth, self.best = np.full((2, n_bets), -np.inf)
        self.plain, self.start = np.zeros((2, n_bets))
        self.residual, self.variance = np.zeros((2, N_LEARNED, n_classes))
        self._pending = np.zeros((2, n_classes))
        self._weights = _bets.log_weights(n_classes, N_LEARNED)

    @property
    def evidence(self) -> float:
        """Logarithm of the wealth of all bets together."""
        # Not by scipy's logsumexp, which took half of the time of an update.
        logs = self.wealth + self._weights
        held = math.log(kept(self.n_blocks))
        largest = max(float(logs.max()), held)
        total = float(np.exp(logs - largest).sum()) + math.exp(held - largest)
        return largest + math.log(total)

    @property
    def leader(self) -> tuple[float, int, int]:
        """Gain, number and best start of the recalibrator that has gained most."""
        gains = self.best + self._weights
        j = int(gains.argmax())
        return float(gains[j]), j, int(self.start[j])

    def update(
        self, fixed: Array, p: Array, codes: NDArray[np.intp], first_row: int
    ) -> None:
        """Add rows: the gains of the fixed bets on them, and what is learned from.

        `first_row` is the number by which a change point that starts here is told.
        """
        done = 0
        while done < codes.size:
            if self.n_open == 0:
                self._begin_block(first_row + done)
            rows = slice(done, done + BLOCK - self.n_open)
            part, own = p[rows], codes[rows]
            tilts = _bets.learned_tilts(self.residual, self.variance)
            learned = _bets.learned_bets(part, own, tilts, self.tolerance)
            gains = [fixed[rows].sum(axis=0), learned.sum(axis=0)]
            self._multiply(np.concatenate(gains))
            self._pending += _bets.sums_of(part, own)
            self.n_open += own.size
            self.n_rows += own.size
            done += own.size
            if self.n_open == BLOCK:
                self._end_block()

    def merge(self, other: "Wealth", first_row: int) -> None:
        """Add another stream as one block."""
        if self.n_open:
            self._end_block()
        self._begin_block(first_row)
        self._multiply(other.plain)
        # Where what came is better explained by a start within it, that is the start.
        within = other.best > self.best
        self.best[within] = other.best[within]
        self.start[within] = other.start[within] + first_row
        self.residual += other.residual + other._pending[0]
        self.variance += other.variance + other._pending[1]
        self.n_rows += other.n_rows

    def _begin_block(self, row: int) -> None:
        share = math.log(kept(self.n_blocks) - kept(self.n_blocks + 1))
        self.n_blocks += 1
        self.wealth = np.logaddexp(self.wealth, share)
        self.best -= SLACK * BLOCK
        self.start[self.best <= 0] = row
        self.best = np.maximum(self.best, 0)

    def _multiply(self, gains: Array) -> None:
        self.wealth += gains
        self.plain += gains
        self.best += gains

    def _end_block(self) -> None:
        self.residual = _FADING * self.residual + self._pending[0]
        self.variance = _FADING * self.variance + self._pending[1]
        self._pending = np.zeros_like(self._pending)
        self.n_open = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers."""
        state: dict[str, Any] = {
            "n_rows": self.n_rows,
            "n_blocks": self.n_blocks,
            "n_open": self.n_open,
            "pending": self._pending.tolist(),
        }
        for name in _BY_CLASS:
            state[name] = getattr(self, name).tolist()
        for name in _BY_BET:
            # JSON has no infinity: no row was seen yet.
            finite = np.nan_to_num(getattr(self, name), neginf=0.0)
            state[name] = finite.tolist()
        return state

    @classmethod
    def from_dict(
        cls, state: dict[str, Any], n_classes: int, tolerance: float
    ) -> "Wealth":
        """Return what `to_dict` has written."""
        made = cls(n_classes, tolerance)
        made.n_rows = int(state["n_rows"])
        made.n_blocks = int(state["n_blocks"])
        made.n_open = int(state["n_open"])
        names = _BY_CLASS if made.n_blocks == 0 else (*_BY_CLASS, *_BY_BET)
        for name in ("_pending", *names):
            setattr(made, name, np.array(state[name.lstrip("_")], dtype=np.float64))
        return made
