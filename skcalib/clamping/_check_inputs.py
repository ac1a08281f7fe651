"""What may be handed to an estimator as X, before the network sees it."""

import numpy as np
import torch
from scipy.sparse import issparse
from torch.utils.data import DataLoader, Dataset


def as_rows(estimator, X):
    """Return `X` as it is, or as an array of real numbers."""
    name = type(estimator).__name__
    if isinstance(X, torch.Tensor | Dataset | DataLoader):
        return X
    if issparse(X):
        raise TypeError(
            f"Sparse data was passed for X, but {name} needs dense data. Use "
            "'.toarray()' to convert it."
        )
    rows = X if isinstance(X, np.ndarray) else np.asarray(X)
    if rows.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: X has type {rows.dtype}.")
    if rows.dtype.kind not in "fiub":
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"X has type {rows.dtype}, which does not hold numbers: {error}. "
                f"{name} needs an array of numbers of shape (n_samples, ...)."
            ) from error
    if rows.ndim < 2:
        raise ValueError(
            f"Expected an array of at least two dimensions, got shape {rows.shape}. "
            "Reshape your data: the first axis counts samples, the others are the "
            "network's own."
        )
    if rows.shape[0] == 0 or rows.size == 0:
        lacking = "0 sample(s)" if rows.shape[0] == 0 else "0 feature(s)"
        raise ValueError(
            f"Found array with {lacking} (shape={rows.shape}) while a minimum of 1 is "
            f"required by {name}."
        )
    return rows
