"""Seconds and memory of a process, and intervals over seeds."""

import ctypes
import math
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from benchmarks._tables import Table

# A run that takes as long is not repeated.
LONG = 20.0


def say(text):
    """Progress, and what is left out, beside the results."""
    print(text, file=sys.stderr, flush=True)


def in_turns(functions, repeats, clock=time.perf_counter):
    """Return for each function its seconds, run by run, and its last result.

    They take turns, so that what else the machine does hits all alike.
    """
    seconds, results = [[] for _ in functions], [None] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            if not seconds[i] or seconds[i][0] < LONG:
                start = clock()
                results[i] = function()
                seconds[i].append(clock() - start)
    return [np.array(times) for times in seconds], results


def interval(values):
    """Mean and half-width of its 95 % interval, by Student's t over the seeds."""
    n = len(values)
    if n < 2:
        return np.mean(values), np.nan
    half = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return np.mean(values), half


def over_seeds(rows, digits, title="", minus=None):
    """A line a method: mean ± half of its 95 % interval over the seeds, by column.

    With `minus`, of the differences to that method, seed by seed.
    """
    methods = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    lines = []
    for method, runs in methods.items():
        cells = []
        for column, places in digits.items():
            values = [run[column] for run in runs]
            if minus:
                others = [run[column] for run in methods[minus]]
                values = np.subtract(values, others)
            mean, half = interval(values)
            sign = "+" if minus else ""
            cells.append(f"{mean:{sign}.{places}f} ± {half:.{places}f}")
        lines.append([method, *cells])
    return Table(["method", *digits], lines, title)


def normalise(q):
    """Rows that sum to one; the floor keeps log-losses finite where there are zeros."""
    q = np.maximum(q, 1e-15)
    return q / q.sum(axis=1, keepdims=True)


def reset_peak_memory():
    """Give freed memory back and start the peak anew; tell whether that worked."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError, TypeError):  # no Linux
        return False
    return True


def resident_memory():
    """Bytes of memory the process holds now, and its peak since the last reset.

    NaN where there is no file system that tells.
    """
    told = Path("/proc/self/status")
    if not told.exists():
        return math.nan, math.nan
    status = told.read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status if ":" in line)
    return tuple(1024 * int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM"))


def peak_memory_of_process():
    """Bytes of memory at the highest, as the operating system reports them.

    NaN on Windows.
    """
    try:
        import resource
    except ImportError:
        return math.nan
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
