"""A fitted calibrator as nodes of an ONNX graph."""

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skcalib.export._builder import NodeBuilder
from skcalib.export._onnx_operations import clip, emit_map


def check_calibrator(calibrator: Any) -> None:
    """Refuse what is not a fitted calibrator of skcalib."""
    if isinstance(calibrator, Pipeline):
        raise TypeError(
            "Got a Pipeline where a calibrator is needed. Pass its last step, or use "
            "calibrate_onnx_model for a Pipeline that starts with OnnxLogits."
        )
    if not hasattr(calibrator, "_calibration_map"):
        advice = (
            " Convert its classifier by itself, and write the calibrator into that: "
            "calibrate_onnx_model(model, classifier.calibrators_[0])."
        )
        raise TypeError(
            f"{type(calibrator).__name__} cannot be exported: it is no calibrator of "
            "skcalib that is a map from logits to probabilities."
            f"{advice if hasattr(calibrator, 'calibrators_') else ''}"
        )
    check_is_fitted(calibrator)


def emit_calibration(calibrator: Any, build: NodeBuilder, x: str) -> tuple[str, str]:
    """Write the map of the float64 logits `x`; return ``(columns, probabilities)``."""
    n_columns = len(calibrator.classes_)
    if calibrator.n_features_in_ == 1:
        nothing = build.op("Mul", clip(build, x), build.constant(0.0))
        x = build.op("Concat", nothing, x, axis=1)
    mapped = emit_map(calibrator._calibration_map(), build, clip(build, x), n_columns)
    return x, mapped


def label_scores(calibrator: Any, columns: str, proba: str) -> str:
    """Return the scores whose largest names the class, as in `predict`."""
    # A method that keeps the predicted class reads it off the logits, so that
    # rounding of the probabilities makes no new ties.
    return columns if getattr(calibrator, "_keeps_class", False) else proba
