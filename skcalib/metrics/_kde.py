"""Calibration error with a kernel density in the place of bins, leaving one row out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from skcalib._blocks import map_blocks, row_slices
from skcalib._validation import check_proba, is_event
from skcalib.metrics._bins import Floats, check_bandwidth, check_option

KINDS = ("top_label", "classwise", "canonical")
# Smaller probabilities count as this where the logarithm of a kernel is taken.
KERNEL_FLOOR = 1e-12
# The log of a kernel value that counts as nothing; numbers that underflow are slow.
NOTHING = -100.0
# Widths among which the likelihood chooses, three to a factor of ten.
BANDWIDTHS = np.logspace(-5, 0, 16)
# So many kernel values are in memory at once: few enough for a core's own cache.
CHUNK_ELEMENTS = 1 << 17


class Points(NamedTuple):
    """Probability vectors, class codes in ascending order, and weights."""

    proba: Floats
    codes: NDArray[np.intp]
    weight: Floats


class Neighbours(NamedTuple):
    """Kernel sums of a chunk of rows: their log total, and shares of each class.

    The total is that over the other rows; their number, the same for all bandwidths,
    is left out.
    """

    rows: slice
    log_total: Floats
    classes: NDArray[np.intp]
    share: Floats


def kde_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    kind: Literal["top_label", "classwise", "canonical"] = "top_label",
    norm: Literal[1, 2] = 1,
    bandwidth: float | None = None,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the calibration error by a kernel density estimate (KDE-ECE).

    How often each class occurs among predictions near :math:`p_i` is estimated from
    the other rows, with a Dirichlet kernel, which knows no border of the simplex [1]_:

    .. math:: \hat{E}[y \mid p_i] =
        \frac{\sum_{j \ne i} k_h(p_i; p_j)\, y_j}{\sum_{j \ne i} k_h(p_i; p_j)},
        \qquad k_h(\cdot; p_j) = \mathrm{Dirichlet}(p_j / h + 1)

    The error is the mean distance of this estimate from :math:`p_i`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    kind : {"top_label", "classwise", "canonical"}, default="top_label"
        What has to be calibrated: the confidence of the predicted class, each column
        by itself (averaged over the columns), or the whole vector (summed over them).

    norm : {1, 2}, default=1
        Absolute differences, or the root of the mean of squared ones.

    bandwidth : float, default=None
        Width h of the kernel. By default the one of 16 between 1e-5 and 1 under which
        the predictions, each left out in turn, are most likely.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1; for "canonical" up to 2, or :math:`\sqrt2` with
        ``norm=2``.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also for a total weight of 1 or less, which
        leaves no row to compare with.

    See Also
    --------
    smooth_calibration_error : A kernel too, but no quadratic cost.

    Notes
    -----
    Time grows with the square of the number of rows, memory does not: kernel values
    are made and used up in chunks. Weights count as numbers of rows, of which one is
    left out.

    The likelihood is taken to have a single peak over the bandwidths. The authors'
    code divides the density by h once more, which moves the choice to smaller widths,
    sums over the columns of "classwise", and takes no root for ``norm=2``.

    References
    ----------
    .. [1] Popordanoska, Sayer & Blaschko. "A Consistent and Differentiable Lp Canonical
       Calibration Error Estimator", NeurIPS 2022. https://arxiv.org/abs/2210.07810

    Examples
    --------
    >>> from skcalib.metrics import kde_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(kde_calibration_error([0, 1, 1, 1], y_proba, bandwidth=0.1), 3)
    0.271
    """
    check_option("kind", kind, KINDS)
    check_option("norm", norm, (1, 2))
    check_bandwidth(bandwidth)
    codes, proba, weight = check_proba(
        y_true, y_proba, labels, sample_weight, pos_label, top_label=kind == "top_label"
    )
    if weight.sum() <= 1:
        raise ValueError(
            f"A total weight of {weight.sum():g} leaves no row to compare with. Pass "
            "at least two rows; weights count as numbers of rows here."
        )
    used, event = weight > 0, is_event(y_true, pos_label)
    codes, proba, weight = codes[used], proba[used].astype(np.float64), weight[used]
    errors = [
        _mean_distance(points, bandwidth, norm, 1 if kind != "canonical" else None)
        for points in _problems(kind, codes, proba, weight, event)
    ]
    return float(np.mean(errors) ** (1 / norm))


