import json
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import softmax
from sklearn.model_selection import StratifiedShuffleSplit

from skcalib import (
    CalibratorSearch,
    GroupCalibration,
    HistogramBinning,
    IsotonicCalibration,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.metrics import (
    calibration_report,
    expected_calibration_error,
    get_scorer,
)
from skcalib.model_selection import CalibratorComparison, compare_calibrators

METRICS = ["accuracy", "entropy", "ece", "aece", "sce", "nll", "brier", "fit seconds"]


@pytest.fixture
def table(calibration_set):
    return compare_calibrators([TemperatureScaling()], *calibration_set)


def test_rows_are_methods_and_columns_metrics(table):
    assert table.names == ["uncalibrated", "TemperatureScaling"]
    assert table.metrics == METRICS
    assert table.mean.shape == table.std.shape == (2, 8)
    assert (table.std[:, :-1] > 0).all()


def test_values_on_test_data_are_those_of_the_metrics(cifar10):
    table = compare_calibrators(
        {"TS": TemperatureScaling()},
        cifar10.X_cal,
        cifar10.y_cal,
        X_test=cifar10.X_test,
        y_test=cifar10.y_test,
    ).to_dict()
    ts = TemperatureScaling().fit(cifar10.X_cal, cifar10.y_cal)
    names = ["accuracy", "entropy", "ece", "aece", "sce", "nll", "brier"]
    for row, proba in [
        ("uncalibrated", softmax(cifar10.X_test.astype(np.float64), axis=1)),
        ("TS", ts.predict_proba(cifar10.X_test)),
    ]:
        report = calibration_report(cifar10.y_test, proba, n_bootstrap=0)
        values = [table[row][metric]["mean"] for metric in METRICS[:-1]]
        assert_allclose(values, [report[n].value for n in names], rtol=1e-4)
    # Bootstrap standard error of an accuracy.
    accuracy = table["TS"]["accuracy"]
    expected = np.sqrt(accuracy["mean"] * (1 - accuracy["mean"]) / 5000)
    assert accuracy["std"] == pytest.approx(expected, rel=0.3)


def test_folds_are_judged_on_rows_left_out(calibration_set):
    logits, y = calibration_set
    splits = list(
        StratifiedShuffleSplit(3, test_size=0.5, random_state=0).split(logits, y)
    )
    table = compare_calibrators([HistogramBinning()], logits, y, cv=splits)
    values = []
    for train, test in splits:
        fitted = HistogramBinning().fit(logits[train], y[train])
        proba = fitted.predict_proba(logits[test])
        values.append(expected_calibration_error(y[test], proba))
    ece = table.to_dict()["HistogramBinning"]["ece"]
    assert ece["mean"] == pytest.approx(np.mean(values))
    assert ece["std"] == pytest.approx(np.std(values, ddof=1))


def test_temperature_lowers_the_log_loss_and_keeps_the_accuracy(table):
    rows = table.to_dict()
    before, after = rows["uncalibrated"], rows["TemperatureScaling"]
    assert after["nll"]["mean"] < before["nll"]["mean"] - 0.05
    assert after["accuracy"] == before["accuracy"]


def test_binary_log_odds_and_named_classes_are_compared(binary_calibration_set):
    z, y = binary_calibration_set
    labels = np.where(y == 1, "yes", "no")
    named = compare_calibrators([TemperatureScaling()], z, labels)
    plain = compare_calibrators([TemperatureScaling()], z, y)
    assert_allclose(named.mean[:, :-1], plain.mean[:, :-1])


def test_scores_are_columns_by_the_names_of_the_scorers(calibration_set):
    X, y = calibration_set
    names = ["neg_ks_calibration_error", "neg_expected_calibration_error"]
    names.append("predictive_entropy")
    table = compare_calibrators(
        [TemperatureScaling()],
        *(X[:200], y[:200]),
        X_test=X[200:],
        y_test=y[200:],
        scoring=names,
    )
    assert table.metrics[-4:] == [*names, "fit seconds"]
    fitted = TemperatureScaling().fit(X[:200], y[:200])
    for name in names:
        column = table.metrics.index(name)
        expected = get_scorer(name)(fitted, X[200:], y[200:])
        assert table.mean[1, column] == pytest.approx(expected, rel=1e-9)
    ece = table.metrics.index("ece")
    assert_allclose(table.mean[:, ece], -table.mean[:, -3])
    assert_allclose(table.is_best[:, ece], table.is_best[:, -3])
    assert not table.is_best[:, -2].any()
    assert names[0] in str(table)
    with pytest.raises(ValueError, match=r"cannot be columns: \['neg_log_loss'\]"):
        compare_calibrators([TemperatureScaling()], X, y, scoring=["neg_log_loss"])
    with pytest.raises(TypeError, match="pass a list of names"):
        compare_calibrators([TemperatureScaling()], X, y, scoring="neg_log_loss")


def test_draws_of_the_test_rows_are_a_few_at_a_time(monkeypatch):
    logits, y = make_logits(2000, 5, random_state=0)

    def compare():
        return compare_calibrators(
            [TemperatureScaling()],
            *(logits[:500], y[:500]),
            X_test=logits[500:],
            y_test=y[500:],
            n_bootstrap=200,
            random_state=0,
        )

    expected = compare()
    monkeypatch.setattr("skcalib.metrics._resampling.CHUNK_ELEMENTS", 10_000)
    tracemalloc.start()
    found = compare()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 1500 * 8
    assert_allclose(found.draws[:, :, :-1], expected.draws[:, :, :-1], rtol=1e-10)
    ece = expected.metrics.index("ece")
    assert_allclose(found.mean[:, ece], expected.mean[:, ece])


def test_number_of_jobs_changes_nothing(calibration_set):
    one = compare_calibrators([VectorScaling()], *calibration_set)
    with parallel_config(backend="threading"):
        two = compare_calibrators([VectorScaling()], *calibration_set, n_jobs=2)
    assert_allclose(one.mean[:, :-1], two.mean[:, :-1], rtol=0)


def test_class_wise_errors_are_printed_as_in_a_report(calibration_set):
    table = compare_calibrators([VectorScaling()], *calibration_set, cv=2)
    k = table.metrics.index("sce")
    assert f"{100 * table.mean[1, k]:.3f}±{100 * table.std[1, k]:.3f}" in str(table)


def test_printed_columns_are_aligned(table):
    lines = str(table).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert "ECE %" in lines[0]
    percent = f"{100 * table.mean[1, 0]:.2f}±{100 * table.std[1, 0]:.2f}"
    assert percent in lines[3]
    assert [
        line.index(name) for line, name in zip(lines[2:], table.names, strict=True)
    ] == [0, 0]
    assert not any(line.endswith(" ") for line in lines)


def test_html_holds_a_cell_for_every_value_and_escapes_names(calibration_set):
    table = compare_calibrators({"<a>": TemperatureScaling()}, *calibration_set)
    cells = []

    class Cells(HTMLParser):
        def handle_data(self, data):
            cells.append(data)

    Cells().feed(table._repr_html_())
    assert "<a>" in cells
    assert len(cells) == 8 + 2 * 9


def test_other_forms_hold_the_same_numbers(table):
    pytest.importorskip("pandas")
    frame = table.to_frame()
    assert_allclose(frame["nll", "mean"], table.mean[:, METRICS.index("nll")])
    restored = json.loads(json.dumps(table.to_dict()))
    assert restored["uncalibrated"]["ece"]["std"] == table.std[0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"X_test": [[0.0, 1.0, 2.0, 3.0]]}, "y_test is missing"),
        ({"y_test": [0]}, "X_test is missing"),
        (
            {"X_test": [[0.0, 1.0], [1.0, 0.0]], "y_test": [0, 1]},
            "X has 2 features, but .* expecting 4",
        ),
        (
            {"X_test": np.eye(4), "y_test": range(4), "n_bootstrap": 1},
            "n_bootstrap=1",
        ),
        ({"cv": [(range(300), range(300, 600))]}, "single split"),
        ({"n_bins": 0}, "n_bins"),
    ],
)
def test_a_user_mistake_is_named(calibration_set, options, message):
    with pytest.raises(ValueError, match=message):
        compare_calibrators([TemperatureScaling()], *calibration_set, **options)


