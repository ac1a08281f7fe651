"""What ensemble temperature scaling says of the true classes."""

from math import log

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._solvers._temperature import inverse_factors, scaled_logits

Array = NDArray[np.float64]


def log_proba_of_parts(data: CalibrationData, temperature: float) -> Array:
    """Log-probabilities of the true class under the three parts, (n, 3)."""
    n_classes = data.n_classes

    def of_block(logits: NDArray, codes: NDArray, weight: Array) -> Array:
        columns = []
        *more, beta = inverse_factors(temperature)
        for scaled, factor in (
            (logits * more[0] if more else logits, beta),
            (logits, 1.0),
        ):
            t, t_label = scaled_logits(scaled, codes, factor)
            total = np.exp(t, out=t).sum(axis=1, dtype=np.float64)
            columns.append(t_label - np.log(total))
        columns.append(np.full(codes.shape[0], -log(n_classes)))
        return np.stack(columns, axis=1)

    return data.rows(of_block)
