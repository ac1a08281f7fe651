"""KDE-ECE, against sums over single pairs of SciPy's Dirichlet density."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import dirichlet

from skcalib.metrics import kde_calibration_error
from skcalib.metrics._kde import BANDWIDTHS, _likely_bandwidth, _sorted


def draw(n=30, n_classes=3, seed=0, scale=1.5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(n, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1)


def slow_densities(proba, h):
    """Density of each row under the kernel of every other."""
    n = len(proba)
    density = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                density[i, j] = dirichlet.pdf(proba[i], proba[j] / h + 1)
    return density


def slow_gap(y, proba, h):
    density = slow_densities(proba, h)
    hot = np.eye(proba.shape[1])[y]
    return density @ hot / density.sum(axis=1, keepdims=True) - proba


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("h", [0.02, 0.3])
def test_the_canonical_error_equals_its_formula(norm, h):
    y, proba = draw()
    expected = (np.abs(slow_gap(y, proba, h)) ** norm).sum(axis=1).mean() ** (1 / norm)
    error = kde_calibration_error(y, proba, kind="canonical", norm=norm, bandwidth=h)
    assert error == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("norm", [1, 2])
def test_the_errors_of_single_columns_equal_their_formula(norm):
    y, proba = draw()

    def slow(p, outcome):
        pair = np.column_stack([1 - p, p])
        return (np.abs(slow_gap(outcome.astype(int), pair, 0.1)[:, 1]) ** norm).mean()

    top = kde_calibration_error(y, proba, norm=norm, bandwidth=0.1)
    expected = slow(proba.max(axis=1), proba.argmax(axis=1) == y)
    assert top == pytest.approx(expected ** (1 / norm), rel=1e-10)
    columns = np.mean([slow(proba[:, k], y == k) for k in range(3)])
    error = kde_calibration_error(y, proba, kind="classwise", norm=norm, bandwidth=0.1)
    assert error == pytest.approx(columns ** (1 / norm), rel=1e-10)


def test_the_likeliest_bandwidth_is_taken():
    y, proba = draw()

    def likelihood(h):
        return np.log(slow_densities(proba, h).sum(axis=1) / 29).sum()

    best = max(BANDWIDTHS[6:], key=likelihood)
    assert _likely_bandwidth(_sorted(proba, y, np.ones(30))) == best
    chosen = kde_calibration_error(y, proba, kind="canonical")
    assert chosen == kde_calibration_error(
        y, proba, kind="canonical", bandwidth=float(best)
    )


def test_a_shift_of_the_confidence_is_found():
    rng = np.random.default_rng(0)
    proba = rng.uniform(0.6, 0.95, 3000)
    y = (rng.random(3000) < proba - 0.15).astype(int)
    error = kde_calibration_error(y, proba)
    assert error == pytest.approx(0.15, abs=0.03)
    y = (rng.random(3000) < proba).astype(int)
    assert kde_calibration_error(y, proba) < 0.05


def test_certain_predictions_have_neighbours():
    # log(0) and kernels that underflow: nothing is lost, nothing is NaN.
    proba = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0.5, 0.5, 0]])
    for kind in ("top_label", "classwise", "canonical"):
        for h in (1e-5, 1.0):
            value = kde_calibration_error(
                [0, 1, 1, 1, 0], proba, kind=kind, bandwidth=h
            )
            assert 0 < value <= 2
    both_wrong = kde_calibration_error([1, 2, 0], np.eye(3), bandwidth=0.1)
    assert both_wrong == pytest.approx(1, abs=1e-9)


def test_many_chunks_give_what_one_gives(monkeypatch):
    y, proba = draw(n=100)
    one = kde_calibration_error(y, proba, kind="canonical")
    monkeypatch.setattr("skcalib.metrics._kde.CHUNK_ELEMENTS", 700)
    several = kde_calibration_error(y, proba, kind="canonical")
    assert several == pytest.approx(one, rel=1e-12)


def test_memory_does_not_grow_with_the_pairs():
    y, proba = draw(n=6000, n_classes=10)
    tracemalloc.start()
    kde_calibration_error(y, proba, kind="canonical", bandwidth=0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All pairs would take 288 MB.
    assert peak < 30e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "marginal"}, "kind='marginal' is not known"),
        ({"norm": 3}, "norm=3 is not known"),
        ({"bandwidth": 0}, "bandwidth=0 is not a number above 0"),
        ({"bandwidth": np.inf}, "bandwidth=inf"),
        ({"sample_weight": [1, 0]}, "total weight of 1 leaves no row"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kde_calibration_error([0, 1], [0.2, 0.7], **options)
