"""Smooth calibration error: a kernel in place of bins, its width found by itself."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from scipy.optimize import brentq

from skcalib._validation import check_top_label
from skcalib.metrics._bins import Floats, sum_by_index

# The grid is refined until the kernel is this many grid steps wide ...
STEPS_PER_WIDTH = 64
# ... or until it has this many steps.
FIRST_GRID, LAST_GRID = 1 << 8, 1 << 20


def smooth_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the smooth calibration error of the predicted class.

    The residuals (hit minus confidence) are smoothed over the confidence by a Gaussian
    kernel :math:`K_s`, reflected at 0 and 1, and averaged in absolute value [1]_:

    .. math:: \mathrm{smECE}_s = \int_0^1 \Big| \frac1n \sum_i K_s(t, \mathrm{conf}_i)
        (\mathrm{hit}_i - \mathrm{conf}_i) \Big| \, dt

    The kernel width is not a parameter: it is the one with
    :math:`\mathrm{smECE}_s = s`, and this value is the error.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1.

    Raises
    ------
    ValueError
        See `expected_calibration_error`.

    Notes
    -----
    The residuals are laid on a grid, where the reflected kernel is a product with
    Gaussian factors in the cosine transform. The grid is refined until the kernel
    spans 64 steps, which keeps the relative error near 1e-5. Values under 6e-5
    are resolved to about 1e-6 only.

    References
    ----------
    .. [1] Blasiok & Nakkiran. "Smooth ECE: Principled Reliability Diagrams via Kernel
       Smoothing", ICLR 2024. https://arxiv.org/abs/2309.12236

    Examples
    --------
    >>> from skcalib.metrics import smooth_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(smooth_calibration_error([0, 1, 1, 1], y_proba), 3)
    0.171
    """
    return smooth_error(
        *check_top_label(y_true, y_proba, labels, sample_weight, pos_label)
    )


def smooth_error(confidence: Floats, hit: NDArray[Any], weight: Floats) -> float:
    """Find the fixed point of the smoothed error in the kernel width."""
    residual = weight * (hit - confidence) / weight.sum()
    steps = FIRST_GRID
    while True:
        width = _fixed_point(_spread(confidence, residual, steps), steps)
        if width * steps >= STEPS_PER_WIDTH or steps == LAST_GRID or width == 0:
            return width
        steps *= 4


def _spread(confidence: Floats, residual: Floats, steps: int) -> Floats:
    """Share each residual between the two nearest of ``steps + 1`` grid points."""
    position = np.clip(confidence, 0, 1) * steps
    left = np.minimum(position.astype(np.intp), steps - 1)
    right_share = residual * (position - left)
    grid = sum_by_index(left, residual - right_share, steps + 1)
    grid[1:] += sum_by_index(left, right_share, steps)
    return grid


def _fixed_point(grid: Floats, steps: int) -> float:
    """Width at which the smoothed error equals the width."""
    coefficients = _transform(grid)

    def error(width: float) -> float:
        density = np.abs(_smoothed(coefficients, width))
        return float((density.sum() - density[[0, -1]].sum() / 2) / steps)

    narrowest = 1 / steps
    if error(narrowest) <= narrowest:
        return error(narrowest)
    return float(brentq(lambda s: error(s) - s, narrowest, 1.0, xtol=1e-12, rtol=1e-9))


def _transform(grid: Floats) -> Floats:
    """Cosine coefficients of sums on a grid from 0 to 1."""
    ends_doubled = grid.copy()
    ends_doubled[[0, -1]] *= 2  # Undoes the half weight that the transform gives them.
    return np.asarray(dct(ends_doubled, type=1) / 2)


def _smoothed(coefficients: Floats, width: float) -> Floats:
    """Density on the grid under a Gaussian kernel that is reflected at 0 and 1."""
    frequency = np.pi * np.arange(coefficients.shape[0])
    damped = coefficients * np.exp(-((frequency * width) ** 2) / 2)
    return np.asarray(dct(damped, type=1))


def smoothed_densities(
    confidence: Floats, values: list[Floats], width: float, steps: int
) -> list[Floats]:
    """Smooth sums of `values` over the confidence, on a grid of ``steps + 1`` points.

    Each integrates to the sum of its values.
    """
    return [
        _smoothed(_transform(_spread(confidence, column, steps)), width)
        for column in values
    ]
