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
    Operation,
    PerColumn,
    Renormalise,
    ReplaceTop,
    Scale,
    Sigmoid,
    Softmax,
    Table,
    WeightedSum,
)

# Where packages name what they add, by the base of it.
ENTRY_POINTS: dict[type, str] = {
    BaseCalibrator: "skcalib.calibrators",
    Operation: "skcalib.operations",
}


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
    return installed(BaseCalibrator)


def installed(base: type, name: str | None = None) -> dict[str, Any]:
    """Return the subclasses of `base` that packages offer; those of one name, if given.

    No module is imported but those that hold them.
    """
    found = {}
    for entry_point in entry_points(group=ENTRY_POINTS[base]):
        if name not in (None, entry_point.name):
            continue
        kind = entry_point.load()
        is_of_base = isinstance(kind, type) and issubclass(kind, base)
        if not is_of_base or kind.__name__ != entry_point.name:
            raise TypeError(
                f"The entry point {entry_point.name!r} of {ENTRY_POINTS[base]!r} names "
                f"{kind!r}. It has to name a subclass of {base.__name__} by the name "
                "of its class."
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
    "Operation",
    "PerColumn",
    "Renormalise",
    "ReplaceTop",
    "Scale",
    "Sigmoid",
    "Softmax",
    "Table",
    "WeightedSum",
    "installed_calibrators",
]
