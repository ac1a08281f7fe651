"""Corruptions of small images: how a network behaves when its camera gets worse."""

from numbers import Integral
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.utils import check_random_state

from skcalib._numerics import TINY
from skcalib._sklearn_compat import Interval, StrOptions, validate_params
from skcalib._validation import column_on_host

# Images that are worked on at once, so that no copy of a whole data set is made in
# floating point.
_BLOCK = 512


def _gaussian_noise(images, deviation, rng):
    return images + deviation * rng.standard_normal(images.shape)


def _shot_noise(images, photons, rng):
    """Count photons: the noise of a sensor in little light."""
    return rng.poisson(images * photons) / photons


def _impulse_noise(images, share, rng):
    """Set this share of the values to black or white, equally often."""
    draw = rng.uniform(size=images.shape)
    noisy = np.where(draw < share, 1.0, images)
    return np.where(draw < share / 2, 0.0, noisy)


def _gaussian_blur(images, deviation, rng):
    return ndimage.gaussian_filter(images, deviation, axes=(2, 3))


def _defocus_blur(images, lens, rng):
    """Spread each pixel over a disc, whose edge is softened by a Gaussian."""
    radius, softness = lens
    reach = int(radius) + 1
    offset = np.arange(-reach, reach + 1)
    disc = (np.hypot(*np.meshgrid(offset, offset)) <= radius).astype(np.float64)
    disc = ndimage.gaussian_filter(disc, softness, mode="constant", radius=1)
    kernel = disc / disc.sum()
    return ndimage.convolve(images, kernel[np.newaxis, np.newaxis], mode="mirror")


def _motion_blur(images, blur, rng):
    """Draw each image out to one side, along a direction of its own."""
    reach, deviation = blur
    steps = np.arange(reach + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    angle = rng.uniform(-np.pi / 4, np.pi / 4, (len(images), 1, 1, 1))
    margin = [(0, 0), (0, 0), (reach, reach), (reach, reach)]
    padded = np.pad(images, margin, mode="reflect")
    size = padded.shape[2:]
    rows, columns = np.fft.fftfreq(size[0])[:, np.newaxis], np.fft.rfftfreq(size[1])
    # A step along the direction turns the phase of each frequency.
    phase = 2j * np.pi * (np.sin(angle) * rows + np.cos(angle) * columns)
    transfer = sum(w * np.exp(k * phase) for k, w in zip(steps, weights, strict=True))
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * transfer / weights.sum(), size)
    return blurred[:, :, reach:-reach, reach:-reach]


def _fog(images, haze, rng):
    """Add white haze, thicker here than there, and keep the range."""
    density, smoothness = haze
    height, width = images.shape[2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((len(images), 1, height, width))
    noise = np.fft.irfft2(np.fft.rfft2(noise) / frequency**smoothness, (height, width))
    noise -= noise.min(axis=(2, 3), keepdims=True)
    thickest = noise.max(axis=(2, 3), keepdims=True)
    white = images.max(axis=(1, 2, 3), keepdims=True)
    hazy = images + density * noise / np.maximum(thickest, TINY)
    return hazy * white / (white + density)


def _brightness(images, gain, rng):
    """Raise the value (of hue, saturation and value): the largest channel."""
    value = images.max(axis=1, keepdims=True)
    brighter = np.minimum(value + gain, 1.0)
    factor = np.divide(brighter, value, out=np.ones_like(value), where=value > 0)
    return np.where(value > 0, images * factor, brighter)


def _saturate(images, factor, rng):
    """Move colours away from the grey of the same value."""
    value = images.max(axis=1, keepdims=True)
    range_ = value - images.min(axis=1, keepdims=True)
    # The saturation, range over value, grows to 1 at most.
    most = np.divide(value, range_, out=np.full_like(value, np.inf), where=range_ > 0)
    return value - np.minimum(factor, most) * (value - images)


def _contrast(images, factor, rng):
    """Shrink towards the mean of each channel of each image."""
    mean = images.mean(axis=(2, 3), keepdims=True)
    return mean + factor * (images - mean)


def _pixelate(images, share, rng):
    """Average over fewer, larger pixels."""
    height, width = (_larger_pixels(size, share) for size in images.shape[2:])
    return height @ images @ width.T


def _rotation(images, angle, rng):
    """Turn all images alike, as a camera that is not upright."""
    return ndimage.rotate(
        images, angle, axes=(3, 2), reshape=False, order=1, mode="mirror"
    )


def _larger_pixels(size, share):
    """Weights of the `size` old pixels of a line in each of the new ones."""
    n_large = max(1, int(size * share))
    edges = np.arange(n_large + 1) * (size / n_large)
    left = np.maximum(edges[:-1, np.newaxis], np.arange(size))
    right = np.minimum(edges[1:, np.newaxis], np.arange(size) + 1)
    shrink = np.clip(right - left, 0, None) * (n_large / size)
    centre = (np.arange(size) + 0.5) * (n_large / size)
    return shrink[centre.astype(int)]


# Kind: how it is done, and how strongly at severity 1 to 5: for 32 x 32 pixels those of
# the common corruptions benchmark, but for fog's smoothness, saturation and rotation.
_CORRUPTIONS = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": (
        _defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    ),
    "motion_blur": (_motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "fog": (_fog, ((0.2, 2.0), (0.5, 2.0), (0.75, 1.9), (1.0, 1.8), (1.5, 1.7))),
    "brightness": (_brightness, (0.05, 0.10, 0.15, 0.20, 0.30)),
    "contrast": (_contrast, (0.75, 0.50, 0.40, 0.30, 0.15)),
    "saturate": (_saturate, (1.25, 1.5, 2.0, 2.5, 3.5)),
    "pixelate": (_pixelate, (0.95, 0.90, 0.85, 0.75, 0.65)),
    "rotation": (_rotation, (5, 10, 15, 20, 30)),
}


