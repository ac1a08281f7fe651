"""Smooth calibration error: a kernel in place of bins, its width found by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from scipy.sparse import csc_array

from skcalib._validation import check_top_label
from skcalib.metrics._bins import Floats

# The grid is refined until the kernel is this many of its steps wide ...
STEPS_PER_WIDTH = 16
# ... or until it has this many points.
FIRST_GRID, LAST_GRID = 1 << 10, 1 << 16
# A Gaussian factor of exp(-x**2 / 2) is below the rounding of 1 from here on.
NEGLIGIBLE = 8.6
# Fixed points are found to this relative tolerance, in about six steps.
RTOL, MAX_STEPS = 1e-10, 100
# Densities of as many rows of weights as fit into this many numbers are found at once.
CHUNK_ELEMENTS = 1 << 20
# Rows laid on a grid at once.
BLOCK_ROWS = 1 << 13


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
    spans 16 steps, which keeps the relative error under 1e-5. Values under 2.4e-4
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
    return float(smooth_errors(confidence, hit, weight[np.newaxis])[0])


def smooth_errors(confidence: Floats, hit: NDArray[Any], weights: Floats) -> Floats:
    """Find the fixed point for every row of `weights`, each on a grid of its own.

    The smoothed error falls as the width grows, so that a width is narrower than the
    fixed point if, and only if, the error exceeds it.
    """
    weights = weights / weights.sum(axis=1, keepdims=True)
    gap = hit - confidence
    if (gap >= 0).all() or (gap <= 0).all():  # No kernel makes any of it cancel.
        return np.abs(weights @ gap)
    errors = np.zeros(weights.shape[0])
    left, points, highest = np.arange(errors.shape[0]), FIRST_GRID, 1.0
    while left.size:
        chunk, narrow = max(1, CHUNK_ELEMENTS // points), []
        for start in range(0, left.size, chunk):
            part = left[start : start + chunk]
            grid = _lay(confidence, gap, weights[part], points)
            errors[part], found = _on_grid(grid, highest)
            narrow.append(part[~found])
        left = np.concatenate(narrow)
        # A little wider than the width that was too wide: the grids differ by rounding.
        points, highest = points * 4, 1.01 * STEPS_PER_WIDTH / points
    return errors


def _on_grid(grid: Floats, highest: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Return fixed points below `highest`, and which of them the grid resolves."""
    points = grid.shape[1]
    coefficients = _transform(grid)
    narrowest = STEPS_PER_WIDTH / points
    low = np.full(grid.shape[0], narrowest)
    excess = _error(_low_part(coefficients, narrowest), low, points) - low
    found = excess > 0
    width = np.zeros(grid.shape[0])
    kept = _low_part(coefficients[found], narrowest)
    width[found] = _fixed_points(kept, points, low[found], excess[found], highest)
    if points == LAST_GRID:
        width[~found] = _unresolved(coefficients[~found], narrowest)
        found[:] = True
    return width, found


def _unresolved(coefficients: Floats, highest: float) -> Floats:
    """Return fixed points of which the last grid has fewer steps than it should."""
    points = coefficients.shape[1]
    low = np.full(coefficients.shape[0], 1 / points)
    width = _error(coefficients, low, points)
    excess = width - low
    wider = excess > 0
    width[wider] = _fixed_points(
        coefficients[wider], points, low[wider], excess[wider], highest
    )
    return width


