"""What a fit takes as rows grow: in memory, in a mapped file, in Dask's processes.

Fits TemperatureScaling to float32 logits of `--rows` rows, in a temporary file in
`--folder`, once for each engine. A pass is one look at all rows: the check for NaN and
each step of the solver; Dask takes a sample as well, and starts its workers beforehand.
"one read" is a sum over the same rows by the same engine, so the fastest a pass can be;
"one exp" adds the exponential of each number, which every step of the solver needs.
Seconds are those of the processors, of all processes together, which what else the
machine does hardly changes; "wall" are those on the clock. "peak MB" is how much the
resident memory of the process, or of a worker, rises above what it was before the fit.
The file may lie in the system's cache. Workers keep a little freed memory, as the
documentation of clusters advises, but those of "dask 1 trim" do not; that takes a run
of its own, since a nanny leaves its settings in the environment of the process.

Needs Linux, disk space, the `dask` extra.
"""

import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

from benchmarks._measure import in_turns, reset_peak_memory, resident_memory
from benchmarks._tables import Table
from benchmarks.larger_than_memory import write_logits
from skcalib import TemperatureScaling
from skcalib._blocks import open_source
from skcalib._blocks._dask import DaskSource

# Numbers a chunk holds: 16 MB.
CHUNK_ELEMENTS = 1 << 22
# Else the memory of each block's temporaries goes back to the system, and comes anew.
KEEP_FREED = {
    f"distributed.nanny.pre-spawn-environ.MALLOC_{name}_THRESHOLD_": 1 << 22
    for name in ("MMAP", "TRIM")
}
ENGINES = ("memory", "memmap", "dask 1", "dask 2")
CHOICES = {"engines": (*ENGINES, "dask 1 trim")}
TINY = {"rows": (20_000,), "engines": ("memory", "memmap", "dask 1")}


def run(
    *, rows=(100_000, 1_000_000, 4_000_000), classes=10, engines=ENGINES, folder=""
):
    for n_rows in rows:
        with tempfile.TemporaryDirectory(dir=folder or None) as own:
            path = Path(own) / "logits.npy"
            y = write_logits(path, n_rows, classes)
            for engine in engines:
                yield {
                    "engine": engine,
                    "rows": n_rows,
                    "classes": classes,
                    **measured(engine, path, y),
                }


def measured(engine, path, y):
    """Return what the fit took, and what one read of the rows takes."""
    with opened(engine, path, y) as (X, labels, source, everywhere):
        functions = [
            lambda: source.sum(sum_of_block),
            lambda: source.sum(sum_of_exp),
            lambda: TemperatureScaling().fit(X, labels),
        ]
        # Once for what is imported and started on the way.
        functions[0](), TemperatureScaling().fit(X[:1000], labels[:1000])
        (of_read, of_exp, of_fit), (*_, scaling) = in_turns(
            functions, 2, clock=lambda: sum(everywhere(time.process_time))
        )
        everywhere(fresh_peak)  # Forgets those of before.
        before = everywhere(fresh_peak)
        start = time.perf_counter()
        functions[-1]()
        wall = time.perf_counter() - start
        after = everywhere(fresh_peak)
    rises = np.subtract(after, before)[1 if source.is_remote else 0 :]
    passes = scaling.n_iter_ + (2 if source.is_remote else 1)
    n_bytes = 4 * X.shape[0] * X.shape[1]
    return {
        "wall": wall,
        "seconds": of_fit.min(),
        "passes": passes,
        "GB read": passes * n_bytes / 1e9,
        "a pass": of_fit.min() / passes,
        "one read": of_read.min(),
        "one exp": of_exp.min(),
        "ratio": of_fit.min() / passes / of_read.min(),
        "to exp": of_fit.min() / passes / of_exp.min(),
        "peak MB": rises.max() / 1e6,
    }


def sum_of_block(block, *_):
    return float(block.sum(dtype=np.float64))


def sum_of_exp(block, *_):
    return float(np.exp(block).sum(dtype=np.float64))


@contextmanager
def opened(engine, path, y):
    """Yield rows, labels, their source, and what calls a function in all processes."""
    X = np.load(path, mmap_mode="r")
    if not engine.startswith("dask"):
        X = np.array(X) if engine == "memory" else X
        yield X, y, open_source(X), lambda function: [function()]
        return
    n_workers = int(engine.split()[1])
    settings = {} if engine.endswith("trim") else KEEP_FREED
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        rows = chunked(path, X.shape)
        labels = da.from_array(y, chunks=rows.chunks[:1]).persist()

        def everywhere(function):
            return [function(), *client.run(function).values()]

        yield rows, labels, DaskSource(rows), everywhere


def chunked(path, shape):
    """Return a lazy array whose chunks are read from the file by the workers."""
    step = max(1, CHUNK_ELEMENTS // shape[1])
    sizes = tuple(min(step, shape[0] - i) for i in range(0, shape[0], step))
    return da.map_blocks(
        partial(read_chunk, str(path), step),
        chunks=(sizes, shape[1:]),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )


def read_chunk(path, step, block_info=None):
    number = block_info[None]["chunk-location"][0]
    rows = np.load(path, mmap_mode="r")[number * step : (number + 1) * step]
    return np.array(rows)


def fresh_peak():
    """Return the peak since the last call, and start it anew."""
    peak = resident_memory()[1]
    reset_peak_memory()
    return peak


def fits(rows):
    names = [
        "engine",
        "rows",
        "classes",
        "seconds",
        "passes",
        "ms a pass",
        "ms one read",
        "ms one exp",
        "peak MB",
    ]
    return Table(
        names,
        [
            [
                r["engine"],
                f"{r['rows']:,}",
                r["classes"],
                f"{r['seconds']:.2f}",
                r["passes"],
                f"{1000 * r['a pass']:.0f}",
                f"{1000 * r['one read']:.0f}",
                f"{1000 * r['one exp']:.0f}",
                f"{r['peak MB']:.0f}",
            ]
            for r in rows
        ],
    )


def cluster(rows):
    """What a billion rows of a thousand classes would take, from the widest fits."""
    lines = []
    for engine in dict.fromkeys(row["engine"] for row in rows):
        own = [row for row in rows if row["engine"] == engine]
        last = max(own, key=lambda row: (row["classes"], row["rows"]))
        n_numbers = last["rows"] * last["classes"]
        core_hours = last["seconds"] * 1e12 / n_numbers / 3600
        lines.append(
            [
                engine,
                f"{1e9 * last['a pass'] / n_numbers:.2f}",
                f"{core_hours:.1f}",
                f"{3600 * core_hours / 100:.0f}",
            ]
        )
    names = ["engine", "ns a number and pass", "core hours", "seconds on 100 cores"]
    return Table(names, lines)


TABLES = {"fits": fits, "cluster": cluster}
