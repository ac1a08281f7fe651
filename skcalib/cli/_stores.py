"""Arrays in HDF5 files and in Zarr folders, which stay there if they are large."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._optional import import_optional
from skcalib.cli._rows import Request, Rows, in_memory, take


def read_hdf5(path: Path, request: Request) -> Rows:
    """Read datasets of an HDF5 file, which is closed with the last of them."""
    h5py = import_optional("h5py", f"Reading {path.suffix} files")
    datasets: dict[str, Any] = {}

    def keep(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            text = h5py.check_string_dtype(node.dtype) is not None
            datasets[name] = node.asstr() if text else node

    file = h5py.File(path, "r")
    file.visititems(keep)
    return _read_store(path, datasets, request)


def read_zarr(path: Path, request: Request) -> Rows:
    """Read a Zarr array, or arrays of a Zarr group; Zarr refuses those of objects."""
    zarr = import_optional("zarr", "Reading .zarr folders")
    root = zarr.open(path, mode="r")
    if isinstance(root, zarr.Array):
        arrays = {path.stem: root}
    else:
        arrays = {k: v for k, v in root.members(None) if isinstance(v, zarr.Array)}
    return _read_store(path, arrays, request)


def _read_store(path: Path, arrays: dict[str, Any], request: Request) -> Rows:
    held = {name: f"{a.dtype}, shape {a.shape}" for name, a in arrays.items()}
    whole = request.role in ("labels", "inputs")
    return take(
        path,
        held,
        request,
        lambda name: _whole(arrays[name]) if whole else in_memory(arrays[name]),
        lambda name: _whole(arrays[name]),
    )


def _whole(array: Any) -> NDArray[Any]:
    values: NDArray[Any] = np.asarray(array[:])
    return values.astype(str) if values.dtype.kind in "OT" else values
