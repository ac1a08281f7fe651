import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from rows import rest_log_odds
from scipy.special import expit, log_softmax, logsumexp, softmax

from skcalib._blocks import open_source
from skcalib._maps import (
    Affine,
    BetaLink,
    CalibrationMap,
    Clip,
    Log,
    LogOdds,
    LogSigmoid,
    LogSoftmax,
    Lookup,
    PerColumn,
    Renormalise,
    ReplaceTop,
    Scale,
    Softmax,
    Table,
    WeightedSum,
    evaluate,
    evaluate_block,
    top_labels,
)

MATRIX = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0], [0.3, 0.0, 0.7]])
VECTOR = np.array([1.0, -2.0, 0.5])
LINEAR = Table(np.array([-1.0, 0.0, 2.0]), np.array([0.1, 0.4, 0.9]), "linear")
STEPS = Table(np.array([-1.0, 0.5]), np.array([0.2, 0.5, 0.8]), "constant")


def step_values(x):
    return np.where(x <= -1, 0.2, np.where(x <= 0.5, 0.5, 0.8))


def beta_link(x):
    p = expit(x)
    return VECTOR * np.log(p) - 0.5 * np.log(1 - p) + np.arange(3)


OPERATIONS = {
    "Scale": (Scale(-2.5), lambda x: -2.5 * x),
    "Clip": (Clip(-1.0, 0.5), lambda x: np.minimum(np.maximum(x, -1.0), 0.5)),
    "Affine, matrix": (
        Affine(MATRIX, VECTOR),
        lambda x: np.einsum("kj,ij->ik", MATRIX, x) + VECTOR,
    ),
    "Affine, vector": (Affine(VECTOR, VECTOR), lambda x: VECTOR * x + VECTOR),
    "Softmax": (Softmax(), lambda x: softmax(x, axis=1)),
    "LogSoftmax": (LogSoftmax(), lambda x: log_softmax(x, axis=1)),
    "Log": (CalibrationMap(Softmax(), Log()), lambda x: log_softmax(x, axis=1)),
    "LogSigmoid": (LogSigmoid(), lambda x: np.log(expit(x))),
    "LogOdds": (LogOdds(), rest_log_odds),
    "BetaLink": (BetaLink(VECTOR, np.full(3, 0.5), np.arange(3.0)), beta_link),
    "Lookup, shared": (Lookup((STEPS,)), step_values),
    "Lookup, each": (
        Lookup((LINEAR, STEPS, LINEAR)),
        lambda x: np.stack(
            [
                np.interp(x[:, 0], LINEAR.knots, LINEAR.values),
                step_values(x[:, 1]),
                np.interp(x[:, 2], LINEAR.knots, LINEAR.values),
            ],
            axis=1,
        ),
    ),
    "WeightedSum": (
        WeightedSum(
            (0.5, 0.3), (CalibrationMap(Softmax()), CalibrationMap(Scale(2.0))), 0.1
        ),
        lambda x: 0.5 * softmax(x, axis=1) + 0.6 * x + 0.1,
    ),
    "Renormalise": (
        CalibrationMap(Softmax(), Scale(3.0), Renormalise()),
        lambda x: softmax(x, axis=1),
    ),
}

MAPS = {
    "temperature": CalibrationMap(Scale(0.4), Softmax()),
    "vector": CalibrationMap(Affine(VECTOR, VECTOR), Softmax()),
    "matrix": CalibrationMap(Affine(MATRIX, VECTOR), Softmax()),
    "dirichlet": CalibrationMap(LogSoftmax(), Affine(MATRIX, VECTOR), Softmax()),
    "steps": CalibrationMap(LogOdds(), Lookup((STEPS,)), Renormalise()),
    "top": CalibrationMap(ReplaceTop(LINEAR)),
    "one-vs-rest": CalibrationMap(
        LogOdds(),
        BetaLink(np.ones(3), np.ones(3), np.zeros(3)),
        LogSigmoid(),
        Softmax(),
    ),
    "mixture": CalibrationMap(
        WeightedSum((0.6, 0.3), (CalibrationMap(Scale(0.5), Softmax()),) * 2, 0.1 / 3)
    ),
}


def evaluate_array(calibration_map, x):
    return evaluate(calibration_map, open_source(np.asarray(x)))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(scale=2, size=(50, 3))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_computes_its_formula(x, name):
    operation, formula = OPERATIONS[name]
    if not isinstance(operation, CalibrationMap):
        operation = CalibrationMap(operation)
    assert_allclose(evaluate_block(operation, x.copy()), formula(x), atol=1e-12)


def test_the_top_class_is_replaced_and_the_rest_rescaled(x):
    proba = evaluate_array(CalibrationMap(ReplaceTop(LINEAR)), x)
    plain = softmax(x, axis=1)
    for row, before, logits in zip(proba, plain, x, strict=True):
        top = before.argmax()
        others = np.delete(logits, top)
        looked_up = np.interp(
            logits[top] - logsumexp(others), LINEAR.knots, LINEAR.values
        )
        expected = before * (1 - looked_up) / (1 - before[top])
        expected[top] = looked_up
        assert_allclose(row, expected, atol=1e-12)


