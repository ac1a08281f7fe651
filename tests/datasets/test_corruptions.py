import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from skcalib.datasets import corrupt_images
from skcalib.datasets._corruptions import _CORRUPTIONS

KINDS = sorted(_CORRUPTIONS)
# Whose random numbers differ from image to image.
RANDOM = ["gaussian_noise", "impulse_noise", "shot_noise", "motion_blur", "fog"]


@pytest.fixture(scope="module")
def samples():
    """Float images of shape (8, 32, 32, 3): an enlarged digit in each channel."""
    digits = load_digits().images[: 8 * 3].reshape(8, 3, 8, 8) / 16
    enlarged = np.clip(zoom(digits, (1, 1, 4, 4), order=1), 0, 1)
    return 0.1 + 0.7 * enlarged.transpose(0, 2, 3, 1)


def corrupt(images, kind, severity=3, **options):
    return corrupt_images(images, kind, severity, random_state=0, **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_images_keep_shape_type_and_range_and_are_not_modified(samples, kind, dtype):
    images = (255 * samples).astype(np.uint8) if dtype == np.uint8 else samples
    images = images.astype(dtype)
    before = images.copy()
    corrupted = corrupt(images, kind)
    assert_array_equal(images, before)
    assert corrupted.shape == images.shape
    assert corrupted.dtype == dtype
    assert corrupted.min() >= 0
    assert corrupted.max() <= (255 if dtype == np.uint8 else 1)
    assert not np.array_equal(corrupted, images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_severity_changes_more(samples, kind):
    change = [
        np.square(corrupt(samples, kind, severity) - samples).mean()
        for severity in (1, 2, 3, 4, 5)
    ]
    # The first steps of "pixelate" also shift edges, by up to half a pixel.
    assert np.all(np.diff(change[1:]) > 0)
    assert change[0] < change[3]


@pytest.mark.parametrize("kind", KINDS)
def test_the_axes_may_come_in_any_order(samples, kind):
    last = corrupt(samples, kind)
    first = corrupt(samples.transpose(0, 3, 1, 2), kind, channel_axis=1)
    assert_array_equal(first.transpose(0, 2, 3, 1), last)


@pytest.mark.parametrize("kind", KINDS)
def test_grey_images_have_one_channel(samples, kind):
    grey = corrupt(samples[..., 0], kind, channel_axis=None)
    assert_array_equal(grey, corrupt(samples[..., :1], kind)[..., 0])


@pytest.mark.parametrize("kind", RANDOM)
def test_the_seed_decides_what_is_random(samples, kind):
    same = corrupt_images(samples, kind, random_state=0)
    other = corrupt_images(samples, kind, random_state=1)
    assert_array_equal(corrupt(samples, kind), same)
    assert not np.array_equal(same, other)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(RANDOM)))
def test_without_chance_an_image_is_corrupted_alike_alone_and_in_a_batch(samples, kind):
    # More images than are worked on at once.
    batch = np.tile(samples, (70, 1, 1, 1))
    corrupted = corrupt_images(batch, kind)
    assert_allclose(corrupted[-1:], corrupt_images(batch[-1:], kind), atol=1e-12)


def test_noise_has_the_stated_strength():
    grey = np.full((20, 32, 32, 3), 0.5)
    n_values = grey.size
    gaussian = corrupt(grey, "gaussian_noise", 5) - grey
    assert gaussian.std() == pytest.approx(0.10, rel=0.02)
    # 25 photons of 50: the standard deviation is their root.
    shot = 50 * corrupt(grey, "shot_noise", 5)
    assert_allclose(shot, np.rint(shot), atol=1e-9)
    assert shot.std() == pytest.approx(5, rel=0.02)
    impulse = corrupt(grey, "impulse_noise", 5)
    for value in (0, 1):
        share = (impulse == value).sum() / n_values
        assert share == pytest.approx(0.035, rel=0.1)


@pytest.mark.parametrize("kind", ["gaussian_blur", "defocus_blur"])
def test_blur_spreads_a_point_evenly_and_keeps_its_light(kind):
    point = np.zeros((1, 15, 15))
    point[0, 7, 7] = 1
    blurred = corrupt(point, kind, 5, channel_axis=None)[0]
    assert blurred.sum() == pytest.approx(1, rel=1e-3)
    assert 0.05 < blurred[7, 7] < 0.5
    assert_allclose(blurred, blurred[::-1], atol=1e-12)
    assert_allclose(blurred, blurred.T, atol=1e-12)


def test_defocus_at_radius_one_and_a_half_is_a_disc_of_nine_pixels():
    point = np.zeros((1, 9, 9))
    point[0, 4, 4] = 1
    blurred = corrupt(point, "defocus_blur", 5, channel_axis=None)[0]
    assert_allclose(blurred[3:6, 3:6], 1 / 9, rtol=1e-6)


BLURS = "gaussian_blur", "defocus_blur", "motion_blur", "pixelate", "contrast"


def test_blur_leaves_plain_images_alone():
    plain = np.full((2, 8, 8, 3), 0.3)
    for kind in BLURS:
        assert_allclose(corrupt(plain, kind, 5), plain, rtol=1e-12)


