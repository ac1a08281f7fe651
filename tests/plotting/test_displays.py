"""Displays beside the reliability diagram: what they hold is what the metrics say."""

from functools import partial

import numpy as np
import pytest
from drawn_predictions import draw_with_truth as draw
from numpy.testing import assert_allclose
from sklearn.exceptions import DataConversionWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from skcalib import metrics as m
from skcalib.plotting import (
    CalibratorComparisonDisplay,
    ClasswiseReliabilityDisplay,
    ProximityDisplay,
    ReliabilityDisplay,
    SimplexDisplay,
    SmoothReliabilityDisplay,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("pyplot")


PLAIN = [ClasswiseReliabilityDisplay, SimplexDisplay, SmoothReliabilityDisplay]


@pytest.mark.parametrize("display", [ReliabilityDisplay, *PLAIN, ProximityDisplay])
def test_a_fitted_classifier_is_shown_under_its_name(display):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    y = np.array(["low", "mid", "top"])[np.digitize(X[:, 0], [-0.4, 0.4])]
    classifier = LogisticRegression(C=0.1).fit(X, y)
    options = {"proximity": X[:, 1]} if display is ProximityDisplay else {}
    drawn = display.from_estimator(classifier, X, y, **options)
    assert drawn.name == "LogisticRegression"
    proba = classifier.predict_proba(X)
    again = display.from_predictions(y, proba, labels=classifier.classes_, **options)
    for name, value in again.__dict__.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert_allclose(getattr(drawn, name), value)


@pytest.mark.parametrize(
    "display",
    [ReliabilityDisplay, ClasswiseReliabilityDisplay, SmoothReliabilityDisplay],
)
def test_a_pos_label_beside_the_columns_of_an_estimator_points_to_class_(display):
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.where(X[:, 0] > 0, "fraud", "ok")
    classifier = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match=r"returned 2\..* by class_='fraud'"):
        display.from_estimator(classifier, X, y, pos_label="fraud")
    drawn = display.from_estimator(classifier, X, y, class_="fraud", n_bootstrap=0)
    assert drawn.figure_ is not None


@pytest.mark.parametrize("display", [*PLAIN, ProximityDisplay])
def test_weights_are_repetitions(display):
    y, proba, _ = draw(200)
    rng = np.random.default_rng(0)
    counts, proximity = rng.integers(0, 3, 200), rng.random(200)
    rows = np.repeat(np.arange(200), counts)
    near = display is ProximityDisplay
    options = {} if display is SimplexDisplay else {"n_bootstrap": 0}
    show = partial(display.from_predictions, **options)
    weighted = show(
        y, proba, sample_weight=counts, **({"proximity": proximity} if near else {})
    )
    repeated = show(
        y[rows], proba[rows], **({"proximity": proximity[rows]} if near else {})
    )
    for name in ("accuracy", "frequency", "confidence", "prediction", "share"):
        if hasattr(weighted, name):
            expected = getattr(repeated, name)
            assert_allclose(getattr(weighted, name), expected, atol=1e-9)


def test_drawing_touches_no_other_axes(pyplot):
    y, proba, _ = draw(200)
    figure, axes = pyplot.subplots(1, 4)
    SmoothReliabilityDisplay.from_predictions(y, proba, ax=axes[0])
    SimplexDisplay.from_predictions(y, proba, ax=axes[1])
    ProximityDisplay.from_predictions(y, proba, proximity=proba[:, 0], ax=axes[2])
    assert not axes[3].has_data()
    assert pyplot.get_fignums() == [figure.number]


# Bands of the reliability diagram.


def test_the_confidence_band_is_the_scatter_of_a_proportion():
    rng = np.random.default_rng(0)
    proba = np.repeat([0.62, 0.9], 2000)
    y = (rng.random(4000) < np.repeat([0.55, 0.8], 2000)).astype(int)
    display = ReliabilityDisplay.from_predictions(
        y, proba, n_bins=10, interval="confidence", n_bootstrap=1000
    )
    low, high = display.band
    for b in (6, 8):
        p = display.accuracy[b]
        error = 1.96 * np.sqrt(p * (1 - p) / 2000)
        assert low[b] == pytest.approx(p - error, abs=0.15 * error)
        assert high[b] == pytest.approx(p + error, abs=0.15 * error)
    assert np.isnan(low[0])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "confidence interval" in texts


