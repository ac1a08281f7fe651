from dataclasses import dataclass

import numpy as np
import pytest
from drawn_maps import GapPower, drawn_maps
from numpy.testing import assert_allclose
from scipy.special import softmax

from skcalib._maps import (
    OPERATIONS,
    CalibrationMap,
    LogSoftmax,
    Operation,
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


def operations_in(calibration_map):
    for operation in calibration_map.operations:
        yield operation
        for part in getattr(operation, "parts", ()):
            yield from operations_in(part)


def test_the_drawn_maps_use_every_operation():
    # What is forgotten there is tested in no evaluator and in no file.
    maps = drawn_maps(np.random.default_rng(0)).values()
    used = {type(op) for m in maps for op in operations_in(CalibrationMap(*m))}
    assert used == {*OPERATIONS, GapPower}


@dataclass(frozen=True)
class Empty(Operation):
    """An operation that does not say what it computes."""


class Undecorated(Operation):
    """An operation without its dataclass."""


def test_an_operation_without_a_numpy_form_says_what_to_define():
    with pytest.raises(TypeError, match=r"Empty has no NumPy form .* in_numpy\(self"):
        evaluate_block(CalibrationMap(Empty()), np.zeros((1, 2)))


@pytest.mark.parametrize("other", ["Softmax", Softmax, np.exp, Undecorated()])
def test_a_map_takes_nothing_but_operations(other):
    with pytest.raises(TypeError, match=r"A map is made of operations, and .* is none"):
        CalibrationMap(Scale(1.0), other)


def test_an_operation_of_skcalib_has_no_subclasses():
    # The evaluators would compute the base and never ask the subclass.
    with pytest.raises(TypeError, match=r"Double is derived from Scale, .* from Oper"):
        type("Double", (Scale,), {})