def test_the_first_of_equal_top_logits_is_replaced():
    proba = evaluate_array(CalibrationMap(ReplaceTop(LINEAR)), [[1.0, 1.0, 0.0]])
    q = np.interp(1 - np.logaddexp(1, 0), LINEAR.knots, LINEAR.values)
    assert proba[0, 0] == pytest.approx(q)
    assert proba[0].sum() == pytest.approx(1)


def test_pieces_are_closed_on_the_right_and_lines_end_flat():
    knots = np.array([[-1.0, 0.5, np.nextafter(0.5, 1)]])
    steps = evaluate_array(CalibrationMap(Lookup((STEPS,))), knots)
    assert_array_equal(steps, [[0.2, 0.5, 0.8]])
    beyond = np.array([[-9.0, 0.0, 9.0]])
    lines = evaluate_array(CalibrationMap(Lookup((LINEAR,))), beyond)
    assert_array_equal(lines, [[0.1, 0.4, 0.9]])


EXTREME = [0.0, 1.0, 1e4, -1e4, -1e30, 1e30, -3.4e38, 1.79e308, -1.79e308]

FINITE = st.sampled_from(EXTREME) | st.floats(-1.7e308, 1.7e308)


@pytest.mark.parametrize("name", MAPS)
@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, (2, 3), elements=FINITE))
def test_any_finite_logits_give_rows_that_sum_to_one(name, logits):
    proba = evaluate_array(MAPS[name], logits)
    assert (proba >= 0).all()
    assert_allclose(proba.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_a_row_is_mapped_alike_alone_and_in_a_batch(x, name):
    together = evaluate_array(MAPS[name], x)
    alone = np.vstack([evaluate_array(MAPS[name], row[np.newaxis]) for row in x])
    assert_allclose(alone, together, rtol=1e-13)


@pytest.mark.parametrize("name", MAPS)
def test_blocks_and_threads_do_not_change_the_result(name, monkeypatch):
    x = np.random.default_rng(0).normal(size=(60_000, 3))
    monkeypatch.setattr("skcalib._blocks._rows.n_threads", lambda: 4)
    expected = evaluate_block(MAPS[name], x.copy())
    assert_allclose(evaluate_array(MAPS[name], x), expected, rtol=1e-12)


def curve_of_each(n_columns):
    curves = Lookup((LINEAR,) * n_columns)
    odds = CalibrationMap(LogSoftmax(), Softmax())
    return [
        CalibrationMap(curves),
        CalibrationMap(WeightedSum((1.0,), (CalibrationMap(curves),))),
        CalibrationMap(PerColumn((odds,) * n_columns)),
    ]


@pytest.mark.parametrize("each", range(3))
def test_many_curves_go_over_many_rows_at_a_time(each, monkeypatch):
    x = np.random.default_rng(0).normal(size=(600, 2000))
    many = curve_of_each(2000)[each]
    heights = []

    def mapped(calibration_map, block):
        heights.append(block.shape[0])
        return evaluate_block(calibration_map, np.array(block))

    monkeypatch.setattr("skcalib._maps._numpy._mapped", mapped)
    found = evaluate(many, open_source(x))
    assert_allclose(found[::60], np.vstack([mapped(many, r[None]) for r in x[::60]]))
    assert_array_equal(
        top_labels(many, open_source(x), np.arange(2000)), found.argmax(axis=1)
    )
    assert heights[:3] == [256, 256, 88]
    assert heights[-3:] == heights[:3]


@pytest.mark.parametrize("name", MAPS)
def test_the_input_is_left_alone(x, name):
    before = x.copy()
    evaluate_array(MAPS[name], x)
    assert_array_equal(x, before)


def test_float32_is_computed_in_float64_and_rounded_once(x):
    single = x.astype(np.float32)
    for calibration_map in MAPS.values():
        proba = evaluate_array(calibration_map, single)
        assert proba.dtype == np.float32
        double = evaluate_array(calibration_map, single.astype(np.float64))
        assert_array_equal(proba, double.astype(np.float32))


def test_log_odds_of_a_certain_class_keep_their_digits():
    log_odds = evaluate_block(CalibrationMap(LogOdds()), np.array([[50.0, 0.0, 0.0]]))
    assert log_odds[0, 0] == pytest.approx(50 - np.log(2), rel=1e-15)
    assert log_odds[0, 1] == pytest.approx(-50, rel=1e-15)


def test_log_odds_of_two_classes_are_their_difference():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2)) * 10.0 ** rng.integers(-8, 8, (100, 1))
    x[::7] = x[::7, :1]
    difference = x[:, 1] - x[:, 0]
    result = evaluate_block(CalibrationMap(LogOdds()), x)
    assert_array_equal(result, np.stack([-difference, difference], axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_top_column_is_the_first_largest_of_what_is_returned(dtype):
    # Single precision makes ties that the blocks in double precision do not have.
    x = np.random.default_rng(0).normal(scale=1e-4, size=(70_000, 3)).astype(dtype)
    source, mapped = open_source(x), CalibrationMap(Scale(1e-4), Softmax())
    returned, labels = evaluate(mapped, source), np.arange(3)
    ties = returned.max(axis=1) == np.sort(returned, axis=1)[:, -2]
    assert ties.any() == (dtype == np.float32)
    assert_array_equal(top_labels(mapped, source, labels), returned.argmax(axis=1))
    assert_array_equal(top_labels(None, source, labels), x.argmax(axis=1))
