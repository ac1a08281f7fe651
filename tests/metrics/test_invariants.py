"""What holds for every metric that has a file of its own."""

from functools import partial

import numpy as np
import pytest
from drawn_predictions import draw_predictions
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from skcalib import metrics as m


def _with(function, **fixed):
    def metric(y, proba, **options):
        return function(y, proba, **fixed, **options)

    name = "-".join([function.__name__, *(str(v) for v in fixed.values())])
    return pytest.param(metric, id=name)


METRICS = [
    _with(m.sweep_calibration_error),
    _with(m.sweep_calibration_error, norm=2),
    _with(m.overconfidence_error),
    _with(m.underconfidence_error, strategy="quantile"),
    _with(m.top_label_calibration_error),
    _with(m.top_label_calibration_error, strategy="quantile"),
    _with(m.kde_calibration_error),
    _with(m.kde_calibration_error, kind="classwise", bandwidth=0.1),
    _with(m.kde_calibration_error, kind="canonical", norm=2, bandwidth=0.03),
    _with(m.squared_kernel_calibration_error),
    _with(m.squared_kernel_calibration_error, estimator="biased", kernel="gaussian"),
    _with(m.variational_calibration_error),
    _with(m.variational_calibration_error, direction="under"),
    _with(m.variational_calibration_error, kind="canonical", norm=2),
    _with(m.calibration_loss),
    _with(m.refinement_loss, loss="brier"),
]
# With blocks the order of the rows is part of the definition.
BLOCK = _with(m.squared_kernel_calibration_error, estimator="block", block_size=3)


draw = partial(draw_predictions, n=60)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([None, 1, 2])


@pytest.mark.parametrize("metric", METRICS)
@given(seed=seeds, decimals=kinds)
@settings(max_examples=8, deadline=None)
def test_the_order_of_rows_has_no_influence(metric, seed, decimals):
    y, proba = draw(seed, decimals=decimals)
    order = np.random.default_rng(seed).permutation(60)
    value = metric(y[order], proba[order])
    assert value == pytest.approx(metric(y, proba), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
@given(seed=seeds)
@settings(max_examples=8, deadline=None)
def test_the_order_of_classes_has_no_influence(metric, seed):
    y, proba = draw(seed)
    order = np.random.default_rng(seed).permutation(4)
    value = metric(y, proba[:, order], labels=order)
    # Sums of logits in another order move a temperature by its tolerance.
    assert value == pytest.approx(metric(y, proba), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
@given(seed=seeds, decimals=kinds)
@example(seed=53690827, decimals=1)  # one fold has no best temperature
@settings(max_examples=8, deadline=None)
def test_whole_weights_equal_repetition(metric, seed, decimals):
    y, proba = draw(seed, decimals=decimals)
    counts = np.random.default_rng(seed).integers(0, 4, 60)
    repeated = metric(np.repeat(y, counts), np.repeat(proba, counts, axis=0))
    weighted = metric(y, proba, sample_weight=counts)
    assert weighted == pytest.approx(repeated, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
def test_a_fold_that_lacks_a_class_has_a_value(metric):
    y, proba = draw()
    rows = y != 2
    names = np.array(["a", "b", "c", "d"])
    value = metric(names[y[rows]], proba[rows], labels=names)
    assert type(value) is float
    assert value == pytest.approx(metric(y[rows], proba[rows]), abs=1e-12)


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
def test_one_column_is_that_of_the_second_class(metric):
    y, proba = draw(n_classes=2)
    one = metric(y, proba[:, 1])
    assert one == pytest.approx(metric(y, proba), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
def test_single_precision_changes_little(metric):
    y, proba = draw(n=200)
    single = metric(y, proba.astype(np.float32))
    assert single == pytest.approx(metric(y, proba), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
def test_saturated_predictions_have_a_value(metric):
    y, proba = draw(n=200)
    certain = softmax(40 * np.log(proba), axis=1).astype(np.float32)
    assert (certain.max(axis=1) == 1).mean() > 0.5
    assert np.isfinite(metric(y, certain))


@pytest.mark.parametrize("metric", [*METRICS, BLOCK])
def test_a_row_that_is_no_distribution_is_named(metric):
    y, proba = draw()
    proba[7] *= 1.1
    with pytest.raises(ValueError, match=r"Row 7 .* sums to 1\.1"):
        metric(y, proba)
    proba[5] = [1.5, -0.5, 0, 0]
    with pytest.raises(ValueError, match=r"Row 5 of the probabilities holds 1\.5"):
        metric(y, proba)
    proba[3] = np.nan
    with pytest.raises(ValueError, match="Row 3 of the probabilities holds nan"):
        metric(y, proba)
