"""
A text model with named inputs
==============================

Models of the transformers library take ``input_ids`` and ``attention_mask`` by name
and return an object that has ``logits``. This example makes and trains a small model of
that kind, so that nothing is downloaded; a real one goes in its place.
"""

# %%
# A model that takes batches as dicts
# -----------------------------------
#
# Sentences of made-up words, some of which speak for a class. The model is trained for
# too long on too few, and becomes too sure.

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from skcalib import StructuredMatrixScaling, TemperatureScaling
from skcalib.export import to_torch
from skcalib.frozen import TorchLogits
from skcalib.metrics import calibration_report
from skcalib.plotting import ReliabilityDisplay

WORDS, LENGTH, CLASSES = 300, 16, 4


class TextModel(nn.Module):
    """The mean of the words' embeddings, and a layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 32)
        self.classifier = nn.Linear(32, CLASSES)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1)
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=self.classifier(mean))


def draw_batch(n, seed):
    """Draw sentences of different lengths, and what each is about."""
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=n)
    ids = rng.integers(CLASSES * 5, WORDS, size=(n, LENGTH))
    topic = rng.random((n, LENGTH)) < 0.12
    noisy = np.where(
        rng.random((n, LENGTH)) < 0.25, rng.integers(CLASSES, size=(n, 1)), y[:, None]
    )
    ids[topic] = (noisy * 5 + rng.integers(5, size=(n, LENGTH)))[topic]
    mask = np.arange(LENGTH) < rng.integers(6, LENGTH + 1, size=(n, 1))
    batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    return {name: torch.from_numpy(part) for name, part in batch.items()}, y


torch.manual_seed(0)
model = TextModel()
batch, y = draw_batch(600, seed=1)
optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
for _ in range(150):
    optimiser.zero_grad()
    nn.functional.cross_entropy(model(**batch).logits, torch.from_numpy(y)).backward()
    optimiser.step()
model = model.eval()

# %%
# Its logits
# ----------
#
# :class:`~skcalib.frozen.TorchLogits` passes a dict by name, in batches, and finds
# ``logits`` in what comes back. A ``DataLoader`` of such dicts does as well.

X_calibration, y_calibration = draw_batch(1000, seed=2)
X_test, y_test = draw_batch(2000, seed=3)
frozen = TorchLogits(model).fit(X_calibration)
logits, test_logits = frozen.transform(X_calibration), frozen.transform(X_test)

# %%
# Calibrated
# ----------

fitted = {
    "temperature": TemperatureScaling().fit(logits, y_calibration),
    "structured matrix": StructuredMatrixScaling().fit(logits, y_calibration),
}
probas = {"as it comes": torch.from_numpy(test_logits).softmax(1).numpy()}
probas |= {name: c.predict_proba(test_logits) for name, c in fitted.items()}
for name, proba in probas.items():
    report = calibration_report(
        y_test, proba, metrics=["accuracy", "nll", "ece"], n_bootstrap=0
    )
    told = "  ".join(f"{metric} {value.value:.3f}" for metric, value in report.items())
    print(f"{name:18} {told}")

ReliabilityDisplay.compare(
    y_test, {name: probas[name] for name in ("as it comes", "temperature")}, n_bins=10
)
plt.show()

# %%
# Back into torch
# ---------------
#
# The calibrator is a module that goes behind the logits.

head = to_torch(fitted["temperature"])
with torch.no_grad():
    print(head(model(**X_test).logits)[:2].numpy().round(3))
