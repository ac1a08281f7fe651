import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib._blocks import CalibrationData, open_source
from skcalib._solvers import _logistic
from skcalib._solvers._beta import fit_beta
from skcalib._solvers._platt import fit_platt
from skcalib.datasets import make_logits

FITS = {
    "beta": fit_beta,
    "am": lambda data: fit_beta(data, variant="am"),
    "Platt": lambda data: fit_platt(data, on_log_odds=False, smooth_targets=True),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("kept", ["none", "the last few"])
def test_features_kept_in_memory_change_nothing(monkeypatch, fit, kept):
    # With few samples a class the problems converge one after the other.
    logits, y = make_logits(200, 10, random_state=0)
    data = CalibrationData(open_source(logits), y, np.ones(200))
    everything = fit(data)
    limit = 0 if kept == "none" else 200 * 10
    monkeypatch.setattr(_logistic, "KEPT_ELEMENTS", limit)
    other = fit(data)
    assert other.n_iter == everything.n_iter
    assert other.loss == pytest.approx(everything.loss, rel=1e-12)
    # Classes with hardly a miss have flat directions, along which rounding leads far.
    assert_allclose(other.x, everything.x, rtol=1e-4, atol=1e-6)
