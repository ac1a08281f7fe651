"""Temperature scaling of logits that do not fit in memory.

Writes float32 logits whose right temperature is known to a temporary .npy file, block
by block, fits TemperatureScaling to the mapped file, and prints the temperature, the
seconds and the peak of the resident memory, which is to stay below 500 MB. The file is
removed afterwards.

Usage: python benchmarks/larger_than_memory.py [--gigabytes 20] [--classes 1000]
       [--folder <on the disk to use>]
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import peak_memory_of_process, reset_peak_memory, resident_memory

from skcalib import TemperatureScaling
from skcalib.datasets import make_logits

TEMPERATURE = 1.7
BLOCK_ELEMENTS = 2_000_000
LIMIT_MB = 500


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
            show_progress(rows, n_rows)
    return y


def show_progress(rows, n_rows):
    tenths = 10 * rows.stop // n_rows
    if tenths > 10 * rows.start // n_rows:
        print(f"{10 * tenths} % written", file=sys.stderr, flush=True)


def fit(path, y):
    """Fit and print what is asked for."""
    X = np.load(path, mmap_mode="r")
    only_fit = reset_peak_memory()
    start = time.perf_counter()
    calibrator = TemperatureScaling().fit(X, y)
    seconds = time.perf_counter() - start
    learned = calibrator.temperature_
    off = 100 * (learned / TEMPERATURE - 1)
    print(f"temperature {learned:.6f}, true {TEMPERATURE} ({off:+.3f} %)")
    print(f"fit {seconds:.1f} s, {X.nbytes / 1e9 / seconds:.2f} GB of logits a second")
    if only_fit:
        print_peak("while fitting", resident_memory()[1])


def print_peak(when, n_bytes):
    verdict = "below" if n_bytes < LIMIT_MB * 1e6 else "NOT below"
    print(f"peak memory {when} {n_bytes / 1e6:.0f} MB: {verdict} {LIMIT_MB} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    n_bytes = int(arguments.gigabytes * 1e9)
    n_rows = max(1, n_bytes // (4 * arguments.classes))
    free = shutil.disk_usage(arguments.folder).free
    if free < 1.1 * n_bytes:
        sys.exit(
            f"{arguments.folder} has {free / 1e9:.1f} GB free, "
            f"{1.1 * n_bytes / 1e9:.1f} GB are needed: choose --gigabytes or --folder"
        )
    print(f"{n_rows:,} x {arguments.classes:,} float32, {n_bytes / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "logits.npy"
        y = write_logits(path, n_rows, arguments.classes)
        fit(path, y)
    print_peak("of the whole process, writing included,", peak_memory_of_process())


if __name__ == "__main__":
    main()
