"""The parts of a calibrator, for calibrators of your own.

What stands here keeps its names and its meaning within a major version, as the
estimators do; the guide "Writing your own calibrator" shows how to use it.
"""

from importlib.metadata import entry_points
from typing import Any

from skcalib._base import BaseCalibrator
from skcalib._blocks import CalibrationData
from skcalib._maps import (
    Affine,
    BetaLink,
    CalibrationMap,
    Clip,
    EntropyScale,
    Log,
    LogOdds,
    LogSigmoid,
    LogSoftmax,
    Lookup,
    Renormalise,
    ReplaceTop,
    Scale,
    Softmax,
    Table,
    WeightedSum,
)

# Where packages name their calibrators.
ENTRY_POINTS = "skcalib.calibrators"


def installed_calibrators() -> dict[str, Any]:
    """Return the calibrators that installed packages offer.

    A package offers a calibrator by an entry point of the group
    ``skcalib.calibrators`` that has the name of its class. `skcalib.load` and the
    command line then know it by that name.

    Returns
    -------
    calibrators : dict of str to type
        The classes by their names.

    Raises
    ------
    TypeError
        If an entry point of the group is no calibrator of its name.

    Examples
    --------
    >>> from skcalib.extending import installed_calibrators
    >>> isinstance(installed_calibrators(), dict)
    True
    """
    found = {}
    for entry_point in entry_points(group=ENTRY_POINTS):
        kind = entry_point.load()
        is_calibrator = isinstance(kind, type) and issubclass(kind, BaseCalibrator)
        if not is_calibrator or kind.__name__ != entry_point.name:
            raise TypeError(
                f"The entry point {entry_point.name!r} of {ENTRY_POINTS!r} names "
                f"{kind!r}. It has to name a calibrator by the name of its class."
            )
        found[entry_point.name] = kind
    return found


__all__ = [
    "Affine",
    "BaseCalibrator",
    "BetaLink",
    "CalibrationData",
    "CalibrationMap",
    "Clip",
    "EntropyScale",
    "Log",
    "LogOdds",
    "LogSigmoid",
    "LogSoftmax",
    "Lookup",
    "Renormalise",
    "ReplaceTop",
    "Scale",
    "Softmax",
    "Table",
    "WeightedSum",
    "installed_calibrators",
]
