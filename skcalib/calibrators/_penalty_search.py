"""Two ridge penalties of matrix scaling by cross-validated log-loss.

The off-diagonal penalty is searched first, from the strongest to the weakest, with the
intercept penalty tied to it; then the intercept penalty at the off-diagonal penalty
found. Each fit starts where the one before ended, and both searches end once the
held-out loss rises, since the weakest penalties overfit the most and cost the most. The
strongest all hold the parameters, and their losses differ by noise alone: until the
loss has fallen by more than one standard error of the difference, only as large a rise
counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._solvers._matrix import log_loss, rise_of_block

Array = NDArray[np.float64]

# The grid of the Neural Clamping paper, for up to so many classes.
WEAKEST, STRONGEST, FEW_CLASSES = -2, 4, 10

Fit = Callable[[CalibrationData, float, float, Array], Array]


def penalties(n_classes: int) -> list[float]:
    """Return the grid, strongest first.

    The penalties are of means over K^2 and K numbers. With more classes the grid goes
    on, so that its strongest penalty of one number stays as strong.
    """
    more = 2 * np.log10(max(n_classes, FEW_CLASSES) / FEW_CLASSES)
    strongest = STRONGEST + int(np.ceil(more - 1e-9))
    return [10.0**k for k in range(strongest, WEAKEST - 1, -1)]


@dataclass
class PenaltySearch:
    """Held-out log-loss by ``(off_diagonal, intercept)``, and the best fold models."""

    fit: Fit
    folds: list[tuple[CalibrationData, CalibrationData]]
    losses: dict[tuple[float, float], float] = field(default_factory=dict)

    def run(
        self, off_diagonal: float | None, intercept: float | None, start: Array
    ) -> tuple[tuple[float, float], list[Array]]:
        """Choose the penalties that are None; return both, and the fold models."""
        grid = penalties(self.folds[0][0].n_classes)
        models = [start] * len(self.folds)
        if off_diagonal is None and intercept is None:
            tied, tied_models = self._walk([(p, p) for p in grid], models)
            best, models = self._walk([(tied[0], p) for p in grid], tied_models)
            if self.losses[tied] < self.losses[best]:
                return tied, tied_models
            return best, models
        of_matrix = grid if off_diagonal is None else [off_diagonal]
        of_intercept = grid if intercept is None else [intercept]
        return self._walk([(p, q) for p in of_matrix for q in of_intercept], models)

    def _walk(
        self, pairs: list[tuple[float, float]], models: list[Array]
    ) -> tuple[tuple[float, float], list[Array]]:
        """Go along `pairs` until the held-out loss rises, and clearly rose or fell."""
        best, best_models = pairs[0], models
        first: list[Array] = []
        for pair in pairs:
            models = [
                self.fit(train, *pair, model)
                for (train, _), model in zip(self.folds, models, strict=True)
            ]
            first = first or models
            self.losses[pair] = self._held_out_loss(models)
            if self.losses[pair] <= self.losses[best]:
                best, best_models = pair, models
            elif any(self._is_worse(x, best_models) for x in (first, models)):
                break
        return best, best_models

    def _held_out_loss(self, models: list[Array]) -> float:
        held_out = [data for _, data in self.folds]
        losses = [log_loss(*pair) for pair in zip(held_out, models, strict=True)]
        shares = [data.total_weight for data in held_out]
        return float(np.average(losses, weights=shares))

    def _is_worse(self, models: list[Array], others: list[Array]) -> bool:
        """Whether held-out rows tell so by more than one standard error."""
        held_out = [data for _, data in self.folds]
        sums = [
            data.sum(partial(rise_of_block, *pair), heavy=True)
            for data, *pair in zip(held_out, models, others, strict=True)
        ]
        shares = [data.total_weight for data in held_out]
        rise, square = np.average(sums, axis=0, weights=shares)
        variance = max(square - rise**2, 0.0) / max(sum(shares) - 1, 1)
        return bool(rise > np.sqrt(variance))
