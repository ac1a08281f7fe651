"""Probabilities to logits, the one door through which probabilities enter."""

from typing import Any

import numpy as np

from skcalib._sklearn_compat import like_frame
from skcalib._validation._proba import check_proba_rows


def logits_from_proba(proba: Any, *, floor: float = 1e-12) -> Any:
    """Turn predicted probabilities into logits for a calibrator.

    The logarithm of a probability is a logit: its softmax gives the probability
    back. Exact zeros, which random forests and rounded numbers contain, have no
    logarithm, so smaller values are raised to `floor` first.

    Parameters
    ----------
    proba : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities; a single column is that of the second class.

    floor : float, default=1e-12
        Smallest probability told apart from zero.

    Returns
    -------
    logits : ndarray or DataFrame of shape (n_samples, n_classes)
        Natural logarithms; float32 if `proba` is float32, else float64. A data frame
        of pandas or polars gives one with the same columns, since their names may
        say which class each stands for.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1] or a row does not sum to 1 within 1e-3.

    Notes
    -----
    The logarithms differ from the network's own logits by a constant in each row,
    which temperature, Dirichlet and all one-vs-rest methods do not notice, but
    vector and matrix scaling do.

    Examples
    --------
    >>> from skcalib import TemperatureScaling, logits_from_proba
    >>> proba = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]
    >>> logits = logits_from_proba(proba)
    >>> TemperatureScaling().fit(logits, [0, 0, 1, 1]).predict_proba(logits).shape
    (4, 2)
    """
    if not 0 < floor < 1:
        raise ValueError(f"floor={floor!r} is not between 0 and 1.")
    return like_frame(np.log(np.maximum(check_proba_rows(proba), floor)), proba)
