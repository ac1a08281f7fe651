import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError

from skcalib import TemperatureScaling
from skcalib.plotting import PerturbationDisplay, plot_perturbation
from skcalib.plotting._filter import frequency_response

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


class Perturbs(ClassifierMixin, BaseEstimator):
    """Learn the perturbation it is told."""

    def __init__(self, delta=None):
        self.delta = delta

    def fit(self, X=None, y=None):
        self.delta_ = np.asarray(self.delta, dtype=np.float32)
        return self


def draw(*shape):
    return np.random.default_rng(0).normal(scale=0.1, size=shape).astype(np.float32)


def shown(panel):
    (image,) = panel.get_images()
    return image


@pytest.mark.parametrize(
    ("shape", "channel_axis"), [((3, 5, 6), 0), ((5, 6, 3), 2), ((3, 6, 3), 0)]
)
def test_every_channel_has_a_panel_in_one_symmetric_scale(pyplot, shape, channel_axis):
    delta = draw(*shape)
    display = plot_perturbation(Perturbs(delta).fit())
    assert display.channel_axis == channel_axis
    assert [p.get_title() for p in display.axes_] == ["red", "green", "blue"]
    limit = np.abs(delta).max()
    for k, panel in enumerate(display.axes_):
        assert_array_equal(shown(panel).get_array(), delta.take(k, channel_axis))
        assert_allclose(shown(panel).get_clim(), (-limit, limit))
    assert f"largest change {limit:.3g}" in display.ax_.get_title()
    assert display.ax_.get_title().startswith("Perturbs: ")


def test_the_colour_bar_says_the_units(pyplot):
    display = plot_perturbation(Perturbs(draw(1, 5, 6)).fit())
    labels = [ax.get_ylabel() for ax in display.ax_.child_axes]
    assert "change, in units of the input" in labels
    assert [p.get_title() for p in display.axes_] == [""]


def test_channels_can_be_told_and_named(pyplot):
    display = plot_perturbation(
        Perturbs(draw(4, 5, 2)).fit(), channel_axis=2, channel_names=["u", "v"]
    )
    assert [p.get_title() for p in display.axes_] == ["u", "v"]
    with pytest.raises(ValueError, match="channel_names has 1 entries for 2 channels"):
        PerturbationDisplay(draw(2, 5, 6), 0, ["u"]).plot()


def test_a_picture_in_colours_says_how_much_it_is_amplified(pyplot):
    delta = draw(3, 5, 6)
    delta[0, 0, 0] = 0.5
    display = plot_perturbation(Perturbs(delta / 5).fit(), rgb=True)
    assert len(display.axes_) == 4
    assert display.axes_[3].get_title() == "colours, 5 times"
    colours = shown(display.axes_[3]).get_array()
    assert_allclose(colours, 0.5 + np.moveaxis(delta, 0, -1), atol=1e-6)
    with pytest.raises(ValueError, match="needs three channels"):
        plot_perturbation(Perturbs(draw(2, 5, 6)).fit(), rgb=True)


@pytest.mark.parametrize("length", [9, 500])
def test_inputs_of_one_dimension_are_a_line(pyplot, length):
    delta = draw(length)
    display = plot_perturbation(Perturbs(delta).fit())
    line = display.ax_.get_lines()[-1]
    assert_array_equal(line.get_ydata(), delta)
    assert display.ax_.get_ylabel() == "change, in units of the input"
    low, high = display.ax_.get_ylim()
    assert low == -high
    assert display.axes_.tolist() == [display.ax_]


def test_two_dimensions_are_one_image(pyplot):
    delta = draw(5, 6)
    (panel,) = plot_perturbation(Perturbs(delta).fit()).axes_
    assert_array_equal(shown(panel).get_array(), delta)


@pytest.mark.parametrize("shape", [(3, 5, 6), (7,)])
def test_no_perturbation_is_said_in_the_title(pyplot, shape):
    display = plot_perturbation(Perturbs(np.zeros(shape)).fit())
    assert display.ax_.get_title() == "Perturbs: no perturbation (all zero)"


@pytest.mark.parametrize("shape", [(3, 5, 6), (7,)])
def test_the_axes_passed_in_are_used_and_no_others(pyplot, shape):
    figure, (left, right) = pyplot.subplots(1, 2)
    display = plot_perturbation(Perturbs(draw(*shape)).fit(), ax=right, name="mine")
    assert display.ax_ is right
    assert display.figure_ is figure
    assert pyplot.get_fignums() == [figure.number]
    assert not left.has_data()
    assert not left.child_axes
    assert right.get_title().startswith("mine: ")
    figure.canvas.draw()


def test_many_channels_are_laid_out_in_a_grid_without_overlap(pyplot):
    display = plot_perturbation(Perturbs(draw(7, 5, 6)).fit())
    display.figure_.canvas.draw()
    boxes = [panel.get_position() for panel in display.axes_]
    assert len({round(box.y0, 3) for box in boxes}) == 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("kernel", [None, np.ones((40, 1, 3, 3)) / 9])
