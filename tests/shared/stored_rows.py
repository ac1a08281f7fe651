"""Rows put into a file of each kind, which is opened."""

import numpy as np
import pytest


def in_memmap(array, folder):
    np.save(folder / "a.npy", array)
    return np.load(folder / "a.npy", mmap_mode="r")


def in_hdf5(array, folder, chunks=None):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(folder / "a.h5", "w")
    return file.create_dataset("rows", data=array, chunks=chunks)


def in_zarr(array, folder, chunks=(70, 3)):
    zarr = pytest.importorskip("zarr")
    return zarr.create_array(folder / "a.zarr", data=array, chunks=chunks)


def in_parquet(array, folder, row_group_size=90):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = array.reshape(array.shape[0], -1).T.copy()
    table = pyarrow.table({f"c{k}": column for k, column in enumerate(columns)})
    parquet.write_table(table, folder / "a.parquet", row_group_size=row_group_size)
    return parquet.ParquetFile(folder / "a.parquet")