@pytest.mark.parametrize(
    "display",
    [ReliabilityDisplay, ClasswiseReliabilityDisplay, SmoothReliabilityDisplay],
)
def test_an_unknown_band_is_refused(display):
    with pytest.raises(ValueError, match="interval='bayes' is not known"):
        display.from_predictions([0, 1], [0.2, 0.7], interval="bayes")


@pytest.mark.parametrize(
    "display", [ReliabilityDisplay, ClasswiseReliabilityDisplay, ProximityDisplay]
)
def test_a_band_around_a_single_bin_can_be_seen(display):
    near = {"proximity": np.ones(50), "n_proximity_bins": 1}
    drawn = display.from_predictions(
        [0, 1] * 25, [0.52] * 50, **(near if display is ProximityDisplay else {})
    )
    for ax in np.ravel(drawn.axes_ if hasattr(drawn, "axes_") else drawn.ax_):
        band = ax.collections[0]
        assert band.get_linewidth()[0] > 5
        (ends,) = band.get_segments()
        assert np.ptp(ends[:, 1]) > 0.1


# Classes in a grid.


def test_every_panel_is_the_diagram_of_its_class():
    y, proba, _ = draw()
    names = np.array(["a", "b", "c"])
    grid = ClasswiseReliabilityDisplay.from_predictions(
        names[y], proba, class_=["c", "a"], name="net"
    )
    assert grid.classes == ["c", "a"]
    for row, label in enumerate("ca"):
        one = ReliabilityDisplay.from_predictions(
            names[y], proba, class_=label, n_bootstrap=200
        )
        assert_allclose(grid.frequency[row], one.accuracy)
        assert_allclose(grid.confidence[row], one.confidence)
        assert_allclose(grid.bands[row], one.band)
        assert grid.errors[row] == pytest.approx(one.error)
        assert grid.axes_[row].get_title().startswith(label)
    whole = ClasswiseReliabilityDisplay.from_predictions(y, proba)
    expected = m.static_calibration_error(y, proba)
    assert whole.errors.mean() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n_classes", "name"), [(2, "net"), (3, None), (4, "net"), (5, None), (9, "net")]
)
def test_no_title_leaves_the_figure(n_classes, name):
    y, proba, _ = draw(200, n_classes)
    display = ClasswiseReliabilityDisplay.from_predictions(
        y, proba, n_bootstrap=0, name=name
    )
    display.figure_.draw_without_rendering()
    for panel in display.axes_:
        box = panel.title.get_window_extent()
        assert box.y1 <= display.figure_.bbox.y1


def test_of_many_classes_the_worst_are_shown():
    y, proba, _ = draw(n_classes=20)
    display = ClasswiseReliabilityDisplay.from_predictions(y, proba, n_bootstrap=0)
    assert len(display.classes) == 12
    assert (np.diff(display.errors) <= 0).all()
    assert display.bands is None


def test_classes_and_axes_that_do_not_fit_are_refused(pyplot):
    y, proba, _ = draw(50)
    with pytest.raises(ValueError, match="class_ holds 'x'"):
        ClasswiseReliabilityDisplay.from_predictions(y, proba, class_="x")
    _, axes = pyplot.subplots(1, 2)
    with pytest.raises(ValueError, match="3 classes need as many axes, not 2"):
        ClasswiseReliabilityDisplay.from_predictions(y, proba, ax=axes)


