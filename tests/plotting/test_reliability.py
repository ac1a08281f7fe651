import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest
from sklearn.base import BaseEstimator, ClassifierMixin

from skcalib import DenseCalibration, OptionCalibration, as_rows, pad_options
from skcalib.metrics import (
    adaptive_expected_calibration_error,
    expected_calibration_error,
)
from skcalib.plotting import ReliabilityDisplay, SmoothReliabilityDisplay

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture
def predictions():
    """Over-confident probabilities of three classes, and the labels."""
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=2000)
    over_confident = proba**3 / (proba**3).sum(axis=1, keepdims=True)
    y = (rng.random(2000)[:, np.newaxis] > proba.cumsum(axis=1)).sum(axis=1)
    return y, over_confident, proba


class Constant(ClassifierMixin, BaseEstimator):
    """Return the probabilities it is given, for classes "a", "b" and "c"."""

    classes_ = np.array(["a", "b", "c"])

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X


def test_the_display_holds_what_it_shows(pyplot, predictions):
    y, proba, _ = predictions
    display = ReliabilityDisplay.from_predictions(y, proba, n_bins=10)
    confidence, hit = proba.max(axis=1), proba.argmax(axis=1) == y
    for b in range(10):
        inside = (confidence > b / 10) & (confidence <= (b + 1) / 10)
        assert display.share[b] == pytest.approx(inside.mean())
        if inside.any():
            assert display.accuracy[b] == pytest.approx(hit[inside].mean())
            assert display.confidence[b] == pytest.approx(confidence[inside].mean())
        else:
            assert np.isnan(display.accuracy[b])
    assert_array_equal(display.histogram, display.share)
    expected = expected_calibration_error(y, proba, n_bins=10)
    assert display.error == pytest.approx(expected)
    assert f"ECE {100 * expected:.2f} %" in display.ax_.get_title()


def test_bins_of_equal_mass_keep_a_histogram_of_equal_width(pyplot, predictions):
    y, proba, _ = predictions
    display = ReliabilityDisplay.from_predictions(y, proba, strategy="quantile")
    assert_allclose(display.share, 1 / 15, atol=1 / 2000)
    assert np.ptp(display.histogram) > 0.1
    expected = adaptive_expected_calibration_error(y, proba)
    assert display.error == pytest.approx(expected)
    assert "AECE" in display.ax_.get_title()


def test_one_class_is_compared_with_how_often_it_occurs(pyplot, predictions):
    y, proba, _ = predictions
    names = np.array(["a", "b", "c"])
    display = ReliabilityDisplay.from_predictions(
        names[y], proba, class_="b", labels=names, n_bins=5
    )
    inside = (proba[:, 1] > 0.4) & (proba[:, 1] <= 0.6)
    assert display.accuracy[2] == pytest.approx((y[inside] == 1).mean())
    assert display.share.sum() == pytest.approx(1)
    assert display.ax_.get_xlabel() == "probability of b"
    assert display.ax_.get_ylabel() == "frequency"


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_a_class_that_is_not_there_is_refused(predictions, labels):
    y, proba, _ = predictions
    with pytest.raises(ValueError, match="class_='d' is not a class"):
        ReliabilityDisplay.from_predictions(
            np.array(["a", "b", "c"])[y], proba, class_="d", labels=labels
        )


def test_an_estimator_names_its_columns_and_the_title(pyplot, predictions):
    y, proba, _ = predictions
    names = np.array(["a", "b", "c"])[y]
    keep = y != 1
    display = ReliabilityDisplay.from_estimator(Constant(), proba[keep], names[keep])
    assert display.name == "Constant"
    expected = expected_calibration_error(y[keep], proba[keep])
    assert display.error == pytest.approx(expected)
    other = ReliabilityDisplay.from_estimator(
        Constant(), proba, names, name="mine", class_="a", n_bins=4
    )
    assert other.ax_.get_title().startswith("mine: ")
    assert other.accuracy.shape == (4,)


