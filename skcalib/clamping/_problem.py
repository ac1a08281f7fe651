"""What every solver of neural clamping is given, and what it gives back."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from skcalib._solvers._focal_brier import mean_loss, row_losses
from skcalib._solvers._result import CONVERGED
from skcalib._solvers._temperature_search import best_temperature
from skcalib._validation import make_splits
from skcalib.clamping._objective import SomeRows

# Rows from which the spread of the inputs is estimated.
SAMPLE_ROWS = 1000


@dataclass
class Problem:
    """The calibration set in front of an open network.

    Attributes
    ----------
    objective : Objective
        The passes of the network.

    logits : ndarray of shape (n_samples, n_classes)
        Its logits for the inputs as they are.

    codes, weight : ndarrays of shape (n_samples,)
        Column of each row's class; weights of any scale.

    loss, gamma :
        What the perturbation minimises.

    temperature_objective : {"log_loss", "joint"}
        What the served temperature minimises.
    """

    objective: Any
    logits: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    loss: str
    gamma: float
    temperature_objective: str = "log_loss"

    @property
    def shape(self):
        """Shape of one input."""
        return self.objective.inputs.shape

    def splits(self, cv, random_state, groups=None):
        """Return folds that keep equal inputs of a class together.

        Inputs that are read from a Dataset each time are compared by their logits.
        """
        hashes = self.objective.inputs.hashes()
        # A network's rounding depends on the place of a row in its batch.
        rows = self.logits.round(3) if hashes is None else hashes[:, np.newaxis]
        return make_splits(cv, rows, self.codes, self.weight, random_state, groups)

    def within(self, rows):
        """Return the problem of these rows alone, numbered from 0 on."""
        return replace(
            self,
            objective=SomeRows(self.objective, rows),
            logits=self.logits[rows],
            codes=self.codes[rows],
            weight=self.weight[rows],
        )

    @cached_property
    def plain_temperature(self):
        """Result of `joint_temperature` for the inputs as they are."""
        return self.joint_temperature(self.logits)

    def joint_temperature(self, logits, rows=slice(None)):
        """Return the result for the temperature of the perturbation's own loss."""
        return best_temperature(
            logits, self.codes[rows], self.weight[rows], self.loss, self.gamma
        )

    def joint_loss(self, logits):
        """Return the mean of the perturbation's own loss at its best temperature."""
        temperature = self.joint_temperature(logits).x[0]
        return self.mean_loss(logits, temperature)

    def mean_loss(self, logits, temperature):
        """Return the mean of the perturbation's own loss."""
        return mean_loss(
            logits, self.codes, self.weight, temperature, self.loss, self.gamma
        )

    def pull(self, temperature):
        """Return the norm of each row's gradient by the scores, as the inputs are."""
        scores = self.logits / np.float64(temperature)
        residual = row_losses(scores, self.codes, self.loss, self.gamma)[1]
        return np.linalg.norm(residual, axis=1)

    def served_temperature(self, logits, rows=slice(None)):
        """Return the result for the temperature that is served."""
        if self.temperature_objective == "joint":
            return self.joint_temperature(logits, rows)
        return best_temperature(logits, self.codes[rows], self.weight[rows])

    @cached_property
    def input_variance(self):
        """Mean square deviation of the inputs' entries, at least 1e-30."""
        rows, share = sample_rows(self.weight, SAMPLE_ROWS)
        values = self.objective.inputs.values(rows)
        sample = np.concatenate([x.double().cpu().numpy() for x in values])
        centred = sample - np.tensordot(share, sample, axes=1)
        variance = np.tensordot(share, centred**2, axes=1)
        return max(float(variance.mean()), 1e-30)


def sample_rows(weight, n_rows):
    """Return some rows that stand for all, and their shares.

    They lie at even steps of the summed weight, so that weights count as repetitions.
    """
    place = np.cumsum(weight) / weight.sum()
    steps = (np.arange(n_rows) + 0.5) / n_rows
    rows, counts = np.unique(np.searchsorted(place, steps), return_counts=True)
    return rows, counts / n_rows


@dataclass
class Outcome:
    """The perturbation that a solver ends with, and how it came there.

    `logits` are those of the perturbed inputs. `temperature` is set only by solvers
    that learn it themselves, `squared` is False where they add the plain norm of the
    perturbation times the penalty.
    """

    delta: np.ndarray
    logits: np.ndarray
    penalty: float
    perturbation: Any
    loss_curve: list = field(default_factory=list)
    n_iter: int = 0
    message: str = CONVERGED
    selection: dict | None = None
    temperature: float | None = None
    squared: bool = True

    @property
    def cost(self):
        """What the penalty adds to the loss; nothing where there is no perturbation."""
        if not self.delta.any():
            return 0.0
        norm = float(np.linalg.norm(self.delta))
        return float(self.penalty) * (norm**2 if self.squared else norm)
