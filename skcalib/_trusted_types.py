"""The types that other programs have to trust, to read estimators of skcalib."""

from skcalib._maps import CalibrationMap
from skcalib._saving import _CLASSES, _RECORDS
from skcalib.frozen import ClassifierLogits
from skcalib.meta import BoostedCalibration, CalibratedClassifier
from skcalib.meta._scores import ClassifierScores, LabelScores

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
    kinds = [*_CLASSES.values(), *_RECORDS.values(), CalibrationMap]
    kinds += [CalibratedClassifier, ClassifierScores, LabelScores]
    kinds += [BoostedCalibration, ClassifierLogits]
    own = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
    return sorted(own | {*_NEIGHBOURS})
