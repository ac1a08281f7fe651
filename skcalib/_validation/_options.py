"""Logits of answer options, a different number in each row, as rows of one length."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData, is_stored
from skcalib._sklearn_compat import like_frame
from skcalib._validation._containers import column_on_host, is_dask, is_tensor

# The logit of an option that a row does not have: finite, so that it passes wherever
# logits do, of probability 0 at any temperature, and the same in every precision.
ABSENT = -(2.0**100)


def pad_options(
    X: Any, *, absent: float | None = None, n_options: int | None = None
) -> Any:
    """Bring logits of different numbers of options to rows of one length.

    Calibrators, `GroupCalibration` and all else that takes a row of logits a sample
    takes the result. An option that a row does not have is given the probability 0 by
    a softmax of scaled logits; by mixtures as of `CalibratorSearch` one that is small.

    Parameters
    ----------
    X : list of array-like, or array-like of shape (n_samples, n_options)
        A list of the logits of each row, or a column of such lists in pandas, polars or
        Arrow; or an array in which -inf, or the mask of a `numpy.ma.MaskedArray`, says
        that a row does not have the option.

    absent : float, default=None
        What takes the place of an option that a row does not have; by default -2**100,
        a logit whose probability is 0 at any temperature. Pass 0 where `X` holds
        probabilities.

    n_options : int, default=None
        Length of the rows, where `X` is a list; that of the longest by default.

    Returns
    -------
    rows : ndarray of shape (n_samples, n_options)
        The rows; `X` itself, where it is an array and has all options. A data frame or
        a tensor stays one.

    Raises
    ------
    ValueError
        If a row has fewer than two options, or the list holds other things than rows.

    See Also
    --------
    OptionCalibration : Takes all these layouts, and gives them back.

    Examples
    --------
    >>> from skcalib import pad_options
    >>> pad_options([[1.5, 0.5], [0.0, 2.0, 1.0]])
    array([[ 1.5000000e+00,  5.0000000e-01, -1.2676506e+30],
           [ 0.0000000e+00,  2.0000000e+00,  1.0000000e+00]])
    >>> pad_options([[0.7, 0.3], [0.1, 0.7, 0.2]], absent=0)
    array([[0.7, 0.3, 0. ],
           [0.1, 0.7, 0.2]])
    """
    absent = ABSENT if absent is None else absent
    if is_ragged(X):
        values = _pad_list(_as_objects(X), n_options)
        return _filled(values, _is_absent(values), absent)
    if is_tensor(X):
        return _pad_tensor(X, absent)
    if is_dask(X) or is_stored(X) or isinstance(X, np.memmap):
        return X  # Larger than memory, perhaps: padded by whoever wrote it.
    is_masked = isinstance(X, np.ma.MaskedArray)
    values = X.data if is_masked else _as_numbers(X)
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "fiu":
        return X
    is_absent = _is_absent(values)
    if is_masked:
        is_absent |= np.ma.getmaskarray(X)
    if not is_absent.any():
        return values if is_masked else X
    return like_frame(_filled(values, is_absent, absent), X)


def _pad_tensor(X: Any, absent: float) -> Any:
    is_absent = X.isneginf() | X.eq(ABSENT)
    if X.ndim != 2 or X.shape[1] < 2 or not is_absent.any():
        return X
    _refuse_few((~is_absent).sum(dim=1).cpu().numpy(), X)
    # Half precision does not reach as far as what stands for no option.
    wide = X.float() if X.itemsize == 2 else X
    return wide.masked_fill(is_absent, absent)


def is_ragged(X: Any) -> bool:
    """Whether this is a list of arrays, or of lists of different length."""
    X = _as_objects(X)  # Or a Series.
    if getattr(getattr(X, "dtype", None), "kind", None) == "O" and np.ndim(X) == 1:
        return any(np.ndim(row) for row in X)
    if not isinstance(X, (list, tuple)):
        return False
    if any(len(getattr(row, "shape", ())) > 0 for row in X):
        return True
    lengths = {len(row) if isinstance(row, (list, tuple)) else -1 for row in X}
    return len(lengths) > 1


def _as_objects(X: Any) -> Any:
    """Return lists of Arrow or polars as an array of arrays, others as they are."""
    if type(X).__module__.partition(".")[0] not in ("polars", "pyarrow"):
        return X
    kind = str(getattr(X, "dtype", getattr(X, "type", "")))
    return np.asarray(X) if "list" in kind.lower() else X


def _as_numbers(X: Any) -> NDArray[Any]:
    """Return an array, of numbers where a frame holds pandas' own kinds of them."""
    values = np.asarray(X)
    if values.dtype.kind != "O" or not hasattr(X, "iloc"):
        return values
    try:
        return np.asarray(X.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):  # Texts, say, which are refused by what takes X.
        return values


