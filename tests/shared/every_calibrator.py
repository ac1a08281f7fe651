"""Every calibrator, and the options that make another map: for what holds for all.

A class that `skcalib.calibrators` lists is in by itself. A test that it cannot pass
names it, with the reason; what a class says of itself, like `keeps_class`, is asked.
"""

from sklearn.base import clone

from skcalib import calibrators
from skcalib.calibrators import (
    HistogramBinning,
    MatrixScaling,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
)

# Where the default tries several, and takes that many times as long.
FIXED_PENALTIES = {"off_diagonal_penalty": 1.0, "intercept_penalty": 1.0}
_PARAMETERS = {
    "DirichletCalibration": FIXED_PENALTIES,
    "MatrixScaling": FIXED_PENALTIES,
}
_VARIANTS = {
    "BayesianBinning": [{"method": "top_label"}],
    "BetaCalibration": [{"variant": "ab"}, {"variant": "am"}],
    "DensityRatioCalibration": [{"method": "bin_mean_shift"}],
    "HistogramBinning": [
        {"strategy": "quantile"},
        {"method": "top_label"},
        {"strategy": "quantile", "method": "top_label"},
    ],
    "IsotonicCalibration": [
        {"method": "strict"},
        {"method": "strict_temperature"},
        {"method": "shared"},
        {"method": "top_label"},
    ],
    "MatrixScaling": [
        {"penalty": "l2", **FIXED_PENALTIES},
        {"cv": 2, "average_folds": True, **FIXED_PENALTIES},
    ],
    "OrderPreservingScaling": [
        {"scaling": StructuredMatrixScaling()},
        {"scaling": StructuredMatrixScaling(structure="vector")},
    ],
    "PlattScaling": [{"fit_on": "logits"}],
    "ScalingBinning": [
        {"strategy": "uniform"},
        {"scaling": PlattScaling(), "method": "one_vs_rest"},
        {"strategy": "uniform", "method": "one_vs_rest"},
    ],
    "SplineCalibration": [{"method": "one_vs_rest"}],
    "StructuredMatrixScaling": [{"structure": "vector"}],
    "TemperatureScaling": [
        {"objective": "brier"},
        {"objective": "focal"},
        {"objective": "top"},
    ],
    "VectorScaling": [{"objective": "top"}],
    "VennAbersCalibration": [
        {"cv": 3},
        {"method": "one_vs_one"},
        {"method": "one_vs_one", "cv": 3},
    ],
}


def identify(estimator):
    """Return the id of an estimator in a parametrized test."""
    return " ".join(repr(estimator).split())


CALIBRATORS = [
    getattr(calibrators, name)(**_PARAMETERS.get(name, {}))
    for name in calibrators.__all__
]
VARIANTS = [
    getattr(calibrators, name)(**parameters)
    for name, variants in _VARIANTS.items()
    for parameters in variants
]
# Those that hand out their map.
MAPS = [c for c in CALIBRATORS + VARIANTS if hasattr(c, "calibration_map")]
# Where the same map is fitted by another way through the code.
OTHER_FITS = [
    clone(calibrator).set_params(prior=None)
    for calibrator in [*CALIBRATORS, *VARIANTS]
    if None in calibrator._parameter_constraints.get("prior", [])
    and not calibrator.get_params().get("average_folds", False)
]
OTHER_FITS += [
    HistogramBinning(smoothing=1.0),
    MatrixScaling(penalty=None, prior=None),
    PlattScaling(smooth_targets=True, prior=None),
    TemperatureScaling(objective="ece", prior=None),
]
