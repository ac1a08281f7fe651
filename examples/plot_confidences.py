"""
Only confidences, and whether they were right
=============================================

Logs of a service often hold no more than how sure it was and whether it was right. That
is enough to measure, to test and to mend the confidence, though not the other classes.
"""

# %%
# What the log holds
# ------------------
#
# A network of ten classes, of which only the largest probability was kept.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax

from skcalib import IsotonicCalibration, PlattScaling, logits_from_proba
from skcalib.datasets import make_logits
from skcalib.metrics import (
    calibration_test,
    compare_calibration,
    expected_calibration_error,
)
from skcalib.plotting import ReliabilityDisplay

logits, y = make_logits(6000, 10, random_state=0)
proba = softmax(logits, axis=1)
confidence, right = proba.max(axis=1), proba.argmax(axis=1) == y
past, now = slice(0, 3000), slice(3000, None)

# %%
# Is it calibrated?
# -----------------
#
# ``pos_label="event"`` says that each number is the probability of an event and each
# label whether it happened: that the prediction was right. Without it 0.3 would be
# taken for 0.7 of the other of two classes.

event = {"pos_label": "event"}
error = expected_calibration_error(right[now], confidence[now], **event)
test = calibration_test(right[now], confidence[now], random_state=0, **event)
print(f"ECE {100 * error:.2f} %, p-value of calibration {test.pvalue:.3f}")

# %%
# Mended
# ------
#
# The log-odds of the confidence are the logits of two classes, wrong and right, and any
# calibrator of two classes takes them.

scores = logits_from_proba(np.column_stack([1 - confidence, confidence]))
served = {"as it was": confidence[now]}
for calibrator in (PlattScaling(), IsotonicCalibration()):
    fitted = calibrator.fit(scores[past], right[past])
    name = type(calibrator).__name__
    served[name] = fitted.predict_proba(scores[now])[:, 1]
    error = expected_calibration_error(right[now], served[name], **event)
    found = compare_calibration(
        right[now], served[name], confidence[now], random_state=0, **event
    )
    print(f"{name:20} ECE {100 * error:.2f} %, better with p = {found.pvalue:.3f}")

ReliabilityDisplay.compare(
    right[now],
    {name: served[name] for name in ("as it was", "PlattScaling")},
    pos_label="event",
    n_bins=10,
)
plt.show()
