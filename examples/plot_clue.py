"""
The uncertainty of a network, against the truth
===============================================

Two spirals overlap near their common start. `CLUEClassifier
<skcalib.training.CLUEClassifier>` trains a network so that the entropy it states equals
the log-loss it makes. The data set knows the true probabilities, so the result can be
judged by the truth.
"""

import matplotlib.pyplot as plt
import numpy as np

from skcalib.datasets import make_spirals
from skcalib.training import CLUEClassifier

X, y = make_spirals(600, noise=0.12, random_state=0)
classifier = CLUEClassifier(
    hidden_layer_sizes=(64, 64), dropout=0.1, lr=0.01, max_epochs=60, random_state=0
)
classifier.fit(X, y)

# %%
# New samples of the same distribution: what the network says against the truth, and
# where in the plane it is uncertain. Far from the data it is sure of itself: entropy
# tells where classes overlap, not that an input is unlike all others.

X_test, _, posterior = make_spirals(
    1000, noise=0.12, return_posterior=True, random_state=1
)
proba = classifier.predict_proba(X_test)
print(f"mean distance to the truth: {np.abs(proba - posterior)[:, 1].mean():.3f}")

axis = np.linspace(-1.3, 1.3, 80)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
uncertainty = classifier.predict_uncertainty(grid.reshape(-1, 2)).reshape(80, 80)

figure, (left, right) = plt.subplots(ncols=2, figsize=(9, 4), layout="constrained")
image = left.pcolormesh(axis, axis, uncertainty, cmap="Greys", vmin=0, vmax=np.log(2))
left.scatter(*X.T, c=y, s=5, cmap="coolwarm")
left.set(title="uncertainty in nats", aspect="equal")
figure.colorbar(image, ax=left)
right.plot([0, 1], [0, 1], "k:")
right.scatter(posterior[:, 1], proba[:, 1], s=5)
right.set(xlabel="true probability", ylabel="predicted probability", aspect="equal")
plt.show()
