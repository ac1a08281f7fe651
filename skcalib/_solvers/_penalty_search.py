"""Two ridge penalties of matrix scaling by cross-validated log-loss.

The off-diagonal penalty is searched first, from the strongest to the weakest, with the
intercept penalty tied to it; each fit starts where the one before ended, and the search
ends once the held-out loss rises, since the weakest penalties overfit the most and cost
the most. Then the intercept penalty is searched at the off-diagonal penalty found.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._solvers._softmax import loss_and_proba

Array = NDArray[np.float64]

# The grid of the Neural Clamping paper, strongest first.
PENALTIES = tuple(10.0**k for k in range(4, -3, -1))

Fit = Callable[[CalibrationData, float, float, Array], Array]


@dataclass
class PenaltySearch:
    """Held-out losses by ``(off_diagonal, intercept)``, and the fits of the folds."""

    fit: Fit
    folds: list[tuple[CalibrationData, CalibrationData]]
    start: Array
    losses: dict[tuple[float, float], float] = field(default_factory=dict)
    models: dict[tuple[float, float], list[Array]] = field(default_factory=dict)

    def run(
        self, off_diagonal: float | None, intercept: float | None
    ) -> tuple[float, float]:
        """Choose the penalties that are None; return both."""
        starts = [self.start] * len(self.folds)
        if off_diagonal is None:
            tied = ((p, p if intercept is None else intercept) for p in PENALTIES)
            off_diagonal, tied_intercept = self._walk(tied, starts, stop_early=True)
            starts = self.models[off_diagonal, tied_intercept]
        if intercept is None:
            pairs = ((off_diagonal, p) for p in PENALTIES)
            _, intercept = self._walk(pairs, starts, stop_early=False)
        if (off_diagonal, intercept) not in self.models:
            self._try((off_diagonal, intercept), starts)
        return off_diagonal, intercept

    def _walk(
        self,
        pairs: Iterable[tuple[float, float]],
        starts: list[Array],
        *,
        stop_early: bool,
    ) -> tuple[float, float]:
        best = None
        for pair in pairs:
            if pair not in self.losses:
                self._try(pair, starts)
            if best is None or self.losses[pair] < self.losses[best]:
                best = pair
            elif stop_early:
                break
            starts = self.models[pair]
        if best is None:
            raise ValueError("no penalties to choose from")
        return best

    def _try(self, pair: tuple[float, float], starts: list[Array]) -> None:
        models = [
            self.fit(train, *pair, start)
            for (train, _), start in zip(self.folds, starts, strict=True)
        ]
        shares = np.array([held_out.total_weight for _, held_out in self.folds])
        losses = [
            log_loss(held_out, model)
            for (_, held_out), model in zip(self.folds, models, strict=True)
        ]
        self.models[pair] = models
        self.losses[pair] = float(np.average(losses, weights=shares))


def log_loss(data: CalibrationData, x: Array) -> float:
    """Mean log-loss of the (K, K + 1) parameters `x`."""

    def of_block(features: NDArray, codes: NDArray, weight: Array) -> float:
        scores = features @ x[:, :-1].T + x[:, -1]
        return loss_and_proba(scores, codes, weight)[0]

    return float(data.sum(of_block))
