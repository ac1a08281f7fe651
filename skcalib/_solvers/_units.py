"""Units of logits, in which their log-odds can be told apart."""

from collections.abc import Callable
from functools import partial

import numpy as np

from skcalib._blocks import CalibrationData
from skcalib._blocks._scores import Block
from skcalib._numerics import LARGEST_LOGIT, cut_logits
from skcalib._solvers._centre import fit_centre
from skcalib._solvers._temperature import PRIOR, SUBSAMPLE_ELEMENTS, fit_temperature


def nat_of(data: CalibrationData) -> float:
    """Return how far apart logits are that differ by a nat: a temperature."""
    return float(fit_temperature(data, prior=PRIOR).x[0])


def typical_top(data: CalibrationData) -> float:
    """Return the median of the largest logit of a row, which no mask is."""
    logits = data.head(max(1, SUBSAMPLE_ELEMENTS // data.n_classes))
    return float(np.median(cut_logits(logits).max(axis=1)))


def score_unit(data: CalibrationData, prior: float | None) -> float:
    """Temperature below 1 by which logits are divided before their log-odds, or 1.

    In units far below 1 all log-odds of K classes are near -ln(K - 1), and no line in
    them comes near the temperature, which the prior draws to.
    """
    if prior is None or data.n_classes == 2:
        return 1.0
    centre = fit_centre(data, prior)
    # Squares of log-odds stay finite.
    return 1 / min(max(centre.slope, 1.0), LARGEST_LOGIT) if centre.converged else 1.0


def in_units(
    features: Callable[[Block], Block], unit: float
) -> Callable[[Block], Block]:
    """Return the function that takes the features of logits over `unit`."""
    return features if unit == 1 else partial(_divided, features, unit)


def _divided(features: Callable[[Block], Block], unit: float, logits: Block) -> Block:
    logits /= unit
    return features(logits)
