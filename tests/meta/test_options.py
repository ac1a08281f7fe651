"""Options of questions: one number of them in each, told in several layouts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skcalib import (
    GroupCalibration,
    OptionCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    load,
    pad_options,
    save,
)
from skcalib.metrics import expected_calibration_error, get_scorer

BIAS = np.array([1.5, 0.0, -0.5, -1.0, 0.0])


def draw_questions(n, seed, factor=2.0, bias=BIAS):
    """Draw logits of 2 to 5 options, stated too surely and with favourite positions."""
    rng = np.random.default_rng(seed)
    truth = [rng.normal(0, 2, rng.integers(2, 6)) for _ in range(n)]
    y = np.array([rng.choice(len(z), p=softmax(z)) for z in truth])
    return [factor * (z + bias[: len(z)]) for z in truth], y


def nats(proba, y):
    return -np.mean([np.log(row[k]) for row, k in zip(proba, y, strict=True)])


def test_temperature_and_offsets_are_those_of_an_independent_fit():
    X, y = draw_questions(400, 0)
    padded = np.full((400, 5), -np.inf)
    for row, z in zip(padded, X, strict=True):
        row[: len(z)] = z

    def objective(x):
        log_proba = log_softmax(padded * np.exp(x[0]) + x[1:], axis=1)
        loss = -log_proba[np.arange(400), y].mean()
        prior = 2 * 8 / 400 * np.log(np.cosh(x[0] / 2))
        return loss + prior + 0.7 * 5 / 400 * (x[1:] @ x[1:])

    found = minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-7})
    fitted = OptionCalibration(offset_penalty=0.7).fit(X, y)
    assert fitted.loss_ == pytest.approx(found.fun, abs=1e-11)
    assert fitted.temperature_ == pytest.approx(np.exp(-found.x[0]), rel=1e-5)
    assert_allclose(fitted.offset_, found.x[1:], atol=1e-5)
    assert abs(fitted.offset_.sum()) < 1e-9


def test_offsets_undo_the_bias_and_lower_the_loss_on_other_questions():
    X, y = draw_questions(5000, 1)
    X_test, y_test = draw_questions(5000, 2)
    fitted = OptionCalibration().fit(X, y)
    assert fitted.temperature_ == pytest.approx(2, rel=0.1)
    assert_allclose(fitted.offset_, BIAS.mean() - BIAS, atol=0.2)
    plain = OptionCalibration(position_offset=False).fit(X, y)
    gain = nats(plain.predict_proba(X_test), y_test)
    assert nats(fitted.predict_proba(X_test), y_test) < gain - 0.1


def test_without_offsets_it_is_temperature_scaling_of_the_rows():
    X, y = draw_questions(300, 3)
    plain = OptionCalibration(position_offset=False).fit(X, y)
    scaled = TemperatureScaling().fit(pad_options(X), y)
    assert plain.temperature_ == scaled.temperature_
    assert not plain.offset_.any()
    rough = OptionCalibration(position_offset=False, tol=10.0).fit(X, y)
    assert rough.n_iter_ < plain.n_iter_
    assert_array_equal(plain.predict(X), [np.argmax(z) for z in X])
    by_hand = [softmax(z / plain.temperature_) for z in X]
    for row, expected in zip(plain.predict_proba(X), by_hand, strict=True):
        assert_allclose(row, expected, rtol=1e-12)


def test_every_layout_comes_back_with_the_same_numbers():
    X, y = draw_questions(300, 4)
    rows = pad_options(X)
    is_absent = rows == rows.min()
    masked = np.ma.array(np.where(is_absent, np.nan, rows), mask=is_absent)
    infinite = np.where(is_absent, -np.inf, rows)
    expected = OptionCalibration().fit(rows, y).predict_proba(rows)
    assert_array_equal(expected == 0, is_absent)
    assert_allclose(expected.sum(axis=1), 1)
    for layout in (X, [z.tolist() for z in X], masked, infinite):
        fitted = OptionCalibration().fit(layout, y)
        proba = fitted.predict_proba(layout)
        assert_array_equal(pad_options(proba, absent=0), expected)
        assert type(proba) is type(layout)
        assert_array_equal(fitted.predict(layout), expected.argmax(axis=1))
        assert fitted.score(layout, y) == np.mean(expected.argmax(axis=1) == y)
        logits = fitted.decision_function(layout)
        assert_allclose(softmax(pad_options(logits), axis=1), expected, atol=1e-15)
    assert [len(z) for z in fitted.fit(X, y).predict_proba(X)] == [len(z) for z in X]
    assert_array_equal(proba == 0, is_absent)
    assert not np.isfinite(infinite).all(), "what was given is left as it was"


def test_a_series_of_rows_is_a_list_of_them():
    pd = pytest.importorskip("pandas")
    X, y = draw_questions(50, 4)
    series = pd.Series(X, index=np.arange(50)[::-1])
    fitted = OptionCalibration().fit(series, y)
    proba = OptionCalibration().fit(X, y).predict_proba(X)
    for row, expected in zip(fitted.predict_proba(series), proba, strict=True):
        assert_array_equal(row, expected)


def test_tensors_with_minus_infinity_stay_tensors():
    torch = pytest.importorskip("torch")
    X, y = draw_questions(200, 5)
    rows = pad_options(X)
    tensor = torch.from_numpy(np.where(rows == rows.min(), -np.inf, rows))
    proba = OptionCalibration().fit(tensor, y).predict_proba(tensor)
    expected = OptionCalibration().fit(rows, y).predict_proba(rows)
    assert isinstance(proba, torch.Tensor)
    assert_allclose(proba.numpy(), expected, rtol=1e-12)


def test_tensors_of_half_precision_are_padded_in_single_precision():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, 2.0, -np.inf], [1.0, 2.0, 3.0]]).half()
    padded = pad_options(tensor)
    assert padded.dtype == torch.float32
    assert_array_equal(padded.numpy(), pad_options(tensor.numpy()))
    assert pad_options(tensor[1:]).dtype == torch.float16


def test_single_precision_stays():
    X, y = draw_questions(200, 6)
    single = [z.astype(np.float32) for z in X]
    fitted = OptionCalibration().fit(single, y)
    assert fitted.predict_proba(single)[0].dtype == np.float32
    double = OptionCalibration().fit(X, y)
    assert fitted.temperature_ == pytest.approx(double.temperature_, rel=1e-5)


def test_letters_name_the_positions(tmp_path):
    X, y = draw_questions(300, 7)
    letters = np.array(list("ABCDEFG"))
    fitted = OptionCalibration(classes=letters).fit(X, letters[y])
    assert set(fitted.predict(X)) <= set("ABCDE")
    longer = [*X, np.zeros(7)]
    assert len(fitted.predict_proba(longer)[-1]) == 7
    save(fitted, tmp_path / "options.json")
    again = load(tmp_path / "options.json")
    assert_array_equal(again.predict(longer), fitted.predict(longer))


def test_tasks_are_pooled_by_groups():
    easy, y_easy = draw_questions(600, 8, factor=4.0)
    hard, y_hard = draw_questions(600, 9, factor=1.0)
    X, y = pad_options(easy + hard), np.append(y_easy, y_hard)
    task = np.repeat(["easy", "hard"], 600)
    grouped = GroupCalibration(OptionCalibration()).fit(X, y, groups=task)
    assert grouped.groups_ == ["easy", "hard"]
    assert grouped.coef_[0, 0] < 0.6 * grouped.coef_[1, 0]
    proba = grouped.predict_proba(X, groups=task)
    assert_array_equal(proba == 0, X.min() == X)
    whole = OptionCalibration().fit(X, y).predict_proba(X)
    assert nats(proba, y) < nats(whole, y) - 0.02


def test_padded_rows_pass_through_other_calibrators_and_metrics():
    X, y = draw_questions(2000, 10)
    rows = pad_options(X)
    proba = StructuredMatrixScaling(structure="vector").fit(rows, y).predict_proba(rows)
    before = expected_calibration_error(y, softmax(rows, axis=1))
    assert expected_calibration_error(y, proba) < before / 2


def test_scorers_take_questions_that_are_lists():
    X, y = draw_questions(300, 10)
    fitted = OptionCalibration().fit(X, y)
    score = get_scorer("neg_expected_calibration_error")
    assert score(fitted, X, y) == score(fitted, pad_options(X), y)
    short = [i for i, z in enumerate(X) if len(z) == 2]
    assert np.isfinite(score(fitted, [X[i] for i in short], y[short]))


def test_tuples_that_are_shorter_than_the_longest_question_are_lists():
    fitted = OptionCalibration().fit(*draw_questions(300, 10))
    short = [[1.0, 2.0], [0.0, 1.0]]
    tuples = [tuple(row) for row in short]
    for of_rows in (tuples, tuple(tuples)):
        assert_array_equal(fitted.predict_proba(of_rows), fitted.predict_proba(short))
        assert_array_equal(fitted.predict(of_rows), [1, 1])


def test_a_search_chooses_whether_there_are_offsets():
    X, y = draw_questions(600, 11)
    search = GridSearchCV(
        OptionCalibration(),
        {"position_offset": [False, True]},
        scoring="neg_log_loss",
        cv=3,
    ).fit(pad_options(X), y)
    assert search.best_params_["position_offset"]


def test_a_few_questions_hardly_move_the_offsets():
    X, y = draw_questions(20, 12, factor=1.0, bias=np.zeros(5))
    assert np.abs(OptionCalibration().fit(X, y).offset_).max() < 0.5


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1.0, 2.0], [3.0]], [0, 0], r"Row 1 has 1 options: \[3.0"),
        ([[1.0, 2.0], []], [0, 0], "Row 1 has 0 options"),
        (np.array([[1.0, 2.0], [-np.inf, 0.0]]), [0, 1], "Row 1 has 1 options"),
        (np.ma.array(np.ones((2, 3)), mask=True), [0, 1], "Row 0 has 0 options"),
        (
            [np.zeros(2), np.zeros((2, 2))],
            [0, 1],
            r"Row 1 of the list has shape \(2, 2",
        ),
        ([np.zeros(2), 3.0], [0, 1], r"Row 1 of the list has shape \(\)"),
        ([np.zeros(2), np.array(["a", "b"])], [0, 1], "Row 1 .* dtype <U1"),
        ([[0.0, 1.0], [0.0, 1.0, 2.0]], [2, 1], "answer of 1 rows, such as row 0,"),
        ([[0.0, 1.0], [0.0, 1.0, 2.0]], [1, 3], "3 columns"),
        (np.array([[1.0, np.nan], [1.0, 0.0]]), [0, 1], "NaN"),
        ([[0.0, np.nan], [0.0, 1.0, 2.0]], [1, 2], "NaN: row 0"),
    ],
)
def test_bad_questions_are_refused_and_named(X, y, message):
    with pytest.raises(ValueError, match=message):
        OptionCalibration().fit(X, y)


def test_answers_without_an_error_have_no_best_temperature():
    X, y = [[1.0, 2.0], [2.0, 1.0, 0.0]] * 5, [1, 0] * 5
    with pytest.warns(ConvergenceWarning, match="OptionCalibration stopped early"):
        OptionCalibration(prior=None).fit(X, y)


def test_more_options_than_were_fitted_to_are_refused():
    X, y = draw_questions(50, 13)
    fitted = OptionCalibration().fit(X, y)
    with pytest.raises(ValueError, match=r"Row 1 has 6 options.*classes=range\(6\)"):
        fitted.predict_proba([np.zeros(2), np.zeros(6)])


def test_offsets_cost_little_where_there_is_no_bias():
    # docs/layouts.rst tells these figures.
    rng = np.random.default_rng(14)
    told = {}
    for n in (100, 1000):
        cost = []
        for _ in range(30):
            X, X_test = rng.normal(0, 2, (n, 4)), rng.normal(0, 2, (2000, 4))
            y = (X + rng.gumbel(size=X.shape)).argmax(axis=1)
            plain, full = (
                OptionCalibration(position_offset=has).fit(X, y).predict_proba(X_test)
                for has in (False, True)
            )
            truth = softmax(X_test, axis=1)
            cost.append((truth * np.log(plain / full)).sum(axis=1).mean())
        told[n] = np.mean(cost)
    assert told[100] == pytest.approx(0.007, abs=0.001)
    assert told[1000] == pytest.approx(0.0012, abs=0.0005)


@pytest.mark.parametrize("dtype", ["Float64", "Float32", "object"])
def test_absent_options_are_seen_in_frames_of_every_type(dtype):
    pandas = pytest.importorskip("pandas")
    X, y = draw_questions(200, 11)
    rows = pad_options(X)
    told = np.where(rows == rows.min(), -np.inf, rows)
    frame = pandas.DataFrame(told).astype(dtype)
    assert_allclose(pad_options(frame), rows, rtol=1e-6)
    expected = OptionCalibration().fit(rows, y).predict_proba(rows)
    found = OptionCalibration().fit(frame, y).predict_proba(frame)
    assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "chunks"])
def test_columns_of_lists_are_lists(kind):
    arrays = pytest.importorskip("pyarrow" if kind == "chunks" else kind)
    X, y = draw_questions(200, 12)
    if kind == "chunks":
        column = arrays.chunked_array([X[:50], X[50:]])
    else:
        column = arrays.array(X) if kind == "pyarrow" else arrays.Series(values=X)
    assert_array_equal(pad_options(column), pad_options(X))
    found = OptionCalibration().fit(column, y).predict_proba(column)
    expected = OptionCalibration().fit(X, y).predict_proba(X)
    for row, known in zip(found, expected, strict=True):
        assert_array_equal(row, known)
