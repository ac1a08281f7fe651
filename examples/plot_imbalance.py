"""
A rare class, and a forest that was told to mind it
===================================================

With ``class_weight="balanced"`` a forest learns from a world in which the classes are
equally frequent, and its probabilities are of that world. This example counts what that
does to a class that is rare, and sets it right with the same weights left in place.
"""

# %%
# A forest with balanced weights
# ------------------------------
#
# Three rows in a hundred are positive. The forest finds them, and says "positive" with
# far too high a probability.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skcalib import CalibratedClassifier, CalibratorSearch, TemperatureScaling
from skcalib.metrics import static_calibration_error
from skcalib.plotting import ReliabilityDisplay

X, y = make_classification(
    8000, n_informative=6, weights=[0.97], flip_y=0.01, class_sep=0.7, random_state=0
)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
forest = RandomForestClassifier(
    50, class_weight="balanced", min_samples_leaf=10, random_state=0
)
forest.fit(X_train, y_train)
print(f"positive rows            {y_test.mean():.3f}")
print(f"mean P(positive), forest {forest.predict_proba(X_test)[:, 1].mean():.3f}")

# %%
# Calibrated by cross-fitting
# ---------------------------
#
# One temperature has no number for a base rate, so it cannot mend this: it is for
# classifiers that are too sure of all classes alike.
# :class:`~skcalib.model_selection.CalibratorSearch` tries curves for each class, too.
# Nothing has to be said of the weights: the folds have the true base rate.

models = {
    "forest": forest,
    "temperature": CalibratedClassifier(forest, TemperatureScaling()),
    "search": CalibratedClassifier(forest, CalibratorSearch()),
}
probas = {}
for name, model in models.items():
    if name != "forest":
        model.fit(X_train, y_train)
    probas[name] = model.predict_proba(X_test)[:, 1]
    print(
        f"{name:12} mean P {probas[name].mean():.3f}"
        f"  log-loss {log_loss(y_test, probas[name]):.4f}"
        f"  error {100 * static_calibration_error(y_test, probas[name]):.2f} %"
    )

# %%
# The probability of the rare class
# ---------------------------------
#
# ``class_=1`` draws the probability of the class that matters instead of that of the
# predicted one, which is nearly always the other.

ReliabilityDisplay.compare(
    y_test, {name: probas[name] for name in ("forest", "search")}, class_=1, n_bins=10
)
plt.show()

# %%
# What it is good for
# -------------------
#
# A threshold that follows from costs: where a missed positive costs twenty times a
# false alarm, everything above 1/21 is worth a look. With probabilities that mean what
# they say this cut is right; with those of the forest most rows are above it.

for name in ("forest", "search"):
    alarms = probas[name] > 1 / 21
    cost = 20 * np.mean(~alarms & (y_test == 1)) + np.mean(alarms & (y_test == 0))
    print(f"{name:12} alarms {alarms.mean():.3f}  cost a row {cost:.3f}")