@pytest.mark.parametrize("display", [ReliabilityDisplay, *PLAIN])
def test_a_named_column_keeps_its_name_also_if_its_class_never_occurs(display):
    pandas = pytest.importorskip("pandas")
    rows = [[0.2, 0.3, 0.5], [0.5, 0.2, 0.3], [0.1, 0.8, 0.1]]
    proba = pandas.DataFrame(rows, columns=["owl", "cat", "dog"])
    y = ["dog", "cat", "cat"]
    if display is not SimplexDisplay:
        owl = display.from_predictions(y, proba, class_="owl", n_bootstrap=0)
        assert "owl" in str(owl.__dict__.get("class_") or owl.classes)
        with pytest.raises(ValueError, match="class_"):
            display.from_predictions(y, proba, class_="cow")
    if display in (ClasswiseReliabilityDisplay, SimplexDisplay):
        drawn = display.from_predictions(y, proba)
        assert drawn.classes == ["owl", "cat", "dog"]


@pytest.mark.parametrize("display", [ReliabilityDisplay, *PLAIN])
def test_dollars_in_the_name_of_a_class_are_dollars(display):
    _, proba, _ = draw(30)
    names = ["$5-$10", "$10-$20_", "rest"]
    y = np.array(names)[np.arange(30) % 3]
    options = {"labels": names}
    if display is not SimplexDisplay:
        options |= {"class_": names[1], "n_bootstrap": 0}
    drawn = display.from_predictions(y, proba, **options)
    assert len(plain_texts(drawn.figure_, "$10-$20_")) == 1


@pytest.mark.parametrize("display", [ReliabilityDisplay, *PLAIN, ProximityDisplay])
def test_dollars_in_a_title_are_dollars(display):
    y, proba, _ = draw(30)
    options = {"proximity": proba[:, 0]} if display is ProximityDisplay else {}
    drawn = display.from_predictions(y, proba, name=r"a $\frac b$", **options)
    assert plain_texts(drawn.figure_, r"a $\frac b$")


def test_dollars_in_the_name_of_a_compared_classifier_are_dollars():
    y, proba, truth = draw(30)
    probas = {r"a $\frac b$": proba, "b": truth}
    drawn = CalibratorComparisonDisplay.from_predictions(y, probas, n_bootstrap=0)
    assert plain_texts(drawn.figure_, r"a $\frac b$")


def plain_texts(figure, part):
    """Draw a figure; return the texts seen with this part, none of it mathematics."""
    figure.canvas.draw()
    texts = figure.findobj(matplotlib.text.Text)
    texts = [t for t in texts if t.get_visible() and part in t.get_text()]
    assert not any(text.get_parse_math() for text in texts)
    return texts


def test_labels_may_come_as_a_frame_of_one_column():
    pandas = pytest.importorskip("pandas")
    y = pandas.DataFrame({"y": ["a", "b", "a"]})
    proba = [[0.3, 0.7]] * 3
    with pytest.warns(DataConversionWarning):
        found = ReliabilityDisplay.from_predictions(y, proba, class_="b")
    expected = ReliabilityDisplay.from_predictions(list("aba"), proba, class_="b")
    assert_allclose(found.accuracy, expected.accuracy)


def test_no_classes_to_show_are_refused():
    y, proba, _ = draw(30)
    with pytest.raises(ValueError, match="class_ is empty; name at least one class"):
        ClasswiseReliabilityDisplay.from_predictions(y, proba, class_=[])


# The smooth diagram.


def test_the_curve_finds_the_shift_and_the_density():
    rng = np.random.default_rng(0)
    proba = rng.uniform(0.5, 0.9, 20_000)
    y = (rng.random(20_000) < proba - 0.1).astype(int)
    display = SmoothReliabilityDisplay.from_predictions(y, proba, n_bootstrap=50)
    middle = (display.grid > 0.62) & (display.grid < 0.8)
    shift = display.accuracy[middle] - display.grid[middle]
    assert_allclose(shift, -0.1, atol=0.03)
    assert display.error == pytest.approx(m.smooth_calibration_error(y, proba))
    low, high = display.band
    assert (low[middle] < display.grid[middle] - 0.1).mean() > 0.8
    assert (high[middle] > display.grid[middle] - 0.1).mean() > 0.8
    assert np.trapezoid(display.density, display.grid) == pytest.approx(1, abs=1e-3)
    # Nobody said 0.05, so nothing is drawn there.
    assert np.isnan(display.accuracy[np.searchsorted(display.grid, 0.05)])