@pytest.mark.parametrize("how", ["equal rows", "groups"])
def test_copies_of_a_row_are_not_held_out_from_themselves(draw_calibration_set, how):
    logits, y = draw_calibration_set(n_samples=300)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(300), 4))
    X, groups = logits[rows], None
    if how == "groups":
        X, groups = X + 1e-9 * np.random.default_rng(1).normal(size=X.shape), rows
    strict = {"strict": IsotonicCalibration(method="strict")}
    once = compare_calibrators(strict, logits, y).to_dict()["strict"]["nll"]["mean"]
    often = compare_calibrators(strict, X, y[rows], groups=groups).to_dict()
    assert often["strict"]["nll"]["mean"] == pytest.approx(once, rel=0.2)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("tested", [False, True])
def test_a_search_in_the_table_keeps_groups_together(shares, tested):
    logits, y = make_logits(1000, 4, random_state=0)
    rows = np.arange(1000) % 100
    noise = np.random.default_rng(0).normal(size=logits.shape)
    X, y = logits[rows] + 0.01 * noise, y[rows]
    y = np.eye(4)[y] if shares else y
    given = {"X_test": X[:500], "y_test": y[:500].argmax(1) if shares else y[:500]}
    temperature = TemperatureScaling()
    table = compare_calibrators(
        {
            "search": CalibratorSearch([temperature, IsotonicCalibration()]),
            "temperature": temperature,
        },
        X,
        y,
        groups=rows,
        **(given if tested else {}),
    ).to_dict()
    expected = table["temperature"]["nll"]["mean"]
    assert table["search"]["nll"]["mean"] == pytest.approx(expected, rel=1e-6)


