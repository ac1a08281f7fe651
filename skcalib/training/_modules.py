"""The perceptron that the estimators train where no module is given."""

from threading import RLock

import numpy as np
import torch
from torch import nn

# Held while layers are in another mode, or random numbers are drawn that a seed fixes:
# layers and torch's generators are shared by all threads.
ONE_AT_A_TIME = RLock()


class Standardize(nn.Module):
    """Subtract each feature's mean and divide by its standard deviation.

    The mean is float64, and so may the features be: a time in seconds since 1970 keeps
    its digits until they are few. The result has the type of the layers behind.
    """

    def __init__(self, mean, scale, dtype=torch.float64):
        super().__init__()
        narrow = torch.get_default_dtype()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=dtype))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=narrow))

    def forward(self, x):
        """Return the standardised features."""
        return ((x - self.mean) / self.scale).to(self.scale.dtype)


def logits_of(result):
    """Return what a network returned, or the logits in it, as Hugging Face has them."""
    return getattr(result, "logits", result)


class TwoOutputs(nn.Module):
    """The logits of the classes and of the confidence, from the same hidden units."""

    def __init__(self, body, width, n_outputs):
        super().__init__()
        self.body = body
        self.classes = nn.Linear(width, n_outputs)
        self.confidence = nn.Linear(width, 1)

    def forward(self, x):
        """Return (n_samples, n_outputs) and (n_samples, 1)."""
        hidden = self.body(x)
        return self.classes(hidden), self.confidence(hidden)


def build_perceptron(
    X, weight, hidden_layer_sizes, dropout, n_outputs, *, dtype, confidence=False
):
    """Return a perceptron for the features `X` of a type, standardised as they are.

    Each hidden layer is linear, ReLU, dropout. With `confidence` it has two outputs.
    """
    mean, scale = weighted_moments(X, weight)
    layers: list[nn.Module] = [Standardize(mean, scale, dtype)]
    width = X.shape[1]
    for size in hidden_layer_sizes:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    if confidence:
        return TwoOutputs(nn.Sequential(*layers), width, n_outputs)
    return nn.Sequential(*layers, nn.Linear(width, n_outputs))


def weighted_moments(values, weight):
    """Return means and standard deviations over rows; 1 where a column is constant."""
    mean = np.average(values, axis=0, weights=weight)
    scale = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    # Rounding may leave a little of a constant column.
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(constant, 1.0, scale)
