"""The perceptron that the estimators train where no module is given."""

import numpy as np
import torch
from torch import nn


class Standardize(nn.Module):
    """Subtract each feature's mean and divide by its standard deviation."""

    def __init__(self, mean, scale):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, x):
        """Return the standardised features."""
        return (x - self.mean) / self.scale


def build_perceptron(X, weight, hidden_layer_sizes, dropout, n_outputs):
    """Return a perceptron for the features `X`, standardised as they are.

    Each hidden layer is linear, ReLU, dropout.
    """
    mean, scale = weighted_moments(X, weight)
    layers: list[nn.Module] = [Standardize(mean, scale)]
    width = X.shape[1]
    for size in hidden_layer_sizes:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, n_outputs))


def weighted_moments(values, weight):
    """Return means and standard deviations over rows; 1 where a column is constant."""
    mean = np.average(values, axis=0, weights=weight)
    scale = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    # Rounding may leave a little of a constant column.
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(constant, 1.0, scale)
