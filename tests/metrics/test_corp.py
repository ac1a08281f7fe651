"""The parts of a score, by isotonic regression of the hits."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from skcalib.metrics import score_decomposition


def draw(n=300, n_classes=4, decimals=None):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(n, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    proba = softmax(logits, axis=1)
    if decimals is not None:
        proba[:] = np.clip(np.round(proba[:, :1], decimals), 0.1, 0.9)
        proba[:, 1:] = (1 - proba[:, :1]) / (n_classes - 1)
    return y, proba


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("loss", ["brier", "log_loss"])
def test_the_parts_are_scores_of_isotonic_regression(loss, decimals):
    y, proba = draw(decimals=decimals)
    p, hit = proba.max(axis=1), (proba.argmax(axis=1) == y).astype(int)
    recalibrated = IsotonicRegression(y_min=0, y_max=1).fit(p, hit).predict(p)

    def score(q):
        if loss == "brier":
            return np.mean((q - hit) ** 2)
        return log_loss(hit, q, labels=[0, 1])

    miscalibration, discrimination, uncertainty = score_decomposition(
        y, proba, loss=loss
    )
    base = score(np.full(300, hit.mean()))
    assert miscalibration == pytest.approx(score(p) - score(recalibrated))
    assert discrimination == pytest.approx(base - score(recalibrated))
    assert uncertainty == pytest.approx(base)


def test_whole_weights_equal_repetition():
    y, proba = draw()
    counts = np.random.default_rng(1).integers(0, 3, 300)
    repeated = score_decomposition(np.repeat(y, counts), np.repeat(proba, counts, 0))
    weighted = score_decomposition(y, proba, sample_weight=counts)
    assert weighted == pytest.approx(repeated)


def test_the_rate_of_hits_alone_is_calibrated_and_tells_nothing_apart():
    hit = np.repeat([1, 0], [30, 70])
    parts = score_decomposition(hit, np.full(100, 0.3), pos_label="event")
    assert parts == pytest.approx((0, 0, 0.21), abs=1e-12)


def test_certain_rows_have_finite_parts():
    parts = score_decomposition([0, 1, 1, 0], [0.0, 1.0, 0.0, 1.0], loss="log_loss")
    assert np.isfinite(parts).all()


def test_another_loss_is_refused():
    with pytest.raises(ValueError, match="loss='focal' is not known"):
        score_decomposition([0, 1], [0.2, 0.7], loss="focal")
