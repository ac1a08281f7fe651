import numpy as np
from numpy.testing import assert_allclose
from scipy.special import softmax

from skcalib._blocks import open_source
from skcalib._maps import Scale, curve_map, evaluate, make_tables
from skcalib._numerics import log_odds

KNOTS = [np.array([-1.0, 1.0])] * 3
RISING = make_tables(KNOTS, [np.array([0.1, 0.9])] * 3, "linear")
ZERO = make_tables(KNOTS, [np.zeros(3)] * 3, "constant")


def draw():
    return np.random.default_rng(0).normal(scale=2, size=(50, 3))


def evaluated(calibration_map, X):
    return evaluate(calibration_map, open_source(X))


def rising(score):
    return np.interp(score, [-1, 1], [0.1, 0.9])


def test_rows_of_looked_up_values_are_divided_by_their_sums():
    X = draw()
    expected = rising(log_odds(X.copy()))
    expected /= expected.sum(axis=1, keepdims=True)
    assert_allclose(evaluated(curve_map(RISING), X), expected)


def test_the_top_class_takes_its_value_and_the_others_share_the_rest():
    X = draw()
    proba = evaluated(curve_map(RISING[:1], top_label=True), X)
    top, rows = X.argmax(axis=1), np.arange(50)
    assert_allclose(proba[rows, top], rising(log_odds(X.copy())[rows, top]))
    before = softmax(X, axis=1)
    before[rows, top] = proba[rows, top] = 0
    shares = before / before.sum(axis=1, keepdims=True)
    assert_allclose(proba / proba.sum(axis=1, keepdims=True), shares)


def test_a_share_of_the_softmax_decides_where_every_value_is_0():
    X = draw()
    proba = evaluated(curve_map(ZERO, softmax_share=1e-100), X)
    assert_allclose(proba, softmax(X, axis=1))


def test_the_front_comes_first():
    X = draw()
    proba = evaluated(curve_map(ZERO, front=[Scale(0.5)], softmax_share=1e-100), X)
    assert_allclose(proba, softmax(X / 2, axis=1))