def test_of_very_many_channels_the_first_are_drawn(pyplot, kernel):
    delta = np.arange(40.0)[:, None, None] * np.ones((40, 5, 6))
    names = [f"band {k}" for k in range(40)]
    display = PerturbationDisplay(delta, 0, names, kernel=kernel).plot()
    assert display.ax_.get_title().endswith(", first 16 of 40 channels")
    titles = [panel.get_title() for panel in display.axes_[:16]]
    assert [title.split(" +")[0] for title in titles] == names[:16]
    assert len(display.axes_) == 16 * (1 if kernel is None else 2)
    assert display.figure_.get_size_inches().max() < 50
    if kernel is None:
        assert_allclose(shown(display.axes_[0]).get_clim(), (-39, 39))
    few = PerturbationDisplay(delta[:16], 0).plot()
    assert "first" not in few.ax_.get_title()


def test_a_shape_that_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 5\).* is no image"):
        plot_perturbation(Perturbs(draw(2, 3, 4, 5)).fit())
    with pytest.raises(ValueError, match="channel_axis=1 is no image"):
        plot_perturbation(Perturbs(draw(3, 4, 5)).fit(), channel_axis=1)


def test_other_estimators_are_refused():
    with pytest.raises(NotFittedError):
        plot_perturbation(Perturbs(draw(3)))
    logits = [[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]]
    fitted = TemperatureScaling().fit(logits, [0, 1, 0, 0])
    with pytest.raises(TypeError, match="TemperatureScaling learns no perturbation"):
        plot_perturbation(fitted)


class Filters(Perturbs):
    """Learn the filter it is told, beside what is added."""

    def __init__(self, delta=None, kernel=None):
        super().__init__(delta)
        self.kernel = kernel

    def fit(self, X=None, y=None):
        super().fit(X, y)
        self.filter_ = np.asarray(self.kernel, dtype=np.float32)
        return self


def test_the_response_is_the_gain_of_a_wave_of_that_frequency():
    kernel = draw(2, 1, 5)
    gain = frequency_response(kernel)
    assert gain.shape == (2, 65)
    assert_allclose(gain[:, 32], np.abs(1 + kernel.sum(axis=(1, 2))))
    wave = np.exp(2j * np.pi * 20 / 65 * np.arange(65))
    for weights, found in zip(kernel[:, 0], gain, strict=True):
        filtered = wave[2:-2] + np.convolve(wave, weights[::-1], mode="valid")
        assert_allclose(np.abs(filtered), found[32 + 20], rtol=1e-6)


@pytest.mark.parametrize("n_inputs", [1, 3])
def test_a_filter_has_a_row_of_weights_and_one_of_responses(pyplot, n_inputs):
    kernel, delta = draw(3, n_inputs, 3, 3), np.ones((3, 6, 6))
    display = plot_perturbation(Filters(delta, kernel).fit())
    titles = [panel.get_title() for panel in display.axes_]
    assert titles == ["red +1", "green +1", "blue +1", "", "", ""]
    weights, response = (shown(display.axes_[k]).get_array() for k in (0, 3))
    assert_array_equal(weights[:, :3], kernel[0, 0])
    assert weights.shape[1] == 4 * n_inputs - 1
    assert_allclose(response, frequency_response(kernel)[0])
    assert display.ax_.get_title() == "Filters: filter of 3 x 3 taps"
    assert len(plot_perturbation(Filters(draw(3, 6, 6), kernel).fit()).axes_) == 9


@pytest.mark.parametrize(
    ("shape", "taps", "title"),
    [((2, 20), (5,), "filter of 5 taps"), ((6,), (), "gain and offset")],
)
def test_filters_of_signals_and_gains_of_features_are_lines(pyplot, shape, taps, title):
    display = plot_perturbation(Filters(draw(*shape), draw(shape[0], 1, *taps)).fit())
    assert len(display.axes_) == 3
    assert display.ax_.get_title() == f"Filters: {title}"
    assert all(panel.get_lines() for panel in display.axes_)


def test_a_filter_of_volumes_is_no_picture(pyplot):
    kernel = draw(2, 1, 3, 3, 3)
    with pytest.raises(ValueError, match="A filter along 3 axes is no image"):
        PerturbationDisplay(np.zeros((2, 5, 5, 5)), 0, kernel=kernel).plot()


@pytest.mark.parametrize("taps", [None, (3,), (3, 3)])
def test_dollars_in_names_of_a_perturbation_are_dollars(pyplot, taps):
    kernel = None if taps is None else draw(2, 2, *taps)
    shape = (2, 5) if taps == (3,) else (2, 5, 6)
    name = r"a $\frac b$"
    display = PerturbationDisplay(draw(*shape), 0, [name, "b"], name, kernel=kernel)
    display.plot().figure_.canvas.draw()
    assert name in display.ax_.get_title()