def test_the_consistency_band_lies_around_the_diagonal():
    y, proba, truth = draw()
    display = SmoothReliabilityDisplay.from_predictions(
        y, truth, interval="consistency"
    )
    low, high = display.band
    shown = np.isfinite(display.accuracy)
    assert (low[shown] <= display.grid[shown]).all()
    assert (high[shown] >= display.grid[shown]).all()
    inside = (display.accuracy >= low) & (display.accuracy <= high)
    assert inside[shown].mean() > 0.8
    wrong = SmoothReliabilityDisplay.from_predictions(y, proba, interval="consistency")
    assert (wrong.accuracy[shown] < wrong.band[0][shown]).mean() > 0.5


# Three classes in a triangle.


def test_arrows_go_from_mean_predictions_to_frequencies():
    y, proba, _ = draw(3000)
    display = SimplexDisplay.from_predictions(y, proba, n_cells=4, min_samples=20)
    steps = np.floor(proba * 4).astype(int)
    cells = [steps[i] for i in np.unique(steps @ [100, 10, 1], return_index=True)[1]]
    groups = [(steps == cell).all(axis=1) for cell in cells]
    large = [rows for rows in groups if rows.sum() >= 20]
    hot = np.eye(3)[y]
    assert_allclose(display.prediction, [proba[rows].mean(axis=0) for rows in large])
    assert_allclose(display.frequency, [hot[rows].mean(axis=0) for rows in large])
    assert_allclose(display.share, [rows.mean() for rows in groups])
    # Each cell contains the predictions that were put into it.
    for cell, rows in zip(display.cells, groups, strict=True):
        inside = np.linalg.solve(cell.T, proba[rows].T)
        assert inside.min() > -1e-9


def test_corners_and_edges_have_cells():
    proba = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0.25, 0.25, 0.5]])
    display = SimplexDisplay.from_predictions(
        [0, 1, 2, 2], proba, n_cells=4, min_samples=1
    )
    assert display.share.sum() == pytest.approx(1)
    assert display.cells.min() >= 0
    assert len(display.prediction) == 4


@pytest.mark.parametrize("n_cells", [8, 30, 41])
def test_predictions_on_corners_of_cells_lie_in_the_cell_they_are_put_into(n_cells):
    first, second = np.indices((n_cells + 1, n_cells + 1)).reshape(2, -1)
    steps = np.column_stack([first, second, n_cells - first - second])
    proba = steps[steps.min(axis=1) >= 0] / n_cells
    y = np.arange(len(proba)) % 3
    display = SimplexDisplay.from_predictions(y, proba, n_cells=n_cells, min_samples=0)
    for cell, mean in zip(display.cells, display.prediction, strict=True):
        assert np.linalg.solve(cell.T, mean).min() > -1e-9


def test_other_than_three_classes_are_refused():
    y, proba, _ = draw(20, n_classes=4)
    with pytest.raises(ValueError, match="4 columns; a triangle shows three"):
        SimplexDisplay.from_predictions(y, proba)
    with pytest.raises(ValueError, match="n_cells=0"):
        SimplexDisplay.from_predictions([0, 1, 2], np.eye(3), n_cells=0)


# Proximity.


def test_the_bins_of_proximity_hold_their_means():
    y, proba, _ = draw(1500)
    proximity = np.random.default_rng(0).random(1500)
    display = ProximityDisplay.from_predictions(y, proba, proximity=proximity)
    parts = np.array_split(np.argsort(proximity), 15)
    hit = proba.argmax(axis=1) == y
    assert_allclose(display.accuracy, [hit[rows].mean() for rows in parts])
    confidence = [proba.max(axis=1)[rows].mean() for rows in parts]
    assert_allclose(display.confidence, confidence)
    low, high = display.band
    assert (low < confidence).all()
    assert (high > confidence).all()
    error = m.proximity_calibration_error(y, proba, proximity=proximity)
    assert f"PIECE {100 * error:.2f} %" in display.ax_.get_title()
    with pytest.raises(ValueError, match="n_proximity_bins=0"):
        ProximityDisplay.from_predictions(
            y, proba, proximity=proximity, n_proximity_bins=0
        )


# Comparison.


