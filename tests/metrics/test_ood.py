"""AUROC and FPR of an uncertainty, against their definitions."""

import numpy as np
import pytest

from skcalib.metrics import ood_auroc, ood_fpr


def draw(shift=1.0, n_in=60, n_out=40):
    rng = np.random.default_rng(0)
    # Rounded, so that there are ties within and across.
    return rng.normal(size=n_in).round(1), rng.normal(shift, size=n_out).round(1)


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    inside, outside = draw()
    pairs = outside[:, np.newaxis] - inside
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert ood_auroc(inside, outside) == pytest.approx(expected)


@pytest.mark.parametrize("tpr", [0.5, 0.95, 1.0])
def test_the_share_is_that_below_the_smallest_threshold_that_accepts_enough(tpr):
    inside, outside = draw()
    enough = [t for t in np.unique(inside) if (inside <= t).mean() >= tpr]
    assert ood_fpr(inside, outside, tpr=tpr) == np.mean(outside <= enough[0])


def test_nineteen_of_twenty_are_enough():
    assert ood_fpr(np.arange(20), [18, 18.5, 19]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", [ood_auroc, ood_fpr])
def test_separate_sets_and_equal_ones(metric):
    best = 1.0 if metric is ood_auroc else 0.0
    assert metric([1, 2], [3, 4]) == best
    assert metric([3, 4], [1, 2]) == 1 - best
    assert metric([1.0, 1.0], [1.0]) == (0.5 if metric is ood_auroc else 1.0)


@pytest.mark.parametrize("metric", [ood_auroc, ood_fpr])
def test_whole_weights_equal_repeated_rows_in_any_order(metric):
    inside, outside = draw()
    rng = np.random.default_rng(1)
    w_in, w_out = rng.integers(0, 4, 60), rng.integers(0, 4, 40)
    expected = metric(np.repeat(inside, w_in), np.repeat(outside, w_out))
    found = metric(inside, outside, sample_weight_in=w_in, sample_weight_out=w_out)
    assert found == pytest.approx(expected)
    assert metric(inside[::-1], outside[::-1]) == metric(inside, outside)


@pytest.mark.parametrize("metric", [ood_auroc, ood_fpr])
def test_bad_values_are_refused(metric):
    with pytest.raises(ValueError, match="uncertainty_in holds nan in row 1"):
        metric([1.0, np.nan], [1.0])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        metric([1.0], [])
    with pytest.raises(ValueError, match="negative value"):
        metric([1.0, 2.0], [1.0], sample_weight_in=[1, -1])


@pytest.mark.parametrize("tpr", [0, 95])
def test_a_share_outside_its_range_is_refused(tpr):
    with pytest.raises(ValueError, match="tpr="):
        ood_fpr([1.0], [2.0], tpr=tpr)
