"""From a fitted calibrator to its log-probabilities, for one that comes after it."""

from skcalib._maps._operations import (
    CalibrationMap,
    Log,
    LogSoftmax,
    Operation,
    WeightedSum,
)
from skcalib._numerics import PROBA_FLOOR


def log_proba(calibration_map: CalibrationMap, n_classes: int) -> tuple[Operation, ...]:
    """Return the operations that take logits to the logarithms of a map's results."""
    if calibration_map.logits is not None:
        return *calibration_map.logits.operations, LogSoftmax()
    # Its probabilities may be 0.
    share = 1 - n_classes * PROBA_FLOOR
    return WeightedSum((share,), (calibration_map,), PROBA_FLOOR), Log()