def test_calibrators_that_predict_by_groups_are_refused_beside_groups(calibration_set):
    X, y = calibration_set
    with pytest.raises(ValueError, match="Those of GroupCalibration are calibrated"):
        compare_calibrators([GroupCalibration()], X, y, groups=np.arange(len(y)))


def test_a_class_with_one_row_cannot_be_compared():
    logits = np.random.default_rng(0).normal(size=(9, 2))
    with pytest.raises(ValueError, match="one class only to fit on, 'a'"):
        compare_calibrators([TemperatureScaling()], logits, ["a"] * 8 + ["b"])


def excess_test(table, row, best):
    """The corrected resampled t-test of one row against another, by its formula."""
    nll = table.metrics.index("nll")
    difference = table.draws[row, :, nll] - table.draws[best, :, nll]
    k = len(difference)
    error = np.sqrt((1 / k + table.fold_ratio) * difference.var(ddof=1))
    return stats.t.sf(difference.mean() / error, k - 1) > 0.025


def test_what_cannot_be_told_from_the_best_is_marked_with_it():
    logits, y = make_logits(3000, 5, class_bias=0.25, random_state=0)
    methods = {"one": TemperatureScaling(), "two": TemperatureScaling()}
    table = compare_calibrators({**methods, "vector": VectorScaling()}, logits, y)
    nll = table.metrics.index("nll")
    best = int(table.mean[:, nll].argmin())
    expected = [row == best or excess_test(table, row, best) for row in range(4)]
    assert table.is_best[:, nll].tolist() == expected
    assert expected == [False, True, True, True]
    assert table.fold_ratio == pytest.approx(1 / 4)
    for column in ("entropy", "fit seconds"):
        assert not table.is_best[:, table.metrics.index(column)].any()


