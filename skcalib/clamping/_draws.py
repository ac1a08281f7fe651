"""Importance sampling: the rows that pull the most are visited the most often.

Most rows of a good network have next to no gradient. Drawing rows in proportion to the
norm of their gradient by the scores, and weighing them by the inverse, leaves the mean
gradient as it is and makes it far less noisy (Katharopoulos & Fleuret, "Not all samples
are created equal", ICML 2018, https://arxiv.org/abs/1803.00942). The norms are those of
a row's last visit, which cost nothing: the paper computes them anew for a larger batch
that it draws from. Half of the draws are blind to them (a defensive mixture), and the
draws are systematic: at even steps from one random number on, not independent.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

# Share of the draws that is blind to the pull, so that no row is forgotten and none
# weighs more than twice the mean.
EVEN = 0.5


class Draws:
    """As many draws an epoch as there are rows, with repetition.

    Parameters
    ----------
    weight : tensor of shape (n_samples,)
        Sample weights.

    rows : ndarray of shape (n_rows,)
        Rows to draw from.

    pull : ndarray of shape (n_samples,)
        First estimate of every row's norm.

    Attributes
    ----------
    weight : tensor of shape (n_samples,)
        What a drawn row counts, for the order drawn last.
    """

    def __init__(
        self, weight: torch.Tensor, rows: NDArray[np.intp], pull: ArrayLike
    ) -> None:
        self._rows = rows
        own = weight.cpu().numpy()[rows]
        self._share = own / own.sum()
        self._mean_weight = own.mean()
        self._pull = torch.as_tensor(pull).to(weight)
        self.weight = weight.clone()

    def order(self, rng: np.random.RandomState) -> NDArray[np.intp]:
        """Draw the rows of an epoch, and weigh them."""
        pull = self._pull.cpu().numpy()[self._rows]
        mean = self._share @ pull
        odds = EVEN + (1 - EVEN) * (pull / mean if mean > 0 else np.ones_like(pull))
        self.weight[self._rows] = torch.as_tensor(self._mean_weight / odds).to(
            self.weight
        )
        # At even steps, so that no row comes more often or more rarely than its share
        # but for rounding.
        edges = np.cumsum(self._share * odds)
        steps = (rng.uniform() + np.arange(len(edges))) / len(edges) * edges[-1]
        places = np.searchsorted(edges, steps, side="right")
        return rng.permutation(self._rows[places])

    def note(self, index: slice | torch.Tensor, gradient: torch.Tensor) -> None:
        """Take note of the gradients by the scores of a batch's rows."""
        self._pull[index] = torch.linalg.vector_norm(gradient, dim=1).to(self._pull)
