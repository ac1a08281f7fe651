"""From a fitted calibrator to its log-probabilities, for one that comes after it."""

from skcalib._maps._operations import CalibrationMap, Log, LogSoftmax, WeightedSum
from skcalib._numerics import PROBA_FLOOR


def log_proba(calibration_map: CalibrationMap, n_classes: int) -> CalibrationMap:
    """Return the map of logits to the logarithms of a map's results."""
    if calibration_map.logits is not None:
        return CalibrationMap(*calibration_map.logits.operations, LogSoftmax())
    # Its probabilities may be 0.
    share = 1 - n_classes * PROBA_FLOOR
    mixed = WeightedSum((share,), (calibration_map,), PROBA_FLOOR)
    return CalibrationMap(mixed, Log())
