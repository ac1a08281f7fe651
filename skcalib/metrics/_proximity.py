"""Proximity of a sample to others, and the calibration error that looks at it."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_consistent_length

from skcalib._validation import (
    check_features,
    check_top_label,
    check_whole,
    column_on_host,
)
from skcalib.metrics._bins import Floats, mass_quantiles, sum_by_index, uniform_edges
from skcalib.metrics._uncertainty import check_vector


def neighbor_proximity(
    features: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    n_neighbors: int = 10,
) -> NDArray[np.float64]:
    r"""Measure how close each sample is to its nearest neighbours.

    .. math:: D(x) = \exp\Big(-\frac1m \sum_{j \in N_m(x)} \|x - x_j\|\Big)

    is 1 in the midst of equal samples and falls towards 0 for lonely ones, which
    classifiers tend to be too sure of [1]_.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Samples in the space where distances mean something: the values of a network's
        last hidden layer, say.

    reference : array-like of shape (n_reference, n_features), default=None
        Samples among which to look for neighbours: the calibration set. By default
        `features` itself, where no sample is its own neighbour.

    n_neighbors : int, default=10
        Number of neighbours m.

    Returns
    -------
    proximity : ndarray of shape (n_samples,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        If `reference` has fewer samples than neighbours are asked for, or other
        columns than `features`.

    Notes
    -----
    The unit of the features matters: where distances are in the hundreds, all
    proximities underflow to 0. Divide by a typical distance first.

    References
    ----------
    .. [1] Xiong, Deng, Koh, Wu, Li, Xu & Hooi. "Proximity-Informed Calibration for
       Deep Neural Networks", NeurIPS 2023. https://arxiv.org/abs/2306.04590

    Examples
    --------
    >>> from skcalib.metrics import neighbor_proximity
    >>> features = [[0.0], [0.1], [0.2], [5.0]]
    >>> neighbor_proximity(features, n_neighbors=2).round(2)
    array([0.86, 0.9 , 0.86, 0.01])
    """
    n_neighbors = check_whole("n_neighbors", n_neighbors)
    as_numbers = partial(check_features, "this", dtype=[float, np.float32])
    rows = as_numbers(features)
    among, n_others = rows, rows.shape[0] - 1
    if reference is not None:
        among = as_numbers(reference, "reference")
        n_others = among.shape[0]
    if n_others < n_neighbors:
        raise ValueError(
            f"{n_neighbors} neighbours are asked for among {n_others} other samples. "
            "Pass more samples, or ask for fewer neighbours."
        )
    if among.shape[1] != rows.shape[1]:
        raise ValueError(
            f"The samples have {rows.shape[1]} features, but those among which to "
            f"look for neighbours have {among.shape[1]}."
        )
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(among)
    # No argument: a sample is then not its own neighbour.
    distance, _ = search.kneighbors(None if reference is None else rows)
    return np.exp(-distance.mean(axis=1, dtype=np.float64))


def proximity_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    proximity: ArrayLike,
    n_bins: int = 15,
    n_proximity_bins: int = 15,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Compute the proximity-informed calibration error (PIECE).

    The ECE over bins of two dimensions, confidence and proximity [1]_: too much
    confidence far from all other samples is not made up for by too little near them.

    .. math:: \mathrm{PIECE} = \sum_{b, d} \frac{n_{bd}}{n}
        |\mathrm{acc}_{bd} - \mathrm{conf}_{bd}|

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of `pos_label`.

    proximity : array-like of shape (n_samples,)
        Proximity of each sample, from `neighbor_proximity`, or any other number that
        says how common it is.

    n_bins : int, default=15
        Number of bins of equal width of the confidence.

    n_proximity_bins : int, default=15
        Number of bins of equal mass of the proximity.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of `y_proba`; see `expected_calibration_error`.

    pos_label : int, float, bool or str, default=None
        Class of a single column of `y_proba`; see `expected_calibration_error`.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights; integer weights equal repeated rows.

    Returns
    -------
    error : float
        Between 0 (calibrated) and 1; never below `expected_calibration_error`.

    Raises
    ------
    ValueError
        See `expected_calibration_error`; also if `proximity` has another length or
        is not finite.

    Notes
    -----
    Rows of equal proximity are in the same bin, which may then hold more than its
    share of the rows, and others less.

    References
    ----------
    .. [1] Xiong, Deng, Koh, Wu, Li, Xu & Hooi. "Proximity-Informed Calibration for
       Deep Neural Networks", NeurIPS 2023. https://arxiv.org/abs/2306.04590

    Examples
    --------
    >>> from skcalib.metrics import proximity_calibration_error
    >>> proximity = [0.9, 0.1, 0.8, 0.2]
    >>> y_proba = [[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.3, 0.7]]
    >>> error = proximity_calibration_error(
    ...     [0, 1, 1, 0], y_proba, proximity=proximity, n_proximity_bins=2
    ... )
    >>> round(error, 3)
    0.5
    """
    n_bins = check_whole("n_bins", n_bins)
    n_proximity_bins = check_whole("n_proximity_bins", n_proximity_bins)
    confidence, hit, weight = check_top_label(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    column = check_proximity(proximity, confidence)
    far = np.searchsorted(mass_quantiles(column, weight, n_proximity_bins), column)
    index = far * n_bins + np.searchsorted(uniform_edges(n_bins), confidence)
    residual = sum_by_index(
        index, weight * (hit - confidence), n_bins * n_proximity_bins
    )
    return float(np.abs(residual).sum() / weight.sum())


def check_proximity(proximity: ArrayLike, confidence: Floats) -> Floats:
    """Return one finite number a row."""
    column = check_vector(np.asarray(column_on_host(proximity)), "proximity")
    check_consistent_length(column, confidence)
    return column
