"""Loss of a clamped network and its gradients at an array added to the inputs."""

import numpy as np

from skcalib.clamping._perturbation import Full


def evaluate(objective, delta, log_temperature, rows=None):
    """Return logits, loss and gradients; None stands for inputs as they are."""
    basis = Full(objective.inputs.shape)
    theta = np.zeros(basis.dim) if delta is None else np.asarray(delta)
    return objective.evaluate(basis.at(theta), log_temperature, rows)


def value_and_gradient(objective, delta, log_temperature, rows=None):
    """Return the loss and its gradients, by the entries of the array and by log T."""
    return evaluate(objective, delta, log_temperature, rows)[1:]
