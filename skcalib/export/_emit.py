"""A fitted calibrator as nodes of an ONNX graph."""

from functools import cached_property
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skcalib._maps import Softmax, log_proba
from skcalib.export._builder import NodeBuilder
from skcalib.export._groups import is_grouped, of_whole, scale_by_group
from skcalib.export._onnx_operations import clip, emit, emit_map, log_of, nothing
from skcalib.meta import GroupCalibration


def check_calibrator(calibrator: Any) -> None:
    """Refuse what is not a fitted calibrator of skcalib."""
    if isinstance(calibrator, Pipeline):
        raise TypeError(
            "Got a Pipeline where a calibrator is needed. Pass its last step, or use "
            "calibrate_onnx_model for a Pipeline that starts with OnnxLogits."
        )
    if not hasattr(calibrator, "calibration_map") and (
        not isinstance(calibrator, GroupCalibration)
    ):
        advice = (
            " Convert its classifier by itself, and write the calibrator into that: "
            "calibrate_onnx_model(model, classifier.calibrators_[0]). It has to be "
            'fitted with method="predict_proba" where the decision_function of its '
            "classifier is not the logit of its predict_proba."
        )
        raise TypeError(
            f"{type(calibrator).__name__} cannot be exported: it is no calibrator of "
            "skcalib that is a map from logits to probabilities."
            f"{advice if hasattr(calibrator, 'calibrators_') else ''}"
        )
    check_is_fitted(calibrator)


class Emitted:
    """The calibration of the float64 logits `x`, written as far as it is asked for."""

    def __init__(self, calibrator: Any, build: NodeBuilder, x: str) -> None:
        self._build = build
        self._keeps_class = bool(getattr(calibrator, "keeps_class", False))
        self._n_columns = len(calibrator.classes_)
        if calibrator.n_features_in_ == 1:
            x = build.op("Concat", nothing(build, x), x, axis=1)
        self._columns = x
        whole = of_whole(calibrator).calibration_map()
        self._has_logits, self._last = whole.logits is not None, whole.operations[-1]
        mapped = whole.logits or whole
        if is_grouped(calibrator):
            self._has_logits, self._last = True, Softmax()
            mapped = log_proba(whole, self._n_columns)
        self._mapped = emit_map(mapped, build, clip(build, x), self._n_columns)
        if is_grouped(calibrator):
            self._mapped = scale_by_group(calibrator, build, self._mapped)

    @cached_property
    def proba(self) -> str:
        """Probabilities."""
        if not self._has_logits:
            return self._mapped
        return emit(self._last, self._build, self._mapped, self._n_columns)

    @cached_property
    def log_proba(self) -> str:
        """Log-probabilities, by the operator that tells a reader what they are."""
        return self._build.op("LogSoftmax", self.logits, axis=1)

    @cached_property
    def logits(self) -> str:
        """Calibrated logits; finite log-probabilities where the map has none."""
        if self._has_logits:
            return self._mapped
        return log_of(self._build, self._mapped)

    @property
    def label_scores(self) -> str:
        """The scores whose largest names the class, as in `predict`."""
        # A method that keeps the predicted class reads it off the logits, so that
        # rounding of the probabilities makes no new ties.
        return self._columns if self._keeps_class else self.proba