def _fixed_points(
    coefficients: Floats, points: int, low: Floats, excess: Floats, highest: float
) -> Floats:
    """Find widths that equal their error, from `low` up, by the Illinois method.

    `excess` is by how much the error exceeds `low`. As the error falls, the excess
    falls faster than the width grows, and bounds how far a width is off.
    """
    width = np.full(low.shape[0], highest)
    ends = np.stack([low, width])
    values = np.stack([excess, _error(coefficients, width, points) - width])
    last = np.full(low.shape[0], -1)
    going = np.arange(low.shape[0])
    for _ in range(MAX_STEPS):
        (a, b), (at_a, at_b) = ends[:, going], values[:, going]
        guess = b - at_b * (b - a) / (at_b - at_a)
        value = _error(coefficients[going], guess, points) - guess
        width[going] = guess
        side = (value <= 0).astype(np.intp)
        # An end that stays a second time counts half, so that it will move.
        values[1 - side, going] *= np.where(side == last[going], 0.5, 1)
        ends[side, going], values[side, going], last[going] = guess, value, side
        going = going[np.abs(value) > RTOL * guess]
        if not going.size:
            break
    return width


def _error(coefficients: Floats, width: Floats, points: int) -> Floats:
    """Integrate the absolute density under kernels of these widths."""
    damped = _damped(coefficients, width[:, np.newaxis])
    density = np.asarray(dct(damped, type=3, n=points, axis=1))
    # The sum over the grid is exact but where the density changes its sign: there the
    # Euler-Maclaurin formula has a term for the kink, whose place is interpolated.
    row, left = np.nonzero(density[:, 1:] * density[:, :-1] < 0)
    np.abs(density, out=density)
    a, b = density[row, left], density[row, left + 1]
    kinks = np.bincount(row, (a + b) / 6 - a * b / (a + b), density.shape[0])
    return np.asarray((density.sum(axis=1) + kinks) / points)


def _lay(confidence: Floats, values: Floats, weights: Floats, points: int) -> Floats:
    """Lay weighted values of rows on cells of equal width, for each row of `weights`.

    Each is shared among three cells by a quadratic spline, which `_transform` undoes;
    what would lie outside 0 to 1 is reflected.
    """
    grid = np.zeros((points, weights.shape[0]))
    for start in range(0, confidence.shape[0], BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        position = np.clip(confidence[rows], 0, 1) * points - 0.5
        nearest = np.rint(position)
        beside = position - nearest
        shares = (0.5 - beside) ** 2 / 2, 0.75 - beside**2, (0.5 + beside) ** 2 / 2
        cells = nearest.astype(np.int32)[:, np.newaxis] + np.arange(-1, 2, dtype="i4")
        cells = np.maximum(cells, -1 - cells)
        cells = np.minimum(cells, 2 * points - 1 - cells)
        data = (np.stack(shares) * values[rows]).T
        columns = np.arange(0, cells.size + 1, 3, dtype=np.int32)
        entries = data.ravel(), cells.ravel(), columns
        shape = points, position.shape[0]
        grid += np.asarray(csc_array(entries, shape=shape) @ weights[:, rows].T)
    return grid.T


def _transform(grid: Floats) -> Floats:
    """Cosine coefficients of what was laid on cells, one set a row."""
    frequency = np.arange(grid.shape[1])
    spline = np.sinc(frequency / (2 * grid.shape[1])) ** 3
    return np.asarray(dct(grid, type=2, axis=1) / 2 / spline)


def _low_part(coefficients: Floats, narrowest: float) -> Floats:
    """Leave out coefficients that no kernel of this width or a wider one lets pass."""
    return coefficients[:, : int(NEGLIGIBLE / (np.pi * narrowest)) + 1]


def _damped(coefficients: Floats, width: Floats | float) -> Floats:
    """Coefficients under a Gaussian kernel that is reflected at 0 and 1."""
    frequency = np.pi * np.arange(coefficients.shape[1])
    return np.asarray(coefficients * np.exp(-((frequency * width) ** 2) / 2))


def smoothed_densities(
    confidence: Floats, values: list[Floats], width: float, steps: int
) -> list[Floats]:
    """Smooth sums of `values` over the confidence, on a grid of ``steps + 1`` points.

    Each integrates to the sum of its values.
    """
    grid = _lay(confidence, np.ones_like(confidence), np.stack(values), steps)
    coefficients = _transform(grid)
    return [*dct(_damped(coefficients, width), type=1, n=steps + 1, axis=1)]