class Table:
    names = ("none", "good", "awful")
    metrics = ("nll", "ece", "accuracy")
    mean = np.array([[0.5, 0.05, 0.8], [0.4, 0.01, 0.82], [9.0, 0.02, 0.7]])
    std = np.full((3, 3), 0.01)


def test_a_column_of_scores_is_drawn_in_the_unit_of_its_table():
    class Scored(Table):
        metrics = ("ece", "neg_ks_calibration_error", "accuracy")

    display = CalibratorComparisonDisplay.from_comparison(
        Scored(), metrics=["ece", "neg_ks_calibration_error"]
    )
    titles = [ax.get_title() for ax in display.axes_]
    assert titles == ["ECE (%)", "neg_ks_calibration_error (%)"]
    assert display.axes_[1].get_xlim()[1] > 0.5


def test_a_comparison_is_sorted_by_its_first_metric():
    display = CalibratorComparisonDisplay.from_comparison(
        Table(), metrics=["nll", "ece"]
    )
    first, second = display.axes_
    assert [t.get_text() for t in first.get_yticklabels()] == ["good", "none", "awful"]
    assert second.get_title() == "ECE (%)"
    # A value far outside is written down, and does not squeeze the others.
    assert first.get_xlim()[1] < 1
    assert [t.get_text() for t in first.texts] == ["9 →"]
    assert_allclose(display.low, display.value - 0.01)
    best = CalibratorComparisonDisplay.from_comparison(Table(), metrics=["accuracy"])
    labels = [t.get_text() for t in best.axes_[0].get_yticklabels()]
    assert labels == ["good", "none", "awful"]
    unsorted = CalibratorComparisonDisplay.from_comparison(
        Table(), sort=False, metrics=["nll"]
    )
    labels = [t.get_text() for t in unsorted.axes_[0].get_yticklabels()]
    assert labels == ["none", "good", "awful"]


def test_predictions_are_compared_with_the_intervals_of_the_report():
    y, proba, truth = draw(300)
    display = CalibratorComparisonDisplay.from_predictions(
        y, {"before": proba, "after": truth}, metrics=["nll", "ks"]
    )
    report = m.calibration_report(
        y, truth, metrics=["nll", "ks"], n_bootstrap=200, random_state=0
    )
    for column, metric in enumerate(["nll", "ks"]):
        shown = (
            display.value[1, column],
            display.low[1, column],
            display.high[1, column],
        )
        assert shown == pytest.approx(tuple(report[metric]))
    plain = CalibratorComparisonDisplay.from_predictions(
        y, {"only": proba}, n_bootstrap=0
    )
    assert_allclose(plain.low, plain.value)


def test_metrics_that_can_be_read_once_are_shown_of_each_classifier():
    y, proba, truth = draw(60)
    display = CalibratorComparisonDisplay.from_predictions(
        y,
        {"before": proba, "after": truth},
        metrics=(metric for metric in ["nll", "ece"]),
        n_bootstrap=0,
    )
    assert display.metrics == ["nll", "ece"]
    assert display.value.shape == (2, 2)
    with pytest.raises(TypeError, match="metrics='nll' is a string"):
        CalibratorComparisonDisplay.from_predictions(y, {"a": proba}, metrics="nll")
    with pytest.raises(TypeError, match="metrics='nll' is a string"):
        CalibratorComparisonDisplay.from_comparison(Table(), metrics="nll")


def test_comparisons_that_make_no_sense_are_refused(pyplot):
    with pytest.raises(ValueError, match=r"no \['mce'\]. It has \['nll'"):
        CalibratorComparisonDisplay.from_comparison(Table(), metrics=["mce"])
    with pytest.raises(TypeError, match="dict from names"):
        CalibratorComparisonDisplay.from_predictions([0, 1], [0.2, 0.7])
    _, axes = pyplot.subplots(1, 2)
    with pytest.raises(ValueError, match="1 metrics need as many axes, not 2"):
        CalibratorComparisonDisplay.from_comparison(Table(), metrics=["nll"], ax=axes)