@validate_params(
    {
        "X": ["array-like"],
        "kind": [StrOptions(set(_CORRUPTIONS))],
        "severity": [Interval(Integral, 1, 5, closed="both")],
        "channel_axis": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def corrupt_images(
    X: Any,
    kind: str,
    severity: int = 3,
    *,
    channel_axis: int | None = -1,
    random_state: Any = None,
) -> Any:
    """Corrupt images in one of the common ways: noise, blur, light, resolution, angle.

    A network that is calibrated on clean images is usually over-confident on worse
    ones. The corruptions and their strengths, meant for images of about 32 x 32 pixels,
    follow a well-known benchmark [1]_, but for the strengths of "saturate", the texture
    of "fog", and "rotation", which it does not have.

    Parameters
    ----------
    X : array-like of shape (n_images, ...)
        Images: uint8 from 0 to 255, or floating point from 0 to 1. Not modified.

    kind : str
        The corruption:

        - "gaussian_noise": normal noise of the same strength everywhere;
        - "shot_noise": Poisson noise, the grain of too little light;
        - "impulse_noise": values that are black or white at random;
        - "gaussian_blur": a Gaussian filter;
        - "defocus_blur": each pixel is spread over a disc;
        - "motion_blur": each image is drawn out along a direction of its own;
        - "fog": white haze, thicker here than there, another in each image;
        - "brightness": the value of hue, saturation and value is raised;
        - "contrast": colours move towards the mean of the image;
        - "saturate": colours move away from grey, which itself stays;
        - "pixelate": fewer and larger pixels;
        - "rotation": all images are turned by the same angle, 5 to 30 degrees.

    severity : int, default=3
        From 1 (barely visible) to 5 (strong).

    channel_axis : int or None, default=-1
        Axis of the colours: -1 for (n_images, height, width, channels), 1 for
        (n_images, channels, height, width), None for grey images of shape
        (n_images, height, width).

    random_state : int, RandomState instance or None, default=None
        Seed of the noise, the directions of motion and the fog; pass an int for the
        same images in each call. The other kinds have nothing random.

    Returns
    -------
    corrupted : ndarray of the shape and dtype of `X`
        The images, in the same range.

    Raises
    ------
    ValueError
        If `X` is not a batch of images, or has values outside its range.

    TypeError
        If `X` is neither uint8 nor floating point.

    Notes
    -----
    Results of uint8 images are rounded to the nearest integer, where the benchmark's
    own data are rounded down.

    References
    ----------
    .. [1] Hendrycks & Dietterich. "Benchmarking Neural Network Robustness to Common
       Corruptions and Perturbations", ICLR 2019. https://arxiv.org/abs/1903.12261

    Examples
    --------
    >>> from skcalib.datasets import corrupt_images, load_demo
    >>> images = load_demo().X_test
    >>> noisy = corrupt_images(
    ...     images, "gaussian_noise", severity=5, channel_axis=None, random_state=0
    ... )
    >>> noisy.shape, noisy.dtype
    ((797, 8, 8), dtype('float32'))
    """
    X = _check_images(np.asarray(column_on_host(X)), channel_axis)
    corrupt, strengths = _CORRUPTIONS[kind]
    rng = check_random_state(random_state)
    corrupted = np.empty_like(X)
    source, target = (_channels_first(array, channel_axis) for array in (X, corrupted))
    top = 255 if X.dtype == np.uint8 else 1
    for start in range(0, X.shape[0], _BLOCK):
        part = slice(start, start + _BLOCK)
        images = source[part].astype(np.float64) / top
        images = top * np.clip(corrupt(images, strengths[severity - 1], rng), 0, 1)
        target[part] = np.rint(images) if X.dtype == np.uint8 else images
    return corrupted


def _channels_first(images, channel_axis):
    """View as (image, channel, row, column)."""
    if channel_axis is None:
        return images[:, np.newaxis]
    return np.moveaxis(images, channel_axis, 1)


def _check_images(X, channel_axis):
    if X.dtype != np.uint8 and not np.issubdtype(X.dtype, np.floating):
        raise TypeError(
            f"X is of dtype {X.dtype}. corrupt_images needs uint8 images from 0 to 255 "
            "or floating-point images from 0 to 1."
        )
    n_axes = 3 if channel_axis is None else 4
    if X.ndim != n_axes or 0 in X.shape:
        raise ValueError(
            f"X has shape {X.shape}, but channel_axis={channel_axis} needs a batch of "
            f"images with {n_axes} axes, none of them empty. Pass channel_axis=None "
            "for grey images of shape (n_images, height, width)."
        )
    if channel_axis is not None and channel_axis not in {1, 2, 3, -1, -2, -3}:
        raise ValueError(
            f"channel_axis={channel_axis} is not one of the last three axes of X. The "
            "first axis counts images."
        )
    # Written so that NaN is refused too.
    if X.dtype != np.uint8 and not (X.min() >= 0 and X.max() <= 1):
        raise ValueError(
            f"X has values from {X.min()} to {X.max()}. Floating-point images must lie "
            "between 0 and 1: corrupt them before they are normalised."
        )
    return X
