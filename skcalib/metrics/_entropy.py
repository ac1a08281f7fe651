"""Entropy of the predictions."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr
from sklearn.utils.validation import check_consistent_length

from skcalib._blocks import map_blocks, on_host, slices_of
from skcalib._validation import Rows, check_proba_rows, check_weight, is_dask
from skcalib.metrics._chunks import accumulate


@overload
def predictive_entropy(
    y_true: ArrayLike | None,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    pos_label: object = ...,
    sample_weight: ArrayLike | None = ...,
    per_sample: Literal[False] = ...,
) -> float: ...


@overload
def predictive_entropy(
    y_true: ArrayLike | None,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    pos_label: object = ...,
    sample_weight: ArrayLike | None = ...,
    per_sample: Literal[True],
) -> NDArray[np.float64]: ...


def predictive_entropy(
    y_true: ArrayLike | None,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
    sample_weight: ArrayLike | None = None,
    per_sample: bool = False,
) -> float | NDArray[np.float64]:
    r"""Compute the mean entropy of the predicted probabilities, in nats.

    .. math:: \frac1n \sum_i -\sum_k p_{ik} \ln p_{ik}, \qquad 0 \ln 0 = 0

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or None
        Not used, present so that all metrics are called alike; pass None where there
        are no true classes.

    y_proba : array-like of shape (n_samples, n_classes), (n_samples,) or (n_samples, 1)
        Predicted probabilities; a single column is that of either of two classes.

    labels : array-like of shape (n_classes,), default=None
        Not used, present so that all metrics are called alike.

    pos_label : int, float, bool or str, default=None
        Not used, present so that all metrics are called alike.

    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights of the mean; integer weights equal repeated rows.

    per_sample : bool, default=False
        Return the entropy of each row instead of the mean.

    Returns
    -------
    entropy : float, or ndarray of shape (n_samples,) if `per_sample`
        Between 0 and the logarithm of the number of classes.

    Raises
    ------
    ValueError
        If a row of `y_proba` is not a probability distribution.

    Notes
    -----
    Entropy says how sure a classifier is, not whether it is right to be: neither a low
    nor a high value is good by itself. Read it beside a calibration error.

    Examples
    --------
    >>> from skcalib.metrics import predictive_entropy
    >>> y_proba = [[0.5, 0.5], [1.0, 0.0]]
    >>> round(predictive_entropy([0, 1], y_proba), 4)
    0.3466
    >>> predictive_entropy(None, y_proba, per_sample=True).round(4)
    array([0.6931, 0.    ])
    """
    if is_dask(y_proba) and y_true is not None and not per_sample:
        given = y_true, y_proba, labels, sample_weight, pos_label
        return accumulate("entropy", *given).compute()["entropy"]
    proba = check_proba_rows(y_proba, blocks=True)
    if y_true is not None:
        check_consistent_length(y_true, proba)
    weight = check_weight(sample_weight, np.empty(proba.shape[0]))
    entropy = entropy_of_rows(proba)
    return entropy if per_sample else float(np.average(entropy, weights=weight))


def entropy_of_rows(proba: Rows) -> NDArray[np.float64]:
    """Return the entropy of each row, summed in float64."""
    entropy = np.empty(proba.shape[0])

    def fill(rows: slice) -> None:
        entropy[rows] = on_host(entr(proba[rows]).sum(axis=1, dtype=np.float64))

    for _ in map_blocks(fill, slices_of(proba)):
        pass
    return entropy
