"""Squared kernel calibration error: the whole probability vector, no bins."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._numerics import is_whole
from skcalib._validation import check_proba, check_whole
from skcalib.metrics._bins import Floats, check_bandwidth, check_option, repetitions
from skcalib.metrics._kernel_pairs import KernelPairs

ESTIMATORS = ("unbiased", "biased", "block")
KERNELS = ("laplacian", "gaussian")
# Blocks are worked off in batches of this many pairs times classes.
BATCH_ELEMENTS = 1 << 18


def squared_kernel_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    estimator: Literal["unbiased", "biased", "block"] = "unbiased",
    kernel: Literal["laplacian", "gaussian"] = "laplacian",
    bandwidth: float | None = None,
    block_size: int = 2,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the squared kernel calibration error (SKCE).

    Compares the residuals, one-hot label minus probabilities, of all pairs of rows,
    the more the closer their predictions are [1]_:

    .. math:: h_{ij} = k(p_i, p_j) \, (e_{y_i} - p_i) \cdot (e_{y_j} - p_j)

    If the whole probability vector is calibrated, and only then, the residuals of
    near predictions cancel and the expected value is 0.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    estimator : {"unbiased", "biased", "block"}, default="unbiased"
        Mean over all pairs of different rows; over all pairs, rows with themselves
        included; or over the pairs within blocks of successive rows.

    kernel : {"laplacian", "gaussian"}, default="laplacian"
        :math:`\exp(-d / b)` or :math:`\exp(-d^2 / 2 b^2)` of the Euclidean distance d.

    bandwidth : float, default=None
        Length b; the root of the mean squared distance of two rows by default.

    block_size : int, default=2
        Number of rows of a block, at least 2; rows left over at the end are not used.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Squared error. "biased" is never negative; the other two scatter around 0 for
        a calibrated classifier.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also for a total weight of 1 or less, which
        leaves no pair, and for weights that are not whole with blocks.

    See Also
    --------
    calibration_test : ``metric="skce"`` tells whether the error is due to chance.

    Notes
    -----
    Time grows with the square of the number of rows, but linearly with "block"; memory
    does not grow. The authors take the median distance as bandwidth; the root mean
    square has the same size, and neither time nor memory grow with the pairs. The
    values of different bandwidths cannot be compared: pass one to compare classifiers.

    References
    ----------
    .. [1] Widmann, Lindsten & Zachariah. "Calibration tests in multi-class
       classification: A unifying framework", NeurIPS 2019.
       https://arxiv.org/abs/1910.11385

    Examples
    --------
    >>> from skcalib.metrics import squared_kernel_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> round(squared_kernel_calibration_error([0, 1, 1, 1], y_proba), 4)
    0.0314
    """
    check_kernel_options(estimator, kernel, bandwidth, block_size)
    codes, proba, weight = check_proba(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    pairs = KernelPairs.of_rows(codes, proba, weight, kernel, bandwidth)
    if estimator == "block":
        means = block_means(pairs, _repeated(weight), int(block_size))
        return float(means.mean())
    total = weight.sum()
    share = weight / total
    if estimator == "biased":
        return max(pairs.weighted_sum(share), 0.0)
    if total <= 1:
        raise ValueError(
            f"A total weight of {total:g} makes no pair of rows. Pass at least two "
            "rows; weights count as numbers of rows here."
        )
    own = float(share @ pairs.diagonal) / total
    return float((pairs.weighted_sum(share) - own) / (1 - 1 / total))


def check_kernel_options(
    estimator: str, kernel: str, bandwidth: float | None, block_size: int
) -> None:
    """Refuse options that do not exist or have no meaning."""
    check_option("estimator", estimator, ESTIMATORS)
    check_option("kernel", kernel, KERNELS)
    check_bandwidth(bandwidth)
    check_whole("block_size", block_size, 2)


def _repeated(weight: Floats) -> NDArray[np.intp]:
    """Row numbers, each as often as its weight says."""
    if not is_whole(weight):
        raise ValueError(
            'estimator="block" needs whole weights: blocks hold whole rows. Use '
            '"unbiased", or no weights.'
        )
    return repetitions(weight)


def block_means(pairs: KernelPairs, rows: NDArray[np.intp], size: int) -> Floats:
    """Mean of h over the different rows of each block of successive rows."""
    n_blocks = rows.shape[0] // size
    if n_blocks == 0:
        raise ValueError(
            f"{rows.shape[0]} rows do not fill a block of {size}. Pass more rows, or a "
            "smaller block_size."
        )
    blocks = rows[: n_blocks * size].reshape(n_blocks, size)
    step = max(1, BATCH_ELEMENTS // (size * max(size, pairs.centred.shape[1])))
    batches = [blocks[i : i + step] for i in range(0, n_blocks, step)]
    return np.concatenate([_means_of(pairs, batch) for batch in batches])


def _means_of(pairs: KernelPairs, blocks: NDArray[np.intp]) -> Floats:
    centred, residual = pairs.centred[blocks], pairs.residual[blocks]
    square = np.einsum("bik,bik->bi", centred, centred)
    squares: NDArray[Any] = square[:, :, np.newaxis] + square[:, np.newaxis]
    squares -= 2 * (centred @ centred.mT)
    value = pairs.of_squares(np.maximum(squares, 0))
    value *= residual @ residual.mT
    size = blocks.shape[1]
    value[:, np.arange(size), np.arange(size)] = 0
    return value.sum(axis=(1, 2)) / (size * (size - 1))
