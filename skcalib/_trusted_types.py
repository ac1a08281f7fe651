"""The types that fitted estimators of skcalib consist of, by which files are read."""

from typing import Any

from skcalib import _maps, calibrators
from skcalib._maps import CalibrationMap
from skcalib.calibrators._densities import BinShift, Density, DensityRatio
from skcalib.frozen import ClassifierLogits
from skcalib.meta import (
    BoostedCalibration,
    CalibratedClassifier,
    DenseCalibration,
    GroupCalibration,
    MultiLabelCalibration,
    OptionCalibration,
    PriorShift,
)
from skcalib.meta._chain import Recalibrated
from skcalib.meta._group_calibration import ShrunkScaling
from skcalib.meta._scores import ClassifierScores, LabelScores
from skcalib.model_selection import CalibratorSearch
from skcalib.model_selection._stack import StackedCalibrator

# What a file of `save` holds: calibrators, and what they consist of.
CLASSES: dict[str, Any] = {
    **{name: getattr(calibrators, name) for name in calibrators.__all__},
    "CalibratorSearch": CalibratorSearch,
    "DenseCalibration": DenseCalibration,
    "OptionCalibration": OptionCalibration,
    "GroupCalibration": GroupCalibration,
    "MultiLabelCalibration": MultiLabelCalibration,
    "PriorShift": PriorShift,
    "StackedCalibrator": StackedCalibrator,
    "Recalibrated": Recalibrated,
    "ShrunkScaling": ShrunkScaling,
}
RECORDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (*_maps.OPERATIONS, _maps.Table, BinShift, Density, DensityRatio)
}

# What neighbours are looked for in; scikit-learn's own, but not on the list of skops.
_NEIGHBOURS = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
)


def trusted_types() -> list[str]:
    """Return the names of the types that fitted estimators of skcalib consist of.

    skops, and MLflow's default format of scikit-learn models, read a file only if every
    type of another package in it is named. These have no code to run but their own.

    Returns
    -------
    names : list of str
        Full names of the classes, sorted.

    See Also
    --------
    save : A file of skcalib, which needs no such list.

    Notes
    -----
    Networks are none of them. The classifier in a `CalibratedClassifier` and types of
    packages that add calibrators are to be named besides.

    Examples
    --------
    >>> import skcalib
    >>> "skcalib.calibrators._temperature.TemperatureScaling" in skcalib.trusted_types()
    True
    """
    kinds = [*CLASSES.values(), *RECORDS.values(), CalibrationMap]
    kinds += [CalibratedClassifier, ClassifierScores, LabelScores]
    kinds += [BoostedCalibration, ClassifierLogits]
    own = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
    return sorted(own | {*_NEIGHBOURS})