@pytest.mark.parametrize("sharey", [False, True])
def test_the_methods_are_in_one_order_on_axes_of_ones_own(pyplot, sharey):
    _, axes = pyplot.subplots(1, 3, sharey=sharey)
    CalibratorComparisonDisplay.from_comparison(Table(), metrics=Table.metrics, ax=axes)
    for panel in axes:
        assert panel.get_ylim() == (2.5, -0.5)
        assert_allclose(panel.get_yticks(), [0, 1, 2])
    shown = [
        [text.get_text() for text in panel.get_yticklabels() if text.get_visible()]
        for panel in axes
    ]
    assert shown[0] == ["good", "none", "awful"]
    assert not any("".join(texts) for texts in shown[1:])


@pytest.mark.parametrize(
    ("metric", "order", "best"),
    [
        ("neg_maximum_calibration_error", ["good", "none", "awful"], "good"),
        ("accuracy", ["awful", "none", "good"], "awful"),
        ("entropy", ["none", "good", "awful"], None),
        ("predictive_entropy", ["none", "good", "awful"], None),
        ("fit seconds", ["none", "good", "awful"], None),
    ],
)
def test_the_best_is_what_the_table_says_also_of_scores(metric, order, best):
    class Scores(Table):
        metrics = (metric,)
        mean = np.array([[-0.3], [-0.1], [0.4 if best is None else -0.5]])
        std = np.full((3, 1), 0.01)

    if metric == "accuracy":
        Scores.mean = -Scores.mean
    display = CalibratorComparisonDisplay.from_comparison(Scores(), metrics=[metric])
    (panel,) = display.axes_
    assert [text.get_text() for text in panel.get_yticklabels()] == order
    colours = panel.collections[-1].get_facecolors()
    marked = [
        name
        for name, colour in zip(order, colours, strict=True)
        if matplotlib.colors.to_hex(colour) == "#e69f00"
    ]
    assert marked == ([] if best is None else [best])
    assert len(panel.lines) == len(marked)


def test_a_single_value_that_differs_is_drawn():
    class Equal(Table):
        mean = np.array([[0.4, 0.05, 0.8], [0.4, 0.01, 0.8], [0.7, 0.02, 0.8]])

    display = CalibratorComparisonDisplay.from_comparison(
        Equal(), metrics=Table.metrics
    )
    assert not any(len(panel.texts) for panel in display.axes_)


@pytest.mark.parametrize("display", [*PLAIN, ReliabilityDisplay])
def test_what_is_drawn_in_ink_can_be_seen_in_a_dark_style(display, pyplot):
    y, over_confident, _ = draw(200)
    with pyplot.style.context("dark_background"):
        if display is SimplexDisplay:
            shown = display.from_predictions(y, over_confident)
        else:
            shown = display.from_predictions(y, over_confident, n_bootstrap=0)
        lines = np.ravel(shown.figure_.axes)[0].get_lines()
    assert "white" in {line.get_color() for line in lines}


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_shades_go_from_the_paper_to_what_is_full(pyplot, style):
    y, proba, _ = draw(500)
    with pyplot.style.context(style):
        display = SimplexDisplay.from_predictions(y, proba)
        display.figure_.canvas.draw()
        paper = matplotlib.colors.to_rgb(pyplot.rcParams["axes.facecolor"])
        table = CalibratorComparisonDisplay.from_comparison(Table(), metrics=["nll"])
    cells = display.ax_.collections[0].get_facecolors()[:, 0]
    contrast = np.abs(cells - paper[0])[np.argsort(display.share)]
    assert (np.diff(contrast) >= 0).all()
    assert contrast[-1] > 0.4
    guide = table.axes_[0].collections[0].get_colors()[0]
    seen = guide[3] * abs(guide[0] - paper[0])
    assert 0.02 < seen < 0.2


