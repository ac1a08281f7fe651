import numpy as np
from numpy.testing import assert_allclose
from scipy.special import softmax

from skcalib._maps import (
    CalibrationMap,
    LogSoftmax,
    Renormalise,
    Scale,
    Softmax,
    WeightedSum,
    evaluate_block,
)


def test_the_softmax_of_the_logits_is_the_map():
    calibration_map = CalibrationMap(LogSoftmax(), Scale(0.5), Softmax())
    x = np.random.default_rng(0).normal(size=(5, 3))
    logits = evaluate_block(calibration_map.logits, x.copy())
    expected = evaluate_block(calibration_map, x.copy())
    assert_allclose(softmax(logits, axis=1), expected, atol=1e-14)


def test_a_map_that_does_not_end_in_a_softmax_has_no_logits():
    part = CalibrationMap(Softmax())
    assert CalibrationMap(WeightedSum((1.0,), (part,))).logits is None
    assert CalibrationMap(Softmax(), Renormalise()).logits is None
    assert CalibrationMap().logits is None


def test_a_map_shows_its_operations():
    assert (
        repr(CalibrationMap(Scale(2.0), Softmax())) == "CalibrationMap(Scale, Softmax)"
    )
