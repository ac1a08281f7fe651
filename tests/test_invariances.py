"""Properties that hold for any logits, searched for exceptions by Hypothesis."""

import numpy as np
import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone

from skcalib import (
    MatrixScaling,
    OrderPreservingScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)


def splits_rows(calibrator):
    """Whether the order of the rows decides which of them are fitted together."""
    if isinstance(calibrator, VennAbersCalibration):
        return calibrator.cv is not None
    return calibrator.get_params().get("average_folds", False)


def sees_raw_logits(calibrator):
    """Whether a constant added to a row may carry meaning."""
    on_logits = calibrator.get_params().get("fit_on") == "logits"
    return on_logits or isinstance(calibrator, (VectorScaling, MatrixScaling))


EVERY = [c for c in [*CALIBRATORS, *VARIANTS] if not splits_rows(c)]
# Their map of a z is their map of z, scaled in the fit, but for the prior at T = 1.
SCALE_FREE = [
    TemperatureScaling(prior=None),
    VectorScaling(prior=None),
    OrderPreservingScaling(prior=None),
]

ORDERS = st.permutations(range(4)).filter(lambda order: order != [0, 1, 2, 3])
few_examples = settings(
    max_examples=3, deadline=None, suppress_health_check=list(HealthCheck)
)


def draw(seed, n_classes=3, n_samples=120):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n_samples, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, y


def map_of(calibrator, logits, y, at, **params):
    fitted = clone(calibrator).set_params(**params).fit(logits, y)
    return fitted.predict_proba(at)


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", EVERY, ids=identify)
@few_examples
@given(seed=st.integers(0, 1000), order=ORDERS)
def test_order_of_classes_does_not_matter(calibrator, seed, order):
    logits, y = draw(seed, n_classes=4)
    expected = map_of(calibrator, logits, y, logits)
    permuted = map_of(
        calibrator, logits[:, order], y, logits[:, order], classes=list(order)
    )
    assert_allclose(permuted, expected[:, order], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "calibrator",
    [c for c in EVERY if not sees_raw_logits(c)],
    ids=identify,
)
@few_examples
@given(seed=st.integers(0, 1000))
def test_a_constant_added_to_a_row_does_not_matter(calibrator, seed):
    logits, y = draw(seed)
    shifts = np.random.default_rng(seed).uniform(-100, 100, (len(y), 1))
    expected = map_of(calibrator, logits, y, logits)
    shifted = logits + shifts
    assert_allclose(map_of(calibrator, shifted, y, shifted), expected, atol=1e-5)


@pytest.mark.parametrize("calibrator", SCALE_FREE, ids=identify)
@settings(few_examples, max_examples=8)
@given(seed=st.integers(0, 1000), exponent=st.integers(-6, 6).filter(bool))
def test_units_of_the_logits_do_not_matter(calibrator, seed, exponent):
    logits, y = draw(seed)
    scaled = 10.0**exponent * logits
    expected = map_of(calibrator, logits, y, logits)
    assert_allclose(map_of(calibrator, scaled, y, scaled), expected, atol=1e-5)


@pytest.mark.parametrize(
    "calibrator",
    [c for c in EVERY if c.keeps_class],
    ids=identify,
)
@few_examples
@given(seed=st.integers(0, 1000))
def test_the_predicted_class_stays_ties_included(calibrator, seed):
    logits, y = draw(seed)
    logits[::3] = logits[::3].round()
    logits[::5] = 1.0
    fitted = clone(calibrator).fit(logits, y)
    assert (fitted.predict(logits) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("variant", VARIANTS, ids=identify)
def test_a_refit_keeps_no_attribute_of_an_earlier_fit(variant):
    logits, y = draw(0)
    plain = next(c for c in CALIBRATORS if type(c) is type(variant))
    for before, after in [(plain, variant), (variant, plain)]:
        refitted = clone(before).fit(logits, y)
        refitted.set_params(**after.get_params(deep=False)).fit(logits, y)
        assert vars(refitted).keys() == vars(clone(after).fit(logits, y)).keys()
