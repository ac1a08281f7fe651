"""NeuralClamping estimators whose learned values are set by hand."""

import numpy as np
import pytest


@pytest.fixture
def clamp():
    """Make a NeuralClamping with a given perturbation, as if it had been fitted."""
    from skcalib.clamping import NeuralClamping

    def make(
        model,
        delta,
        *,
        kernel=None,
        temperature=1.7,
        n_classes,
        output_calibrator=None,
        **params,
    ):
        estimator = NeuralClamping(model, **params)
        estimator.delta_ = np.asarray(delta, dtype=np.float32)
        estimator.filter_ = None if kernel is None else np.float32(kernel)
        estimator.temperature_ = temperature
        estimator.input_names_, estimator.input_types_ = None, []
        estimator.classes_ = np.arange(n_classes)
        estimator.output_calibrator_ = output_calibrator
        estimator.penalty_ = 1e-3
        estimator.perturbation_ = "full" if estimator.delta_.any() else "none"
        return estimator

    return make
