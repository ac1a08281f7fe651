"""What a solver reports back, and the table of its messages.

The estimator decides what to warn about: "... stopped early: {message}."
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

CONVERGED = "converged"
LIMIT = "max_iter={} was reached"
EXHAUSTED = "max_iter was reached"
INTERRUPTED = "it was interrupted from the keyboard"
NO_DESCENT = "no descent along Newton's step, with up to {:.1e} nats to be gained"
GAP = "the gap is {:.1e} nats, not {}"
SEPARATED = "the scores tell them from the rest without error, so no optimum exists"
NO_ERRORS = (
    "every calibration sample is classified without error, so the loss falls for ever "
    "as the temperature goes to 0; more or harder calibration samples are needed"
)
NO_INFORMATION = (
    "the logits do not point at the true classes, so the loss falls for ever as the "
    "temperature grows; check the order of the columns"
)
OUTSIDE = (
    "the best temperature is not between {} and {}, for which alone sums of a stream "
    "are kept; divide the logits of all rows by one number, such as the temperature "
    "that fit finds for the first of them"
)
ALL_EQUAL = "the logits of each row are equal, so every temperature gives the same"


@dataclass(frozen=True)
class Result:
    """The best point found, and how it was found."""

    x: NDArray[np.float64]
    loss: float
    n_iter: int
    message: str
    gradient_norm: float = 0.0

    @property
    def converged(self) -> bool:
        """Whether the search ended at an optimum."""
        return self.message == CONVERGED

    def at(self, x: NDArray[np.float64]) -> "Result":
        """Return the same report with other parameters, computed from these."""
        return replace(self, x=x)