def test_on_test_rows_the_best_is_told_by_the_scatter_of_the_difference():
    logits, y = make_logits(3000, 5, random_state=0)
    table = compare_calibrators(
        [TemperatureScaling()],
        *(logits[:1500], y[:1500]),
        X_test=logits[1500:],
        y_test=y[1500:],
    )
    assert table.fold_ratio is None
    assert table.is_best[:, table.metrics.index("nll")].tolist() == [False, True]
    # The predicted classes are the same.
    assert table.is_best[:, table.metrics.index("accuracy")].tolist() == [True, True]


@pytest.mark.parametrize("seed", range(8))
def test_neither_resampling_bias_nor_the_seed_makes_an_error_equal_best(seed):
    # Calibration errors of ResNet-8 on CIFAR-10, before and after: resampling raises
    # the smaller one more.
    value = np.array([[0.0222], [0.0078]])
    smaller = np.full(100, 0.012)
    larger = smaller + np.random.default_rng(seed).normal(0.0114, 0.0055, 100)
    draws = np.stack([larger, smaller])
    table = CalibratorComparison(["a", "b"], ["aece"], value, draws[:, :, np.newaxis])
    assert table.is_best[:, 0].tolist() == [False, True]


def test_a_sorted_table_begins_with_the_best_of_a_metric(table):
    ordered = table.sorted()
    assert ordered.names == ["TemperatureScaling", "uncalibrated"]
    assert_allclose(ordered.std[::-1], table.std)
    assert table.sorted("accuracy").names == table.names
    with pytest.raises(ValueError, match="metric='logloss' is not among"):
        table.sorted("logloss")


def test_a_table_for_a_paper_has_the_best_in_bold(table):
    header, rule, *rows = table.to_markdown().splitlines()
    assert header.startswith("|  | accuracy % | entropy |")
    assert rule == "| --- |" + " ---: |" * 8
    nll = f"{table.mean[1, 5]:.4f}±{table.std[1, 5]:.4f}"
    assert rows[1].startswith("| TemperatureScaling |")
    assert f"| **{nll}** |" in rows[1]
    latex = table.to_latex()
    assert latex.startswith("\\begin{tabular}{lrrrrrrrr}\n\\toprule\n & accuracy \\% &")
    assert "\\textbf{" + nll.replace("±", " $\\pm$ ") + "}" in latex


@pytest.mark.parametrize(
    ("name", "latex", "markdown"),
    [
        ("a_b & 5%", r"a\_b \& 5\%", "a_b & 5%"),
        (r"\{x}", r"\textbackslash{}\{x\}", r"\{x}"),
        ("x^2 ~ y", r"x\textasciicircum{}2 \textasciitilde{} y", "x^2 ~ y"),
        ("T|V", "T|V", r"T\|V"),
    ],
)
def test_names_are_escaped(table, name, latex, markdown):
    named = CalibratorComparison([name], table.metrics, table.mean[:1], table.draws[:1])
    assert f"\n{latex} & " in named.to_latex()
    assert f"\n| {markdown} | " in named.to_markdown()


def test_progress_is_told_by_calibrator(calibration_set, capsys):
    compare_calibrators([TemperatureScaling()], *calibration_set)
    assert capsys.readouterr().err == ""
    compare_calibrators([TemperatureScaling()], *calibration_set, verbose=1)
    assert capsys.readouterr().err.splitlines() == [
        "[compare_calibrators] uncalibrated is done, 1 of 2",
        "[compare_calibrators] TemperatureScaling is done, 2 of 2",
    ]


def test_a_calibrator_that_is_no_list_is_named(calibration_set):
    with pytest.raises(TypeError, match=r"is TemperatureScaling\(\)\. Pass a list"):
        compare_calibrators(TemperatureScaling(), *calibration_set)