def test_the_isotonic_curve_is_the_regression_of_the_hits():
    y, proba, _ = draw()
    display = SmoothReliabilityDisplay.from_predictions(
        y, proba, method="isotonic", n_bootstrap=0
    )
    confidence, hit = proba.max(axis=1), proba.argmax(axis=1) == y
    expected = IsotonicRegression(out_of_bounds="clip").fit(confidence, hit)
    shown = np.isfinite(display.accuracy)
    inside = display.grid > confidence.min() - 1 / 512
    assert_allclose(shown, inside)
    assert_allclose(display.accuracy[shown], expected.predict(display.grid[shown]))
    parts = m.score_decomposition(y, proba)
    assert display.error == pytest.approx(parts.miscalibration)
    assert f"miscalibration {parts.miscalibration:.4f}" in display.ax_.get_title()


def test_the_consistency_band_of_the_isotonic_curve_tells_right_from_wrong():
    y, proba, truth = draw()
    share = []
    for p in (truth, proba):
        display = SmoothReliabilityDisplay.from_predictions(
            y, p, method="isotonic", interval="consistency", n_bootstrap=100
        )
        shown = np.isfinite(display.accuracy)
        low, high = (end[shown] for end in display.band)
        accuracy = display.accuracy[shown]
        share.append(np.mean((low <= accuracy) & (accuracy <= high)))
    assert share[0] > 0.85
    assert share[1] < 0.5


def test_the_isotonic_curve_takes_one_class_weights_and_two_classes():
    y, proba, _ = draw(n=300)
    counts = np.random.default_rng(0).integers(0, 3, 300)
    options = {"method": "isotonic", "n_bootstrap": 0, "class_": 1}
    weighted = SmoothReliabilityDisplay.from_predictions(
        y, proba, sample_weight=counts, **options
    )
    repeated = SmoothReliabilityDisplay.from_predictions(
        np.repeat(y, counts), np.repeat(proba, counts, axis=0), **options
    )
    both = np.isfinite(weighted.accuracy) & np.isfinite(repeated.accuracy)
    assert_allclose(weighted.accuracy[both], repeated.accuracy[both])
    binary = SmoothReliabilityDisplay.from_predictions(
        y == 1, proba[:, 1], pos_label="event", method="isotonic", n_bootstrap=0
    )
    plain = SmoothReliabilityDisplay.from_predictions(y, proba, **options)
    assert_allclose(binary.accuracy, plain.accuracy)


@pytest.mark.parametrize("method", ["kernel", "isotonic"])
@pytest.mark.parametrize("interval", ["confidence", "consistency"])
def test_rows_without_weight_leave_the_smooth_curve_and_its_band(method, interval):
    y, proba, _ = draw(n=300)
    weight = np.where(proba.max(axis=1) > 0.8, 1.0, 0.0)
    used = weight > 0
    options = {"method": method, "interval": interval, "n_bootstrap": 20}
    weighted = SmoothReliabilityDisplay.from_predictions(
        y, proba, sample_weight=weight, **options
    )
    alone = SmoothReliabilityDisplay.from_predictions(y[used], proba[used], **options)
    assert_allclose(weighted.accuracy, alone.accuracy)
    assert_allclose(weighted.band, alone.band)


def test_the_isotonic_band_does_not_fall_to_the_diagonal_at_its_ends():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.3, 0.7, 40)
    display = SmoothReliabilityDisplay.from_predictions(
        rng.random(40) < 0.95, p, pos_label="event", method="isotonic"
    )
    shown = np.isfinite(display.accuracy)
    assert display.band[0][shown].min() > 0.7


def test_a_curve_of_another_method_is_refused():
    with pytest.raises(ValueError, match="method='spline' is not known; use one of"):
        SmoothReliabilityDisplay.from_predictions([0, 1], [0.2, 0.7], method="spline")


def test_rows_of_weight_0_stretch_no_isotonic_curve():
    rng = np.random.default_rng(0)
    proba = rng.uniform(0.6, 0.8, 50)
    y = (rng.random(50) < proba).astype(int)
    draw = partial(
        SmoothReliabilityDisplay.from_predictions, method="isotonic", class_=1
    )
    alone = draw(y, proba).accuracy
    beside = draw(
        np.r_[y, 0, 1], np.r_[proba, 0.05, 0.99], sample_weight=np.r_[np.ones(50), 0, 0]
    ).accuracy
    np.testing.assert_array_equal(np.isnan(beside), np.isnan(alone))
