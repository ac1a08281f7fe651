"""
Is it still calibrated?
=======================

A calibrated classifier is served, and after a while its inputs change. This example
watches it with :class:`~skcalib.monitoring.CalibrationMonitor`, which may be looked at
after every batch: the chance that it ever raises a false alarm is at most 5 %. When it
does raise one, the next calibrator is one call away.
"""

# %%
# What is served
# --------------
#
# Logits of a network with ten classes that is over-confident, as networks are, and a
# calibrator that puts it right.

import numpy as np

from skcalib import StructuredMatrixScaling
from skcalib.datasets import make_logits
from skcalib.metrics import expected_calibration_error
from skcalib.monitoring import CalibrationMonitor

logits, y = make_logits(14_000, 10, random_state=0)
served = StructuredMatrixScaling().fit(logits[:5000], y[:5000])
print(f"temperature {served.temperature_:.2f}")

# %%
# A month of traffic
# ------------------
#
# For 5,000 rows all is well. Then the logits grow by a half: the network is surer of
# itself, and right as often as before, so that its accuracy shows nothing. True classes
# come in batches of 100.
#
# No calibrator that was fitted on 5,000 rows is perfect, and without a tolerance a
# monitor will find that out some day. One percentage point is forgiven here.

traffic, labels = logits[5000:], y[5000:]
traffic[5000:] *= 1.5
monitor = CalibrationMonitor(served, tolerance=0.01, memory=4000)
for start in range(0, 9000, 100):
    rows = slice(start, start + 100)
    monitor.update(labels[rows], served.predict_proba(traffic[rows]))
print(monitor.report())

# %%
# What happened, and when
# -----------------------
#
# The wealth of one who bets against the model: while the model is calibrated it shrinks
# a little, and nobody can make it grow. After the change it grows at every batch, on a
# logarithmic scale by what recalibrating would save. On the right, reliability before
# the change and since, as far as the monitor remembers the rows.

axes = monitor.plot()

# %%
# The next calibrator
# -------------------
#
# It is fitted on the rows since the change that are remembered, and takes the same
# logits as the one that is served. It can be saved, or written into the ONNX model.
# New traffic shows what it is worth.

after = monitor.recalibrate()
fresh, fresh_labels = make_logits(20_000, 10, random_state=1)
for name, calibrator in {"served": served, "next": after}.items():
    proba = calibrator.predict_proba(1.5 * fresh)
    loss = -np.log(proba[np.arange(20_000), fresh_labels]).mean()
    ece = expected_calibration_error(fresh_labels, proba)
    print(f"{name}: ECE {100 * ece:.2f} %, log-loss {loss:.4f}")

# %%
# Many servers
# ------------
#
# Each keeps a monitor of its own, and sends its state as JSON. What they saw adds up:
# together they have the evidence that each of them lacks.

states = []
for server in range(4):
    rows = slice(5000 + 250 * server, 5250 + 250 * server)
    shard = CalibrationMonitor(served, tolerance=0.01, memory=250)
    shard.update(labels[rows], served.predict_proba(traffic[rows]))
    print(f"server {server}: evidence {shard.evidence_:.2f}, alarm: {shard.alarm_}")
    states.append(shard.to_dict())
together = CalibrationMonitor(served, tolerance=0.01, memory=250)
for state in states:
    together.merge(CalibrationMonitor.from_dict(state, served))
print(f"together: evidence {together.evidence_:.2f}, alarm: {together.alarm_}")
