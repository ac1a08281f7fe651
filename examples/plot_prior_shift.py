"""
The base rate has moved
=======================

A classifier is trained and calibrated where one case in ten is positive, on data that
were under-sampled to be balanced, and then serves where it is one in three. Each time
an offset of the logits is all it takes, and :class:`~skcalib.PriorShift` finds it: from
known shares, or from rows without labels.
"""

# %%
# A problem with rare positives
# -----------------------------
#
# Two overlapping clouds of points, so that the true posterior is no secret: one case in
# ten is positive. The training set is balanced by dropping negatives, as is often done.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.ensemble import HistGradientBoostingClassifier

from skcalib import PriorShift
from skcalib.metrics import static_calibration_error
from skcalib.plotting import ReliabilityDisplay


def draw(n_rows, positive, rng):
    y = (rng.random(n_rows) < positive).astype(int)
    return rng.normal(size=(n_rows, 4)) + 0.6 * y[:, np.newaxis], y


rng = np.random.default_rng(0)
X_train, y_train = draw(40_000, 0.1, rng)
negatives = np.flatnonzero(y_train == 0)
balanced = np.r_[
    np.flatnonzero(y_train == 1),
    rng.choice(negatives, (y_train == 1).sum(), replace=False),
]
half = rng.random(balanced.size) < 0.5
train, cal = balanced[half], balanced[~half]
classifier = HistGradientBoostingClassifier(random_state=0)
classifier.fit(X_train[train], y_train[train])

# %%
# After under-sampling
# --------------------
#
# The calibration set is balanced as well, so that the calibrated probabilities are for
# equal shares: far too high for what comes. The true shares are known here.

X_cal, y_cal = classifier.decision_function(X_train[cal]), y_train[cal]
X_test, y_test = draw(20_000, 0.1, rng)
scores = classifier.decision_function(X_test)
sampled = PriorShift().fit(X_cal, y_cal)
corrected = PriorShift(priors={0: 0.9, 1: 0.1}).fit(X_cal, y_cal)
ReliabilityDisplay.compare(
    y_test,
    {
        "as sampled": sampled.predict_proba(scores),
        "corrected": corrected.predict_proba(scores),
    },
    class_=1,
)
for name, model in {"as sampled": sampled, "corrected": corrected}.items():
    error = static_calibration_error(y_test, model.predict_proba(scores))
    print(f"{name}: calibration error {100 * error:.2f} %")

# %%
# Where it is one in three
# ------------------------
#
# Of the new place nothing is known but rows without labels. The shares are estimated
# from 200, 1,000 and 5,000 of them; the intervals say how well.

estimated = PriorShift().fit(X_cal, y_cal)
figure, ax = plt.subplots(layout="constrained")
for n_rows in (200, 1000, 5000):
    seen, _ = draw(n_rows, 1 / 3, rng)
    estimated.update_priors(classifier.decision_function(seen))
    share = estimated.priors_[1]
    low, high = estimated.priors_interval_[:, 1]
    ax.errorbar(
        str(n_rows), share, [[share - low], [high - share]], fmt="o", color="#0072b2"
    )
    print(f"{n_rows:>5} rows: {share:.3f}, interval {low:.3f} to {high:.3f}")
ax.axhline(1 / 3, ls="--", color="#333333", label="true share")
ax.set(xlabel="unlabelled rows", ylabel="share of positives", ylim=(0, 1))
ax.legend()

# %%
# What it is worth there
# ----------------------

X_new, y_new = draw(20_000, 1 / 3, rng)
scores = classifier.decision_function(X_new)
for name, model in {"as sampled": sampled, "estimated": estimated}.items():
    proba = model.predict_proba(scores)
    loss = -np.log(proba[np.arange(y_new.size), y_new]).mean()
    print(
        f"{name}: log-loss {loss:.4f}, accuracy {(proba.argmax(1) == y_new).mean():.3f}"
    )
