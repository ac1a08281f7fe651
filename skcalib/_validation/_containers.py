"""What comes as an array, a data frame or a tensor: its values."""

import sys


def readable(values):
    """Return a torch tensor as an array without a copy, anything else as it is.

    It is cut off from its gradients; bfloat16, which NumPy lacks, becomes float32. A
    tensor on another device stays a tensor.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    values = values.detach()
    known = (torch.float16, torch.float32, torch.float64)
    if values.is_floating_point() and values.dtype not in known:
        values = values.float()
    return values.numpy() if values.device.type == "cpu" else values


def refuse_dates(values, name):
    """Refuse dates and durations, which NumPy would turn into numbers unasked."""
    for dtype in _types(values):
        if str(dtype).lower().startswith(("date", "time", "duration")):
            raise TypeError(
                f"{name} holds values of type {dtype}; it needs numbers. Leave dates "
                "and durations out."
            )


def _types(values):
    """Return the types of all columns; of nested lists that of the first entry."""
    while isinstance(values, (list, tuple)) and len(values) > 0:
        values = values[0]
    if hasattr(values, "dtype"):
        return [values.dtype]
    if hasattr(values, "dtypes"):
        return list(values.dtypes)
    if hasattr(values, "schema"):  # pyarrow
        return list(values.schema.types)
    return [type(values).__name__]