def test_the_band_holds_a_calibrated_classifier_and_not_another(pyplot, predictions):
    y, over_confident, proba = predictions
    calibrated = ReliabilityDisplay.from_predictions(y, proba)
    low, high = calibrated.band
    filled = np.isfinite(calibrated.accuracy)
    inside = (calibrated.accuracy >= low) & (calibrated.accuracy <= high)
    assert inside[filled].mean() > 0.8
    wrong = ReliabilityDisplay.from_predictions(y, over_confident)
    assert (wrong.accuracy[9:] < wrong.band[0][9:]).all()


def test_the_band_is_that_of_theory(pyplot):
    # 400 rows of one confidence: a binomial proportion.
    display = ReliabilityDisplay.from_predictions(
        np.ones(400, dtype=int), np.full(400, 0.8), n_bins=5, n_bootstrap=2000
    )
    low, high = (end[3] for end in display.band)
    assert low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.004)
    assert high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.004)


def test_the_band_can_be_left_out(pyplot, predictions):
    y, proba, _ = predictions
    display = ReliabilityDisplay.from_predictions(y, proba, n_bootstrap=0)
    assert display.band is None
    labels = display.ax_.get_legend().get_texts()
    assert [text.get_text() for text in labels] == ["calibrated", "gap", "accuracy"]


def test_two_diagrams_on_one_axes_explain_each_colour_once(pyplot, predictions):
    y, before, after = predictions
    _, ax = pyplot.subplots()
    for proba in (before, after):
        ReliabilityDisplay.from_predictions(y, proba, n_bootstrap=9, ax=ax)
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == ["calibrated", "range of chance", "gap", "accuracy"]


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_whole_weights_equal_repetition(pyplot, predictions, strategy):
    y, proba, _ = (array[:200] for array in predictions)
    counts = np.arange(200) % 3
    options = {"strategy": strategy, "n_bootstrap": 0}
    weighted = ReliabilityDisplay.from_predictions(
        y, proba, sample_weight=counts, **options
    )
    repeated = ReliabilityDisplay.from_predictions(
        np.repeat(y, counts), np.repeat(proba, counts, axis=0), **options
    )
    for name in ("accuracy", "confidence", "share", "histogram"):
        assert_allclose(getattr(weighted, name), getattr(repeated, name), atol=1e-12)


def test_a_passed_ax_is_used_and_nothing_else_is_touched(pyplot, predictions):
    y, proba, _ = predictions
    figure, (ours, other) = pyplot.subplots(1, 2)
    pyplot.sca(other)
    settings = dict(matplotlib.rcParams)
    display = ReliabilityDisplay.from_predictions(y, proba, ax=ours)
    assert display.ax_ is ours
    assert display.figure_ is figure
    assert figure.axes == [ours, other]
    assert not other.has_data()
    assert pyplot.gca() is other
    assert pyplot.get_fignums() == [figure.number]
    assert dict(matplotlib.rcParams) == settings


def test_plot_draws_again_under_another_name(pyplot, predictions):
    y, proba, _ = predictions
    display = ReliabilityDisplay.from_predictions(y, proba, name="first")
    _, ax = pyplot.subplots()
    assert display.plot(ax=ax, name="second", legend=False) is display
    assert display.ax_ is ax
    assert ax.get_title().startswith("second: ECE")
    assert ax.get_legend() is None


def test_nothing_drawn_leaves_the_figure(pyplot, predictions):
    y, proba, _ = predictions
    display = ReliabilityDisplay.from_predictions(y, proba, name="A name")
    display.figure_.canvas.draw()
    width, height = display.figure_.canvas.get_width_height()
    ax = display.ax_
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_yticklabels()):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


@pytest.mark.parametrize("display", [ReliabilityDisplay, SmoothReliabilityDisplay])
@pytest.mark.parametrize("ends", [(2, 2), (9, 1), (1, 9), (1, 1)])
def test_the_word_samples_is_not_on_what_it_names(pyplot, display, ends):
    p = np.random.default_rng(0).beta(1 / ends[0], 1 / ends[1], 500)
    y = np.arange(500) % 2
    drawn = display.from_predictions(y, p, class_=1, n_bootstrap=0)
    drawn.figure_.canvas.draw()
    (text,) = drawn.ax_.texts
    assert text.get_text() == "samples"
    box = text.get_window_extent()
    if display is ReliabilityDisplay:
        assert not any(
            bar.get_window_extent().overlaps(box) for bar in drawn.ax_.patches
        )
    top = drawn.ax_.transData.transform((0, 0))[1]
    assert box.y1 < top
    assert box.y0 >= drawn.ax_.transData.transform((0, -0.11))[1]


