"""
For every group
===============

A model that is calibrated on average may be over-confident for some and timid for
others. This example compares the groups of a test set, fits a
:class:`~skcalib.GroupCalibration`, and compares again.
"""

# %%
# Six devices
# -----------
#
# The same network runs on six devices, whose cameras make it more or less sure of
# itself. One device is rare, with 1 % of the rows.

import numpy as np
from matplotlib import pyplot as plt

from skcalib import GroupCalibration, StructuredMatrixScaling
from skcalib.datasets import make_logits
from skcalib.metrics import compare_groups

names = np.array(["A", "B", "C", "D", "E", "F"])
factors = np.array([1.0, 1.5, 0.8, 1.2, 2.0, 0.7])
rng = np.random.default_rng(0)
number = rng.choice(6, 16_000, p=[0.4, 0.2, 0.15, 0.14, 0.1, 0.01])
X, y = make_logits(16_000, 10, random_state=0)
X, device = X * factors[number, np.newaxis], names[number]
cal, test = slice(8000), slice(8000, None)

# %%
# One calibrator for all
# ----------------------
#
# Right on average, and wrong on each device: the gap of a group is its confidence minus
# its accuracy, and the intervals hold for all groups together.

whole = StructuredMatrixScaling(structure="vector").fit(X[cal], y[cal])
before = compare_groups(y[test], whole.predict_proba(X[test]), device[test])
print(before)

# %%
# A correction for each
# ---------------------
#
# As far as the rows of a device allow. Its factor is 1 where it is as the whole.

grouped = GroupCalibration(whole).fit(X[cal], y[cal], groups=device[cal])
print("strength of the penalty:", grouped.strength_)
for name, coef in zip(grouped.groups_, grouped.coef_[:, 0], strict=True):
    print(f"{name}: {coef:.2f}")
proba = grouped.predict_proba(X[test], groups=device[test])
after = compare_groups(y[test], proba, device[test])

# %%
# Before and after
# ----------------

figure, ax = plt.subplots(layout="constrained")
for found, shift, colour, label in (
    (before, -0.1, "#e69f00", "one calibrator for all"),
    (after, 0.1, "#0072b2", "corrected by device"),
):
    ax.errorbar(
        np.arange(6) + shift,
        100 * found.gap,
        100 * (found.high - found.gap),
        fmt="o",
        color=colour,
        label=label,
    )
ax.axhline(0, color="#333333", lw=1)
ax.set_xticks(range(6), before.groups)
ax.set(xlabel="device", ylabel="confidence minus accuracy, in percentage points")
ax.legend(loc="lower left")
