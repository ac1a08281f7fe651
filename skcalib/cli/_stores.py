"""Arrays in HDF5 files and Zarr folders, which stay there if large, and tensors."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._optional import import_optional
from skcalib.cli._errors import DataError
from skcalib.cli._rows import OF_A_ROW, Request, Rows, in_memory, take


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


def read_torch(path: Path, request: Request) -> Rows:
    """Read a tensor, or a dict of tensors by name; nothing else is unpickled."""
    torch = import_optional("torch", f"Reading {path.suffix} files")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is damaged, or holds more than tensors. Nothing else is unpickled,"
            " as that could run code: save a tensor, or a dict of tensors by name."
        ) from error
    named = held if isinstance(held, dict) else {path.stem: held}
    return _read_store(
        path,
        {
            str(name): tensor.detach().float().numpy()
            if tensor.dtype == torch.bfloat16
            else tensor.detach().numpy()
            for name, tensor in named.items()
            if isinstance(tensor, torch.Tensor)
        },
        request,
    )


def read_safetensors(path: Path, request: Request) -> Rows:
    """Read tensors by name."""
    numpy = import_optional("safetensors.numpy", f"Reading {path.suffix} files")
    return _read_store(path, numpy.load_file(path), request)


def _read_store(path: Path, arrays: dict[str, Any], request: Request) -> Rows:
    held = {name: f"{a.dtype}, shape {a.shape}" for name, a in arrays.items()}
    whole = request.role in (*OF_A_ROW, "inputs")
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
