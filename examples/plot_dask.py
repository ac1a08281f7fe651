"""
Calibrate where the rows lie: a Dask cluster
============================================

The logits of a large validation set lie in many files, or on many machines. This
example starts a small cluster of two processes, fits calibrators to a Dask array that
is never in one place, and draws reliability diagrams of probabilities that stay lazy.
"""

# %%
# A cluster, and rows that its workers make
# -----------------------------------------
#
# ``dask.array.from_zarr`` or ``dask.dataframe.read_parquet`` would read chunks of
# files; here each worker draws its own. A chunk holds 30,000 rows of logits of ten
# classes, over-confident by a factor of two. They fit into the memory of the workers,
# which keep them; else every pass would make them anew.

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client, SubprocessCluster

from skcalib import IsotonicCalibration, TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.metrics import CalibrationAccumulator, expected_calibration_error
from skcalib.plotting import ReliabilityDisplay

N_CHUNKS, ROWS, CLASSES = 6, 30_000, 10


def draw(block_info=None):
    """Draw a chunk of logits, with the labels in a last column."""
    number = block_info[None]["chunk-location"][0]
    logits, y = make_logits(ROWS, CLASSES, temperature=2.0, random_state=number)
    return np.column_stack([logits, y])


cluster = SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
client = Client(cluster)
chunks = ((ROWS,) * N_CHUNKS, (CLASSES + 1,))
rows = da.map_blocks(draw, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
X, y = client.persist([rows[:, :CLASSES], rows[:, CLASSES].astype(int)])
print(X)

# %%
# Fit
# ---
#
# The solver runs here; each of its steps is one graph, whose sums the workers compute
# on the chunks that they hold. What comes back is as large as the parameters. A first
# pass looks for NaN and for the classes, before anything is fitted.

X_fit, y_fit = X[: 3 * ROWS], y[: 3 * ROWS]
calibrators = {
    "temperature": TemperatureScaling(),
    "isotonic": IsotonicCalibration(),
}
for calibrator in calibrators.values():
    calibrator.fit(X_fit, y_fit)
print(f"temperature: {calibrators['temperature'].temperature_:.4f}")

# %%
# Predict
# -------
#
# Predictions are lazy and have the chunks of the logits: write them with ``to_zarr``,
# or go on computing. The fitted calibrators are the usual ones; they save, export to
# ONNX and predict on arrays in memory.

X_test, y_test = X[3 * ROWS :], y[3 * ROWS :]
proba = calibrators["temperature"].predict_proba(X_test)
print(proba)

# %%
# Judge
# -----
#
# Metrics that are functions of sums take Dask arrays as they are. An accumulator has
# many of them, and what a diagram shows, from one pass.

for name, calibrator in calibrators.items():
    error = expected_calibration_error(y_test, calibrator.predict_proba(X_test))
    print(f"{name:12} ECE {error:.4f}")

# %%

before = (da.exp(X_test) / da.exp(X_test).sum(axis=1, keepdims=True)).rechunk({1: -1})
fig, axes = plt.subplots(1, 2, figsize=(9, 5), layout="constrained")
for ax, title, predicted in zip(
    axes, ["as they came", "temperature"], [before, proba], strict=True
):
    accumulator = CalibrationAccumulator(n_bins=10).update(y_test, predicted)
    ReliabilityDisplay.from_accumulator(accumulator, name=title, ax=ax)

# %%
# Nothing depended on the number of workers: the same chunks give the same bits.

client.close()
cluster.close()
