"""The group of each row, such as a market or a device."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skcalib._validation._containers import readable


def check_groups(groups: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Return the group of each row as an array."""
    array = np.asarray(readable(groups))
    if array.shape != (n_rows,):
        raise ValueError(
            f"groups has shape {array.shape}; it needs one entry for each of the "
            f"{n_rows} rows."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int((~np.isfinite(array)).argmax())
        raise ValueError(f"groups holds {array[row]} in row {row}; it needs names.")
    if array.dtype.kind == "O":
        try:
            # Twice, so that one alone is compared as well.
            sorted([*set(array.tolist())] * 2)
        except TypeError as error:
            kinds = sorted({type(name).__name__ for name in array.tolist()})
            raise TypeError(
                f"groups holds entries of the types {', '.join(kinds)}, which have no "
                "order. Give every group a name of one type, such as str."
            ) from error
    return array
