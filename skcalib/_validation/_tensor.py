"""Checks of torch tensors, on the device where they lie."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor

from skcalib._blocks import lies_on_host
from skcalib._blocks._device_array import as_array
from skcalib._blocks._tensor import (
    HostTensorSource,
    TensorData,
    TensorSource,
    open_tensor,
)
from skcalib._validation._containers import is_tensor
from skcalib._validation._logits import (
    check_column_names,
    check_finite,
    encode_labels,
    name_of,
)
from skcalib._validation._weight import (
    check_weight,
    counted,
    refuse_negative,
    sensible_exponent,
)

# Apple's chips, and tensors that have a shape only.
WITHOUT_DOUBLE = ("mps", "meta")


def check_tensor_logits(
    estimator: Any, X: Tensor, *, reset: bool
) -> HostTensorSource | TensorSource:
    """Return the source of `X`, after its shape, type and values are checked."""
    name = name_of(estimator)
    if X.ndim not in (1, 2) or not X.numel() or X.is_complex():
        raise ValueError(
            f"X is a tensor of shape {tuple(X.shape)} and type {X.dtype}; {name} needs "
            "real numbers of shape (n_samples, n_classes), n_samples > 0."
        )
    if X.device.type in WITHOUT_DOUBLE:
        raise TypeError(
            f"X lies on {X.device}, which holds no numbers in double precision, and "
            f"{name} sums in it. Pass X.cpu()."
        )
    if X.layout != torch.strided:
        raise TypeError(f"X is a tensor of layout {X.layout}. Pass X.to_dense().")
    if name is not estimator:
        columns = np.empty((0, X.shape[1] if X.ndim == 2 else 1))
        # Sets or checks n_features_in_.
        validate_data(estimator, columns, reset=reset, skip_check_array=True)
        check_column_names(estimator, None, reset=reset)
    source = open_tensor(X)
    check_finite(source, name)
    return source


def check_tensor_set(
    estimator: Any,
    source: Any,
    y: Any,
    sample_weight: Any,
    classes: ArrayLike | None,
    is_part: bool,
) -> TensorData:
    """Validate labels and weights of logits on a device, and bring them there.

    Of those that are there already, only the distinct labels come to the host.
    """
    n_columns, device = source.shape[1], source.tensor.device
    if is_tensor(y) and not lies_on_host(y):
        present, code = torch.unique(_column(y, "y", device), return_inverse=True)
        classes_, columns = encode_labels(
            estimator, present.cpu().numpy(), n_columns, classes
        )
        codes = torch.from_numpy(columns).to(device)[code]
    else:
        classes_, columns = encode_labels(estimator, y, n_columns, classes)
        codes = torch.from_numpy(columns).to(device)
    weight = counted(_check_weight(sample_weight, codes), sample_weight, is_part)
    return TensorData(source, as_array(codes), weight, classes_)


def _column(values: Tensor, name: str, device: torch.device) -> Tensor:
    """Return labels or weights on a device as one column of it."""
    if values.device != device:
        raise ValueError(
            f"{name} lies on {values.device} and X on {device}. Pass both on one "
            f"device: {name}.to({str(device)!r})."
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"{name} should be a 1d tensor, got one of shape {tuple(values.shape)} "
            "instead."
        )
    return values.detach()


def _check_weight(sample_weight: Any, codes: Tensor) -> Any:
    """Return weights on the device, checked as by `check_weight`."""
    if not is_tensor(sample_weight) or lies_on_host(sample_weight):
        host: NDArray[np.float64] = check_weight(sample_weight, np.empty(len(codes)))
        return as_array(torch.from_numpy(host).to(codes.device))
    column = _column(sample_weight, "sample_weight", codes.device)
    check_consistent_length(codes, column)
    weight = column.to(torch.float64)
    bad = ~torch.isfinite(weight)
    if bad.any():
        row = int(bad.int().argmax())
        raise ValueError(f"sample_weight holds {float(weight[row])} in row {row}.")
    largest = float(weight.max())
    refuse_negative(as_array(weight))
    if not largest:
        raise ValueError("sample_weight is zero everywhere; no sample is left to fit.")
    return as_array(torch.ldexp(weight, torch.tensor(sensible_exponent(largest))))
