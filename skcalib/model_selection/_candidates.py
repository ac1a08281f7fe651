"""Lists of calibrators: their names, and the default one from simple to complex."""

from collections import Counter

from sklearn import config_context

from skcalib.calibrators import (
    BetaCalibration,
    EnsembleTemperatureScaling,
    IsotonicCalibration,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)


def default_candidates():
    """Return the calibrators that are tried when none are named, simplest first."""
    return [
        TemperatureScaling(),
        EnsembleTemperatureScaling(),
        PlattScaling(),
        BetaCalibration(),
        StructuredMatrixScaling(structure="vector"),
        VectorScaling(),
        StructuredMatrixScaling(),
        IsotonicCalibration(method="strict"),
    ]


def named_candidates(calibrators):
    """Return a dict from name to calibrator, in the order given."""
    if calibrators is None:
        calibrators = default_candidates()
    if not len(calibrators):
        raise ValueError("calibrators is empty; name at least one calibrator.")
    if isinstance(calibrators, dict):
        return dict(calibrators)
    named = {}
    seen = Counter()
    for calibrator in calibrators:
        name = readable_name(calibrator)
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name} ({seen[name]})"
        named[unique] = calibrator
    return named


def readable_name(calibrator):
    """Return the class and the parameters that are not at their defaults."""
    with config_context(print_changed_only=True):
        text = " ".join(repr(calibrator).split())
    return text.removesuffix("()")
