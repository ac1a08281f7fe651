"""Fitted NeuralClamping estimators whose learned values are set by hand."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from skcalib._blocks import open_source
from skcalib._maps import CalibrationMap, Scale, Softmax, evaluate


class NeuralClamping(ClassifierMixin, BaseEstimator):
    def __init__(
        self,
        model,
        *,
        gamma=1.0,
        feasible_range=None,
        output=None,
        site=None,
        output_calibrator=None,
        precision=None,
        start="zeros",
    ):
        self.model = model
        self.gamma = gamma
        self.feasible_range = feasible_range
        self.output = output
        self.site = site
        self.output_calibrator = output_calibrator
        self.precision = precision
        self.start = start

    def fit(self, X, y):
        raise NotImplementedError

    def _calibration_map(self):
        if self.output_calibrator_ is not None:
            return self.output_calibrator_._calibration_map()
        return CalibrationMap(Scale(1 / self.temperature_), Softmax())

    def logits(self, X):
        import torch

        from skcalib.frozen import OnnxLogits, TorchLogits

        X = np.asarray(X)
        if self.delta_.any():
            X = (X + self.delta_).astype(X.dtype)
        if self.feasible_range is not None:
            X = np.clip(X, *self.feasible_range).astype(X.dtype)
        m = self.model
        if isinstance(m, torch.nn.Module):
            m = TorchLogits(m, output=self.output)
        elif not hasattr(m, "transform"):
            m = OnnxLogits(m, output=self.output)
        z = m.fit(X).transform(X)
        return np.hstack([0 * z, z]) if z.shape[1] == 1 else z

    def predict_proba(self, X):
        return evaluate(self._calibration_map(), open_source(self.logits(X)))


@pytest.fixture
def clamp():
    """Make a NeuralClamping with a given perturbation, as if it had been fitted."""

    def make(
        model,
        delta,
        *,
        temperature=1.7,
        n_classes=None,
        classes=None,
        output_calibrator=None,
        **params,
    ):
        estimator = NeuralClamping(model, **params)
        estimator.delta_ = np.asarray(delta, dtype=np.float32)
        estimator.temperature_ = temperature
        estimator.classes_ = (
            np.arange(n_classes) if classes is None else np.asarray(classes)
        )
        estimator.output_calibrator_ = output_calibrator
        estimator.penalty_ = 1e-3
        estimator.perturbation_ = "full" if estimator.delta_.any() else "none"
        return estimator

    return make
