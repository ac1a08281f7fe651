"""
Learning from careless labels, and knowing when to abstain
==========================================================

Four hundred labels were given carelessly, two hundred were checked.
`BilevelCalibratedClassifier <skcalib.training.BilevelCalibratedClassifier>` trains a
network on the careless ones and judges it by the checked ones: samples that make it
worse there lose their weight, and a confidence head learns how often it is right.

The control is training on the checked labels alone: two hundred right ones are enough
for this problem, and the weights gain nothing over them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import log_loss

from skcalib.datasets import make_spirals
from skcalib.metrics import risk_coverage_curve
from skcalib.plotting import ReliabilityDisplay
from skcalib.training import BilevelCalibratedClassifier

X, y, posterior = make_spirals(600, noise=0.12, return_posterior=True, random_state=0)
careless, checked = np.arange(400), np.arange(400, 600)
rng = np.random.default_rng(0)
wrong = careless[(y[careless] == 0) & (rng.uniform(size=400) < 0.5)]
labels = y.copy()
labels[wrong] = 1

classifier = BilevelCalibratedClassifier(cv=[(careless, checked)], random_state=0)
classifier.fit(X, labels)
unweighted = BilevelCalibratedClassifier(
    cv=[(careless, checked)], weight_lr=0, random_state=0
).fit(X, labels)

checked_only = BilevelCalibratedClassifier(weight_lr=0, random_state=0)
checked_only.fit(X[checked], y[checked])

X_test, y_test = make_spirals(2000, noise=0.12, random_state=1)
fits = {
    "weights learned": classifier,
    "all weights 1": unweighted,
    "checked labels alone": checked_only,
}
for title, fitted in fits.items():
    proba = fitted.predict_proba(X_test)
    accuracy, loss = np.mean(proba.argmax(axis=1) == y_test), log_loss(y_test, proba)
    print(f"{title:20}  accuracy {accuracy:.3f}, log-loss {loss:.3f}")

# %%
# Where the network trusts itself: the colour is the predicted class, and pale where the
# confidence is low. Dots are the careless labels, their size the learned weight: the
# wrong ones, in red on the blue arm, are hardly to be seen.

axis = np.linspace(-1.3, 1.3, 100)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
weights = classifier.sample_weights_[careless]

figure, panels = plt.subplots(
    ncols=2, figsize=(9, 4.2), layout="constrained", sharex=True, sharey=True
)
for panel, title in zip(panels, ["weights learned", "all weights 1"], strict=True):
    fitted = fits[title]
    second = fitted.predict_proba(grid)[:, 1].reshape(100, 100)
    image = panel.pcolormesh(axis, axis, second, cmap="coolwarm", vmin=0, vmax=1)
    panel.set(title=title, aspect="equal")
    sizes = 12 * fitted.sample_weights_[careless]
    dots = {"c": labels[careless], "cmap": "coolwarm", "edgecolors": "k"}
    panel.scatter(*X[careless].T, sizes, linewidths=0.4, **dots)
figure.colorbar(image, ax=panels, label="probability of the second class")

# %%
# The weights: wrong labels lose most of theirs, right ones some where the classes
# overlap. The group above 1.4 is the first class, which makes up for its lost labels.

own = posterior[careless, labels[careless]]
is_wrong = np.isin(careless, wrong)
groups = {
    "clear": ~is_wrong & (own > 0.9),
    "ambiguous": ~is_wrong & (own <= 0.9),
    "wrong label": is_wrong,
}
figure, panel = plt.subplots(figsize=(6, 3.5), layout="constrained")
panel.hist(
    [weights[rows] for rows in groups.values()],
    bins=np.linspace(0, 2, 21),
    stacked=True,
    label=list(groups),
)
panel.set(xlabel="learned weight", ylabel="samples")
panel.legend()

# %%
# Is the confidence right, and what is gained by abstaining below a threshold?

figure, (left, right) = plt.subplots(
    ncols=2, figsize=(9, 5.2), layout="constrained", width_ratios=[4, 5]
)
ReliabilityDisplay.from_estimator(classifier, X_test, y_test, n_bins=10, ax=left)
for title, fitted in fits.items():
    coverage, risk, _ = risk_coverage_curve(y_test, fitted.predict_proba(X_test))
    right.plot(coverage, risk, label=title)
right.set(xlabel="coverage", ylabel="risk: share of errors", ylim=(0, None))
right.legend()
plt.show()

# %%
# `predict` abstains where a threshold and a label for that are set.

classifier.set_params(reject_threshold=0.9, reject_label=-1)
found = classifier.predict(X_test)
answered = found != -1
right_when_answered = np.mean(found[answered] == y_test[answered])
print(f"answers {answered.mean():.0%} of the samples, {right_when_answered:.1%} right")
