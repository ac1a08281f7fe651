"""Probabilities to logits, the one door through which probabilities enter."""

from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import is_stored
from skcalib._numerics import PROBA_FLOOR
from skcalib._sklearn_compat import like_frame
from skcalib._validation._containers import column_names, is_dask, readable
from skcalib._validation._multi_label import check_label_proba, log_odds_of
from skcalib._validation._proba import check_proba_rows, normalised_rows

# The smallest normal number of single precision: what is below was cut or rounded.
SMALLEST = float(np.finfo(np.float32).tiny)
# How far from a whole number of steps a probability may be, after single precision.
OFF_STEP = 1e-2
# Fewer values are odd rather than a lattice, and all numbers are whole numbers of the
# smallest ones that a computer knows.
LEAST_STEPS, MOST_STEPS = 4, 1e5


def logits_from_proba(
    proba: Any,
    *,
    floor: float | Literal["auto"] = PROBA_FLOOR,
    normalise: bool = False,
    multilabel: bool = False,
) -> Any:
    """Turn predicted probabilities into logits for a calibrator.

    The logarithm of a probability is a logit: its softmax gives the probability
    back. Exact zeros, which random forests and rounded numbers contain, have no
    logarithm, so smaller values are raised to `floor` first.

    Parameters
    ----------
    proba : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities; a single column is that of the second class. Those of a Dask
        array or data frame are turned chunk by chunk, when they are computed.

    floor : float or "auto", default=1e-12
        Smallest probability told apart from zero. "auto" decides by the values: half a
        step where there are zeros and all others are whole numbers of steps, as the
        shares of trees or rounded numbers are; 1.2e-38, the least of single precision,
        where some are positive and below 1e-12; else 1e-12. It is for arrays that are
        looked at as a whole: what is served row by row needs one number for all, or
        `ProbabilityFloor`, which learns it and keeps it.

    normalise : bool, default=False
        Whether to divide each row by its sum, as numbers need that were rounded to two
        or three digits. Otherwise rows that do not sum to 1 are refused: most often
        they are no probabilities of all classes.

    multilabel : bool, default=False
        Whether each column is the probability of a label of its own, any number of
        which may be set. Their log-odds are then returned, for a
        `MultiLabelCalibration`, and `floor` is a number.

    Returns
    -------
    logits : ndarray, DataFrame or Dask collection of shape (n_samples, n_classes)
        Natural logarithms; float32 if `proba` is float32, else float64. A data frame
        gives one of its kind with the same columns, since their names may say which
        class each stands for; a single column with a name gives its log-odds under
        this name. Log-odds, in float64, with `multilabel`.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1] or a row does not sum to 1 within 1e-3, which
        `normalise` sees to where the sum is positive.

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
    >>> logits_from_proba([[0.33, 0.33, 0.33]], normalise=True).round(2)
    array([[-1.1, -1.1, -1.1]])
    """
    is_auto = isinstance(floor, str) and floor == "auto"
    if not is_auto and not (isinstance(floor, Real) and 0 < floor < 1):
        kind = ValueError if isinstance(floor, (Real, str)) else TypeError
        raise kind(
            f'floor={floor!r} is neither a number between 0 and 1 nor "auto". Zeros '
            "have no logarithm; 1e-12 puts them far below all that is likely."
        )
    if multilabel:
        if normalise:
            raise ValueError(
                "normalise=True divides rows by their sums, and with multilabel=True "
                "the probabilities of a row have none that is known. Leave it out."
            )
        if isinstance(floor, str):
            raise ValueError(
                'floor="auto" is not known with multilabel=True. Name a number, such '
                "as 1e-12."
            )
    if is_dask(proba):
        return _of_chunks(proba, floor, normalise, multilabel)
    _refuse_file(readable(proba))
    if multilabel:
        return like_frame(log_odds_of(check_label_proba(proba), float(floor)), proba)
    rows = normalised_rows(proba) if normalise else check_proba_rows(proba)
    kind = np.result_type(rows.dtype, np.float32).type
    least = kind(max(_floor_of(rows) if is_auto else float(floor), np.finfo(kind).tiny))
    logits = np.log(np.maximum(rows, least))
    names = column_names(proba)
    if names is None or len(names) > 1:
        return like_frame(logits, proba)
    # The name of a single column says which class it is.
    column = proba.to_frame() if np.ndim(proba) == 1 else proba
    return like_frame(logits[:, 1:] - logits[:, :1], column)


def _of_chunks(proba: Any, floor: Any, normalise: bool, multilabel: bool) -> Any:
    """Return the logits of a Dask collection, which are lazy."""
    from skcalib._validation._dask import logits_of_chunks

    if floor == "auto":
        raise ValueError(
            'floor="auto" looks at all probabilities, and those of a Dask collection '
            "are not brought here unasked. Name a number, such as 1e-12."
        )
    of_rows = partial(
        logits_from_proba, floor=floor, normalise=normalise, multilabel=multilabel
    )
    return logits_of_chunks(proba, of_rows, is_exact=multilabel)


def _refuse_file(proba: Any) -> None:
    """Refuse the rows of a file; a single column is small, and is read."""
    if is_stored(proba) and len(proba.shape) > 1 and proba.shape[1] > 1:
        raise TypeError(
            f"proba is a {type(proba).__name__}, a file of {proba.shape[0]:,} rows, "
            "whose logits would lie in memory. Pass proba[:] if they fit. Else turn "
            "some rows at a time, such as proba[:100_000], and write their logits to "
            "a file, which calibrators read block by block."
        )


def log_proba_rows(log_proba: Any) -> NDArray[Any]:
    """Check logarithms of probabilities, and raise those of zeros and near zeros.

    Logarithms of zeros are put where `logits_from_proba` puts them; where there are
    none, a classifier has computed logarithms straight away, and they are exact.
    """
    rows = np.asarray(log_proba)
    check_proba_rows(np.exp(rows))
    floor = PROBA_FLOOR if np.isneginf(rows).any() else SMALLEST
    return np.maximum(rows, rows.dtype.type(np.log(floor)))


def _floor_of(proba: NDArray[Any]) -> float:
    """Return half a step of probabilities that are a lattice, or a round number."""
    levels = np.unique(proba)
    positive = levels[levels > 0].astype(np.float64)
    has_zeros = LEAST_STEPS <= positive.shape[0] < levels.shape[0]
    if has_zeros and positive[-1] <= MOST_STEPS * positive[0]:
        # The smallest may be two steps, if one never occurs.
        for step in (positive[0], positive[0] / 2):
            steps = positive / step
            if np.abs(steps - np.round(steps)).max() < OFF_STEP:
                return float(step / 2)
    is_deep = positive.shape[0] > 0 and positive[0] < PROBA_FLOOR
    return SMALLEST if is_deep else PROBA_FLOOR