def test_compare_draws_side_by_side(pyplot, predictions):
    y, before, after = predictions
    displays = ReliabilityDisplay.compare(y, {"before": before, "after": after})
    assert [display.name for display in displays] == ["before", "after"]
    assert displays[0].error > displays[1].error
    assert displays[0].figure_ is displays[1].figure_
    assert displays[0].ax_.get_legend() is not None
    assert displays[1].ax_.get_legend() is None


def test_compare_uses_the_axes_it_is_given(pyplot, predictions):
    y, before, after = predictions
    _, axes = pyplot.subplots(2, 1)
    displays = ReliabilityDisplay.compare(
        y, {"before": before, "after": after}, axes=axes, n_bins=5
    )
    assert [display.ax_ for display in displays] == list(axes)
    assert displays[0].accuracy.shape == (5,)
    with pytest.raises(ValueError, match="1 classifiers need as many axes, not 2"):
        ReliabilityDisplay.compare(y, {"before": before}, axes=axes)
    with pytest.raises(TypeError, match="dict from titles"):
        ReliabilityDisplay.compare(y, before)


def test_what_compare_refuses_is_not_drawn_in_part(pyplot):
    refused = [0, 1, 1], {"a": [0.1, 0.9, 0.2], "b": [0.3, 0.7, 1.4]}
    with pytest.raises(ValueError, match="Row 2 of the probabilities"):
        ReliabilityDisplay.compare(*refused)
    assert pyplot.get_fignums() == []
    _, axes = pyplot.subplots(1, 2)
    with pytest.raises(ValueError, match="Row 2 of the probabilities"):
        ReliabilityDisplay.compare(*refused, axes=axes)
    assert not any(ax.has_data() for ax in axes)


def test_a_single_sample_can_be_drawn(pyplot):
    display = ReliabilityDisplay.from_predictions([1], [[0.2, 0.8]])
    assert np.isfinite(display.accuracy).sum() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 0}, "n_bins=0"),
        ({"strategy": "rank"}, "strategy='rank'"),
        ({"confidence_level": 95}, "95 % is 0.95"),
        ({"n_bootstrap": -1}, "n_bootstrap=-1"),
    ],
)
def test_unusable_options_are_refused(predictions, options, message):
    y, proba, _ = predictions
    with pytest.raises(ValueError, match=message):
        ReliabilityDisplay.from_predictions(y, proba, **options)


def test_a_missing_matplotlib_names_the_extra(monkeypatch, predictions):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"skcalib\[plot\]"):
        ReliabilityDisplay.from_predictions(*predictions[:2])


def test_compare_can_go_without_a_legend(pyplot, predictions):
    y, before, _ = predictions
    (display,) = ReliabilityDisplay.compare(y, {"before": before}, legend=False)
    assert display.ax_.get_legend() is None


