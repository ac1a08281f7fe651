"""The names of the methods on the command line."""

from collections.abc import Callable
from typing import Any

from skcalib.calibrators import (
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.cli._errors import UsageError
from skcalib.model_selection import CalibratorSearch

METHODS: dict[str, Callable[[], Any]] = {
    "temperature": TemperatureScaling,
    "temperature-focal": lambda: TemperatureScaling(objective="focal"),
    "temperature-brier": lambda: TemperatureScaling(objective="brier"),
    "temperature-ece": lambda: TemperatureScaling(objective="ece"),
    "ensemble-temperature": EnsembleTemperatureScaling,
    "structured-vector": lambda: StructuredMatrixScaling(structure="vector"),
    "structured-matrix": StructuredMatrixScaling,
    "vector": VectorScaling,
    "matrix": MatrixScaling,
    "dirichlet": DirichletCalibration,
    "platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
    "histogram": HistogramBinning,
    "auto": CalibratorSearch,
}


def make_calibrator(method: str, seed: int) -> Any:
    """Return the calibrator called `method`, with its default parameters."""
    if method not in METHODS:
        raise UsageError(
            f"There is no method {method!r}; choose from {', '.join(METHODS)}."
        )
    calibrator = METHODS[method]()
    if "random_state" in calibrator.get_params(deep=False):
        calibrator.set_params(random_state=seed)
    return calibrator