def _problems(
    kind: str, codes: NDArray[np.intp], proba: Floats, weight: Floats, event: bool
) -> Iterator[Points]:
    """Yield the points of each density, rows sorted by class.

    One column is the vector (p, 1 - p) of two classes, 0 where it is right.
    """
    if kind == "canonical":
        yield _sorted(proba, codes, weight)
        return
    top = np.ones_like(codes) if event else proba.argmax(axis=1)
    columns = range(proba.shape[1]) if kind == "classwise" else [top]
    rows = np.arange(codes.shape[0])
    for column in columns:
        p = np.minimum(proba[rows, column], 1.0)
        pair = np.column_stack([p, 1 - p])
        yield _sorted(pair, (codes != column).astype(np.intp), weight)


def _sorted(proba: Floats, codes: NDArray[np.intp], weight: Floats) -> Points:
    order = np.argsort(codes, kind="stable")
    return Points(proba[order], codes[order], weight[order])


def _mean_distance(
    points: Points, bandwidth: float | None, norm: int, n_columns: int | None
) -> float:
    """Mean over the rows of the distance to the estimate, in the first columns."""
    if bandwidth is None:
        bandwidth = _likely_bandwidth(points)
    total = 0.0
    for part in _neighbours(points, bandwidth):
        gap = points.proba[part.rows].copy()
        gap[:, part.classes] -= part.share
        distance = (np.abs(gap[:, :n_columns]) ** norm).sum(axis=1)
        total += distance @ points.weight[part.rows]
    return float(total / points.weight.sum())


def _likely_bandwidth(points: Points) -> float:
    """Find the bandwidth of the largest leave-one-out likelihood, by golden section."""
    known: dict[int, float] = {}

    def likelihood(index: int) -> float:
        if index not in known:
            parts = _neighbours(points, BANDWIDTHS[index])
            known[index] = sum(
                float(part.log_total @ points.weight[part.rows]) for part in parts
            )
        return known[index]

    low, high = 0, BANDWIDTHS.shape[0] - 1
    while high - low > 2:
        left = low + round(0.382 * (high - low))
        right = max(left + 1, high - round(0.382 * (high - low)))
        if likelihood(left) < likelihood(right):
            low = left
        else:
            high = right
    return float(BANDWIDTHS[max(range(low, high + 1), key=likelihood)])


def _neighbours(points: Points, bandwidth: float) -> Iterator[Neighbours]:
    """Yield the kernel sums over all other rows, chunk by chunk.

    Kernels are taken relative to the largest of a row, so that none of their sums
    underflows.
    """
    proba, codes, weight = points
    n_rows, n_classes = proba.shape
    alpha = proba / bandwidth
    # Minus the log of the normalising constant, and the log of the weight.
    offset = gammaln(alpha.sum(axis=1) + n_classes) - gammaln(alpha + 1).sum(axis=1)
    offset += np.log(weight)
    # A last row for the offset, so that one product gives the log of the kernel.
    factors = np.vstack([alpha.T, offset])
    own = np.where(
        weight > 1, np.log(np.maximum(weight - 1, KERNEL_FLOOR) / weight), -np.inf
    )
    starts = np.flatnonzero(np.diff(codes, prepend=-1))

    def of_rows(rows: slice) -> Neighbours:
        log_proba = np.ones((rows.stop - rows.start, n_classes + 1))
        np.log(np.maximum(proba[rows], KERNEL_FLOOR), out=log_proba[:, :-1])
        kernel: NDArray[Any] = log_proba @ factors
        kernel[np.arange(kernel.shape[0]), np.arange(n_rows)[rows]] += own[rows]
        largest = kernel.max(axis=1, keepdims=True)
        kernel -= largest
        np.exp(np.maximum(kernel, NOTHING, out=kernel), out=kernel)
        sums = np.add.reduceat(kernel, starts, axis=1)
        total = sums.sum(axis=1)
        log_total = np.log(total) + largest[:, 0]
        return Neighbours(rows, log_total, codes[starts], sums / total[:, np.newaxis])

    slices = row_slices(n_rows, n_rows, CHUNK_ELEMENTS)
    yield from map_blocks(of_rows, slices, heavy=True)