def _is_absent(values: NDArray[Any]) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):  # Half precision does not hold `ABSENT`.
        is_absent: NDArray[np.bool_] = np.isneginf(values) | (values == ABSENT)
    return is_absent


def like_options(values: Any, X: Any) -> Any:
    """Return what belongs to padded rows in the layout that these came in."""
    if is_ragged(X):
        return [row[: len(came)] for row, came in zip(values, X, strict=True)]
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.array(values, mask=np.ma.getmaskarray(X))
    return values


def check_answers(data: CalibrationData) -> None:
    """Refuse right answers that are no options of their rows."""
    n_wrong = int(data.sum(_count_absent))
    if not n_wrong:
        return
    where = ""
    if data.source.is_here:
        where = f", such as row {int(data.rows(_answer_is_absent).argmax())},"
    raise ValueError(
        f"The answer of {n_wrong} rows{where} is an option that the row does not have. "
        "y counts the options from 0; correct it, or leave such rows out."
    )


def _answer_is_absent(
    logits: NDArray[Any], codes: NDArray[np.intp], weight: NDArray[np.float64]
) -> NDArray[np.bool_]:
    own = np.take_along_axis(logits, codes[:, np.newaxis], axis=1)[:, 0]
    is_absent: NDArray[np.bool_] = (own == ABSENT) & (weight > 0)
    return is_absent


def _count_absent(
    logits: NDArray[Any], codes: NDArray[np.intp], weight: NDArray[np.float64]
) -> Any:
    return _answer_is_absent(logits, codes, weight).sum() * 1.0


def _pad_list(X: Any, n_options: int | None) -> NDArray[Any]:
    rows = [_as_row(number, row) for number, row in enumerate(X)]
    lengths = np.array([row.shape[0] for row in rows])
    longest = int(lengths.max())
    n_options = longest if n_options is None else n_options
    if longest > n_options:
        raise ValueError(
            f"Row {int(lengths.argmax())} has {longest} options, and those that were "
            f"fitted to have {n_options} at most. Name all that there may be when "
            f"fitting: classes=range({longest})."
        )
    values = np.concatenate(rows)
    padded = np.full((len(rows), n_options), ABSENT, values.dtype)
    padded[np.arange(n_options) < lengths[:, np.newaxis]] = values
    return padded


def _as_row(number: int, row: Any) -> NDArray[Any]:
    values = np.asarray(column_on_host(row))
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"Row {number} of the list has shape {values.shape} and dtype "
            f"{values.dtype}. Each row needs one number for each of its options."
        )
    is_single = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return values.astype(np.float32 if is_single else np.float64)


def _refuse_few(n_options: NDArray[np.intp], values: Any) -> None:
    """Refuse a row with fewer options than a question has."""
    if n_options.min() < 2:
        row = int((n_options < 2).argmax())
        raise ValueError(
            f"Row {row} has {n_options[row]} options: {values[row].tolist()}. A "
            "question needs two at least; leave out rows in which there is nothing to "
            "choose."
        )


def _filled(
    values: NDArray[Any], is_absent: NDArray[np.bool_], absent: float
) -> NDArray[Any]:
    """Return the rows with their absent options told in the way asked for."""
    _refuse_few((~is_absent).sum(axis=1), values)
    dtype = np.result_type(values.dtype, np.float32)
    filled: NDArray[Any] = np.where(is_absent, dtype.type(absent), values)
    return filled.astype(dtype, copy=False)
