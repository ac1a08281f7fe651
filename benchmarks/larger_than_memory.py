"""Temperature scaling of logits that do not fit in memory.

Writes float32 logits whose right temperature is known to a temporary file in
`--folder`, block by block, fits TemperatureScaling to the mapped file and removes it.
The peak of the resident memory while fitting, which counts pages of the file too, is to
stay below 500 MB. The temperature differs from the true one by chance, less with more
rows. Once it has been read, the file may stay in the system's cache: where it fits
there, the seconds are those of computing, not of the disk.

Needs Linux, disk space.
"""

import shutil
import sys
import tempfile
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

TEMPERATURE = 1.7
BLOCK_ELEMENTS = 2_000_000
LIMIT_MB = 500
TINY = {"gigabytes": 0.01}


def run(*, gigabytes=20.0, classes=1000, folder=""):
    folder = folder or tempfile.gettempdir()
    n_bytes = int(gigabytes * 1e9)
    n_rows = max(1, n_bytes // (4 * classes))
    free = shutil.disk_usage(folder).free
    if free < 1.1 * n_bytes:
        sys.exit(
            f"{folder} has {free / 1e9:.1f} GB free, "
            f"{1.1 * n_bytes / 1e9:.1f} GB are needed: choose --gigabytes or --folder"
        )
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / "logits.npy"
        y = write_logits(path, n_rows, classes)
        yield {"rows": n_rows, "classes": classes, "GB": n_bytes / 1e9, **fit(path, y)}


def fit(path, y):
    """Return what the fit found and took."""
    X = np.load(path, mmap_mode="r")
    only_fit = reset_peak_memory()
    (seconds,), (calibrator,) = in_turns([lambda: TemperatureScaling().fit(X, y)], 1)
    peak = resident_memory()[1] if only_fit else peak_memory_of_process()
    return {
        "temperature": calibrator.temperature_,
        "true": TEMPERATURE,
        "seconds": seconds[0],
        "GB a second": X.nbytes / 1e9 / seconds[0],
        "peak MB": peak / 1e6,
        "limit": "kept" if peak < LIMIT_MB * 1e6 else "NOT kept",
    }


def write_logits(path, n_rows, n_classes):
    """Write the logits and return the labels; every block has classes of its own."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, n_classes)}
    step = max(1, BLOCK_ELEMENTS // n_classes)
    y = np.empty(n_rows, dtype=np.int32)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for seed, start in enumerate(range(0, n_rows, step)):
            rows = slice(start, min(start + step, n_rows))
            block, y[rows] = make_logits(
                rows.stop - start,
                n_classes,
                temperature=TEMPERATURE,
                class_bias=0,
                noise=0,
                dtype=np.float32,
                random_state=seed,
            )
            block.tofile(file)
    return y