def test_brightness_keeps_hue_and_saturation():
    pixels = np.array([[[[0.4, 0.2, 0.1], [0.0, 0.0, 0.0], [0.9, 0.45, 0.9]]]])
    brighter = corrupt(pixels, "brightness", 5)
    # Value .4 -> .7, 0 -> .3 and .9 -> 1.
    expected = [[0.7, 0.35, 0.175], [0.3, 0.3, 0.3], [1.0, 0.5, 1.0]]
    assert_allclose(brighter[0, 0], expected, rtol=1e-12)


def test_motion_draws_a_point_out_along_a_direction_of_each_image():
    rows, columns = np.indices((25, 25)) - 12
    point = np.exp(-(rows**2 + columns**2) / 2) / (2 * np.pi)
    blurred = corrupt(np.tile(point, (30, 1, 1)), "motion_blur", 3, channel_axis=None)
    # To one side, by the mean of a half normal distribution on 0 to 6.
    steps = np.arange(7)
    weights = np.exp(-(steps**2) / 8)
    mean = weights @ steps / weights.sum()
    moved = np.array([[(rows * b).sum(), (columns * b).sum()] for b in blurred])
    angle = np.arctan2(*np.abs(moved).T)
    assert_allclose(np.hypot(*moved.T), mean, rtol=0.02)
    assert angle.max() < np.pi / 4 + 0.02
    assert angle.std() > 0.1


def test_fog_is_white_smooth_and_of_each_image_s_own():
    grey = np.full((20, 32, 32), 0.5)
    foggy = corrupt(grey, "fog", 3, channel_axis=None)
    # From the grey, darkened to keep the range, to that and the density.
    assert_allclose(foggy.min(axis=(1, 2)), 0.5 * 0.5 / 1.25, rtol=1e-9)
    assert_allclose(foggy.max(axis=(1, 2)), 0.5, rtol=1e-9)
    steps = np.abs(np.diff(foggy, axis=1)).mean()
    assert steps < 0.3 * foggy.std(axis=(1, 2)).mean()
    assert np.abs(foggy[0] - foggy[1]).max() > 0.05


def test_saturation_keeps_hue_value_and_grey():
    pixels = np.array([[[[0.4, 0.3, 0.2], [0.5, 0.5, 0.5], [0.8, 0.1, 0.45]]]])
    # Saturations 0.5, 0 and 7/8 times 1.5, 1 at most.
    expected = [[0.4, 0.25, 0.1], [0.5, 0.5, 0.5], [0.8, 0.0, 0.4]]
    assert_allclose(corrupt(pixels, "saturate", 2)[0, 0], expected, rtol=1e-12)


def test_rotation_turns_all_images_by_the_same_angle():
    rows, columns = np.indices((33, 33)) - 16
    ramp = np.clip(0.5 + 0.01 * columns, 0, 1)[np.newaxis]
    turned = corrupt(ramp, "rotation", 5, channel_axis=None)[0]
    along = 0.5 + 0.01 * (np.cos(np.pi / 6) * columns - np.sin(np.pi / 6) * rows)
    inner = np.hypot(rows, columns) < 12
    assert_allclose(turned[inner], along[inner], atol=1e-9)


def test_contrast_shrinks_towards_the_mean_of_each_channel():
    image = np.array([0.2, 0.6]).reshape(1, 1, 2, 1)
    shrunk = corrupt(image, "contrast", 2)
    assert_allclose(shrunk.ravel(), [0.3, 0.5], rtol=1e-12)


def test_pixelate_averages_blocks(samples):
    # Severity 4 on 8 pixels: 6 large pixels, each 4/3 of an old one.
    line = np.arange(8.0) / 8
    image = np.tile(line, (8, 1))[np.newaxis]
    result = corrupt(image, "pixelate", 4, channel_axis=None)[0, 0]
    first, second = (0 + 1 / 8 / 3) * 3 / 4, (1 / 8 * 2 / 3 + 2 / 8 * 2 / 3) * 3 / 4
    assert_allclose(result[:3], [first, second, second], rtol=1e-12)
    assert np.unique(result).shape == (6,)


def test_images_are_rounded_to_the_nearest_of_256_values():
    image = np.array([10, 20], np.uint8).reshape(1, 1, 2, 1)
    # Around the mean of 15: 15 -+ 3.75.
    assert_array_equal(corrupt(image, "contrast", 1).ravel(), [11, 19])


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (np.zeros((2, 4, 4), int), {}, TypeError, "dtype int64"),
        (np.zeros((2, 4, 4)), {}, ValueError, "Pass channel_axis=None"),
        (np.zeros((2, 4, 4, 3)), {"channel_axis": None}, ValueError, "with 3 axes"),
        (np.zeros((0, 4, 4, 3)), {}, ValueError, "none of them empty"),
        (np.zeros((2, 4, 4, 3)), {"channel_axis": 0}, ValueError, "counts images"),
        (np.full((2, 4, 4, 3), 1.5), {}, ValueError, "before they are normalised"),
        (np.full((2, 4, 4, 3), np.nan), {}, ValueError, "values from nan"),
        (np.zeros((2, 4, 4, 3)), {"severity": 6}, ValueError, "severity"),
        (np.zeros((2, 4, 4, 3)), {"kind": "snow"}, ValueError, "kind"),
    ],
)
def test_unusable_images_and_options_are_refused(images, options, error, message):
    with pytest.raises(error, match=message):
        corrupt_images(images, **{"kind": "contrast", **options})
