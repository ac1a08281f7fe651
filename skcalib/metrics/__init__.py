"""Measures of calibration, their scorers, and a report with intervals."""

from skcalib.metrics._accumulator import CalibrationAccumulator
from skcalib.metrics._conditional import top_label_calibration_error
from skcalib.metrics._corp import ScoreDecomposition, score_decomposition
from skcalib.metrics._directions import overconfidence_error, underconfidence_error
from skcalib.metrics._entropy import predictive_entropy
from skcalib.metrics._estimates import CalibrationReport, MetricEstimate
from skcalib.metrics._groups import GroupComparison, compare_groups
from skcalib.metrics._hypothesis import CalibrationTestResult, calibration_test
from skcalib.metrics._kde import kde_calibration_error
from skcalib.metrics._ks import ks_calibration_error
from skcalib.metrics._kuiper import kuiper_calibration_error
from skcalib.metrics._multi_label import MultiLabelReport, per_label
from skcalib.metrics._ood import ood_auroc, ood_fpr
from skcalib.metrics._paired import CalibrationDifference, compare_calibration
from skcalib.metrics._proper import calibration_loss, refinement_loss
from skcalib.metrics._proximity import (
    neighbor_proximity,
    proximity_calibration_error,
)
from skcalib.metrics._report import calibration_report
from skcalib.metrics._risk_coverage import (
    area_under_risk_coverage_curve,
    risk_coverage_curve,
)
from skcalib.metrics._scorers import (
    aece_scorer,
    ece_scorer,
    entropy_scorer,
    get_scorer,
    get_scorer_names,
    sce_scorer,
)
from skcalib.metrics._skce import squared_kernel_calibration_error
from skcalib.metrics._smooth import smooth_calibration_error
from skcalib.metrics._squared import squared_calibration_interval
from skcalib.metrics._static import static_calibration_error
from skcalib.metrics._sweep import sweep_calibration_error
from skcalib.metrics._top_label import (
    adaptive_expected_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    root_mean_squared_calibration_error,
)
from skcalib.metrics._uncertainty import (
    expected_normalized_calibration_error,
    interval_coverage,
    interval_sharpness,
    uncertainty_calibration_error,
)
from skcalib.metrics._variational import variational_calibration_error

__all__ = [
    "CalibrationAccumulator",
    "CalibrationDifference",
    "CalibrationReport",
    "CalibrationTestResult",
    "GroupComparison",
    "MetricEstimate",
    "MultiLabelReport",
    "ScoreDecomposition",
    "adaptive_expected_calibration_error",
    "aece_scorer",
    "area_under_risk_coverage_curve",
    "calibration_loss",
    "calibration_report",
    "calibration_test",
    "compare_calibration",
    "compare_groups",
    "ece_scorer",
    "entropy_scorer",
    "expected_calibration_error",
    "expected_normalized_calibration_error",
    "get_scorer",
    "get_scorer_names",
    "interval_coverage",
    "interval_sharpness",
    "kde_calibration_error",
    "ks_calibration_error",
    "kuiper_calibration_error",
    "maximum_calibration_error",
    "neighbor_proximity",
    "ood_auroc",
    "ood_fpr",
    "overconfidence_error",
    "per_label",
    "predictive_entropy",
    "proximity_calibration_error",
    "refinement_loss",
    "risk_coverage_curve",
    "root_mean_squared_calibration_error",
    "sce_scorer",
    "score_decomposition",
    "smooth_calibration_error",
    "squared_calibration_interval",
    "squared_kernel_calibration_error",
    "static_calibration_error",
    "sweep_calibration_error",
    "top_label_calibration_error",
    "uncertainty_calibration_error",
    "underconfidence_error",
    "variational_calibration_error",
]
