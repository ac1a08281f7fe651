"""Calibration maps: fitted calibrators written down as data."""

from skcalib._maps._curves import curve_map, make_tables
from skcalib._maps._log_proba import log_proba
from skcalib._maps._numpy import (
    evaluate,
    evaluate_block,
    top_labels,
)
from skcalib._maps._operations import (
    OPERATIONS,
    SMALLEST,
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
from skcalib._numerics import LARGEST_LOGIT

__all__ = [
    "LARGEST_LOGIT",
    "OPERATIONS",
    "SMALLEST",
    "Affine",
    "BetaLink",
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
    "curve_map",
    "evaluate",
    "evaluate_block",
    "log_proba",
    "make_tables",
    "top_labels",
]
