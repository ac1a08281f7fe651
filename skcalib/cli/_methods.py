"""Calibrators of the command line: by the name of a method, or out of a file."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator

from skcalib._base import BaseCalibrator
from skcalib._numerics import PROBA_FLOOR
from skcalib._optional import import_optional
from skcalib._saving import load
from skcalib._warnings import warn
from skcalib.calibrators import (
    BayesianBinning,
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    ScalingBinning,
    SmoothingSplineCalibration,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.cli._errors import DataError, UsageError
from skcalib.cli._options import Source
from skcalib.extending import installed_calibrators
from skcalib.meta._chain import held_log_floor, notices_constant
from skcalib.model_selection import CalibratorSearch

METHODS: dict[str, Callable[[], Any]] = {
    "temperature": TemperatureScaling,
    "temperature-focal": lambda: TemperatureScaling(objective="focal"),
    "temperature-brier": lambda: TemperatureScaling(objective="brier"),
    "temperature-ece": lambda: TemperatureScaling(objective="ece"),
    "ensemble-temperature": EnsembleTemperatureScaling,
    "structured-vector": lambda: StructuredMatrixScaling(structure="vector"),
    "structured-matrix": StructuredMatrixScaling,
    "order-preserving": OrderPreservingScaling,
    "vector": VectorScaling,
    "matrix": MatrixScaling,
    "dirichlet": DirichletCalibration,
    "platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
    "histogram": HistogramBinning,
    "venn-abers": VennAbersCalibration,
    "smoothing-spline": SmoothingSplineCalibration,
    "spline": SplineCalibration,
    "scaling-binning": ScalingBinning,
    "bayesian-binning": BayesianBinning,
    "auto": CalibratorSearch,
}
S = TypeVar("S", bound=Source)
# The method that is fitted on the inputs of a model, not on its logits.
CLAMPING = "clamping"
NAMES = (*METHODS, CLAMPING)
_FOCAL = ("temperature-focal", CLAMPING)


def make_calibrator(
    method: str,
    seed: int,
    *,
    gamma: float | None = None,
    site: str | None = None,
    model: Path | None = None,
    model_output: str | None = None,
) -> Any:
    """Return the calibrator called `method`, with its default parameters.

    Clamping needs the `model` whose inputs are at hand; `site` is what it perturbs.
    """
    methods = METHODS | installed_calibrators()
    if method not in (*methods, CLAMPING):
        names = (*methods, CLAMPING)
        near = get_close_matches(method, names, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"There is no method {method!r}.{meant} Choose from {', '.join(names)}."
        )
    if method == CLAMPING:
        calibrator = _make_clamping(model, model_output)
    else:
        calibrator = methods[method]()
    if "random_state" in calibrator.get_params(deep=False):
        calibrator.set_params(random_state=seed)
    if gamma is not None:
        if method not in _FOCAL:
            raise UsageError(
                f"--gamma is the exponent of the focal loss, which {method} does not "
                f"use; {' and '.join(_FOCAL)} do."
            )
        calibrator.set_params(gamma=gamma)
    if site is not None:
        if method != CLAMPING:
            raise UsageError(
                f"--site is what clamping perturbs, and the method is {method}. Leave "
                f"it out, or pass --method {CLAMPING}."
            )
        calibrator.set_params(site=site)
    return calibrator


def _make_clamping(model: Path | None, model_output: str | None) -> Any:
    if model is None:
        raise UsageError(
            "The method clamping perturbs the inputs of a model: pass MODEL with "
            "--inputs. Logits and probabilities do not say how the model answers to "
            "other inputs."
        )
    import_optional("torch", "The method clamping")
    from skcalib.clamping import NeuralClamping

    return NeuralClamping(str(model), output=model_output)


def check_in_place(method: str, calibrator: Any) -> None:
    """Refuse a method that would read all rows of a file that memory does not hold."""
    if _fits_in_place(calibrator):
        return
    able = [name for name, make in METHODS.items() if _fits_in_place(make())]
    raise UsageError(
        f"The rows are more than the memory holds, and the method {method} needs all of"
        f" them there. Choose one that fits them where they are: {', '.join(able)}."
    )


def _fits_in_place(calibrator: Any) -> bool:
    """Whether a fit reads rows a block at a time, and copies none for folds."""
    penalties = [
        v for k, v in calibrator.get_params(deep=False).items() if "penalty" in k
    ]
    return getattr(calibrator, "by_sums", False) and "cv" not in penalties


def load_calibrator(path: Path, source: Source) -> BaseCalibrator:
    """Read a saved calibrator, one of logits alone, for what `source` names."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    calibrator: BaseCalibrator = load(path)
    if not hasattr(calibrator, "calibration_map"):
        raise DataError(
            f"{path} holds a {type(calibrator).__name__}, which needs more than logits."
            " Read it with skcalib.load and apply it in Python."
        )
    if source.probabilities is not None and notices_constant(calibrator):
        warn(
            f"{path} holds a {type(calibrator).__name__}, to which a constant added to "
            "the logits of a row matters, and probabilities do not tell it. The "
            "results are right only if it was fitted to logarithms of probabilities; "
            "else pass --logits, or fit again: skcalib calibrate --probabilities."
        )
    return calibrator


def with_floor(source: S, calibrator: BaseCalibrator) -> S:
    """Leave the floor of probabilities to a calibrator that holds one."""
    held = None if source.probabilities is None else held_log_floor(calibrator)
    if held is None:
        return source
    if np.log(source.floor) > max(held, np.log(PROBA_FLOOR)):
        raise UsageError(
            f"--floor {source.floor:g} is higher than that of the calibrator, "
            f"{np.exp(held):g}, which it applies by itself. Leave --floor out."
        )
    return replace(source, floor=min(float(np.exp(held)), PROBA_FLOOR))


class Fixed(BaseEstimator):
    """A saved calibrator among methods that are fitted: no fold changes it."""

    def __init__(self, calibrator: BaseCalibrator, classes: Any = None) -> None:
        self.calibrator = calibrator
        self.classes = classes

    def __sklearn_clone__(self) -> "Fixed":
        """Return itself: a clone of the calibrator would have forgotten its fit."""
        return self

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Fixed":
        """Learn nothing."""
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return the calibrated probabilities."""
        if self.calibrator.n_features_in_ == 1:  # (0, z), to compare all methods alike
            X = X[:, 1]
        return self.calibrator.predict_proba(X)
