"""What a solver reports back; the estimator decides what to warn about."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """The best point found, and how it was found."""

    x: NDArray[np.float64]
    loss: float
    n_iter: int
    converged: bool
    message: str
    gradient_norm: float = 0.0

    def at(self, x: NDArray[np.float64]) -> "Result":
        """Return the same report with other parameters, computed from these."""
        return replace(self, x=x)
