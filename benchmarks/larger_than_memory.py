"""Temperature scaling and metrics of rows that do not fit in memory.

Writes float32 logits whose right temperature is known to temporary files in `--folder`,
block by block, in each of `--formats`: npy, a NumPy file that is mapped, hdf5, zarr and
parquet. Fits TemperatureScaling to each and removes it. The calibrated probabilities of
the mapped file go to another, which the metrics read: the ECE, the SCE, the report
without intervals, and CalibrationAccumulator.

The peak of the resident memory, which counts pages of the files too, is to stay below
500 MB, of which the imports take about 300, and what metrics keep of each row: up to
150 bytes. The temperature differs from the true one by chance, less with more rows.
Once it has been read, a file may stay in the system's cache: where it fits there, the
seconds are those of computing, not of the disk.

Needs Linux, disk space; h5py, zarr or pyarrow for their formats.
"""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks._measure import (
    in_turns,
    peak_memory_of_process,
    reset_peak_memory,
    resident_memory,
)
from skcalib import TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    expected_calibration_error,
    static_calibration_error,
)

TEMPERATURE = 1.7
BLOCK_ELEMENTS = 2_000_000
LIMIT_MB = 500
BYTES_A_ROW = 150
TINY = {"gigabytes": 0.01}


def run(*, gigabytes=20.0, classes=1000, folder="", formats="npy"):
    folder = folder or tempfile.gettempdir()
    n_bytes = int(gigabytes * 1e9)
    n_rows = max(1, n_bytes // (4 * classes))
    free = shutil.disk_usage(folder).free
    if free < 2.2 * n_bytes:
        sys.exit(
            f"{folder} has {free / 1e9:.1f} GB free, "
            f"{2.2 * n_bytes / 1e9:.1f} GB are needed: choose --gigabytes or --folder"
        )
    for name in formats.split(","):
        with tempfile.TemporaryDirectory(dir=folder) as own:
            about = {"file": name, "rows": n_rows, "classes": classes}
            X, y = WRITERS[name](Path(own), n_rows, classes)
            for task in (
                fit,
                *((ece, sce, report, accumulate) if name == "npy" else ()),
            ):
                if task is ece:
                    X = in_another_file(Path(own), X, y)
                yield {**about, "GB": n_bytes / 1e9, **measured(task, X, y, n_bytes)}


def measured(task, X, y, n_bytes):
    """Return what a task found and took."""
    only_task = reset_peak_memory()
    (seconds,), (found,) = in_turns([partial(task, X, y)], 1)
    peak = resident_memory()[1] if only_task else peak_memory_of_process()
    limit = LIMIT_MB * 1e6 + BYTES_A_ROW * len(y)
    return {
        "task": task.__name__,
        "found": found,
        "seconds": seconds[0],
        "GB a second": n_bytes / 1e9 / seconds[0],
        "peak MB": peak / 1e6,
        "limit": "kept" if peak < limit else "NOT kept",
    }


def fit(X, y):
    """Return the temperature, which is to be near TEMPERATURE."""
    return TemperatureScaling().fit(X, y).temperature_


def ece(proba, y):
    return expected_calibration_error(y, proba)


def sce(proba, y):
    return static_calibration_error(y, proba)


def report(proba, y):
    return calibration_report(y, proba, n_bootstrap=0)["ece"].value


def accumulate(proba, y):
    return CalibrationAccumulator().update(y, proba).compute()["ece"]


def in_another_file(folder, X, y):
    """Write probabilities of the logits and return them mapped."""
    path = folder / "proba.npy"
    out = np.lib.format.open_memmap(path, "w+", np.float32, X.shape)
    TemperatureScaling().fit(X, y).predict_proba(X, out=out)
    out.flush()
    return np.load(path, mmap_mode="r")


def in_npy(folder, n_rows, n_classes):
    """Return logits in a mapped file, and labels."""
    path = folder / "logits.npy"
    y = write_logits(path, n_rows, n_classes)
    return np.load(path, mmap_mode="r"), y


def in_hdf5(folder, n_rows, n_classes):
    import h5py

    file = h5py.File(folder / "logits.h5", "w")
    dataset = file.create_dataset("logits", (n_rows, n_classes), "f4", chunks=True)
    return dataset, fill(dataset)


def in_zarr(folder, n_rows, n_classes):
    import zarr

    array = zarr.create_array(folder / "a.zarr", shape=(n_rows, n_classes), dtype="f4")
    return array, fill(array)


def in_parquet(folder, n_rows, n_classes):
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(f"c{k}", pyarrow.float32()) for k in range(n_classes)])
    y = np.empty(n_rows, dtype=np.int32)
    with parquet.ParquetWriter(folder / "logits.parquet", schema) as writer:
        for rows, block, codes in blocks(n_rows, n_classes):
            writer.write_table(pyarrow.table(list(block.T), schema=schema))
            y[rows] = codes
    return parquet.ParquetFile(folder / "logits.parquet"), y


def fill(target):
    """Write logits into rows of a dataset; return labels."""
    y = np.empty(target.shape[0], dtype=np.int32)
    for rows, block, codes in blocks(*target.shape):
        target[rows], y[rows] = block, codes
    return y


def write_logits(path, n_rows, n_classes):
    """Write the logits to a NumPy file and return the labels."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, n_classes)}
    y = np.empty(n_rows, dtype=np.int32)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows, block, codes in blocks(n_rows, n_classes):
            block.tofile(file)
            y[rows] = codes
    return y


def blocks(n_rows, n_classes):
    """Yield slices of rows, logits, labels; every block has classes of its own."""
    step = max(1, BLOCK_ELEMENTS // n_classes)
    for seed, start in enumerate(range(0, n_rows, step)):
        rows = slice(start, min(start + step, n_rows))
        logits, y = make_logits(
            rows.stop - start,
            n_classes,
            temperature=TEMPERATURE,
            class_bias=0,
            noise=0,
            dtype=np.float32,
            random_state=seed,
        )
        yield rows, logits, y


WRITERS = {"npy": in_npy, "hdf5": in_hdf5, "zarr": in_zarr, "parquet": in_parquet}