def test_the_diagram_of_chunks_is_that_of_all_rows(pyplot, predictions):
    da = pytest.importorskip("dask.array")
    y, proba, _ = predictions
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    Y, P, W = (da.from_array(part, chunks=300) for part in (y, proba, weight))
    options = {"n_bins": 10, "n_bootstrap": 0, "labels": [0, 1, 2]}
    found = ReliabilityDisplay.from_predictions(Y, P, sample_weight=W, **options)
    expected = ReliabilityDisplay.from_predictions(
        y, proba, sample_weight=weight, **options
    )
    for name in ("accuracy", "confidence", "share", "histogram", "error"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    assert found.error_name == "ECE"
    for needs_rows in ({"n_bootstrap": 9}, {"n_bootstrap": 0, "class_": 1}):
        with pytest.raises(
            TypeError, match="predicted class, reliability diagrams with n_"
        ):
            ReliabilityDisplay.from_predictions(Y, P, **needs_rows)


@pytest.mark.parametrize("interval", ["clopper_pearson", "wilson"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("options", [{}, {"n_bootstrap": 0}])
def test_chunks_have_the_interval_by_formula(
    pyplot, predictions, interval, strategy, options
):
    da = pytest.importorskip("dask.array")
    y, proba, _ = predictions
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    Y, P, W = (da.from_array(part, chunks=300) for part in (y, proba, weight))
    options = {"interval": interval, "strategy": strategy, "n_bins": 8, **options}
    found = ReliabilityDisplay.from_predictions(Y, P, sample_weight=W, **options)
    expected = ReliabilityDisplay.from_predictions(
        y, proba, sample_weight=weight, **options
    )
    rtol = 1e-12 if strategy == "uniform" else 1e-2
    assert_allclose(found.band, expected.band, rtol=rtol)
    assert "confidence interval" in found.ax_.get_legend_handles_labels()[1]
    with pytest.raises(ValueError, match="weights have to be whole"):
        ReliabilityDisplay.from_predictions(Y, P, sample_weight=W / 2, **options)


@pytest.mark.parametrize(
    ("interval", "method"), [("clopper_pearson", "exact"), ("wilson", "wilson")]
)
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_an_interval_by_formula_is_that_of_a_number_of_hits(
    pyplot, predictions, interval, method, strategy
):
    y, proba, _ = predictions
    display = ReliabilityDisplay.from_predictions(
        y, proba, strategy=strategy, interval=interval, confidence_level=0.9
    )
    low, high = display.band
    n_checked = 0
    for b in np.flatnonzero(display.share):
        n = round(display.share[b] * 2000)
        test = binomtest(round(display.accuracy[b] * n), n)
        expected = test.proportion_ci(0.9, method)
        assert_allclose([low[b], high[b]], expected, atol=1e-12)
        n_checked += 1
    assert n_checked > 5
    assert np.isnan(low[display.share == 0]).all()


@pytest.mark.parametrize("interval", ["clopper_pearson", "wilson"])
def test_an_interval_by_formula_does_not_vanish_where_all_are_hits(pyplot, interval):
    options = {"interval": interval, "pos_label": "event"}
    hits = ReliabilityDisplay.from_predictions([1] * 8, [0.9] * 8, **options)
    misses = ReliabilityDisplay.from_predictions([0] * 8, [0.9] * 8, **options)
    b = 13
    assert hits.band[0][b] < 0.7
    assert hits.band[1][b] == 1
    assert misses.band[0][b] == 0
    assert misses.band[1][b] > 0.3


def test_an_interval_by_formula_needs_whole_weights(pyplot):
    given = {"sample_weight": [0.5, 1.0], "interval": "wilson"}
    with pytest.raises(ValueError, match="weights have to be whole"):
        ReliabilityDisplay.from_predictions([0, 1], [0.2, 0.7], **given)
    with pytest.raises(ValueError, match="'clopper_pearson' or 'wilson'"):
        ReliabilityDisplay.from_predictions([0, 1], [0.2, 0.7], interval="normal")


@pytest.mark.parametrize("class_", [None, 1])
def test_pixels_are_drawn_as_their_rows_are(pyplot, class_):
    X = np.random.default_rng(0).normal(size=(40, 3, 4, 4))
    y = X.argmax(axis=1)
    y[:, 0] = 255
    dense = DenseCalibration(ignore_index=255).fit(X, y)
    weight = np.arange(40.0)
    options = {"n_bootstrap": 0, "class_": class_}
    drawn = ReliabilityDisplay.from_estimator(
        dense, X, y, sample_weight=weight, **options
    )
    rows, labels = as_rows(dense.predict_proba(X), y, ignore_index=255)
    expected = ReliabilityDisplay.from_predictions(
        labels, rows[:], sample_weight=np.repeat(weight, 12), **options
    )
    assert drawn.error == pytest.approx(expected.error)
    assert drawn.name == "DenseCalibration"


def test_options_of_each_question_are_drawn(pyplot):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=n) for n in rng.integers(2, 4, 60)]
    y = [row.argmax() for row in rows]
    options = OptionCalibration().fit(rows, y)
    drawn = ReliabilityDisplay.from_estimator(options, rows, y)
    proba = pad_options(options.predict_proba(rows), absent=0)
    assert drawn.error == pytest.approx(expected_calibration_error(y, proba))
