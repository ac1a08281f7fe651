"""From a fitted calibrator to its log-probabilities, for one that comes after it."""

from skcalib._maps._operations import (
    CalibrationMap,
    Log,
    LogSoftmax,
    Operation,
    WeightedSum,
)

# Where a map has no logits, probabilities of zero become this.
SMALLEST = 1e-12


def log_proba(calibration_map: CalibrationMap, n_classes: int) -> tuple[Operation, ...]:
    """Return the operations that take logits to the logarithms of a map's results."""
    if calibration_map.logits is not None:
        return *calibration_map.logits.operations, LogSoftmax()
    share = 1 - n_classes * SMALLEST
    return WeightedSum((share,), (calibration_map,), SMALLEST), Log()
